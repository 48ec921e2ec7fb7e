"""Random integer graphs: every operator, odd sizes, outputs that neither vanish nor saturate.

A graph grows block by block from one input. Each value carries an estimate of its root mean square, from
which the next multiplier is chosen, so that values stay lively without interpreting the graph.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phonolith.compiler.fixed_point import (
    encode_inverse_sqrt,
    encode_multiplier,
    encode_reciprocal,
    exponential_table,
    far_offset,
    wide_exponential_tables,
)
from phonolith.compiler.ir import DTYPE_RANGES, DTYPES, Graph, Node, Value
from phonolith.compiler.random_weights import WeightChoice, draw_weights

# Root mean square that a requantized tensor of each dtype should have, before saturation.
TARGET_RMS = {"int4": 3.0, "int8": 40.0, "uint8": 80.0, "int16": 6000.0}
WEIGHT_RMS = 73.0
FRAMES = (1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 21, 31, 33, 40)


PLAIN = WeightChoice()


@dataclass(frozen=True)
class Tensor:
    """A value of the growing graph: its name, dtype, dimensions with time first, estimated rms."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    rms: float

    @property
    def width(self) -> int:
        """Size of the last dimension."""
        return self.shape[-1]


class Builder:
    """Appends random nodes; every method returns the new node's tensor.

    ``weights`` says which weights linear layers and convolutions have. If not plain, there are wider layers and
    operands of 4 bits, too.
    """

    def __init__(self, seed: int, weights: WeightChoice = PLAIN):
        self.seed = seed
        self.weights = weights
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.results: list[str] = []

    def choose(self, *options):
        """Return one of ``options``."""
        return options[self.rng.integers(len(options))]

    def integer(self, low: int, high: int) -> int:
        """Return an integer in low .. high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self.rng.random() < probability)

    def integers(self, dtype: str, *shape: int) -> np.ndarray:
        """Return uniform integers over the whole range of ``dtype``."""
        low, high = DTYPE_RANGES[dtype]
        return self.rng.integers(low, high + 1, shape).astype(DTYPES[dtype])

    def width(self) -> int:
        """Return a number of columns, with weights of few bits sometimes more than a block of any size has."""
        if self.weights.plain or self.chance(0.6):
            return self.integer(3, 70)
        return self.integer(71, 300)

    def columns_dtype(self, depth: int = 2) -> str:
        """Return a dtype for the second operand of a product: int8, with weights of few bits sometimes int4.

        Rows, or heads of them, of ``depth`` columns end in the middle of a byte if that is odd: these are int8.
        """
        return "int4" if not self.weights.plain and depth % 2 == 0 and self.chance(0.4) else "int8"

    def append(self, op, inputs, dtype, shape, rms, constants=None, **attributes) -> Tensor:
        """Append a node and return its tensor."""
        name = f"{op}{len(self.nodes)}"
        names = tuple(tensor.name for tensor in inputs)
        self.nodes.append(Node(name, op, names, dtype, constants or {}, attributes))
        return Tensor(name, dtype, tuple(shape), rms)

    def factor(self, sums_rms: float, dtype: str) -> tuple[int, int]:
        """Return (multiplier, shift) that bring sums to the target of ``dtype``, sometimes with few bits."""
        multiplier, shift = encode_multiplier(TARGET_RMS[dtype] / sums_rms)
        dropped = min(self.integer(1, 12), shift) if self.chance(0.2) else 0
        return multiplier >> dropped, shift - dropped

    def channel_constants(self, channels: int, kernel: tuple[int, ...], rms: float, dtype: str) -> dict:
        """Return weight, bias, multiplier and shift; a few multipliers are zero or negative."""
        sums_rms = np.sqrt(np.prod(kernel)) * rms * WEIGHT_RMS
        pairs = np.array([self.factor(sums_rms, dtype) for _ in range(channels)], np.int32)
        signs = self.rng.choice([1, -1, 0], channels, p=[0.92, 0.05, 0.03]).astype(np.int32)
        return {
            "weight": self.integers("int8", channels, *kernel),
            "bias": np.rint(self.rng.normal(0, sums_rms / 2, channels)).astype(np.int32),
            "multiplier": pairs[:, 0] * signs,
            "shift": pairs[:, 1].copy(),
        }

    def product_weights(self, x: Tensor, channels: int, kernel: tuple[int, ...], dtype: str) -> tuple[dict, dict]:
        """Return constants and attributes of weights ``[channels, *kernel]`` for an 8-bit tensor."""
        if self.weights.plain:
            return self.channel_constants(channels, kernel, x.rms, dtype), {}
        return draw_weights(self.rng, self.weights, channels, kernel, (x.dtype, x.rms), TARGET_RMS[dtype])

    def linear(self, x: Tensor, channels: int, dtype: str) -> Tensor:
        """Append a linear layer on an 8-bit tensor."""
        constants, attributes = self.product_weights(x, channels, (x.width,), dtype)
        shape = (*x.shape[:-1], channels)
        return self.append("linear", (x,), dtype, shape, settled_rms(dtype), constants, **attributes)

    def conv2d(self, x: Tensor, filters: int, kernel: tuple[int, ...], dtype: str, stride: list[int],
               padding: list[int]) -> Tensor:
        """Append a convolution of an 8-bit tensor ``[T, F, C]``."""
        constants, attributes = self.product_weights(x, filters, (*kernel, x.width), dtype)
        sizes = zip(x.shape, padding, kernel, stride, strict=False)
        time, frequency = ((size + 2 * pad - k) // step + 1 for size, pad, k, step in sizes)
        return self.append("conv2d", (x,), dtype, (time, frequency, filters), settled_rms(dtype), constants,
                           stride=stride, padding=padding, **attributes)

    def rescale(self, x: Tensor, dtype: str) -> Tensor:
        """Append a change of scale and dtype."""
        multiplier, shift = self.factor(x.rms, dtype)
        return self.append("rescale", (x,), dtype, x.shape, settled_rms(dtype), multiplier=multiplier, shift=shift)

    def layernorm(self, x: Tensor, dtype: str) -> Tensor:
        """Append a layer normalization of an int16 tensor."""
        mean_multiplier, mean_shift = encode_multiplier(1 / x.width)
        numerator, shift = encode_inverse_sqrt(np.sqrt(x.width) * 1024)
        pairs = np.array([self.factor(1024, dtype) for _ in range(x.width)], np.int32)
        signs = self.rng.choice([1, -1], x.width).astype(np.int32)
        reach = int(TARGET_RMS[dtype] / 2)
        constants = {
            "gamma": pairs[:, 0] * signs,
            "gamma_shift": pairs[:, 1].copy(),
            "beta": self.rng.integers(-reach, reach + 1, x.width).astype(np.int32),
        }
        factors = {"mean_multiplier": mean_multiplier, "mean_shift": mean_shift, "numerator": numerator}
        epsilon = self.choose(0, 1, 1000)
        return self.append(
            "layernorm",
            (x,),
            dtype,
            x.shape,
            settled_rms(dtype),
            constants,
            **factors,
            shift=shift,
            epsilon=epsilon,
        )

    def slice(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Append a view of some columns."""
        return self.append("slice", (x,), x.dtype, (*x.shape[:-1], stop - start), x.rms, start=start, stop=stop)

    def reshape(self, x: Tensor, *tail: int) -> Tensor:
        """Append a view with another tail."""
        return self.append("reshape", (x,), x.dtype, (x.shape[0], *tail), x.rms, tail=list(tail))

    def matmul(self, a: Tensor, b: Tensor, dtype: str, transpose_b: bool) -> Tensor:
        """Append a product of two run-time operands."""
        multiplier, shift = self.factor(np.sqrt(a.width) * a.rms * b.rms, dtype)
        columns = b.shape[0] if transpose_b else b.width
        return self.append(
            "matmul", (a, b), dtype, (a.shape[0], columns), settled_rms(dtype),
            multiplier=multiplier, shift=shift, transpose_b=transpose_b,
        )  # fmt: skip

    def signed(self, x: Tensor) -> Tensor:
        """Return ``x`` as int8, rescaled if it is anything else."""
        return x if x.dtype == "int8" else self.rescale(x, "int8")

    def bytes(self, x: Tensor) -> Tensor:
        """Return ``x`` as an 8-bit tensor: itself, normalised or rescaled."""
        if x.dtype != "int16":
            return x
        return self.layernorm(x, "int8") if self.chance(0.6) else self.rescale(x, self.choose("int8", "uint8"))


