"""What loops over Python integers need: ranges, rounding, random operands."""

import numpy as np

RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


def clip(value: int, dtype: str) -> int:
    low, high = RANGES[dtype]
    return min(max(value, low), high)


def requantize(x: int, m: int, s: int) -> int:
    return (x * m + (1 << (s - 1))) >> s if s else x * m


def integers(rng, dtype: str, *shape: int) -> np.ndarray:
    low, high = RANGES[dtype]
    return rng.integers(low, high + 1, shape).astype(dtype)
