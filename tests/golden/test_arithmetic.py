"""The golden model's arithmetic against Python's unbounded integers."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from phonolith.compiler.ir import DTYPES
from phonolith.sim.golden.arithmetic import (
    bit_length,
    exact_matmul,
    inverse_sqrt,
    isqrt,
    reciprocal,
    requantize,
    rshift_round,
    saturate,
)


def round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def values_up_to(bits: int, count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.getrandbits(rng.randint(1, bits)) for _ in range(count)]


@pytest.mark.parametrize(
    ("x", "shift", "expected"),
    [(1, 1, 1), (-1, 1, 0), (3, 1, 2), (-3, 1, -1), (2, 2, 1), (-2, 2, 0), (5, 0, 5), (-6, 2, -1), (6, 2, 2)],
)
def test_ties_round_up(x, shift, expected):
    assert rshift_round(x, shift) == expected


def test_requantize_is_exact():
    rng = random.Random(1)
    for _ in range(2000):
        x, m, s = rng.randint(-(1 << 31), (1 << 31) - 1), rng.randint(-65536, 65535), rng.randint(0, 47)
        assert requantize(x, m, s) == round_half_up(Fraction(x * m, 1 << s)), (x, m, s)


def test_requantize_refuses_what_leaves_int32():
    with pytest.raises(OverflowError, match="2147483648, which does not fit int32"):
        requantize(np.array([0, 1 << 31]), 1, 0)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("int4", [-8, -1, 7]), ("int8", [-128, -1, 127]), ("uint8", [0, 0, 255]), ("int16", [-32768, -1, 32767])],
)
def test_saturate(dtype, expected):
    result = saturate(np.array([-(1 << 40), -1, 1 << 40]), dtype)
    assert result.tolist() == expected and result.dtype == DTYPES[dtype]


def test_bit_length_and_isqrt_up_to_48_bits():
    squares = [k * k + d for k in (1, 2, 3, 1 << 23, (1 << 24) - 1, 12345677) for d in (-1, 0, 1)]
    xs = [0, (1 << 48) - 1, *values_up_to(48, 20000, 2), *(x for x in squares if x < 1 << 48)]
    assert bit_length(np.array(xs)).tolist() == [x.bit_length() for x in xs]
    assert isqrt(np.array(xs)).tolist() == [math.isqrt(x) for x in xs]


def test_isqrt_next_to_every_large_square():
    roots = np.arange((1 << 24) - 100000, 1 << 24, dtype=np.int64)
    assert (isqrt(roots * roots) == roots).all()
    assert (isqrt(roots * roots - 1) == roots - 1).all()


def reciprocal_by_definition(x: int, c: int, h: int) -> tuple[int, int]:
    x = max(x, 1)
    e = 32 - x.bit_length()
    return (c << 31) // (x << e), min(max(h - e, 0), 47)


def inverse_sqrt_by_definition(x: int, c: int, h: int) -> tuple[int, int]:
    x = max(x, 1)
    e = (48 - x.bit_length()) // 2
    return (c << 31) // (math.isqrt(x << 2 * e) << 8), min(max(h - e, 0), 47)


@pytest.mark.parametrize("numerator", [1 << 15, 40133, (1 << 16) - 1])
@pytest.mark.parametrize("shift", [0, 23, 46, 60])
@pytest.mark.parametrize(
    ("function", "definition", "bits"),
    [(reciprocal, reciprocal_by_definition, 32), (inverse_sqrt, inverse_sqrt_by_definition, 48)],
)
def test_row_factors_follow_their_definition(function, definition, bits, numerator, shift):
    xs = [0, 1, 2, 3, (1 << bits) - 1, *values_up_to(bits, 300, 3)]
    m, s = function(np.array(xs), numerator, shift)
    assert list(zip(m.tolist(), s.tolist(), strict=True)) == [definition(x, numerator, shift) for x in xs]
    assert m.min() >= 0 and m.max() < 1 << 16


def test_reciprocal_is_within_two_ulps_of_16_bits():
    xs = np.array([x for x in values_up_to(24, 3000, 4) if x])
    m, s = reciprocal(xs, 40000, 46)
    assert np.abs(m / 2.0**s / (40000 / xs * 2.0**-15) - 1).max() < 2**-14


def test_inverse_sqrt_is_within_two_ulps_of_16_bits():
    xs = np.array([x for x in values_up_to(46, 3000, 5) if x])
    m, s = inverse_sqrt(xs, 40000, 25)
    assert np.abs(m / 2.0**s / (40000 / np.sqrt(xs) / 4) - 1).max() < 2**-14


@pytest.mark.parametrize(("function", "bits"), [(reciprocal, 32), (inverse_sqrt, 48)])
def test_row_factors_refuse_wider_numbers(function, bits):
    with pytest.raises(OverflowError, match=f"does not fit {bits} bits"):
        function(np.array([1 << bits]), 1 << 15, 30)


@pytest.mark.parametrize(("dtype", "value", "depth"), [(np.uint8, 255, 514), (np.int8, -128, 1024)])
def test_exact_matmul_next_to_the_end_of_float32(dtype, value, depth):
    """Up to so many products float32 holds every sum, beyond float64 is used: odd sums would show a lost bit."""
    for k in (depth, depth + 1, 2 * depth + 1):
        a, b = np.full((2, k), value, dtype), np.full((k, 3), -128, np.int8)
        a[1, 0], b[0, 1] = value + 1 if value < 0 else value - 1, -127
        expected = a.astype(np.int64) @ b.astype(np.int64)
        assert (exact_matmul(a, b) == expected).all()


def test_exact_matmul_at_the_extremes():
    a = np.full((1, 60000), 255, np.uint8)
    b = np.full((60000, 1), -128, np.int8)
    assert exact_matmul(a, b).item() == -128 * 255 * 60000
