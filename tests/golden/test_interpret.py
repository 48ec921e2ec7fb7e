"""The interpreter: inputs are checked, errors name the node, one changed byte is found."""

import numpy as np
import pytest

from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.random_graphs import random_graph
from phonolith.sim.golden.compare import Difference, compare_tensors
from phonolith.sim.golden.interpret import interpret

GRAPH = Graph("g", (Value("x", "int8", (3,)),), (Node("y", "argmax", ("x",), "int16"),), ("y",))


def test_every_node_has_an_output():
    graph, inputs = random_graph(4)
    assert list(interpret(graph, inputs)) == [node.name for node in graph.nodes]


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.int16), np.zeros((2, 4), np.int8), np.zeros(3, np.int8)])
def test_wrong_input_is_refused(array):
    with pytest.raises(ValueError, match=r"input 'x' must be int8 \[T, 3\], not"):
        interpret(GRAPH, {"x": array})


def test_unknown_operator_is_named():
    graph = GRAPH.with_nodes([Node("y", "fold", ("x",), "int16")])
    with pytest.raises(ValueError, match="node 'y': unknown operator 'fold'"):
        interpret(graph, {"x": np.zeros((2, 3), np.int8)})


def test_overflow_names_the_node():
    constants = {
        "weight": np.ones((1, 3), np.int8),
        "bias": np.array([(1 << 31) - 1], np.int32),
        "multiplier": np.array([1], np.int32),
        "shift": np.array([0], np.int32),
    }
    graph = GRAPH.with_nodes([Node("y", "linear", ("x",), "int16", constants)])
    with pytest.raises(OverflowError, match=r"node 'y' \(linear\): a sum reached"):
        interpret(graph, {"x": np.ones((1, 3), np.int8)})


def test_first_difference():
    expected = np.zeros((2, 3), np.int8)
    actual = expected.copy()
    assert compare_tensors("t", expected, actual) is None
    actual[1, 2] = actual[1, 1] = 5
    assert compare_tensors("t", expected, actual) == Difference("t", (1, 1), 0, 5)
    assert compare_tensors("t", expected, actual.astype(np.int16)).index == ()
