"""Proof that no sum of products can leave int32, whatever the input."""

import numpy as np

from phonolith.compiler.ir import DTYPE_RANGES, Graph, Node
from phonolith.compiler.shapes import MAX_FRAMES, Shape, infer_shapes, longest_frames
from phonolith.compiler.weight_formats import BLOCK_STEP_BITS, effective_weights, weight_format
from phonolith.hw.errors import PhonolithError

Operand = tuple[str, Shape]  # dtype and shape
INT32_MIN, INT32_MAX = DTYPE_RANGES["int32"]
# Squares are taken of 17 bits; with the lowest value left out, the sum of 65536 of them is below 2**48.
CENTRED_MAX = (1 << 16) - 1


def prove_accumulators(graph: Graph, frames: int = MAX_FRAMES) -> Graph:
    """Return ``graph`` unchanged; PhonolithError when a sum, bias included, could leave int32.

    ``frames`` bounds the inputs' time dimension, as tables of positions do, and with it the sums that run over time.
    Values that a ``layernorm`` squares must stay within 17 bits.
    """
    dtypes = {value.name: value.dtype for value in graph.inputs}
    dtypes |= {node.name: node.dtype for node in graph.nodes}
    shapes = infer_shapes(graph, longest_frames(graph, frames))
    for node in graph.nodes:
        operands = [(dtypes[name], shapes[name]) for name in node.inputs]
        lowest, highest = BOUNDS[node.op](node, *operands) if node.op in BOUNDS else np.zeros((2, 1), np.int64)
        low, high = int(np.argmin(lowest)), int(np.argmax(highest))
        if highest[high] > INT32_MAX:
            raise _overflow(node, high, f"{highest[high]}, more than {INT32_MAX}")
        if lowest[low] < INT32_MIN:
            raise _overflow(node, low, f"{lowest[low]}, less than {INT32_MIN}")
        if node.op == "layernorm":
            check_centred(node, operands[0][1][-1])
        if node.attributes.get("context", node.attributes).get("wide"):
            check_low_sum(node, sources(node, operands[-1][1][0]))
    return graph


def _overflow(node: Node, channel: int, bound: str) -> PhonolithError:
    return PhonolithError(
        "accumulator-overflow",
        f"node {node.name!r} ({node.op}), channel {channel}: a sum can reach {bound} (int32).",
        "Split the inner dimension, or use smaller weights or a smaller bias.",
    )


def check_centred(node: Node, width: int) -> None:
    """Refuse a mean so far from the true one that a value less the mean could leave 17 bits."""
    multiplier, shift = (node.attributes[f"mean_{part}"] for part in ("multiplier", "shift"))
    ends, half = DTYPE_RANGES["int16"], (1 << shift) >> 1
    reach = max(abs(x - ((x + rest * (width - 1)) * multiplier + half >> shift)) for x in ends for rest in ends)
    if reach > CENTRED_MAX:
        raise PhonolithError(
            "accumulator-overflow",
            f"node {node.name!r} (layernorm): a value less the mean can reach {reach}, more than {CENTRED_MAX}.",
            f"mean_multiplier / 2**mean_shift must be close to 1 / {width}.")


def check_low_sum(node: Node, steps: int) -> None:
    """Refuse so many exponentials of 16 bits that the sum of their low bytes, less 7 bits, could leave int16."""
    highest = DTYPE_RANGES["uint8"][1] * steps + 64 >> 7
    if highest > DTYPE_RANGES["int16"][1]:
        raise PhonolithError(
            "accumulator-overflow",
            f"node {node.name!r} ({node.op}): the low bytes of {steps} exponentials can sum up to {highest} * 128, "
            f"more than {DTYPE_RANGES['int16'][1]} * 128.", "Use exponentials of 8 bits, or shorter sequences.")


def weighted_bounds(node: Node, x: Operand, *_residual: Operand) -> np.ndarray:
    """Return the lowest and highest sum of products + bias, int64 ``[2, channels]``; of blocks :func:`block_bounds`."""
    if weight_format(node).blocked:
        return block_bounds(node, x[0])
    return signed_bounds(effective_weights(node), node.constants["bias"], x[0])


