"""One function per operator of ``docs/graph.md``.

Positional arguments are the node's inputs, keywords are ``dtype`` (of the output), its constants
and its attributes, under the names the document gives them. Results have the output dtype.
"""

import numpy as np

from phonolith.sim.golden.arithmetic import (
    exact_dot,
    exact_matmul,
    fit_int32,
    inverse_sqrt,
    reciprocal,
    requantize,
    rshift_round,
    saturate,
)

# Sums of blocks of weights are in steps of 2**-8 of the output.
BLOCK_STEP_BITS = 8


def finish(acc, dtype, bias, multiplier, shift, **fused):
    """Requantize sums ``[.., N]`` with a bias per channel, and narrow them."""
    return narrow(requantize(acc + bias.astype(np.int64), multiplier, shift), dtype, **fused)


def finish_blocks(total, dtype, bias, **fused):
    """Round sums ``[.., N]`` in steps of 1/256 with a bias per channel (``rshift_round`` by 8), and narrow them."""
    total = fit_int32(total + bias.astype(np.int64) + (1 << BLOCK_STEP_BITS - 1))
    return narrow(total >> BLOCK_STEP_BITS, dtype, **fused)


def narrow(y, dtype, table_dtype=None, **fused):
    """Saturate to ``dtype``; with a ``table`` by way of bytes of ``table_dtype`` that index it."""
    y = saturate(y, table_dtype or dtype)
    return table(y, dtype=dtype, **fused) if table_dtype else y


def linear(x, residual=None, *, dtype, weight, bits=8, zero=None, zero_shift=0, block=None, **channels):
    """x ``[.., K]``, weight codes ``[N, K]`` -> ``[.., N]``; a residual is added after saturation to int16.

    ``bits`` says how many the codes need; they are not checked here.
    """
    if block is None:
        y = finish(weighted_sums(x, weight, zero, zero_shift), dtype, **channels)
    else:
        y = linear_blocks(x, dtype, weight, zero, zero_shift, block, **channels)
    return y if residual is None else add(y, residual, dtype=dtype)


def weighted_sums(x, weight, zero, zero_shift):
    """Sums ``[.., N]`` of x ``[.., K]`` times codes ``[N, K]``, shifted, and row sums of x times ``zero [N]``."""
    sums = exact_matmul(x, weight.T)
    if zero is None:
        return sums
    return (sums << zero_shift) + x.sum(axis=-1, keepdims=True, dtype=np.int64) * zero


def linear_blocks(x, dtype, weight, zero, zero_shift, block, multiplier, shift, **channels):
    """Product whose sums over ``block`` columns of x are requantized, each by its own factor ``[N, n_blocks]``."""
    total = np.int64(0)
    for j, start in enumerate(range(0, x.shape[-1], block)):
        columns = slice(start, start + block)
        own_zero = None if zero is None else zero[:, j]
        sums = weighted_sums(x[..., columns], weight[:, columns], own_zero, zero_shift)
        total = total + requantize(sums, multiplier[:, j], shift[:, j])
    return finish_blocks(total, dtype, **channels)


