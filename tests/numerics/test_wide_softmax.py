"""Attention with exponentials of 16 bits: golden model = instruction-set simulator (= RTL on 8x8), and its error."""

import math

import numpy as np
import pytest

from phonolith.compiler.fixed_point import (
    encode_multiplier,
    encode_reciprocal,
    exponential_table,
    far_offset,
    wide_exponential_tables,
)
from phonolith.compiler.integerize import EXPONENT_STEP, WIDE_EXPONENT_STEP
from phonolith.compiler.ir import Graph, Node
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.passes.prove_accumulators import prove_accumulators
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_rtl, first_difference, machine, make_case
from tests.compiler import lowering_cases as cases

SMALL = MachineConfig(rows=8, columns=8)
# What one step of the scores is worth in the exponent: 127 * 127 of them reach beyond the tables of 16 bits.
SCORE_SCALE = 0.001
LEAST = 1 / 131070


def attention(bits: int, heads: int | None = None, tails=(8, 8, 8), outputs=("y",), fraction=1.0) -> Graph:
    """Attention of q, k, v of their own: scores ``q . k``, each worth SCORE_SCALE, exponentials of 8 or 16 bits."""
    wide, per_head = bits == 16, {} if heads is None else {"heads": heads}
    multiplier, shift = encode_multiplier(SCORE_SCALE / (WIDE_EXPONENT_STEP if wide else EXPONENT_STEP))
    numerator, row_shift = encode_reciprocal(fraction)
    table = wide_exponential_tables(WIDE_EXPONENT_STEP) if wide else exponential_table(EXPONENT_STEP)
    offset, planes = ({"offset": far_offset(multiplier, shift)}, {"wide": True}) if wide else ({}, {})
    nodes = (
        Node("s", "matmul", ("q", "k"), "int16", {}, {"transpose_b": True, "multiplier": 1, "shift": 0, **per_head}),
        Node("e", "softmax_exp", ("s",), "uint8", {"table": table},
             {"multiplier": multiplier, "shift": shift, **offset}),
        Node("y", "matmul", ("e", "v"), "int8", {}, {"transpose_b": False, "normalize": True,
             "numerator": numerator, "shift": row_shift, **planes, **per_head}),
    )
    values = (cases.Value(name, "int8", (tail,)) for name, tail in zip("qkv", tails, strict=True))
    return Graph("attention", tuple(values), nodes, outputs)


