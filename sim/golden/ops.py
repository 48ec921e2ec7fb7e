"""One function per operator of ``docs/graph.md``.

Positional arguments are the node's inputs, keywords are ``dtype`` (of the output), its constants
and its attributes, under the names the document gives them. Results have the output dtype.
"""

import numpy as np

from phonolith.sim.golden.arithmetic import (
    exact_matmul,
    fit_int32,
    inverse_sqrt,
    reciprocal,
    requantize,
    rshift_round,
    saturate,
)


def linear(x, residual=None, *, dtype, weight, bias, multiplier, shift):
    """x ``[.., K]``, weight ``[N, K]`` -> ``[.., N]``; a residual is added after saturation to int16."""
    acc = fit_int32(exact_matmul(x, weight.T) + bias.astype(np.int64))
    y = saturate(requantize(acc, multiplier, shift), dtype)
    return y if residual is None else add(y, residual, dtype=dtype)


def conv2d(x, *, dtype, weight, bias, multiplier, shift, stride, padding):
    """x ``[T, F, C]``, weight ``[N, kh, kw, C]`` -> ``[T', F', N]``; zeros are padded on both sides."""
    (pad_t, pad_f), (step_t, step_f), kernel = padding, stride, weight.shape[1:3]
    x = np.pad(x, ((pad_t, pad_t), (pad_f, pad_f), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(0, 1))[::step_t, ::step_f]
    rows = windows.transpose(0, 1, 3, 4, 2).reshape(*windows.shape[:2], -1)
    columns = weight.reshape(len(weight), -1)
    return linear(rows, dtype=dtype, weight=columns, bias=bias, multiplier=multiplier, shift=shift)


def split_heads(x, heads: int):
    """``[M, H*D]`` -> ``[H, M, D]``."""
    return x.reshape(len(x), heads, x.shape[-1] // heads).transpose(1, 0, 2)


def merge_heads(x):
    """``[H, M, D]`` -> ``[M, H*D]``."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def matmul_transposed(a, b, heads: int | None):
    """Sums ``[M, N]`` of a ``[M, D]``, b ``[N, D]``; ``[H, M, N]`` of ``[M, H*D]``, ``[N, H*D]``."""
    if heads is None:
        return exact_matmul(a, b.T)
    return exact_matmul(split_heads(a, heads), split_heads(b, heads).transpose(0, 2, 1))


def matmul_plain(a, b, heads: int | None):
    """Sums ``[M, N]`` of a ``[M, K]``, b ``[K, N]``; ``[H, M, D]`` of ``[H, M, K]``, ``[K, H*D]``."""
    return exact_matmul(a, b if heads is None else split_heads(b, heads))


def matmul(a, b, *, dtype, shift, transpose_b, multiplier=0, numerator=0, normalize=False, heads=None, wide=False):
    """Product of two run-time operands, requantized by a scalar or by the reciprocal of a's row sums."""
    if wide:
        return matmul_wide(a, b, dtype, numerator, shift, heads)
    acc = fit_int32((matmul_transposed if transpose_b else matmul_plain)(a, b, heads))
    if normalize:
        if transpose_b:
            raise ValueError("matmul: normalize needs transpose_b false")
        multiplier, shift = reciprocal(a.sum(axis=-1, keepdims=True, dtype=np.int64), numerator, shift)
    y = saturate(requantize(acc, multiplier, shift), dtype)
    return y if heads is None or transpose_b else merge_heads(y)


def matmul_wide(a, b, dtype: str, numerator: int, shift: int, heads: int | None):
    """Product of exponentials in planes ``[3, .., M, K]`` and b, divided by the row sums."""
    high, low, far = a.sum(axis=-1, keepdims=True, dtype=np.int64)
    low, far = (saturate(rshift_round(part, 7), "int16") for part in (low, far))
    total = 2 * high + add(low, far, dtype="int16")
    context = np.int64(0)
    for plane, plane_shift in ((a[2], shift), (a[1], shift), (a[0], shift - 8)):
        part = requantize(fit_int32(matmul_plain(plane, b, heads)), *reciprocal(total, numerator, plane_shift))
        context = add(saturate(part, "int16"), context, dtype="int16")
    y = saturate(rshift_round(context, 7), dtype)
    return y if heads is None else merge_heads(y)


def softmax_exp(x, *, dtype, table, multiplier, shift, offset=None):
    """Exponentials of x ``[.., S]`` relative to the maximum of each row, by table; in planes with an ``offset``."""
    distance = x.max(axis=-1, keepdims=True).astype(np.int64) - x
    near = saturate(requantize(distance, multiplier, shift), "uint8")
    if offset is None:
        return saturate(table[near], dtype)
    far = saturate(requantize(distance - offset, multiplier, shift), "uint8")
    return saturate(np.stack([table[0][near], table[1][near], table[2][far]]), dtype)


def attention(q, k, v, *, dtype, table, scores, exp, context):
    """``softmax(q k^T) v`` of ``[T, H*D]`` operands: three operators with their own attributes."""
    weights = softmax_exp(matmul(q, k, dtype="int16", **scores), dtype="uint8", table=table, **exp)
    return matmul(weights, v, dtype=dtype, **context)


def layernorm(x, *, dtype, gamma, gamma_shift, beta, mean_multiplier, mean_shift, numerator, shift, epsilon):
    """Normalise each row of x int16 ``[T, D]`` to zero mean and unit variance, then scale and offset."""
    total = x.sum(axis=-1, keepdims=True, dtype=np.int64)
    centred = x - requantize(total, mean_multiplier, mean_shift)
    variance = (centred * centred).sum(axis=-1, keepdims=True) + epsilon
    normal = saturate(requantize(centred, *inverse_sqrt(variance, numerator, shift)), "int16")
    return saturate(requantize(normal, gamma, gamma_shift) + beta, dtype)


def add(a, b, *, dtype):
    """Saturating sum of two tensors of one scale."""
    return saturate(a.astype(np.int64) + b, dtype)


def rescale(x, *, dtype, multiplier, shift):
    """Change scale and dtype."""
    return saturate(requantize(x, multiplier, shift), dtype)


def table(x, *, dtype, table):
    """Any function of one 8-bit value: ``table[x mod 256]``."""
    return saturate(table[x.astype(np.int64) & 255], dtype)


def argmax(x, *, dtype):
    """Smallest index of the maximum of each row."""
    return saturate(x.argmax(axis=-1), dtype)


def slice_columns(x, *, dtype, start, stop):
    """Columns ``start`` .. ``stop`` (exclusive) of the last axis."""
    return saturate(x[..., start:stop], dtype)


def reshape(x, *, dtype, tail):
    """Replace the dimensions after the leading one."""
    return saturate(x.reshape(len(x), *tail), dtype)


OPERATORS = {
    "linear": linear,
    "conv2d": conv2d,
    "matmul": matmul,
    "softmax_exp": softmax_exp,
    "attention": attention,
    "layernorm": layernorm,
    "add": add,
    "rescale": rescale,
    "table": table,
    "argmax": argmax,
    "slice": slice_columns,
    "reshape": reshape,
}
