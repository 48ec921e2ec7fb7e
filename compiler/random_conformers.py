"""Random Conformers as integer graphs, without torch: odd widths, kernels, chunks, and the operators one by one.

The structure is that of Gulati et al. 2020 (arXiv 2005.08100): convolutional subsampling, then blocks of half-step
feed-forward, relative self-attention, convolution module, half-step feed-forward and LayerNorm.
"""

from dataclasses import dataclass, replace

import numpy as np

from phonolith.compiler import random_graphs
from phonolith.compiler.fixed_point import (
    encode_multiplier,
    encode_reciprocal,
    exponential_table,
    far_offset,
    wide_exponential_tables,
)
from phonolith.compiler.ir import Graph, Value
from phonolith.compiler.random_graphs import TARGET_RMS, Builder, Tensor, settled_rms, table_block
from phonolith.compiler.random_weights import WeightChoice

KERNELS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 30, 31, 32, 33, 40)
# Steps per unit of what SiLU and sigmoid tables read.
TABLE_STEPS = 16
TAIL_FRAMES = 3
STRIDES = ((2, 2), (2,), (2, 1))
HEAD_WIDTHS = (8, 12, 16, 17, 24, 32, 36)


@dataclass(frozen=True)
class Attending:
    """How attention works: offsets are below ``longest`` (0: no positions), chunks as in docs/graph.md."""

    heads: int
    head_width: int
    longest: int = 0
    chunk: int = 0
    left: int = 0
    wide: bool = False

    @property
    def width(self) -> int:
        """Columns of queries, keys and values."""
        return self.heads * self.head_width