def exact(graph: Graph, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Return softmax(scores) v in float64, of the integer graph's own scores."""
    scores = interpret(graph, inputs)["s"].astype(np.float64) * SCORE_SCALE
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights @ inputs["v"].astype(np.float64) / weights.sum(axis=1, keepdims=True)


def errors(inputs: dict[str, np.ndarray]) -> dict[int, float]:
    """Return the largest error of each width, in steps of the int8 result."""
    graphs = {bits: attention(bits) for bits in (8, 16)}
    return {bits: float(np.abs(interpret(graph, inputs)["y"] - exact(graph, inputs)).max())
            for bits, graph in graphs.items()}


def agree(graph: Graph, inputs: dict[str, np.ndarray], rtl: bool = False, config: MachineConfig = SMALL) -> np.ndarray:
    """Check a program against the golden model; return the context."""
    cases.check(graph, config, inputs=inputs)
    if rtl:
        case = make_case(graph, inputs, config)
        assert first_difference(case, "rtl", execute_rtl(case.program, case.image, machine(config)).image) is None
    return interpret(graph, inputs)["y"]


def one_above_the_rest(frames: int, below: float) -> dict[str, np.ndarray]:
    """All scores but the first are ``below`` the maximum, in units of the exponent; values 127 and -100."""
    whole, rest = divmod(round(below / SCORE_SCALE), 127)
    q, k = np.full((frames, 8), 127, np.int8), np.zeros((frames, 8), np.int8)
    q[:, 7], k[0, 7] = 1, rest
    k[0, :7] = np.diff(np.arange(8) * whole // 7)
    v = np.full((frames, 8), -100, np.int8)
    v[0] = 127
    return {"q": q, "k": k, "v": v}


@pytest.mark.parametrize(("frames", "rtl"), [(256, True), (499, False), (1500, False)])
def test_flat_rows_give_the_mean(frames, rtl):
    rng = np.random.default_rng(frames)
    v = cases.random_tensor(rng, (frames, 8), "int8")
    v[:, 0], v[:, 1], v[:, 2] = 127, -128, 1
    inputs = {"q": np.zeros((frames, 8), np.int8), "k": cases.random_tensor(rng, (frames, 8), "int8"), "v": v}
    y = agree(attention(16), inputs, rtl)
    assert np.array_equal(y, np.broadcast_to(y[0], y.shape)) and y[0, :3].tolist() == [127, -128, 1]
    assert np.abs(y[0] - v.mean(axis=0)).max() <= 0.51


@pytest.mark.parametrize(("frames", "rtl"), [(256, False), (499, True), (1500, False)])
@pytest.mark.parametrize("bits", [8, 16])
def test_one_dominating_score_takes_its_value(frames, rtl, bits):
    """Scores far below the maximum weigh nothing, however many there are."""
    inputs = one_above_the_rest(frames, 20.0)
    y = agree(attention(bits), inputs, rtl)
    assert (y[0] == 127).all() and np.abs(y - exact(attention(bits), inputs)).max() <= 0.51


@pytest.mark.parametrize("frames", [256, 499, 1500])
@pytest.mark.parametrize("below", [5.0, 6.0, 6.5, 8.0])
def test_a_long_tail_keeps_its_weight(frames, below):
    """Many small exponentials: with 8 bits they are lost or counted too much, with 16 they count as they should."""
    wide = errors(one_above_the_rest(frames, below))[16]
    assert wide <= 0.5 + 227 * 0.25 * WIDE_EXPONENT_STEP   # half a step, and the rounding of the table's index
    if frames < 1000:
        agree(attention(16), one_above_the_rest(frames, below))


def test_error_against_float_is_much_smaller_where_8_bits_lose_the_tail():
    """500 to 1 that 8 bits see as nothing: dozens of steps of error, against about one."""
    for frames, worst in ((256, 30), (499, 60), (1500, 90)):
        found = errors(one_above_the_rest(frames, 6.3))
        assert found[8] > worst and found[16] < 2


@pytest.mark.parametrize("frames", [256, 1500])
def test_random_rows_are_never_worse(frames):
    """Root mean square errors before the last rounding's share, on scores of every spread."""
    rng = np.random.default_rng(frames)
    for reach in (20, 60, 127):
        q, k = (rng.integers(-reach, reach + 1, (count, 8)).astype(np.int8) for count in (frames, frames))
        inputs = {"q": q, "k": k, "v": cases.random_tensor(rng, (frames, 8), "int8")}
        square = {bits: float(np.mean((interpret(attention(bits), inputs)["y"] - exact(attention(bits), inputs)) ** 2))
                  for bits in (8, 16)}
        assert square[16] <= square[8] + 0.01 and square[16] < 1 / 12 + 0.02


# -- program ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["8x8", "16x16", "12x20", "4x4", "5x32"])
@pytest.mark.parametrize("outputs", [("y",), ("s", "e", "y")])
def test_fused_and_separate_operators(name, outputs):
    for frames, heads, depth in ((1, 2, 3), (9, 1, 20), (33, 3, 16)):
        graph = attention(16, heads, (heads * depth,) * 3, outputs)
        assert ("attention" in {node.op for node in lower_graph(graph).nodes}) == (outputs == ("y",))
        cases.check(graph, name, frames)


def test_separate_operators_without_heads():
    cases.check(attention(16, None, (5, 5, 5), ("e", "y")), "8x8", 21)


@pytest.mark.parametrize("outputs", [("y",), ("s", "e", "y")])
def test_rtl(outputs):
    graph = attention(16, 2, (24, 24, 24), outputs)
    agree(graph, cases.random_inputs(graph, 37), rtl=True)


def test_smallest_memories():
    """One row tile at a time, nothing loaded ahead."""
    config = MachineConfig(rows=8, columns=8, activation_sram_bytes=8 * 16 * 16, scratchpad_bytes=8 * 16 * 8)
    graph = attention(16, 2, (24, 24, 24))
    for frames in (7, 33, 64):
        cases.check(graph, config, frames)
    with pytest.raises(PhonolithError, match="needs 18 words of the activation memory at once; 16 exist"):
        cases.check(graph, config, 90)


def test_random_tables_and_factors():
    """Planes that no quantizer makes: sums that saturate, rows of zeros."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        graph = attention(16, 2, (16, 16, 16), ("y",) if seed % 2 else ("e", "y"))
        exp = graph.nodes[1]
        table = cases.random_tensor(rng, (3, 256), "uint8") * np.uint8(seed % 5 > 0)
        attributes = {"multiplier": int(rng.integers(0, 65536)), "shift": int(rng.integers(10, 25)),
                      "offset": int(rng.integers(0, 65536))}
        node = Node("e", exp.op, exp.inputs, exp.dtype, {"table": table}, attributes)
        cases.check(graph.with_nodes([graph.nodes[0], node, graph.nodes[2]]), "8x8", 1 + seed)


# -- what is refused --------------------------------------------------------------------------------


def changed(position: int, constants=None, **attributes) -> Graph:
    """Return attention of 16 bits with some attributes of one node replaced; None removes one."""
    graph = attention(16, outputs=("s", "e", "y"))
    node = graph.nodes[position]
    merged = {name: value for name, value in (node.attributes | attributes).items() if value is not None}
    nodes = list(graph.nodes)
    nodes[position] = Node(node.name, node.op, node.inputs, node.dtype, constants or node.constants, merged)
    return graph.with_nodes(nodes)


@pytest.mark.parametrize(("graph", "message"), [
    (changed(1, {"table": np.zeros(256, np.uint8)}), r"its table has shape \(256,\), not \(3, 256\)"),
    (changed(1, offset=None), r"its table has shape \(3, 256\), not \(256,\)"),
    (changed(1, offset=-1), "offset reaches -1 .. -1, outside 0 .. 65535"),
    (changed(2, wide=None), "the operands are"),
    (changed(2, shift=7), "wide needs a shift of at least 8"),
    (changed(2, normalize=False, multiplier=1), "wide needs normalize"),
])
def test_graphs_that_are_refused(graph, message):
    with pytest.raises(PhonolithError, match=message):
        lower_graph(graph)


def test_rows_too_long_for_their_sums_are_refused():
    prove_accumulators(attention(16), 16447)
    with pytest.raises(PhonolithError, match=r"low bytes of 16448 exponentials can sum up to 32768 \* 128"):
        prove_accumulators(attention(16), 16448)


def test_random_graphs_hold_both_widths():
    graphs = [lower_graph(random_graph(seed)[0]) for seed in range(60)]
    found = [("offset" in node.attributes["exp"]) for graph in graphs for node in graph.nodes if node.op == "attention"]
    assert True in found and False in found


# -- tables -----------------------------------------------------------------------------------------


def test_tables_hold_exponentials_of_16_bits():
    high, low, far = wide_exponential_tables(WIDE_EXPONENT_STEP).astype(np.int64)
    values = np.concatenate([(256 * high + low)[:255], far[1:]])
    real = 65535 * np.exp(-WIDE_EXPONENT_STEP * np.arange(len(values)))
    assert np.abs(values - real)[:-1].max() <= 0.5 and values[-2:].tolist() == [1, 0]
    assert high[255] == low[255] == far[0] == 0 and math.isclose(math.exp(-509 * WIDE_EXPONENT_STEP), LEAST)


def test_steps_too_small_for_a_byte_are_refused():
    with pytest.raises(ValueError, match="no byte holds it"):
        wide_exponential_tables(0.01)


@pytest.mark.parametrize("factor", [1e-9, 0.001, 0.003, 0.0077, 0.04, 0.3, 1.0, 7.3, 900.0])
def test_every_distance_belongs_to_one_table(factor):
    multiplier, shift = encode_multiplier(factor)
    offset, distance = far_offset(multiplier, shift), np.arange(65536)
    index, far = ((x * multiplier + ((1 << shift) >> 1)) >> shift for x in (distance, distance - offset))
    assert ((index >= 255) == (far >= 1)).all()