def settled_rms(dtype: str) -> float:
    """Return the rms of a tensor requantized to its target; half of a one-sided one is clipped to 0."""
    return TARGET_RMS[dtype] / (np.sqrt(2) if dtype == "uint8" else 1)


def linear_block(b: Builder, x: Tensor) -> Tensor:
    """One linear layer to any dtype."""
    return b.linear(b.bytes(x), b.width(), b.choose("int8", "uint8", "int16"))


def sliced_linear_block(b: Builder, x: Tensor) -> Tensor:
    """Linear layers on two views of one tensor, added."""
    x = b.bytes(x)
    if x.width < 2:
        return linear_block(b, x)
    middle, channels = b.integer(1, x.width - 1), b.width()
    left, right = b.slice(x, 0, middle), b.slice(x, middle, x.width)
    pair = (b.linear(left, channels, "int16"), b.linear(right, channels, "int16"))
    return b.append("add", pair, "int16", pair[0].shape, TARGET_RMS["int16"] * 1.4)


def feed_forward_block(b: Builder, x: Tensor) -> Tensor:
    """Residual feed-forward: normalise, widen with ReLU or a table, narrow, add."""
    stream = x if x.dtype == "int16" else b.rescale(x, "int16")
    hidden = b.linear(b.layernorm(stream, "int8"), b.width(), b.choose("uint8", "int8"))
    hidden = table_block(b, hidden) if b.chance(0.4) else hidden
    update = b.linear(hidden, stream.width, "int16")
    pair = (stream, update) if b.chance(0.5) else (update, stream)
    return b.append("add", pair, "int16", stream.shape, np.hypot(stream.rms, update.rms))


