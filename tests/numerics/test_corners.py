"""Corners of the arithmetic through whole operators: golden model = instruction-set simulator (= RTL on 8x8)."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.fixed_point import (
    encode_inverse_sqrt,
    encode_multiplier,
    encode_reciprocal,
    exponential_table,
)
from phonolith.compiler.ir import Graph, Node
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.passes.prove_accumulators import prove_accumulators
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_rtl, first_difference, machine, make_case
from tests.compiler import lowering_cases as cases

SMALL = MachineConfig(rows=8, columns=8)
INT32_MAX = (1 << 31) - 1
Inputs = dict[str, np.ndarray]


def agree(graph: Graph, inputs: Inputs, config: MachineConfig = SMALL, rtl: bool = False) -> dict[str, np.ndarray]:
    """Check a program against the golden model; return the golden tensors."""
    cases.check(graph, config, inputs=inputs)
    if rtl:
        case = make_case(graph, inputs, config)
        assert first_difference(case, "rtl", execute_rtl(case.program, case.image, machine(config)).image) is None
    return interpret(graph, inputs)


# -- softmax ----------------------------------------------------------------------------------------


def attention(depth: int, step: float = 0.024) -> Graph:
    """Single-head attention of q, k, v of their own."""
    numerator, shift = encode_reciprocal(1.0)
    nodes = (
        Node("s", "matmul", ("q", "k"), "int16", {}, {"transpose_b": True, "multiplier": 32768, "shift": 15}),
        Node("e", "softmax_exp", ("s",), "uint8", {"table": exponential_table(step)}, {"multiplier": 1, "shift": 0}),
        Node("y", "matmul", ("e", "v"), "int8", {},
             {"transpose_b": False, "normalize": True, "numerator": numerator, "shift": shift}),
    )
    return cases.Graph("attention", tuple(cases.Value(name, "int8", (depth,)) for name in "qkv"), nodes, ("y",))


@pytest.mark.parametrize(("frames", "rtl"), [(256, True), (499, False), (1500, False)])
def test_flat_rows_give_the_mean(frames, rtl):
    """Equal scores: the context is the rounded mean of the values, however long the row."""
    rng = np.random.default_rng(frames)
    v = rng.integers(-128, 128, (frames, 8)).astype(np.int8)
    v[:, 0], v[:, 1], v[:, 2] = 127, -128, 1
    inputs = {"q": np.zeros((frames, 8), np.int8), "k": cases.random_tensor(rng, (frames, 8), "int8"), "v": v}
    y = agree(attention(8), inputs, rtl=rtl)["y"]
    assert np.array_equal(y, np.broadcast_to(y[0], y.shape))
    assert y[0, :3].tolist() == [127, -128, 1]
    assert np.abs(y[0] - v.mean(axis=0)).max() <= 0.51


@pytest.mark.parametrize(("frames", "rtl"), [(256, False), (499, True), (1500, False)])
def test_one_dominating_score_takes_its_value(frames, rtl):
    """All other exponentials are zero: the context is one row of the values."""
    rng = np.random.default_rng(frames)
    k = np.full((frames, 8), -128, np.int8)
    k[frames // 3] = 127
    inputs = {"q": np.full((frames, 8), 127, np.int8), "k": k, "v": cases.random_tensor(rng, (frames, 8), "int8")}
    y = agree(attention(8, step=0.05), inputs, rtl=rtl)["y"]
    assert np.array_equal(y, np.broadcast_to(inputs["v"][frames // 3], y.shape))


@pytest.mark.parametrize("frames", [256, 1500])
def test_a_dominating_score_over_a_long_tail(frames):
    """The tail's exponentials are 1 of 255 each: together they count as they should."""
    inputs = {"q": np.full((frames, 8), 1, np.int8), "k": np.zeros((frames, 8), np.int8),
              "v": np.zeros((frames, 8), np.int8)}
    inputs["k"][0], inputs["v"][0] = 28, 127
    y = agree(attention(8), inputs)["y"]
    weight = int(exponential_table(0.024)[224])
    assert weight == 1
    assert abs(y[0, 0] - 255 * 127 / (255 + frames - 1)) <= 0.51