def function_table(function, dtype: str) -> np.ndarray:
    """Return the table of a function of int8, in and out in steps of 1 / TABLE_STEPS; uint8: steps of 1 / 255."""
    values = function(np.arange(256).astype(np.uint8).view(np.int8) / TABLE_STEPS)
    if dtype == "uint8":
        return np.rint(255 * values).astype(np.uint8)
    return np.clip(np.rint(TABLE_STEPS * values), -128, 127).astype(np.int8)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function."""
    return 1 / (1 + np.exp(-x))


def silu(b: Builder, x: Tensor) -> Tensor:
    """Append SiLU of an int8 tensor."""
    table = {"table": function_table(lambda values: values * sigmoid(values), "int8")}
    return b.append("table", (x,), "int8", x.shape, 0.75 * x.rms, table)


def depthwise(b: Builder, x: Tensor, kernel: int, padding: list[int], dtype: str) -> Tensor:
    """Append a depthwise convolution of an 8-bit tensor."""
    shape = (x.shape[0] + sum(padding) - kernel + 1, x.width)
    constants = b.channel_constants(x.width, (kernel,), x.rms, dtype)
    return b.append("depthwise_conv1d", (x,), dtype, shape, settled_rms(dtype), constants, padding=padding)


def multiply(b: Builder, x: Tensor, y: Tensor, dtype: str) -> Tensor:
    """Append the product of an int16 tensor and another."""
    shift = max(round(np.log2(x.rms * y.rms / TARGET_RMS[dtype])), 0)
    return b.append("multiply", (x, y), dtype, x.shape, x.rms * y.rms / 2**shift, shift=shift)


def gated(b: Builder, x: Tensor, channels: int, dtype: str) -> Tensor:
    """Append a gated linear unit: one linear layer times the sigmoid of another."""
    value, gate = b.linear(x, channels, "int16"), b.linear(x, channels, "int8")
    table = {"table": function_table(sigmoid, "uint8")}
    return multiply(b, value, b.append("table", (gate,), "uint8", gate.shape, 150.0, table), dtype)


def add_rows(b: Builder, x: Tensor, longest: int) -> Tensor:
    """Append absolute positions for up to ``longest`` rows."""
    rows = np.rint(b.rng.normal(0, TARGET_RMS["int16"] / 2, (longest, x.width))).astype(np.int16)
    return b.append("add_rows", (x,), "int16", x.shape, np.hypot(x.rms, TARGET_RMS["int16"] / 2), {"rows": rows})


def attention(b: Builder, q: Tensor, k: Tensor, v: Tensor, kind: Attending) -> Tensor:
    """Append attention as one node."""
    rms = TARGET_RMS["int16"]
    multiplier, shift = b.factor(np.sqrt(kind.head_width) * q.rms * k.rms, "int16")
    scores = {"multiplier": multiplier, "shift": shift, "transpose_b": True, "heads": kind.heads}
    constants, optional = position_constants(b, q, kind) if kind.longest else ({}, {})
    multiplier, shift = encode_multiplier(b.integer(50, 500) / 4 / rms)
    exp = {"multiplier": multiplier, "shift": shift}
    numerator, shift = encode_reciprocal(b.integer(10, 30) / 10 * TARGET_RMS["int8"] / TARGET_RMS[v.dtype])
    context = {"numerator": numerator, "shift": shift, "transpose_b": False, "normalize": True, "heads": kind.heads}
    table = exponential_table(b.integer(5, 60) / 1000)
    if kind.wide:
        exp |= {"offset": far_offset(exp["multiplier"], exp["shift"])}
        context |= {"wide": True}
        table = wide_exponential_tables(b.integer(22, 60) / 1000)
    if kind.chunk:
        optional |= {"chunk": kind.chunk, "left": kind.left}
    return b.append("attention", (q, k, v), "int8", v.shape, TARGET_RMS["int8"], {"table": table, **constants},
                    scores=scores, exp=exp, context=context, **optional)


def self_attention(b: Builder, x: Tensor, kind: Attending) -> Tensor:
    """Append projections of an 8-bit tensor to queries, keys and values, and attention over them."""
    k_dtype, v_dtype = b.columns_dtype(kind.head_width), "int8" if kind.wide else b.columns_dtype(kind.head_width)
    q, k, v = (b.linear(x, kind.width, dtype) for dtype in ("int8", k_dtype, v_dtype))
    return attention(b, q, k, v, kind)


def position_constants(b: Builder, q: Tensor, kind: Attending) -> tuple[dict, dict]:
    """Return positions, their bias, and the factor that brings their scores to those of the keys."""
    offsets, positions = 2 * kind.longest - 1, b.integers("int8", 2 * kind.longest - 1, kind.width)
    rms = np.sqrt(kind.head_width) * q.rms * 74
    bias = np.rint(b.rng.normal(0, rms / 2, (kind.heads, offsets))).astype(np.int32)
    multiplier, shift = b.factor(rms, "int16")
    return ({"positions": positions, "position_bias": bias},
            {"position_scores": {"multiplier": multiplier, "shift": shift}})


def depthwise_block(b: Builder, x: Tensor) -> Tensor:
    """A depthwise convolution to any dtype, its padding of any size on either side."""
    x, kernel = b.bytes(x), b.choose(*KERNELS)
    padding = [b.integer(0, kernel), b.integer(0, kernel)]
    padding[0] = max(padding[0], kernel - sum(padding) + padding[0] - x.shape[0])
    return depthwise(b, x, kernel, padding, b.choose("int8", "uint8", "int16"))


def glu_block(b: Builder, x: Tensor) -> Tensor:
    """A gated linear unit, or the product of an int16 tensor and any other."""
    x, channels, dtype = b.bytes(x), b.width(), b.choose("int8", "uint8", "int16")
    if b.chance(0.5):
        return gated(b, x, channels, dtype)
    return multiply(b, b.linear(x, channels, "int16"), b.linear(x, channels, b.choose("int8", "int16")), dtype)


def local_attention_block(b: Builder, x: Tensor) -> Tensor:
    """Attention with relative positions, over chunks, or both; exponentials of 8 or 16 bits."""
    x, frames = b.bytes(x), x.shape[0]
    kind = Attending(b.integer(1, 3), b.integer(4, 32), frames + b.integer(0, 5), wide=b.chance(0.4))
    if b.chance(0.6):
        kind = replace(kind, chunk=b.integer(1, frames + 2), left=b.integer(0, 3), longest=b.choose(0, kind.longest))
    return self_attention(b, x, kind)


def positions_block(b: Builder, x: Tensor) -> Tensor:
    """Absolute positions."""
    stream = x if x.dtype == "int16" else b.rescale(x, "int16")
    return add_rows(b, stream, stream.shape[0] + b.integer(0, 5))


def tabled_block(b: Builder, x: Tensor) -> Tensor:
    """A product with constant weights and a function behind it."""
    x = b.bytes(x)
    index = b.choose("int8", "uint8")
    kind, kernel, width = b.integer(0, 2), b.integer(1, 3), b.integer(3, 40)
    if kind == 0:
        return table_block(b, b.linear(x, width, index))
    if kind == 1:
        return table_block(b, depthwise(b, x, kernel, [kernel - 1, 0], index))
    image = b.reshape(x, x.width, 1)
    y = b.conv2d(image, 4, (kernel, 1), index, [1, 1], [kernel - 1, 0])
    return b.reshape(table_block(b, y), x.width * 4)


BLOCKS = (depthwise_block, glu_block, local_attention_block, positions_block, tabled_block)
ALL_BLOCKS = (*random_graphs.BLOCKS, *BLOCKS)


def residual(b: Builder, stream: Tensor, x: Tensor) -> Tensor:
    """Append a linear layer back to the width of the stream, and its sum with the stream."""
    update = b.linear(x, stream.width, "int16")
    return b.append("add", (stream, update), "int16", stream.shape, np.hypot(stream.rms, update.rms))


def feed_forward(b: Builder, stream: Tensor, hidden: int) -> Tensor:
    """Append a feed-forward block; its factor of one half is part of the multipliers."""
    return residual(b, stream, silu(b, b.linear(b.layernorm(stream, "int8"), hidden, "int8")))


def conformer_block(b: Builder, stream: Tensor, kind: Attending, kernel: int, hidden: int) -> Tensor:
    """Append a Conformer block; over chunks its convolution is causal."""
    stream = feed_forward(b, stream, hidden)
    stream = residual(b, stream, self_attention(b, b.layernorm(stream, "int8"), kind))
    x = gated(b, b.layernorm(stream, "int8"), stream.width, "int8")
    before = kernel - 1 if kind.chunk else (kernel - 1) // 2
    stream = residual(b, stream, silu(b, depthwise(b, x, kernel, [before, kernel - 1 - before], "int8")))
    return b.layernorm(feed_forward(b, stream, hidden), "int16")


def subsampling(b: Builder, x: Tensor, channels: int, strides: tuple[int, ...]) -> Tensor:
    """Append unpadded 3x3 convolutions with ReLU."""
    for stride in strides:
        x = b.conv2d(x, channels, (3, 3), "uint8", [stride, stride], [0, 0])
    return b.reshape(x, x.shape[1] * channels)


def sized_conformer(frames: int, mels: int, channels: int, kind: Attending, kernel: int, layers: int,
                    tokens: int) -> Graph:
    """Return a Conformer of given sizes with random weights, features to ids.

    ``frames`` of features go through two convolutions of stride 2; d is the width of ``kind``, a feed-forward block's
    hidden width 4 d.
    """
    b = Builder(0)
    image = b.reshape(Tensor("features", "int8", (frames, mels), 74.0), mels, 1)
    x = b.linear(subsampling(b, image, channels, (2, 2)), kind.width, "int16")
    for _ in range(layers):
        x = conformer_block(b, x, kind, kernel, 4 * kind.width)
    logits = b.linear(b.layernorm(x, "int8"), tokens, "int16")
    ids = b.append("argmax", (logits,), "int16", logits.shape[:1], 1.0)
    return Graph(f"conformer-{layers}x{kind.width}", (Value("features", "int8", (mels,)),), tuple(b.nodes), (ids.name,))


def random_conformer(seed: int, bits: int | str | None = None,
                     scheme: str | None = None) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return a random Conformer, features to ids, and matching inputs, the same for the same seed.

    Widths, heads, layers, kernels (odd and even), lengths, positions (relative, absolute, none), chunks and the bits of
    exponentials vary; ``bits`` and ``scheme`` of weights are those of :class:`WeightChoice`.
    """
    b = Builder(seed, WeightChoice(bits, scheme))
    frames, strides, bins = b.integer(1, 48), b.choose(*STRIDES), b.integer(1, 3)
    heads, positions = b.integer(1, 4), b.choose("relative", "relative", "absolute", "none")
    longest = frames + b.integer(0, 4)
    kind = Attending(heads, b.choose(*HEAD_WIDTHS), longest if positions == "relative" else 0, wide=b.chance(0.3))
    if b.chance(0.4):
        kind = replace(kind, chunk=b.integer(2, 16), left=b.integer(0, 4))
    return conformer(b, f"conformer-{seed}", frames, strides, bins, kind, longest if positions == "absolute" else 0)