def conv_block(b: Builder, x: Tensor) -> Tensor:
    """A convolution over [T, F, C], seen as [T', F' * N]."""
    x = b.bytes(x)
    channels = b.choose(*(c for c in range(1, 9) if x.width % c == 0))
    image = b.reshape(x, x.width // channels, channels)
    padding = [b.integer(0, 1), b.integer(0, 1)]
    kernel = [b.integer(1, min(3, size + 2 * pad)) for size, pad in zip(image.shape, padding, strict=False)]
    stride = [b.integer(1, 2), b.integer(1, 2)]
    filters, dtype = b.integer(1, 8), b.choose("int8", "uint8", "int16")
    y = b.conv2d(image, filters, tuple(kernel), dtype, stride, padding)
    return b.reshape(y, y.shape[1] * filters)


def attention_block(b: Builder, x: Tensor) -> Tensor:
    """Multi-head attention over one fused projection or three, queries and values of one width.

    Sometimes the exponentials are a result of the graph, too: then the three operators cannot be fused.
    """
    x, heads = b.bytes(x), b.integer(1, 3)
    width = heads * b.integer(8, 32)
    dtypes = [b.columns_dtype(width // heads) for _ in range(2)]
    if b.chance(0.5) and dtypes == ["int8", "int8"]:
        fused = b.linear(x, 3 * width, "int8")
        q, k, v = (b.slice(fused, i * width, (i + 1) * width) for i in range(3))
    elif dtypes == ["int4", "int4"] and b.chance(0.5):
        q, fused = b.linear(x, width, "int8"), b.linear(x, 2 * width, "int4")
        k, v = (b.slice(fused, i * width, (i + 1) * width) for i in range(2))
    else:
        q, k, v = (b.linear(x, width, dtype) for dtype in ("int8", *dtypes))
    frames = x.shape[0]
    multiplier, shift = b.factor(np.sqrt(width // heads) * q.rms * k.rms, "int16")
    scores = b.append(
        "matmul", (q, k), "int16", (heads, frames, frames), TARGET_RMS["int16"],
        multiplier=multiplier, shift=shift, transpose_b=True, heads=heads,
    )  # fmt: skip
    multiplier, shift = encode_multiplier(b.integer(50, 500) / 4 / scores.rms)
    wide = {"wide": True} if b.chance(0.4) and v.dtype == "int8" else {}
    offset = {"offset": far_offset(multiplier, shift)} if wide else {}
    tables = {"table": wide_exponential_tables(b.integer(22, 60) / 1000) if wide
              else exponential_table(b.integer(5, 60) / 1000)}
    exp = b.append("softmax_exp", (scores,), "uint8", scores.shape, 255, tables, multiplier=multiplier, shift=shift,
                   **offset)
    if b.chance(0.25):
        b.results.append(exp.name)
    numerator, shift = encode_reciprocal(b.integer(10, 30) / 10 * TARGET_RMS["int8"] / TARGET_RMS[v.dtype])
    return b.append(
        "matmul", (exp, v), "int8", (frames, width), TARGET_RMS["int8"],
        numerator=numerator, shift=shift, transpose_b=False, normalize=True, heads=heads, **wide,
    )  # fmt: skip


def matmul_block(b: Builder, x: Tensor) -> Tensor:
    """Products of run-time operands, transposed and plain, without a softmax."""
    x = b.signed(b.bytes(x))
    width = b.integer(3, 40)
    a, c = b.linear(x, width, b.choose("int8", "uint8")), b.linear(x, width, b.columns_dtype(width))
    similarity = b.matmul(a, c, b.choose("int8", "uint8"), transpose_b=True)
    x = b.linear(x, width, "int4") if b.columns_dtype(width) == "int4" else x
    return b.matmul(similarity, x, b.choose("int8", "uint8", "int16"), transpose_b=False)


def table_block(b: Builder, x: Tensor) -> Tensor:
    """A random function of one byte."""
    x = b.bytes(x)
    dtype = b.choose("int8", "uint8")
    rms = 74.0 if dtype == "int8" else 147.0
    return b.append("table", (x,), dtype, x.shape, rms, {"table": b.integers(dtype, 256)})


def rescale_block(b: Builder, x: Tensor) -> Tensor:
    """A change of scale and dtype."""
    return b.rescale(x, b.choose("int8", "uint8", "int16"))


def double_block(b: Builder, x: Tensor) -> Tensor:
    """A tensor added to itself: an ``add`` that no linear feeds."""
    x = x if x.dtype == "int16" else b.rescale(x, "int16")
    return b.append("add", (x, x), "int16", x.shape, 2 * x.rms)


Block = Callable[[Builder, Tensor], Tensor]
BLOCKS: tuple[Block, ...] = (
    linear_block,
    sliced_linear_block,
    feed_forward_block,
    conv_block,
    attention_block,
    matmul_block,
    table_block,
    rescale_block,
    double_block,
)


def random_graph(seed: int, blocks: tuple[Block, ...] = BLOCKS, bits: int | str | None = None,
                 scheme: str | None = None) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return a random graph of one to four of ``blocks`` and matching inputs, the same for the same seed.

    ``bits`` and ``scheme`` of weights are those of :class:`WeightChoice`: without them weights are plain.
    """
    b = Builder(seed, WeightChoice(bits, scheme))
    frames, width, dtype = b.choose(*FRAMES), b.width(), b.choose("int8", "int8", "uint8")
    value = Value("x", dtype, (width,))
    x = Tensor("x", dtype, (frames, width), 74.0 if dtype == "int8" else 147.0)
    inputs = {"x": b.integers(dtype, frames, width)}
    for _ in range(b.integer(1, 4)):
        x = b.choose(*blocks)(b, x)
    if b.chance(0.4) and x.dtype != "uint8":
        x = b.append("argmax", (x,), "int16", x.shape[:1], 1.0)
    graph = Graph(f"random-{seed}", (value,), tuple(b.nodes), (x.name, *b.results), {"seed": seed})
    return graph, inputs
