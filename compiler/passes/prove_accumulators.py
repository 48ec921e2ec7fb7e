"""Proof that no sum of products can leave int32, whatever the input."""

import numpy as np

from phonolith.compiler.ir import Graph, Node
from phonolith.compiler.shapes import MAX_FRAMES, Shape, infer_shapes
from phonolith.hw.errors import PhonolithError

Operand = tuple[str, Shape]  # dtype and shape
INT32_MAX = (1 << 31) - 1
# Largest magnitude of each dtype.
MAGNITUDE = {"int8": 128, "uint8": 255, "int16": 32768}


def prove_accumulators(graph: Graph, frames: int = MAX_FRAMES) -> Graph:
    """Return ``graph`` unchanged; PhonolithError when a sum, bias included, could leave int32.

    ``frames`` bounds the inputs' time dimension, and with it the sums that run over time.
    """
    dtypes = {value.name: value.dtype for value in graph.inputs}
    dtypes |= {node.name: node.dtype for node in graph.nodes}
    shapes = infer_shapes(graph, frames)
    for node in graph.nodes:
        operands = [(dtypes[name], shapes[name]) for name in node.inputs]
        bounds = BOUNDS[node.op](node, *operands) if node.op in BOUNDS else np.zeros(1)
        channel = int(np.argmax(bounds))
        if bounds[channel] > INT32_MAX:
            raise _overflow(node, channel, int(bounds[channel]))
    return graph


def _overflow(node: Node, channel: int, bound: int) -> PhonolithError:
    return PhonolithError(
        "accumulator-overflow",
        f"node {node.name!r} ({node.op}), channel {channel}: a sum can reach {bound}, more than {INT32_MAX} (int32).",
        "Split the inner dimension, or use smaller weights or a smaller bias.",
    )


def weighted_bounds(node: Node, x: Operand, *_residual: Operand) -> np.ndarray:
    """Return per output channel the largest |sum of products + bias|."""
    weight = node.constants["weight"].astype(np.int64).reshape(len(node.constants["weight"]), -1)
    bias = node.constants["bias"].astype(np.int64)
    low, high = (0, 255) if x[0] == "uint8" else (-128, 127)
    positive, negative = np.maximum(weight, 0).sum(axis=1), np.minimum(weight, 0).sum(axis=1)
    highest = positive * high + negative * low + bias
    lowest = positive * low + negative * high + bias
    return np.maximum(np.abs(highest), np.abs(lowest))


def _product_bound(depth: int, a: str, b: str) -> np.ndarray:
    return np.array([depth * MAGNITUDE[a] * MAGNITUDE[b]])


def matmul_bounds(node: Node, a: Operand, b: Operand) -> np.ndarray:
    """Return the largest |sum| of a product of run-time operands."""
    heads = node.attributes.get("heads", 1) if node.attributes["transpose_b"] else 1
    return _product_bound(a[1][-1] // heads, a[0], b[0])


def attention_bounds(node: Node, q: Operand, k: Operand, v: Operand) -> np.ndarray:
    """Return the largest |sum| of both products."""
    scores = _product_bound(q[1][-1] // node.attributes["scores"].get("heads", 1), q[0], k[0])
    return np.maximum(scores, _product_bound(k[1][0], "uint8", v[0]))


def layernorm_bounds(node: Node, x: Operand) -> np.ndarray:
    """Return the largest |sum| of a row; with it inside int32, the sum of squares is below 2**48."""
    return np.array([x[1][-1] * MAGNITUDE[x[0]]])


BOUNDS = {
    "linear": weighted_bounds,
    "conv2d": weighted_bounds,
    "matmul": matmul_bounds,
    "attention": attention_bounds,
    "layernorm": layernorm_bounds,
}
