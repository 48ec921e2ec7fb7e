"""Weights as codes: the schemes' definitions, group by group."""

import itertools

import numpy as np
import pytest

from phonolith.compiler.weight_quantizer import BIAS_LIMIT, BLOCKS, SCHEMES, WIDTHS, WeightScheme, quantize_weight
from phonolith.hw.errors import PhonolithError

ALL = [WeightScheme(*each) for each in itertools.product(WIDTHS, SCHEMES, ("tensor", "channel", 32, 128))]
WITH_ZERO = [scheme for scheme in ALL if scheme.has_zero]


def weights(rows: int = 12, columns: int = 100, mean: float = 0.2) -> np.ndarray:
    """Return float32 weights whose last block is shorter than the others."""
    return np.random.default_rng(0).normal(mean, 1.0, (rows, columns)).astype(np.float32)


def name(scheme: WeightScheme) -> str:
    return f"w{scheme.bits}-{scheme.scheme}-{scheme.group}"


@pytest.mark.parametrize("scheme", ALL, ids=name)
def test_shapes_and_ranges(scheme):
    w = weights()
    made = quantize_weight(w, scheme)
    blocks = 1 if scheme.block is None else -(-w.shape[1] // scheme.block)
    assert made.codes.shape == w.shape and made.codes.dtype == np.int8
    assert made.scale.shape == made.zero.shape == (len(w), blocks) and made.zero.dtype == np.int32
    assert made.codes.min() >= -(1 << scheme.bits - 1) and made.codes.max() < 1 << scheme.bits - 1
    assert made.zero.min() >= -256 and made.zero.max() <= 255 and 0 <= made.zero_shift <= 7
    assert made.block == scheme.block and (scheme.has_zero or not made.zero.any())


@pytest.mark.parametrize("scheme", [s for s in ALL if s.bits > 1], ids=name)
def test_without_a_clip_nothing_is_off_by_more_than_half_a_step(scheme):
    w = weights()
    made = quantize_weight(w, scheme)
    step = made.scale[:, np.arange(w.shape[1]) // (scheme.block or w.shape[1])]
    # The zero point's own rounding may cut the ends of a range by half of its grid.
    slack = 0.5 / (1 << made.zero_shift) if scheme.has_zero else 0
    assert (np.abs(made.values() - w) <= step * (0.5 + slack + 1e-9)).all()


@pytest.mark.parametrize("scheme", [s for s in WITH_ZERO if s.bits > 1], ids=name)
def test_codes_are_rounded_to_the_zero_point(scheme):
    """No other code is closer to the weight, given scale and zero point."""
    w = weights()
    made = quantize_weight(w, scheme)
    columns = np.arange(w.shape[1]) // (scheme.block or w.shape[1])
    levels = np.arange(-(1 << scheme.bits - 1), 1 << scheme.bits - 1)
    values = made.scale[:, columns, None] * (levels + made.zero[:, columns, None] / (1 << made.zero_shift))
    assert np.allclose(np.abs(made.values() - w), np.abs(values - w[..., None]).min(axis=2))


def test_a_block_is_quantized_as_if_alone():
    w = weights()
    for bits, scheme in itertools.product(WIDTHS, SCHEMES):
        blocks = quantize_weight(w, WeightScheme(bits, scheme, 32))
        last = quantize_weight(w[:, 96:], WeightScheme(bits, scheme, "channel"))
        assert np.array_equal(blocks.scale[:, 3:], last.scale)


def test_a_block_as_long_as_a_row_is_the_channel():
    w = weights()
    for bits, scheme in itertools.product(WIDTHS, SCHEMES):
        block, channel = (quantize_weight(w, WeightScheme(bits, scheme, group)) for group in (128, "channel"))
        assert np.array_equal(block.codes, channel.codes) and np.array_equal(block.scale, channel.scale)


def test_a_tensor_has_one_scale_and_zero_point():
    for bits, scheme in itertools.product(WIDTHS, SCHEMES):
        made = quantize_weight(weights(), WeightScheme(bits, scheme, "tensor"))
        assert len(np.unique(made.scale)) == len(np.unique(made.zero)) == 1


def test_one_bit():
    w = weights(mean=0.0)
    plain = quantize_weight(w, WeightScheme(1))
    alpha = np.abs(w.astype(np.float64)).mean(axis=1, keepdims=True)
    assert np.allclose(plain.values(), np.where(w > 0, alpha, -alpha)) and plain.zero_shift == 1
    assert (plain.zero == 1).all() and set(np.unique(plain.codes)) == {-1, 0}
    w = weights(mean=0.7)
    made = quantize_weight(w, WeightScheme(1, "asymmetric"))
    mean = w.astype(np.float64).mean(axis=1, keepdims=True)
    alpha = np.abs(w - mean).mean(axis=1, keepdims=True)
    assert np.allclose(made.scale, 2 * alpha)
    near = np.abs(made.values() - np.where(w > mean, mean + alpha, mean - alpha))
    # Weights within the zero point's rounding of the mean may fall on the other side.
    assert (near[np.abs(w - mean) > alpha / 64] <= made.scale.max() / 256 + 1e-9).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_clip_search_lowers_the_error(bits):
    for scheme, group in itertools.product(SCHEMES, ("tensor", "channel", 32)):
        errors = [np.abs(quantize_weight(weights(), WeightScheme(bits, scheme, group, clip)).values() - weights()).sum()
                  for clip in (False, True)]
        assert errors[1] <= errors[0] * 1.02  # the search is made before zero points are rounded
        assert bits > 2 or errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("scheme", ALL, ids=name)
def test_powers_of_two(scheme):
    made = quantize_weight(weights(), WeightScheme(scheme.bits, scheme.scheme, scheme.group, power_of_two=True))
    assert (np.frexp(made.scale)[0] == 0.5).all()


@pytest.mark.parametrize("scheme", ALL, ids=name)
@pytest.mark.parametrize("value", [0.0, 0.3, -2.5])
def test_groups_of_equal_weights(scheme, value):
    w = weights()
    w[3] = value
    made = quantize_weight(w, scheme)
    assert np.isfinite(made.values()).all() and made.scale.min() > 0
    if scheme.group != "tensor":
        assert np.abs(made.values()[3] - value).max() <= 0.51 * abs(value) + 1e-12


@pytest.mark.parametrize("scheme", [s for s in ALL if s.block is None], ids=name)
def test_tiny_weights_beside_a_large_bias_get_coarser(scheme):
    w, offset = weights() * 1e-12, np.linspace(-3, 3, 12)
    made = quantize_weight(w, scheme, offset)
    steps = np.abs(offset) / (made.scale[:, 0] / (1 << made.zero_shift))
    assert steps.max() <= BIAS_LIMIT * (1 + 1e-9)


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_far_from_zero(bits, power_of_two):
    """The zero point reaches them, however the range is clipped."""
    w = np.random.default_rng(0).uniform(0.95, 1.0, (20, 64))
    made = quantize_weight(w, WeightScheme(bits, "asymmetric", clip_search=True, power_of_two=power_of_two))
    assert np.abs(made.values() - w).max() <= 1.1 * made.scale.max() and made.scale.max() < 2.01 / ((1 << bits) - 1)


@pytest.mark.parametrize(("bits", "columns"), [(8, 400), (8, 5000), (4, 20000)])
def test_sums_fit_int32(bits, columns):
    w = np.random.default_rng(1).normal(0, 1, (2, columns))
    w[:, :2] = [[-5, 5]]
    made = quantize_weight(w, WeightScheme(bits, "asymmetric"))
    terms = (np.abs(made.codes.astype(np.int64)) << made.zero_shift) + np.abs(made.zero)
    assert 255 * terms.sum(axis=1).max() + BIAS_LIMIT < 1 << 31


@pytest.mark.parametrize(("options", "message", "remedy"), [
    ({"bits": 3}, "weights of 3 bits are not supported.", "Choose --bits 8, 4, 2 or 1."),
    ({"scheme": "ternary"}, "there is no scheme 'ternary'.", "Choose --scheme symmetric or asymmetric."),
    ({"group": 48}, "weights cannot share scales by 48.", "Choose --block tensor, channel, 32, 64, 128, 256."),
    ({"group": "row"}, "weights cannot share scales by 'row'.", "Choose --block tensor, channel, 32, 64, 128, 256."),
])
def test_schemes_that_there_are_not(options, message, remedy):
    with pytest.raises(PhonolithError) as caught:
        WeightScheme(**options)
    assert (caught.value.kind, caught.value.message, caught.value.remedy) == ("option", message, remedy)


def test_blocks():
    assert all(WeightScheme(group=block).block == block for block in BLOCKS) and WeightScheme().block is None
