"""Shape inference agrees with the golden model and refuses inputs that are too short."""

import pytest

from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.random_graphs import Builder, Tensor, conv_block, random_graph
from phonolith.compiler.shapes import infer_shapes, minimum_frames
from phonolith.hw.errors import PhonolithError
from phonolith.sim.golden.interpret import interpret


@pytest.mark.parametrize("seed", range(40))
def test_shapes_are_those_of_the_golden_model(seed):
    graph, inputs = random_graph(seed)
    shapes = infer_shapes(graph, len(inputs["x"]))
    assert {name: value.shape for name, value in interpret(graph, inputs).items()} == {
        node.name: shapes[node.name] for node in graph.nodes
    }


def front_end() -> Graph:
    """Two unpadded 3x3 convolutions of stride 2."""
    b = Builder(0)
    nodes = []
    for name, source, channels in (("a", "x", 1), ("b", "a", 2)):
        constants = b.channel_constants(2, (3, 3, channels), 40.0, "int8")
        geometry = {"stride": [2, 2], "padding": [0, 0]}
        nodes.append(Node(name, "conv2d", (source,), "int8", constants, geometry))
    return Graph("front", (Value("x", "int8", (40, 1)),), tuple(nodes), ("b",))


@pytest.mark.parametrize("frames", [-1, 0, 1, 6])
def test_too_short(frames):
    with pytest.raises(PhonolithError) as caught:
        infer_shapes(front_end(), frames)
    assert caught.value.kind == "input-too-short"
    assert f"{frames} frames" in caught.value.message and "at least 7 frames" in caught.value.remedy


def test_just_long_enough():
    assert minimum_frames(front_end()) == 7
    assert infer_shapes(front_end(), 7)["b"] == (1, 9, 2)
    assert infer_shapes(front_end(), 100)["b"] == (24, 9, 2)


def test_mismatch_names_the_node():
    b = Builder(1)
    y = conv_block(b, Tensor("x", "int8", (9, 12), 74.0))
    graph = Graph("g", (Value("x", "int8", (13,)),), tuple(b.nodes), (y.name,))
    with pytest.raises(PhonolithError, match=r"node 'reshape0' \(reshape\): \(13,\) cannot become"):
        infer_shapes(graph, 9)
