"""Passes: the verifier, the overflow proof, and fusions that keep every bit."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.passes import PASSES, lower_graph
from phonolith.compiler.passes.check import check
from phonolith.compiler.passes.fuse_attention import fuse_attention
from phonolith.compiler.passes.fuse_residual import fuse_residual
from phonolith.compiler.passes.prove_accumulators import prove_accumulators
from phonolith.compiler.random_graphs import Builder, Tensor, attention_block, feed_forward_block, random_graph
from phonolith.hw.errors import PhonolithError
from phonolith.sim.golden.compare import compare_graphs


def changed(graph: Graph, name: str, **changes) -> Graph:
    """Return ``graph`` with one node changed; constants and attributes are merged."""
    for key in ("constants", "attributes"):
        if key in changes:
            changes[key] = getattr(graph.node(name), key) | changes[key]
    return graph.with_nodes(replace(n, **changes) if n.name == name else n for n in graph.nodes)


def grown(block, seed: int, width: int = 24, dtype: str = "int8") -> Graph:
    """Return a graph of one block."""
    b = Builder(seed)
    y = block(b, Tensor("x", dtype, (9, width), 74.0))
    return Graph("g", (Value("x", dtype, (width,)),), tuple(b.nodes), (y.name,))


def linear(name: str, source: str, dtype: str = "int16", width: int = 4) -> Node:
    constants = Builder(3).channel_constants(width, (width,), 74.0, dtype)
    return Node(name, "linear", (source,), dtype, constants)


def graph_of(*nodes: Node, width: int = 4) -> Graph:
    return Graph("g", (Value("x", "int8", (width,)),), nodes, (nodes[-1].name,))


@pytest.mark.parametrize("seed", range(60))
def test_passes_keep_the_bits(seed):
    graph, inputs = random_graph(seed)
    seen = []

    def observe(name, before, after):
        seen.append(name)
        assert compare_graphs(before, after, inputs) == []

    lower_graph(graph, observe)
    assert seen == [run.__name__ for run in PASSES]


def test_a_wrong_pass_is_caught():
    """A fusion that drops the bias of one channel must be seen in some random graph."""

    def wrong(graph):
        node = next(n for n in graph.nodes if n.op == "linear")
        bias = node.constants["bias"].copy()
        bias[0] += 1 << 20
        return changed(graph, node.name, constants={"bias": bias})

    graph, inputs = random_graph(11)
    (first, *_) = compare_graphs(graph, wrong(graph), inputs)
    assert first.tensor == next(n.name for n in graph.nodes if n.op == "linear")
    assert first.expected != first.actual


def test_renamed_and_lost_tensors_are_caught():
    graph, inputs = random_graph(11)
    renamed = replace(graph.nodes[-1], name="other")
    differences = compare_graphs(graph, graph.with_nodes([*graph.nodes[:-1], renamed]), inputs)
    assert [d.tensor for d in differences] == [graph.outputs[0], "other"]


def test_residual_is_fused_and_named_after_the_add():
    graph = grown(feed_forward_block, 0, dtype="int8")
    fused = fuse_residual(graph)
    node = fused.node(graph.outputs[0])
    assert node.op == "linear" and len(node.inputs) == 2
    assert len(fused.nodes) == len(graph.nodes) - 1
    assert "add" not in [n.op for n in fused.nodes]


def test_residual_operand_order_does_not_matter():
    a, stream = linear("a", "x"), Node("s", "rescale", ("x",), "int16", {}, {"multiplier": 32768, "shift": 10})
    for inputs in (("a", "s"), ("s", "a")):
        fused = fuse_residual(graph_of(stream, a, Node("y", "add", inputs, "int16")))
        assert fused.node("y").inputs == ("x", "s")


def test_of_two_linears_the_later_is_fused():
    fused = fuse_residual(graph_of(linear("a", "x"), linear("b", "x"), Node("y", "add", ("b", "a"), "int16")))
    assert [n.name for n in fused.nodes] == ["a", "y"] and fused.node("y").inputs == ("x", "a")


@pytest.mark.parametrize("case", ["read twice", "an output", "added to itself"])
def test_linears_that_something_else_reads_stay(case):
    nodes = [linear("a", "x"), linear("b", "x"), Node("y", "add", ("b", "b"), "int16")]
    graph = graph_of(*nodes)
    if case != "added to itself":
        graph = graph_of(nodes[1], Node("y", "add", ("b", "x16"), "int16"))
        convert = Node("x16", "rescale", ("x",), "int16", {}, {"multiplier": 32768, "shift": 10})
        graph = graph.with_nodes([convert, *graph.nodes])
        graph = replace(graph, outputs=("y", "b")) if case == "an output" else graph
        if case == "read twice":
            graph = graph.with_nodes([*graph.nodes, Node("z", "argmax", ("b",), "int16")])
    assert fuse_residual(graph).nodes == graph.nodes


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_attention_is_fused(seed):
    graph = grown(attention_block, seed)
    fused = fuse_attention(graph)
    node = fused.node(graph.outputs[0])
    scores = next(n for n in graph.nodes if n.op == "matmul")
    assert node.op == "attention" and node.inputs[:2] == scores.inputs
    assert node.attributes["scores"] == scores.attributes
    assert {"matmul", "softmax_exp"}.isdisjoint(n.op for n in fused.nodes)
    assert check(fused) is fused


def test_attention_whose_scores_are_an_output_stays():
    graph = grown(attention_block, 0)
    scores = next(n for n in graph.nodes if n.op == "matmul")
    graph = replace(graph, outputs=(*graph.outputs, scores.name))
    assert fuse_attention(graph).nodes == graph.nodes


# -- the verifier ----------------------------------------------------------------------------------

BREAKAGES = {
    "name is used twice": lambda g: g.with_nodes([*g.nodes, g.nodes[0]]),
    "which nothing before it makes": lambda g: changed(g, "a", inputs=("later",)),
    "multiplier reaches": lambda g: changed(g, "a", constants={"multiplier": np.full(4, 65536, np.int32)}),
    "shift reaches 0 .. 48": lambda g: changed(g, "a", constants={"shift": np.array([0, 1, 2, 48], np.int32)}),
    "bias is int64, not int32": lambda g: changed(g, "a", constants={"bias": np.zeros(4, np.int64)}),
    "bias has shape": lambda g: changed(g, "a", constants={"bias": np.zeros(5, np.int32)}),
    "its constants are": lambda g: changed(g, "a", constants={"scale": np.zeros(4, np.int32)}),
    "the weight takes 9 columns": lambda g: changed(g, "a", constants={"weight": np.zeros((4, 9), np.int8)}),
    "unknown attributes heads": lambda g: changed(g, "a", attributes={"heads": 3}),
    "it lacks stop": lambda g: g.with_nodes([*g.nodes, Node("z", "slice", ("x",), "int8", {}, {"start": 0})]),
    "columns 2 .. 5 of 4": lambda g: g.with_nodes(
        [*g.nodes, Node("z", "slice", ("x",), "int8", {}, {"start": 2, "stop": 5})]
    ),
    "its output is int16, not one of int8": lambda g: g.with_nodes(
        [*g.nodes, Node("z", "slice", ("x",), "int16", {}, {"start": 0, "stop": 1})]
    ),
    "input 0 is int8, not one of int16": lambda g: g.with_nodes([*g.nodes, Node("z", "add", ("x", "a"), "int16")]),
    "it takes 2 inputs, not 1": lambda g: g.with_nodes([*g.nodes, Node("z", "add", ("a",), "int16")]),
    "a residual needs int16": lambda g: g.with_nodes([*g.nodes, replace(linear("z", "x", "int8"), inputs=("x", "a"))]),
}


@pytest.mark.parametrize("reason", BREAKAGES)
def test_check_refuses(reason):
    graph = graph_of(linear("a", "x"))
    assert check(graph) is graph
    with pytest.raises(PhonolithError) as caught:
        check(BREAKAGES[reason](graph))
    assert caught.value.kind == "invalid-graph" and reason in caught.value.message


def test_check_refuses_a_missing_output():
    with pytest.raises(PhonolithError, match="nothing makes the outputs"):
        check(replace(graph_of(linear("a", "x")), outputs=("b",)))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [({"numerator": 100}, "numerator reaches 100"), ({"heads": 0}, "heads is 0"), ({"shift": 64}, "shift reaches")],
)
def test_check_looks_into_fused_attention(attributes, reason):
    graph = fuse_attention(grown(attention_block, 1))
    name = graph.outputs[0]
    context = graph.node(name).attributes["context"] | attributes
    with pytest.raises(PhonolithError, match=reason):
        check(changed(graph, name, attributes={"context": context}))


# -- the overflow proof ----------------------------------------------------------------------------


def wide_linear(depth: int, bias: int) -> Graph:
    constants = {
        "weight": np.stack([np.zeros(depth, np.int8), np.full(depth, 127, np.int8)]),
        "bias": np.array([0, bias], np.int32),
        "multiplier": np.zeros(2, np.int32),
        "shift": np.zeros(2, np.int32),
    }
    value = Value("x", "uint8", (depth,))
    return Graph("g", (value,), (Node("y", "linear", ("x",), "int8", constants),), ("y",))


def test_largest_sum_that_fits():
    room = (1 << 31) - 1 - 1000 * 127 * 255
    graph = wide_linear(1000, room)
    assert prove_accumulators(graph) is graph
    with pytest.raises(PhonolithError) as caught:
        prove_accumulators(wide_linear(1000, room + 1))
    assert caught.value.kind == "accumulator-overflow"
    assert "node 'y' (linear), channel 1: a sum can reach 2147483648" in caught.value.message


def test_sums_over_time_are_bounded_by_the_frames():
    graph = grown(attention_block, 0)
    assert prove_accumulators(graph, 65000) is graph
    with pytest.raises(PhonolithError, match="channel 0: a sum can reach"):
        prove_accumulators(graph, 66000)
    with pytest.raises(PhonolithError, match=r"\(attention\), channel 0"):
        prove_accumulators(fuse_attention(graph), 66000)
