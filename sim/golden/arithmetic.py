"""Exact integer arithmetic of the golden model (``docs/graph.md``, section "Arithmetic").

Every function takes integers or integer arrays, computes in int64 and broadcasts like numpy.
"""

import numpy as np

from phonolith.compiler.ir import DTYPE_RANGES, DTYPES

INT32_MIN, INT32_MAX = DTYPE_RANGES["int32"]
MAX_SHIFT = 47
# Integers up to this are float32 numbers.
FLOAT32_INTEGERS = 1 << 24
# Largest magnitudes of bytes.
MAGNITUDES = {np.dtype(np.int8): 128, np.dtype(np.uint8): 255}
# OpenBLAS computes M * N * K up to this in the calling thread.
ONE_THREAD_PRODUCTS = 1 << 18


def saturate(x: np.ndarray, dtype: str) -> np.ndarray:
    """Clip to the range of ``dtype`` ("int4", "int8", "uint8", "int16", "int32") and convert."""
    if x.dtype == DTYPES[dtype] and dtype != "int4":
        return x
    low, high = DTYPE_RANGES[dtype]
    # In two steps because np.clip spends more time on its bounds than on small arrays.
    return np.minimum(np.maximum(x, low), high).astype(DTYPES[dtype])


def fit_int32(x: np.ndarray) -> np.ndarray:
    """Return ``x`` unchanged; OverflowError when an element leaves int32."""
    if x.size and (x.min() < INT32_MIN or x.max() > INT32_MAX):
        raise OverflowError(f"a sum reached {x.min()} .. {x.max()}, which does not fit int32")
    return x


def rshift_round(x, shift) -> np.ndarray:
    """Shift right arithmetically by ``shift`` >= 0 bits, rounding half up."""
    shift = np.asarray(shift, np.int64)
    half = (np.int64(1) << shift) >> 1
    rounded = np.asarray(x, np.int64) + half
    rounded >>= shift
    return rounded


def requantize(x, multiplier, shift) -> np.ndarray:
    """Return ``x * multiplier / 2**shift`` rounded half up; ``x`` must fit int32."""
    x = fit_int32(np.asarray(x, np.int64))
    return rshift_round(x * np.asarray(multiplier, np.int64), shift)


def bit_length(x) -> np.ndarray:
    """Return the bits of each element of ``x``, 0 <= x < 2**53: 0 for 0, n for 2**(n-1) .. 2**n - 1."""
    return np.frexp(np.asarray(x, np.float64))[1].astype(np.int64)


def isqrt(x) -> np.ndarray:
    """Return floor(sqrt(x)) for 0 <= x < 2**52.

    The float64 root of such a number is off by less than one, so one step either way corrects it.
    """
    x = np.asarray(x, np.int64)
    root = np.sqrt(x.astype(np.float64)).astype(np.int64)
    root = root - (root * root > x)
    return root + ((root + 1) * (root + 1) <= x)


def reciprocal(x, numerator: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (m, s) with ``requantize(a, m, s) ~ a * numerator / x * 2**(31 - shift)``; x < 2**32."""
    x = np.maximum(np.asarray(x, np.int64), 1)
    if x.size and x.max() >= 1 << 32:
        raise OverflowError(f"the divisor {x.max()} does not fit 32 bits")
    normalise = 32 - bit_length(x)
    m = (np.int64(numerator) << 31) // (x << normalise)
    return m, np.clip(shift - normalise, 0, MAX_SHIFT)


def inverse_sqrt(x, numerator: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (m, s) with ``requantize(a, m, s) ~ a * numerator / sqrt(x) * 2**(23 - shift)``; x < 2**48."""
    x = np.maximum(np.asarray(x, np.int64), 1)
    if x.size and x.max() >= 1 << 48:
        raise OverflowError(f"the radicand {x.max()} does not fit 48 bits")
    normalise = (48 - bit_length(x)) // 2
    root = isqrt(x << (2 * normalise))
    m = (np.int64(numerator) << 31) // (root << 8)
    return m, np.clip(shift - normalise, 0, MAX_SHIFT)


def exact_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a @ b`` of 8-bit operands ``[.., M, K]``, ``[.., K, N]`` as int64.

    Computed by BLAS in float32 if no sum of K products can exceed 2**24, else in float64, where none can exceed 2**53
    below K = 2**37: no product or partial sum is ever rounded, in whatever order. Some rows at a time: OpenBLAS
    starts threads for larger products, which for these sizes costs up to 28 times the processor time.
    """
    largest = a.shape[-1] * MAGNITUDES[a.dtype] * MAGNITUDES[b.dtype]
    exact = np.float32 if largest <= FLOAT32_INTEGERS else np.float64
    a, b = a.astype(exact), b.astype(exact)
    rows = max(ONE_THREAD_PRODUCTS // (b.shape[-2] * b.shape[-1]), 1)
    starts = range(0, max(a.shape[-2], 1), rows)
    parts = [a[..., start : start + rows, :] @ b for start in starts]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-2)
    return whole.astype(np.int64)


def exact_dot(windows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the sums over the last axis of ``windows [.., C, K] * weight [C, K]``, 8-bit integers, as int64."""
    return np.einsum("...ck,ck->...c", windows.astype(np.int64), weight.astype(np.int64))
