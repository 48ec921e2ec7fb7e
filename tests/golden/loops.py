"""What loops over Python integers need: ranges, rounding, random operands."""

import numpy as np

RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
ALL_RANGES = RANGES | {"int4": (-8, 7)}


def clip(value: int, dtype: str) -> int:
    low, high = ALL_RANGES[dtype]
    return min(max(value, low), high)


def requantize(x: int, m: int, s: int) -> int:
    return (x * m + (1 << (s - 1))) >> s if s else x * m


def integers(rng, dtype: str, *shape: int) -> np.ndarray:
    low, high = ALL_RANGES[dtype]
    return rng.integers(low, high + 1, shape).astype("int8" if dtype == "int4" else dtype)


def weighted_sum(x, codes, zero: int | None, zero_shift: int) -> int:
    """Sum of one block: products with codes, shifted, and the sum of x times the zero."""
    products = sum(int(a) * int(q) for a, q in zip(x, codes, strict=True)) << zero_shift
    return products + (0 if zero is None else sum(int(a) for a in x) * zero)


def low_bit_product(x, codes, constants: dict, n: int, zero_shift: int | None, block: int | None) -> int:
    """Channel n of the product of a row x ``[K]`` and codes ``[N, K]``, before saturation."""
    bias, multiplier, shift, zero = (constants.get(role) for role in ("bias", "multiplier", "shift", "zero"))
    f = zero_shift or 0
    if block is None:
        total = weighted_sum(x, codes[n], None if zero is None else int(zero[n]), f) + int(bias[n])
        return requantize(total, int(multiplier[n]), int(shift[n]))
    total = int(bias[n])
    for j, start in enumerate(range(0, len(x), block)):
        own_zero = None if zero is None else int(zero[n, j])
        part = weighted_sum(x[start : start + block], codes[n, start : start + block], own_zero, f)
        total += requantize(part, int(multiplier[n, j]), int(shift[n, j]))
    return requantize(total, 1, 8)
