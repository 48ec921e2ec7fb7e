"""Counts of multiply-accumulates and bytes."""

import numpy as np
import pytest

from phonolith.compiler.inspect import inspect
from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.random_graphs import Builder, random_graph
from phonolith.hw.errors import PhonolithError


def test_macs_of_convolution_and_linear():
    b = Builder(0)
    conv = b.channel_constants(4, (3, 3, 1), 40.0, "int8")
    dense = b.channel_constants(5, (76,), 40.0, "int8")
    nodes = (
        Node("c", "conv2d", ("x",), "uint8", conv, {"stride": [2, 2], "padding": [0, 0]}),
        Node("r", "reshape", ("c",), "uint8", {}, {"tail": [76]}),
        Node("y", "linear", ("r",), "int16", dense),
    )
    result = inspect(Graph("g", (Value("x", "int8", (40, 1)),), nodes, ("y",)), 11)
    conv_line, _, linear_line = result["layers"]
    assert conv_line["macs"] == 5 * 19 * 4 * 9 and linear_line["macs"] == 5 * 76 * 5
    assert linear_line["constant_bytes"] == 5 * 76 + 8 * 5
    assert linear_line["output_bytes"] == 5 * 5 * 2
    assert result["macs"] == conv_line["macs"] + linear_line["macs"]
    assert result["weights"] == 36 + 380 and result["output_frames"] == 5


def test_bytes_of_weights_of_few_bits():
    """Packed codes; 8 bytes per channel, and per channel and block."""
    rng = np.random.default_rng(0)
    plain = Builder(0).channel_constants(5, (76,), 40.0, "int8")
    blocked = {"weight": rng.integers(-8, 8, (5, 77)).astype(np.int8), "bias": np.zeros(5, np.int32)}
    blocked |= {role: np.zeros((5, 3), np.int32) for role in ("multiplier", "shift", "zero")}
    ternary = {**plain, "weight": rng.integers(-2, 2, (5, 5)).astype(np.int8)}
    nodes = (
        Node("a", "linear", ("x",), "int8", plain),
        Node("b", "linear", ("y",), "int4", blocked, {"bits": 4, "zero_shift": 2, "block": 32}),
        Node("c", "linear", ("a",), "int8", ternary, {"bits": 2}),
    )
    inputs = (Value("x", "int8", (76,)), Value("y", "int8", (77,)))
    result = inspect(Graph("g", inputs, nodes, ("b", "c")), 11)
    a, b, c = result["layers"]
    assert [layer["constant_bytes"] for layer in (a, b, c)] == [5 * 84, 5 * (39 + 3 * 8), 5 * (2 + 8)]
    assert [layer["weights"] for layer in (a, b, c)] == ["int8", "int4", "int2"]
    assert [layer["scheme"] for layer in (a, b, c)] == ["symmetric", "asymmetric-32", "symmetric"]
    assert b["output_bytes"] == 11 * 3 and result["weight_bytes"] == 5 * (76 + 39 + 2)
    assert result["weight_bits"] == round((380 * 8 + 385 * 4 + 25 * 2) / 790, 2)


@pytest.mark.parametrize("seed", range(20))
def test_passes_keep_the_macs(seed):
    graph, inputs = random_graph(seed)
    frames = len(inputs["x"])
    assert inspect(lower_graph(graph), frames)["macs"] == inspect(graph, frames)["macs"]


def test_attention_macs():
    attributes = {"multiplier": 32768, "shift": 20, "transpose_b": True, "heads": 2}
    node = Node("s", "matmul", ("x", "x"), "int16", {}, attributes)
    graph = Graph("g", (Value("x", "int8", (8,)),), (node,), ("s",))
    assert inspect(graph, 10)["macs"] == 10 * 10 * 8
    assert np.isclose(inspect(graph, 20)["macs"], 4 * 800)


def test_no_frames():
    with pytest.raises(PhonolithError, match="leave nothing"):
        inspect(random_graph(0)[0], 0)
