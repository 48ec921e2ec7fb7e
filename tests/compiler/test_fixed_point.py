"""Real factors as integer pairs."""

import numpy as np
import pytest

from phonolith.compiler.fixed_point import (
    encode_inverse_sqrt,
    encode_multiplier,
    encode_multipliers,
    encode_reciprocal,
    exponential_table,
)

FACTORS = [1e-12, 2.0**-32, 1e-5, 0.3, 0.99999999, 1.0, 1.5, 1000.1, 65535.0]


@pytest.mark.parametrize("factor", FACTORS)
def test_multipliers_are_normalised(factor):
    multiplier, shift = encode_multiplier(factor)
    assert 0 <= shift <= 47
    assert multiplier >> 15 == 1 or shift == 47
    assert multiplier / 2.0**shift == pytest.approx(factor, rel=2**-16, abs=2.0**-47)


def test_zero_and_impossible_multipliers():
    assert encode_multiplier(0.0) == (0, 0)
    for factor in (-0.1, 65536.0):
        with pytest.raises(ValueError, match="must be in 0 .. 65536"):
            encode_multiplier(factor)


def test_arrays_of_multipliers():
    multiplier, shift = encode_multipliers(np.array(FACTORS))
    pairs = list(zip(multiplier.tolist(), shift.tolist(), strict=True))
    assert pairs == [encode_multiplier(factor) for factor in FACTORS]


@pytest.mark.parametrize(("encode", "exponent"), [(encode_reciprocal, 31), (encode_inverse_sqrt, 23)])
@pytest.mark.parametrize("factor", [0.01, 1.0, 1.7, 10033.0])
def test_row_factors(encode, exponent, factor):
    numerator, shift = encode(factor)
    assert 1 << 15 <= numerator < 1 << 16
    assert numerator * 2.0 ** (exponent - shift) == pytest.approx(factor, rel=2**-16)


def test_exponential_table():
    table = exponential_table(0.02)
    assert table.dtype == np.uint8 and table[0] == 255 and (np.diff(table.astype(int)) <= 0).all()
