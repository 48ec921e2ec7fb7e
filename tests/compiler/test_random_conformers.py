"""Random Conformers and the operators that only they have: legal, lively, the same bits after every pass."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.inspect import node_macs
from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.model_file import graph_to_json, load, save
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.passes.check import check
from phonolith.compiler.passes.fuse_table import fuse_table
from phonolith.compiler.passes.prove_accumulators import prove_accumulators
from phonolith.compiler.random_conformers import BLOCKS, Attending, attention, depthwise, random_conformer
from phonolith.compiler.random_graphs import Builder, Tensor, random_graph
from phonolith.compiler.shapes import infer_shapes, longest_frames, minimum_frames, visible_chunks
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.golden.compare import compare_graphs
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_iss, first_difference, make_case
from phonolith.sim.verify import verify_random

SEEDS = range(40)
WIDTH = 12


def attending(kind: Attending, frames: int = 9) -> Graph:
    """Return a graph of one attention over its input as queries, keys and values."""
    b, x = Builder(0), Tensor("x", "int8", (frames, kind.width), 74.0)
    y = attention(b, x, x, x, kind)
    return Graph("g", (Value("x", "int8", (kind.width,)),), tuple(b.nodes), (y.name,))


LOCAL = attending(Attending(2, 6, longest=20, chunk=4, left=1))


def changed(attributes: dict | None = None, constants: dict | None = None, drop: str = "", graph=LOCAL) -> Graph:
    """Return a graph whose one node has other attributes or constants."""
    (node,) = graph.nodes
    attributes, constants = node.attributes | (attributes or {}), node.constants | (constants or {})
    kept = [{name: value for name, value in entries.items() if name != drop} for entries in (constants, attributes)]
    return graph.with_nodes([replace(node, constants=kept[0], attributes=kept[1])])


def test_same_seed_same_conformer():
    (a, x), (b, y) = random_conformer(5), random_conformer(5)
    assert graph_to_json(a) == graph_to_json(b) and (x["features"] == y["features"]).all()
    assert graph_to_json(a) != graph_to_json(random_conformer(6)[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_passes_keep_the_bits(seed):
    for graph, inputs in (random_conformer(seed), random_graph(seed, BLOCKS)):
        assert compare_graphs(graph, lower_graph(graph), inputs) == []


def test_every_form_occurs():
    seen: Counter = Counter()
    for seed in SEEDS:
        for graph, inputs in (random_conformer(seed), random_graph(seed, BLOCKS)):
            shapes = infer_shapes(graph, len(next(iter(inputs.values()))))
            for node in graph.nodes:
                seen[node.op] += 1
                seen[f"{node.op} -> {node.dtype}"] += 1
                if node.op == "attention":
                    chunks = len([*visible_chunks(shapes[node.name][0], node.attributes.get("chunk", 0))])
                    seen["chunks"] += "chunk" in node.attributes and chunks > 1
                    seen["wide positions"] += "positions" in node.constants and "offset" in node.attributes["exp"]
                if node.op == "depthwise_conv1d":
                    seen["odd" if node.constants["weight"].shape[1] % 2 else "even"] += 1
    wanted = ("chunks", "wide positions", "odd", "even", "add_rows", "depthwise_conv1d", "multiply")
    assert all(seen[name] for name in wanted), seen
    for dtype in ("int8", "uint8", "int16"):
        assert seen[f"depthwise_conv1d -> {dtype}"] and seen[f"multiply -> {dtype}"]


def test_most_tensors_are_neither_constant_nor_saturated():
    dead = total = 0
    for seed in SEEDS:
        for graph, inputs in (random_conformer(seed), random_graph(seed, BLOCKS)):
            for value in interpret(graph, inputs).values():
                if value.size > 20 and value.ndim > 1:
                    total += 1
                    dead += (value == np.iinfo(value.dtype).max).mean() > 0.5 or (value == 0).mean() > 0.9
    assert total > 500 and dead / total < 0.05


def test_model_file_keeps_a_conformer(tmp_path):
    graph, inputs = random_conformer(3)
    save(tmp_path / "m.safetensors", graph)
    assert compare_graphs(graph, load(tmp_path / "m.safetensors"), inputs) == []


# -- shapes, limits, costs ---------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "chunk", "left", "pairs"), [
    (9, 0, 0, 81), (9, 4, 0, 16 + 16 + 1), (9, 4, 1, 16 + 32 + 5), (9, 4, 5, 16 + 32 + 9), (9, 20, 1, 81)])
def test_macs_of_attention(frames, chunk, left, pairs):
    for longest, products in ((0, 2), (9, 3)):
        graph = attending(Attending(2, 6, longest, chunk, left))
        assert node_macs(graph.nodes[0], infer_shapes(graph, frames)) == pairs * products * WIDTH


def test_macs_and_shape_of_a_depthwise_convolution():
    node = Node("y", "depthwise_conv1d", ("x",), "int8", Builder(0).channel_constants(WIDTH, (5,), 74.0, "int8"),
                {"padding": [2, 1]})
    graph = Graph("g", (Value("x", "int8", (WIDTH,)),), (node,), ("y",))
    assert infer_shapes(graph, 9)["y"] == (8, WIDTH)
    assert node_macs(node, infer_shapes(graph, 9)) == 8 * WIDTH * 5
    with pytest.raises(PhonolithError, match="1 frames of input leave nothing") as caught:
        infer_shapes(graph, 1)
    assert caught.value.remedy == "Give at least 2 frames."


def test_positions_bound_the_frames():
    graph = attending(Attending(2, 6, longest=20))
    assert longest_frames(graph) == 20 and infer_shapes(graph, 20)
    with pytest.raises(PhonolithError) as caught:
        infer_shapes(graph, 21)
    assert caught.value.kind == "input-too-long"
    assert "21 frames of input are 21 at node" in caught.value.message and "at most 20" in caught.value.message
    assert "Give at most 20 frames" in caught.value.remedy and "--max-frames 21" in caught.value.remedy


def test_positions_of_few_chunks_bound_nothing():
    assert longest_frames(LOCAL, 5000) == 5000
    assert longest_frames(changed({"left": 5})) == 20
    prove_accumulators(LOCAL, 100_000)


# -- the verifier ------------------------------------------------------------------------------------

POSITIONS = LOCAL.nodes[0].constants["positions"]
BREAKAGES = {
    "left is 2 without chunks": lambda: changed({"chunk": 0, "left": 2}),
    "chunk is -1": lambda: changed({"chunk": -1}),
    "left is 1.5": lambda: changed({"left": 1.5}),
    "it has only ['position_bias', 'position_scores']": lambda: changed(drop="positions"),
    "it has only ['position_bias', 'positions']": lambda: changed(drop="position_scores"),
    "positions have 38 rows": lambda: changed(constants={"positions": POSITIONS[1:]}),
    "positions have 11 columns": lambda: changed(constants={"positions": np.ascontiguousarray(POSITIONS[:, 1:])}),
    "position_bias has shape (1, 39)": lambda: changed(
        constants={"position_bias": LOCAL.nodes[0].constants["position_bias"][:1]}),
    "positions has shape": lambda: changed(constants={"positions": POSITIONS[0]}),
    "position_scores is 3": lambda: changed({"position_scores": 3}),
    "shift reaches 48": lambda: changed({"position_scores": {"multiplier": 1, "shift": 48}}),
    "scores is 7": lambda: changed({"scores": 7}),
    "differ in heads": lambda: changed({"scores": LOCAL.nodes[0].attributes["scores"] | {"heads": 3}}),
    "offset and wide": lambda: changed({"context": LOCAL.nodes[0].attributes["context"] | {"wide": True, "shift": 40}}),
    "its context is not normalized": lambda: changed(
        {"context": LOCAL.nodes[0].attributes["scores"] | {"transpose_b": False}}),
}


@pytest.mark.parametrize("reason", BREAKAGES)
def test_check_refuses(reason):
    assert check(LOCAL) is LOCAL
    with pytest.raises(PhonolithError) as caught:
        check(BREAKAGES[reason]())
    assert caught.value.kind == "invalid-graph" and reason in caught.value.message


@pytest.mark.parametrize("padding", [3, [1], [1, -1], [1, 2.0], None])
def test_check_refuses_padding(padding):
    constants = Builder(0).channel_constants(WIDTH, (3,), 74.0, "int8")
    node = Node("y", "depthwise_conv1d", ("x",), "int8", constants, {"padding": padding})
    with pytest.raises(PhonolithError, match="padding is "):
        check(Graph("g", (Value("x", "int8", (WIDTH,)),), (node,), ("y",)))


def test_sums_of_positions_are_proved():
    bias = np.full((2, 39), (1 << 31) - 1 - 10_000, np.int32)
    with pytest.raises(PhonolithError, match=r"\(attention\), channel 0: a sum can reach"):
        prove_accumulators(changed(constants={"position_bias": bias}))


@pytest.mark.parametrize("index", ["int8", "uint8"])
def test_tables_are_fused(index):
    b = Builder(0)
    product = depthwise(b, Tensor("x", "int8", (9, WIDTH), 74.0), 3, [2, 1], index)
    table = b.append("table", (product,), "uint8", product.shape, 1.0, {"table": b.integers("uint8", 256)})
    graph = Graph("g", (Value("x", "int8", (WIDTH,)),), tuple(b.nodes), (table.name,))
    fused = check(fuse_table(graph))
    (node,) = fused.nodes
    assert node.name == table.name and node.attributes["table_dtype"] == index
    assert compare_graphs(graph, fused, {"x": b.integers("int8", 9, WIDTH)}) == []
    kept = replace(graph, outputs=(product.name, table.name))
    assert fuse_table(kept).nodes == kept.nodes
    with pytest.raises(PhonolithError, match="table and table_dtype need each other"):
        check(changed(drop="table", graph=fused))


@pytest.mark.parametrize("seed", SEEDS)
def test_fused_tables_keep_the_bits(seed):
    graph, inputs = random_conformer(seed)
    fused = fuse_table(lower_graph(graph))
    assert compare_graphs(graph, check(fused), inputs) == []
    assert sum(node.op == "table" for node in fused.nodes) == 0


@pytest.mark.parametrize("array", ["4x4", "8x8", "12x20", "16x16"])
def test_programs_compute_what_the_golden_model_says(array):
    config = MachineConfig.load(array=array)
    for seed in range(5):
        case = make_case(*random_conformer(seed), config)
        assert first_difference(case, "iss", execute_iss(case, config)) is None, seed


@pytest.mark.parametrize("seed", [1, 52])
def test_parameters_of_blocks_fit_beside_those_of_followers(seed):
    """A product whose parameters take most of their memory, and a layernorm over its rows, which came first."""
    config = MachineConfig.load(array="4x4")
    case = make_case(*random_conformer(seed, "any"), config)
    assert first_difference(case, "iss", execute_iss(case, config)) is None


@pytest.mark.slow
@pytest.mark.parametrize("array", ["4x4", "8x8", "16x16"])
def test_a_hundred_conformers(array):
    """Golden model and instruction-set simulator; RTL, too, for the first twenty."""
    config = MachineConfig.load(array=array)
    for count, seed, rungs in ((20, 0, ("golden", "iss", "rtl")), (80, 20, ("golden", "iss"))):
        result = verify_random("conformer", count, config, seed, rungs)
        assert (result["checked"], result["failed"]) == (count, 0), result["first_difference"]


def streams() -> list[int]:
    """Return seeds of Conformers over chunks with two or more of them."""
    seeds = []
    for seed in range(80):
        graph, inputs = random_conformer(seed)
        node = next(node for node in graph.nodes if node.op == "attention")
        rows = infer_shapes(graph, len(inputs["features"]))[graph.outputs[0]][0]
        seeds += [seed] if 0 < node.attributes.get("chunk", 0) < rows else []
    return seeds[:8]


@pytest.mark.parametrize("seed", streams())
def test_chunks_are_final(seed):
    """What follows a whole chunk changes no tensor of it: the model can run chunk by chunk."""
    graph, inputs = random_conformer(seed)
    x = inputs["features"]
    whole, (ids,) = interpret(graph, inputs), graph.outputs
    chunk = next(node.attributes["chunk"] for node in graph.nodes if node.op == "attention")
    lengths = {infer_shapes(graph, frames)[ids][0]: frames for frames in range(minimum_frames(graph), len(x) + 1)}
    for rows in range(chunk, len(whole[ids]), chunk):
        part = interpret(graph, {"features": x[: lengths[rows]]})
        assert all((value == whole[name][: len(value)]).all() for name, value in part.items())
