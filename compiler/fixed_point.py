"""Real factors as the integer pairs of ``docs/graph.md``, section "Arithmetic"."""

import numpy as np

MAX_SHIFT = 47
MULTIPLIER_BITS = 16


def _normalised(value: float) -> tuple[int, int]:
    """Return (c, e) with ``value ~ c * 2**(e - 16)`` and c in 2**15 .. 2**16 - 1."""
    fraction, exponent = np.frexp(value)
    c = int(np.rint(np.ldexp(fraction, MULTIPLIER_BITS)))
    return (c // 2, int(exponent) + 1) if c == 1 << MULTIPLIER_BITS else (c, int(exponent))


def encode_multiplier(factor: float) -> tuple[int, int]:
    """Return (multiplier, shift) with ``requantize(x, multiplier, shift) ~ x * factor``.

    The multiplier has 16 significant bits down to 2**-32, fewer below. ValueError unless
    0 <= factor < 65536.
    """
    if not 0 <= factor < 1 << MULTIPLIER_BITS:
        raise ValueError(f"a requantization factor must be in 0 .. 65536, not {factor}")
    if factor == 0:
        return 0, 0
    c, exponent = _normalised(factor)
    shift = MULTIPLIER_BITS - exponent
    excess = max(shift - MAX_SHIFT, 0)
    return c >> excess, shift - excess


def encode_multipliers(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return :func:`encode_multiplier` of each factor as two int32 arrays."""
    pairs = np.array([encode_multiplier(float(factor)) for factor in factors], np.int32).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def encode_reciprocal(factor: float) -> tuple[int, int]:
    """Return the (numerator, shift) of a ``reciprocal`` that turns a into ``a * factor / x``."""
    numerator, exponent = _normalised(factor)
    return numerator, 31 + MULTIPLIER_BITS - exponent


def encode_inverse_sqrt(factor: float) -> tuple[int, int]:
    """Return the (numerator, shift) of an ``inverse_sqrt`` that turns a into ``a * factor / sqrt(x)``."""
    numerator, exponent = _normalised(factor)
    return numerator, 23 + MULTIPLIER_BITS - exponent


def exponential_table(step: float) -> np.ndarray:
    """Return the uint8 table ``round(255 * exp(-index * step))`` of ``softmax_exp``."""
    return np.rint(255 * np.exp(-step * np.arange(256))).astype(np.uint8)