def block_bounds(node: Node, dtype: str) -> np.ndarray:
    """Return the lowest and highest sum of some blocks' requantized sums, with or without the bias and half a step.

    int64 ``[2, channels]``, for inputs of ``dtype``. Every partial sum, in whatever order, is within them, as blocks do
    not depend on each other and each may yield 0. The sum of one block fits int32 in any case:
    256 * 255 * (2**14 + 2**8) < 2**31.
    """
    weight, ends = effective_weights(node), np.zeros((2, len(node.constants["bias"])), np.int64)
    for j, columns in enumerate(weight_format(node).blocks()):
        multiplier, shift = (node.constants[role][:, j].astype(np.int64) for role in ("multiplier", "shift"))
        sums = signed_bounds(weight[:, columns], np.zeros(len(weight), np.int32), dtype)
        requantized = sums * multiplier + (np.int64(1) << shift >> 1) >> shift
        ends += np.sort(requantized, axis=0)
    bias = node.constants["bias"].astype(np.int64) + (1 << BLOCK_STEP_BITS - 1)
    return ends + np.stack([np.minimum(bias, 0), np.maximum(bias, 0)])


def signed_bounds(weight: np.ndarray, bias: np.ndarray, dtype: str) -> np.ndarray:
    """Return the lowest and highest ``weight [N, K] . x + bias [N]`` for any x of ``dtype``, int64 ``[2, N]``."""
    weight, (low, high) = weight.astype(np.int64), DTYPE_RANGES[dtype]
    positive, negative = np.maximum(weight, 0).sum(axis=1), np.minimum(weight, 0).sum(axis=1)
    return np.stack([positive * low + negative * high, positive * high + negative * low]) + bias.astype(np.int64)


def _product_bounds(depth: int, a: str, b: str) -> np.ndarray:
    products = [x * y for x in DTYPE_RANGES[a] for y in DTYPE_RANGES[b]]
    return depth * np.array([[min(products)], [max(products)]])


def matmul_bounds(node: Node, a: Operand, b: Operand) -> np.ndarray:
    """Return the lowest and highest sum of a product of run-time operands."""
    heads = node.attributes.get("heads", 1) if node.attributes["transpose_b"] else 1
    return _product_bounds(a[1][-1] // heads, a[0], b[0])


def attention_bounds(node: Node, q: Operand, k: Operand, v: Operand) -> np.ndarray:
    """Return the lowest and highest sum of all products."""
    scores = _product_bounds(q[1][-1] // node.attributes["scores"].get("heads", 1), q[0], k[0])
    context = _product_bounds(sources(node, k[1][0]), "uint8", v[0])
    bounds = np.concatenate([scores, context, position_bounds(node, q[0])], axis=1)
    return np.array([[bounds[0].min()], [bounds[1].max()]])


def position_bounds(node: Node, q: str) -> np.ndarray:
    """Return the lowest and highest sums of queries of dtype ``q`` and positions, int64 ``[2, heads * offsets]``."""
    if "positions" not in node.constants:
        return np.zeros((2, 1), np.int64)
    positions, bias = node.constants["positions"], node.constants["position_bias"]
    rows = positions.reshape(len(positions), len(bias), -1).transpose(1, 0, 2).reshape(bias.size, -1)
    return signed_bounds(rows, bias.ravel(), q)


def sources(node: Node, frames: int) -> int:
    """Return how many of ``frames`` rows a query sees at most."""
    reach = (node.attributes.get("left", 0) + 1) * node.attributes.get("chunk", 0)
    return min(reach or frames, frames)


def layernorm_bounds(node: Node, x: Operand) -> np.ndarray:
    """Return the lowest and highest sum of a row."""
    return x[1][-1] * np.array(DTYPE_RANGES[x[0]])[:, None]


BOUNDS = {
    "linear": weighted_bounds,
    "conv2d": weighted_bounds,
    "depthwise_conv1d": weighted_bounds,
    "matmul": matmul_bounds,
    "attention": attention_bounds,
    "layernorm": layernorm_bounds,
}
