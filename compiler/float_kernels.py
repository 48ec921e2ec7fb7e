"""The operators of the float graph in numpy: inputs by position, constants and attributes by name."""

import math

import numpy as np

from phonolith.compiler.shapes import visible_chunks
from phonolith.hw.errors import PhonolithError
from phonolith.models.positions import absolute_sinusoids, relative_sinusoids


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
    "clip": np.clip,
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "leaky_relu": lambda x, slope=0.01: np.where(x > 0, x, slope * x),
    "elu": lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    "softplus": lambda x, beta=1.0: np.logaddexp(0, beta * x) / beta,
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
}
# Functions whose values are never negative.
ONE_SIDED = {"relu", "sigmoid", "hardsigmoid", "softplus"}


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


def _depthwise(x, *, weight, bias, padding, relu=False):
    windows = np.lib.stride_tricks.sliding_window_view(_pad(x, padding=padding), weight.shape[1], axis=0)
    return _activated(np.einsum("tck,ck->tc", windows, weight) + bias, relu)


def _pad(x, *, padding):
    return np.pad(x, (padding, (0, 0)))


def _add_rows(x, *, rows):
    if len(x) > len(rows):
        raise PhonolithError("input-too-long", f"{len(x)} frames meet a constant of {len(rows)} rows.",
                             "Calibrate with shorter inputs, or give a longer example input.")
    return x + rows[: len(x)]


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


def attention(q, k, v, *, heads, scale, chunk=0, left=0, position_weight=None, position_bias=None):
    """Softmax attention of ``[T, H*D]`` operands; rows of a chunk see it and ``left`` chunks before it.

    With ``position_weight [H*D, H*D]`` and ``position_bias [H*D]``, the score of row i of q and row j of k is
    ``scale * (q_i . k_j + (q_i + position_bias) . p[j - i])``, p the relative sinusoids times the transposed weight.

    Returns the result under "", and all that was seen of the two terms under ".scores" and ".position_scores", of
    their sum under ".sums".
    """
    results: list[np.ndarray] = []
    seen: dict[str, list[np.ndarray]] = {".scores": [], ".position_scores": [], ".sums": []}
    for rows, keys in visible_chunks(len(q), chunk, left):
        content = total = _product(_heads(q[rows], heads), _heads(k[keys], heads).transpose(0, 2, 1))
        if position_weight is not None:
            spread = position_terms(q[rows] + position_bias, position_weight, heads, rows.stop - keys.start)
            terms = _shifted(spread, keys.stop - keys.start, rows.start - keys.start)
            total = content + terms
            seen[".position_scores"].append(terms.ravel())
        seen[".scores"].append(content.ravel())
        seen[".sums"].append(total.ravel())
        results.append(_context(_softmax(total, scale=scale), v[keys], heads=heads))
    return {"": np.concatenate(results)} | {name: np.concatenate(parts) for name, parts in seen.items() if parts}


def position_terms(q, position_weight, heads: int, longest: int):
    """Scores ``[H, M, 2 * longest - 1]`` of q ``[M, H*D]`` for every offset, offset 0 in the middle."""
    positions = relative_sinusoids(longest, q.shape[1]) @ position_weight.T
    return _product(_heads(q, heads), _heads(positions, heads).transpose(0, 2, 1))


def _shifted(by_offset, sources: int, first: int):
    """Row i of the result begins with the offset of the key ``first + i`` rows before it."""
    rows = first + np.arange(by_offset.shape[1])
    columns = (by_offset.shape[2] - 1) // 2 + np.arange(sources) - rows[:, None]
    return np.take_along_axis(by_offset, np.broadcast_to(columns, (len(by_offset), *columns.shape)), axis=2)


OPERATORS = {
    "linear": _linear,
    "conv2d": _conv2d,
    "depthwise": _depthwise,
    "function": lambda x, *, function, arguments=(): FUNCTIONS[function](x, *arguments),
    "layernorm": _layernorm,
    "scores": lambda q, k, *, heads: _product(_heads(q, heads), _heads(k, heads).transpose(0, 2, 1)),
    "softmax": _softmax,
    "context": _context,
    "attention": attention,
    "add": lambda a, b: a + b,
    "add_rows": _add_rows,
    "add_positions": lambda x, *, width: x + absolute_sinusoids(len(x), width),
    "multiply": lambda a, b: a * b,
    "affine": lambda x, *, gamma, beta: x * gamma + beta,
    "scaled": lambda x, *, factor: np.float32(factor) * x,
    "pad": _pad,
    "argmax": lambda x: x.argmax(axis=-1),
    "slice": lambda x, *, start, stop: x[..., start:stop],
    "reshape": lambda x, *, tail: x.reshape(len(x), *tail),
}
