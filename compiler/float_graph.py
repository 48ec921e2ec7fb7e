"""The float graph: what a frontend makes and a quantizer reads. Evaluated in numpy, torch-free.

Tensors are ``[T, *tail]`` without a batch dimension, channels last, attention weights ``[H, T, S]``.

======== ======================== ==========================================================
op       inputs                   constants; attributes
======== ======================== ==========================================================
linear   x ``[T, K]``             weight ``[N, K]``, bias ``[N]``; relu (fused)
conv2d   x ``[T, F, C]``          weight ``[N, kh, kw, C]``, bias ``[N]``; stride, padding, relu
function x                        function: a key of :data:`FUNCTIONS`
layernorm x ``[T, D]``            gamma, beta ``[D]``; epsilon
scores   q, k ``[T, H*D]``        heads
softmax  x ``[H, T, S]``          scale, applied before the exponential
context  p ``[H, T, S]``, v       heads
add      a, b                     --
argmax   x ``[T, N]``             --
slice    x ``[T, D]``             start, stop
reshape  x ``[T, ..]``            tail
======== ======================== ==========================================================
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class FloatNode:
    """One operator in float32; its output carries its name. ``source`` says where the module wrote it."""

    name: str
    op: str
    inputs: tuple[str, ...]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class FloatGraph:
    """Nodes in topological order, one input ``[T, *tail]``, one output."""

    name: str
    input: str
    tail: tuple[int, ...]
    nodes: tuple[FloatNode, ...]
    output: str

    def consumers(self, name: str) -> list[FloatNode]:
        """Return the nodes that read ``name``."""
        return [node for node in self.nodes if name in node.inputs]


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


FUNCTIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * _sigmoid(x),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
}
# Functions whose values are never negative.
ONE_SIDED = {"relu", "sigmoid"}


# OpenBLAS computes M * N * K up to this in the calling thread; its threads cost more than they bring here.
ONE_THREAD_PRODUCTS = 1 << 18


def _product(x: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``x [.., M, K] @ columns [.., K, N]``, some rows at a time."""
    rows = max(ONE_THREAD_PRODUCTS // (columns.shape[-2] * columns.shape[-1]), 1)
    parts = [x[..., start : start + rows, :] @ columns for start in range(0, x.shape[-2], rows)]
    return np.concatenate(parts, axis=-2)


def _activated(x: np.ndarray, relu: bool) -> np.ndarray:
    return np.maximum(x, 0) if relu else x


def _linear(x, *, weight, bias, relu=False):
    return _activated(_product(x, weight.T) + bias, relu)


def _conv2d(x, *, weight, bias, stride, padding, relu=False):
    x = np.pad(x, [(pad, pad) for pad in padding] + [(0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[1:3], axis=(0, 1))
    windows = windows[:: stride[0], :: stride[1]].transpose(0, 1, 3, 4, 2)
    rows = windows.reshape(*windows.shape[:2], -1)
    return _activated(_product(rows, weight.reshape(len(weight), -1).T) + bias, relu)


def _layernorm(x, *, gamma, beta, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * gamma + beta


def _heads(x, heads):
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def _softmax(x, *, scale):
    weights = np.exp(scale * (x - x.max(axis=-1, keepdims=True)))
    return weights / weights.sum(axis=-1, keepdims=True)


def _context(p, v, *, heads):
    merged = _product(p, _heads(v, heads)).transpose(1, 0, 2)
    return merged.reshape(len(merged), -1)


OPERATORS = {
    "linear": _linear,
    "conv2d": _conv2d,
    "function": lambda x, *, function: FUNCTIONS[function](x),
    "layernorm": _layernorm,
    "scores": lambda q, k, *, heads: _product(_heads(q, heads), _heads(k, heads).transpose(0, 2, 1)),
    "softmax": _softmax,
    "context": _context,
    "add": lambda a, b: a + b,
    "argmax": lambda x: x.argmax(axis=-1),
    "slice": lambda x, *, start, stop: x[..., start:stop],
    "reshape": lambda x, *, tail: x.reshape(len(x), *tail),
}


def evaluate(graph: FloatGraph, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the input's and every node's value for ``x`` float ``[T, *tail]``, in float32."""
    values = {graph.input: np.asarray(x, np.float32)}
    for node in graph.nodes:
        arguments = [values[name] for name in node.inputs]
        value = OPERATORS[node.op](*arguments, **node.constants, **node.attributes)
        values[node.name] = value if node.op == "argmax" else np.asarray(value, np.float32)
    return values


def fuse_relu(graph: FloatGraph) -> FloatGraph:
    """Fold each ReLU into the linear or convolution that feeds it and nothing else; that one's name stays."""
    nodes: dict[str, FloatNode] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        source = nodes.get(node.inputs[0])
        if node.attributes.get("function") == "relu" and source and _takes_relu(graph, source):
            nodes[source.name] = replace(source, attributes=source.attributes | {"relu": True})
            renamed[node.name] = source.name
        else:
            nodes[node.name] = node
    return replace(graph, nodes=tuple(nodes.values()), output=renamed.get(graph.output, graph.output))


def _takes_relu(graph: FloatGraph, node: FloatNode) -> bool:
    alone = len(graph.consumers(node.name)) == 1 and graph.output != node.name
    return node.op in ("linear", "conv2d") and alone
