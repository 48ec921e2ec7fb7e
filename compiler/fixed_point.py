"""Real factors as the integer pairs of ``docs/graph.md``, section "Arithmetic"."""

import numpy as np

MAX_SHIFT = 47
MULTIPLIER_BITS = 16
MAX_OFFSET = (1 << 16) - 1


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
    """Return :func:`encode_multiplier` of each factor as two int32 arrays of the factors' shape."""
    pairs = np.array([encode_multiplier(float(factor)) for factor in factors.ravel()], np.int32).reshape(-1, 2)
    return pairs[:, 0].reshape(factors.shape), pairs[:, 1].reshape(factors.shape)


def encode_reciprocal(factor: float) -> tuple[int, int]:
    """Return the (numerator, shift) of a ``reciprocal`` that turns a into ``a * factor / x``."""
    numerator, exponent = _normalised(factor)
    return numerator, 31 + MULTIPLIER_BITS - exponent


def encode_inverse_sqrt(factor: float) -> tuple[int, int]:
    """Return the (numerator, shift) of an ``inverse_sqrt`` that turns a into ``a * factor / sqrt(x)``."""
    numerator, exponent = _normalised(factor)
    return numerator, 23 + MULTIPLIER_BITS - exponent


def exponential_table(step: float) -> np.ndarray:
    """Return the uint8 table ``round(255 * exp(-index * step))`` of ``softmax_exp``; the last entry is 0.

    The last stands for all distances that the table does not reach: as 1, they would never fade away.
    """
    table = np.rint(255 * np.exp(-step * np.arange(256))).astype(np.uint8)
    table[-1] = 0
    return table


def wide_exponential_tables(step: float) -> np.ndarray:
    """Return the uint8 ``[3, 256]`` tables of ``softmax_exp`` with an ``offset``: exponentials of 16 bits.

    ``round(65535 * exp(-index * step))`` as high and low bytes for index 0 .. 254, and where a byte holds it for
    index 255 .. 508, in entries 1 .. 254 of the third. All other entries are 0.
    """
    values = np.minimum(np.rint(65535 * np.exp(-step * np.arange(509))).astype(np.int64), 65535)
    if values[255] > 255:
        raise ValueError(f"with steps of {step} the exponential at 255 is {values[255]}: no byte holds it")
    tables = np.zeros((3, 256), np.uint8)
    tables[0, :255], tables[1, :255], tables[2, 1:255] = values[:255] >> 8, values[:255] & 255, values[255:]
    return tables


def far_offset(multiplier: int, shift: int) -> int:
    """Return the ``offset`` of ``softmax_exp`` with which the third table takes over where the others end.

    The first distance with index 255 of the one is the first with index 1 of the other, whatever the rounding.
    Distances of int16 scores are below 2**16, and so is the offset: at its limit the third table is never reached.
    """
    if multiplier == 0:
        return MAX_OFFSET
    half = (1 << shift) >> 1
    first_beyond, first_far = (-(-((index << shift) - half) // multiplier) for index in (255, 1))
    return min(first_beyond - first_far, MAX_OFFSET)