def random_stream(seed: int) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return a random Conformer that can run chunk by chunk, and inputs of up to seven chunks and a part."""
    b = Builder(seed)
    chunk, left, strides, bins = b.integer(1, 12), b.integer(0, 4), b.choose(*STRIDES), b.integer(1, 3)
    frames = b.choose(1, chunk, chunk + 1, b.integer(1, 7 * chunk), b.integer(4 * chunk, 7 * chunk))
    longest = b.choose(0, 1, 1) * ((left + 1) * chunk + b.integer(0, 4))
    kind = Attending(b.integer(1, 4), b.choose(*HEAD_WIDTHS), longest, chunk, left, wide=b.chance(0.3))
    return conformer(b, f"stream-{seed}", frames, strides, bins, kind)


def conformer(b: Builder, name: str, frames: int, strides: tuple[int, ...], bins: int, kind: Attending,
              rows: int = 0) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return a Conformer of random kernel and depth, and inputs that its front end reduces to ``frames`` x ``bins``.

    ``rows``: absolute positions for so many rows; 0: none.
    """
    length, mels = frames, bins
    for stride in reversed(strides):
        length, mels = (length - 1) * stride + TAIL_FRAMES, (mels - 1) * stride + TAIL_FRAMES
    features = Tensor("features", "int8", (length, mels, 1), 74.0)
    image = b.reshape(replace(features, shape=(length, mels)), mels, 1)
    x = b.linear(subsampling(b, image, b.integer(2, 12), strides), kind.width, "int16")
    x = add_rows(b, x, rows) if rows else x
    kernel, hidden = b.choose(*KERNELS[2:-1]), kind.width * b.integer(1, 4)
    for _ in range(b.integer(1, 3)):
        x = conformer_block(b, x, kind, kernel, hidden)
    logits = b.linear(b.layernorm(x, "int8"), b.integer(5, 40), "int16")
    ids = b.append("argmax", (logits,), "int16", logits.shape[:1], 1.0)
    value = Value("features", "int8", (mels,))
    graph = Graph(name, (value,), tuple(b.nodes), (ids.name,), {"seed": b.seed})
    return graph, {"features": b.integers("int8", length, mels)}