# -- layer normalization ----------------------------------------------------------------------------


def layernorm(width: int, dtype: str = "int16", epsilon: int = 0) -> Graph:
    """A layer normalization with exact factors, gamma 1 and beta 3."""
    mean_multiplier, mean_shift = encode_multiplier(1 / width)
    numerator, shift = encode_inverse_sqrt(np.sqrt(width) * 1024)
    constants = {"gamma": np.full(width, 32768, np.int32), "gamma_shift": np.full(width, 15, np.int32),
                 "beta": np.full(width, 3, np.int32)}
    attributes = {"mean_multiplier": mean_multiplier, "mean_shift": mean_shift, "numerator": numerator,
                  "shift": shift, "epsilon": epsilon}
    return cases.graph(Node("y", "layernorm", ("x",), dtype, constants, attributes), ("int16", (width,)))


@pytest.mark.parametrize("value", [-32768, -32767, -1, 0, 1, 32767])
@pytest.mark.parametrize("width", [1, 2, 64, 384])
def test_constant_rows(width, value):
    """A row without variance becomes beta, up to the rounding of the mean."""
    y = agree(layernorm(width, epsilon=1 << 20), {"x": np.full((3, width), value, np.int16)})["y"]
    assert np.abs(y - 3).max() <= 1


@pytest.mark.parametrize("width", [2, 8, 63, 64, 384])
def test_extremes(width):
    """Rows of +-32767 and -32768: the centred values need 17 bits, their squares 48 in sum."""
    x = np.full((6, width), -32767, np.int16)
    x[0, ::2], x[1, :1], x[2, 1:], x[3, -1:] = 32767, 32767, 32767, -32768
    x[4], x[4, :1], x[5, ::2] = -32768, 32767, -32768
    y = agree(layernorm(width), {"x": x}, rtl=width == 64)["y"]
    centred = x - x.mean(axis=1, keepdims=True)
    real = np.clip(1024 * centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-9) + 3, -32768, 32767)
    assert np.abs(y - real)[[0, 1, 2, 4]].max() <= 2