def conv2d(x, *, dtype, weight, stride, padding, **channels):
    """x ``[T, F, C]``, weight ``[N, kh, kw, C]`` -> ``[T', F', N]``; zeros are padded on both sides."""
    (pad_t, pad_f), (step_t, step_f), kernel = padding, stride, weight.shape[1:3]
    x = np.pad(x, ((pad_t, pad_t), (pad_f, pad_f), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(0, 1))[::step_t, ::step_f]
    rows = windows.transpose(0, 1, 3, 4, 2).reshape(*windows.shape[:2], -1)
    return linear(rows, dtype=dtype, weight=weight.reshape(len(weight), -1), **channels)


def depthwise_conv1d(x, *, dtype, weight, padding, **channels):
    """x ``[T, C]``, weight ``[C, k]`` -> ``[T + left + right - k + 1, C]``; padding is zeros."""
    x = np.pad(x, (padding, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[1], axis=0)
    return finish(exact_dot(windows, weight), dtype, **channels)


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


def attention(q, k, v, *, dtype, scores, context, chunk=0, left=0, **parts):
    """``softmax(q k^T) v`` of ``[T, H*D]`` operands; rows of a chunk see it and ``left`` chunks before it."""
    step, whole = chunk or max(len(q), 1), []
    for start in range(0, len(q), step):
        seen = slice(max(start - left * step, 0), start + step) if chunk else slice(None)
        rows = q[start : start + step]
        weights = attention_weights(rows, k[seen], start - (seen.start or 0), scores, **parts)
        whole.append(matmul(weights, v[seen], dtype=dtype, **context))
    return np.concatenate(whole)


def attention_weights(q, k, first, scores, *, table, exp, position_scores=None, **positions):
    """Exponentials ``[H, M, N]`` of scores; row i of q stands ``first + i`` rows behind the first of k."""
    total = matmul(q, k, dtype="int16", **scores)
    if position_scores is not None:
        terms = offset_terms(q, scores.get("heads"), first, len(k), **positions, **position_scores)
        total = add(total, terms, dtype="int16")
    return softmax_exp(total, dtype="uint8", table=table, **exp)


def offset_terms(q, heads, first, sources, positions, position_bias, **factor):
    """Scores int16 ``[H, M, N]`` of q ``[M, H*D]`` for the offsets of ``sources`` keys.

    Row i of q stands ``first + i`` rows behind the first key. Offsets that no pair has are not computed.
    """
    longest, last = (len(positions) + 1) // 2, first + len(q) - 1
    reach = max(last, sources - 1 - first) + 1
    if reach > longest:
        raise ValueError(f"attention: positions reach offsets below {longest}, not {reach - 1}")
    used = slice(longest - reach, longest + reach - 1)
    return shifted(position_terms(q, heads, positions[used], position_bias[:, used], **factor), sources, first)


def position_terms(q, heads, positions, position_bias, multiplier, shift):
    """Scores int16 ``[H, M, 2L - 1]`` of q ``[M, H*D]`` for every offset, ``[M, 2L - 1]`` without heads."""
    bias = position_bias[:, None, :].astype(np.int64)
    acc = matmul_transposed(q, positions, heads) + (bias if heads else bias[0])
    return saturate(requantize(fit_int32(acc), multiplier, shift), "int16")


def shifted(by_offset, sources: int, first: int):
    """``[.., M, N]`` of ``[.., M, 2L - 1]``: for row i the offsets from -(first + i) on."""
    longest = (by_offset.shape[-1] + 1) // 2
    rows = first + np.arange(by_offset.shape[-2])
    columns = longest - 1 + np.arange(sources) - rows[:, None]
    return np.take_along_axis(by_offset, np.broadcast_to(columns, (*by_offset.shape[:-1], sources)), axis=-1)


def layernorm(x, *, dtype, gamma, gamma_shift, beta, mean_multiplier, mean_shift, numerator, shift, epsilon):
    """Normalise each row of x int16 ``[T, D]`` to zero mean and unit variance, then scale and offset."""
    total = x.sum(axis=-1, keepdims=True, dtype=np.int64)
    centred = x - requantize(total, mean_multiplier, mean_shift)
    variance = (centred * centred).sum(axis=-1, keepdims=True) + epsilon
    normal = saturate(requantize(centred, *inverse_sqrt(variance, numerator, shift)), "int16")
    return saturate(requantize(normal, gamma, gamma_shift) + beta, dtype)


def add(a, b, *, dtype):
    """Saturating sum of two tensors of one scale."""
    return saturate(a.astype(np.int32) + b, dtype)


def add_rows(x, *, dtype, rows):
    """Saturating sum of row t of x int16 ``[T, D]`` and row t of ``rows`` ``[L, D]``, T <= L."""
    if len(x) > len(rows):
        raise ValueError(f"add_rows: {len(x)} rows, but constants for {len(rows)}")
    return add(x, rows[: len(x)], dtype=dtype)


def multiply(a, b, *, dtype, shift):
    """Product of two tensors, element by element, shifted right."""
    return saturate(rshift_round(a.astype(np.int64) * b, shift), dtype)


def rescale(x, *, dtype, multiplier, shift):
    """Change scale and dtype."""
    return saturate(requantize(x, multiplier, shift), dtype)


def table(x, *, dtype, table):
    """Any function of one 8-bit value: ``table[x mod 256]``."""
    return saturate(table[x.view(np.uint8)], dtype)


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
    "depthwise_conv1d": depthwise_conv1d,
    "matmul": matmul,
    "softmax_exp": softmax_exp,
    "attention": attention,
    "layernorm": layernorm,
    "add": add,
    "add_rows": add_rows,
    "multiply": multiply,
    "rescale": rescale,
    "table": table,
    "argmax": argmax,
    "slice": slice_columns,
    "reshape": reshape,
}