@pytest.mark.parametrize("width", [2, 6])
def test_means_half_way(width):
    """Sums whose mean is a tie round up, also below zero."""
    x = np.array([[1, 0], [-1, 0], [-3, 0], [3, 2], [-32768, 32767], [5, -6]], np.int16)
    agree(layernorm(width), {"x": np.tile(x, width // 2)})


def test_a_mean_that_is_none_is_refused():
    graph = layernorm(8)
    wrong = graph.nodes[0].attributes | {"mean_multiplier": 5, "mean_shift": 0}
    with pytest.raises(PhonolithError, match=r"node 'y' \(layernorm\): a value less the mean can reach \d+") as caught:
        lower_graph(graph.with_nodes([replace(graph.nodes[0], attributes=wrong)]))
    assert caught.value.kind == "accumulator-overflow"


# -- requantization through a linear ----------------------------------------------------------------


def linear(weight, bias, multiplier, shift, x="int8", y="int8") -> Graph:
    """A linear layer with the same factor in all channels."""
    weight = np.asarray(weight, np.int8)
    constants = {"weight": weight, "bias": np.array(np.broadcast_to(bias, len(weight)), np.int32),
                 "multiplier": np.full(len(weight), multiplier, np.int32),
                 "shift": np.full(len(weight), shift, np.int32)}
    return cases.graph(Node("y", "linear", ("x",), y, constants), (x, (weight.shape[1],)))


@pytest.mark.parametrize(("multiplier", "shift"), [(1, 1), (1, 2), (3, 1), (-1, 1), (-3, 2), (32768, 16), (-65536, 17)])
def test_ties_round_up(multiplier, shift):
    """K = 1, so that the sums are the inputs: every value of int8, many of them ties."""
    x = np.arange(-128, 128, dtype=np.int8)[:, None]
    y = agree(linear([[1], [-1], [2]], 0, multiplier, shift), {"x": x}, rtl=shift == 2)["y"]
    exact = x.astype(np.int64) * [1, -1, 2] * multiplier / 2**shift
    assert np.array_equal(y, np.clip(np.floor(exact + 0.5), -128, 127))
    assert (exact % 1 == 0.5).any()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_saturation_at_both_ends(dtype):
    """One step inside, at, and outside each end of the range."""
    limits = np.iinfo(dtype)
    bias = np.array([end + step for end in (limits.min, limits.max) for step in (-2, -1, 0, 1, 2)], np.int32)
    graph = linear(np.zeros((10, 1)), 0, 1, 0, y=dtype)
    node = replace(graph.nodes[0], constants=graph.nodes[0].constants | {"bias": bias})
    y = agree(graph.with_nodes([node]), {"x": np.ones((9, 1), np.int8)}, rtl=dtype == "int16")["y"]
    assert np.array_equal(y, np.broadcast_to(np.clip(bias, limits.min, limits.max), y.shape))


@pytest.mark.parametrize("shift", [0, 30, 31, 46, 47])
@pytest.mark.parametrize("multiplier", [65535, -65536, 1, 0])
def test_extreme_sums_and_factors(multiplier, shift):
    """Both ends of int32 times both ends of the multiplier."""
    ends = np.array([INT32_MAX, -INT32_MAX - 1, 0], np.int32)
    graph = linear([[0], [0], [1]], ends, multiplier, shift, y="int16")
    y = agree(graph, {"x": np.array([[127], [-127], [0]], np.int8)}, rtl=shift == 47)["y"]
    half = 1 << shift >> 1
    assert y[0, :2].tolist() == [min(max(int(end) * multiplier + half >> shift, -32768), 32767) for end in ends[:2]]


@pytest.mark.parametrize("x", ["int8", "uint8"])
def test_one_column_and_one_row(x):
    """K = 1, N = 1, T = 1."""
    for value in (np.iinfo(x).min, np.iinfo(x).max):
        y = agree(linear([[-128]], 5, 1, 0, x=x, y="int16"), {"x": np.array([[value]], x)})["y"]
        assert y.item() == np.clip(-128 * int(value) + 5, -32768, 32767)


# -- the accumulator's bound ------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "weight", "value", "end"), [
    ("uint8", 127, 255, INT32_MAX), ("uint8", -128, 255, -INT32_MAX - 1), ("int8", -128, -128, INT32_MAX),
    ("int8", -128, 127, -INT32_MAX - 1)])
def test_sums_at_the_bound(x, weight, value, end):
    """The largest sum that int32 holds is computed exactly; one more is refused with channel and bound."""
    depth = 40
    sign = 1 if end > 0 else -1
    bias = np.array([0, end - depth * weight * value], np.int32)
    graph = linear([[0] * depth, [weight] * depth], 0, sign, 16, x=x, y="int16")

    def with_bias(values) -> Graph:
        return graph.with_nodes([replace(graph.nodes[0], constants=graph.nodes[0].constants | {"bias": values})])

    y = agree(with_bias(bias), {"x": np.full((9, depth), value, x)}, rtl=sign < 0)["y"]
    assert (y[:, 1] == np.clip((end * sign + 32768) >> 16, -32768, 32767)).all()
    with pytest.raises(PhonolithError) as caught:
        prove_accumulators(with_bias(bias + np.array([0, sign], np.int32)))
    assert caught.value.kind == "accumulator-overflow"
    assert f"node 'y' (linear), channel 1: a sum can reach {end + sign}," in caught.value.message
