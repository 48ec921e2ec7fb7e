"""Golden operators against loops over Python integers."""

import itertools
import math

import numpy as np
import pytest

from phonolith.compiler.fixed_point import encode_inverse_sqrt, encode_multiplier, encode_reciprocal, exponential_table
from phonolith.sim.golden import ops
from tests.golden.loops import RANGES, clip, integers, requantize


def channel_constants(rng, channels: int, *kernel: int) -> dict[str, np.ndarray]:
    return {
        "weight": integers(rng, "int8", channels, *kernel),
        "bias": rng.integers(-20000, 20000, channels).astype(np.int32),
        "multiplier": rng.integers(-65536, 65536, channels).astype(np.int32),
        "shift": rng.integers(18, 26, channels).astype(np.int32),
    }


def finish(acc: int, constants: dict, channel: int, dtype: str) -> int:
    acc += int(constants["bias"][channel])
    m, s = int(constants["multiplier"][channel]), int(constants["shift"][channel])
    return clip(requantize(acc, m, s), dtype)


@pytest.mark.parametrize(("x_dtype", "dtype"), [*itertools.product(["int8", "uint8"], RANGES)])
def test_linear(x_dtype, dtype):
    rng = np.random.default_rng(1)
    x, constants = integers(rng, x_dtype, 4, 13), channel_constants(rng, 6, 13)
    expected = [
        [finish(sum(int(a) * int(b) for a, b in zip(row, w, strict=True)), constants, n, dtype)
         for n, w in enumerate(constants["weight"])]
        for row in x
    ]  # fmt: skip
    assert ops.linear(x, dtype=dtype, **constants).tolist() == expected


def test_linear_saturates_before_and_after_the_residual():
    constants = {
        "weight": np.array([[1]], np.int8),
        "bias": np.array([40000], np.int32),
        "multiplier": np.array([1], np.int32),
        "shift": np.array([0], np.int32),
    }
    x = np.zeros((2, 1), np.int8)
    residual = np.array([[-10], [10]], np.int16)
    assert ops.linear(x, residual, dtype="int16", **constants).tolist() == [[32757], [32767]]


def test_linear_refuses_a_sum_that_leaves_int32():
    constants = channel_constants(np.random.default_rng(0), 1, 1)
    constants |= {"weight": np.array([[1]], np.int8), "bias": np.array([(1 << 31) - 1], np.int32)}
    with pytest.raises(OverflowError, match="does not fit int32"):
        ops.linear(np.ones((1, 1), np.int8), dtype="int8", **constants)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((3, 3), (2, 2), (0, 0)), ((1, 3), (1, 2), (1, 1)), ((3, 2), (2, 1), (1, 0))]
)
def test_conv2d(kernel, stride, padding):
    rng = np.random.default_rng(2)
    x, constants = integers(rng, "int8", 7, 6, 3), channel_constants(rng, 2, *kernel, 3)
    y = ops.conv2d(x, dtype="int8", stride=list(stride), padding=list(padding), **constants)
    sizes = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip((7, 6), padding, kernel, stride, strict=True)]
    assert y.shape == (*sizes, 2)
    for t, f, n in np.ndindex(y.shape):
        acc = 0
        for i, j, c in np.ndindex(*kernel, 3):
            row, column = t * stride[0] + i - padding[0], f * stride[1] + j - padding[1]
            if 0 <= row < 7 and 0 <= column < 6:
                acc += int(x[row, column, c]) * int(constants["weight"][n, i, j, c])
        assert y[t, f, n] == finish(acc, constants, n, "int8")


@pytest.mark.parametrize("heads", [None, 1, 3])
@pytest.mark.parametrize("a_dtype", ["int8", "uint8"])
def test_matmul_transposed(heads, a_dtype):
    rng, count = np.random.default_rng(3), heads or 1
    a, b = integers(rng, a_dtype, 4, 5 * count), integers(rng, "int8", 6, 5 * count)
    y = ops.matmul(a, b, dtype="int16", multiplier=40000, shift=17, transpose_b=True, heads=heads)
    assert y.shape == ((4, 6) if heads is None else (heads, 4, 6))
    for h, m, n in np.ndindex(count, 4, 6):
        acc = sum(int(a[m, h * 5 + d]) * int(b[n, h * 5 + d]) for d in range(5))
        assert y.reshape(count, 4, 6)[h, m, n] == clip(requantize(acc, 40000, 17), "int16")


@pytest.mark.parametrize("heads", [None, 1, 3])
def test_matmul_plain(heads):
    rng, count = np.random.default_rng(4), heads or 1
    a, b = integers(rng, "int8", count, 4, 6), integers(rng, "int8", 6, 5 * count)
    attributes = {"multiplier": 40000, "shift": 20, "transpose_b": False, "heads": heads}
    y = ops.matmul(a[0] if heads is None else a, b, dtype="int8", **attributes)
    assert y.shape == (4, 5 * count)
    for h, m, d in np.ndindex(count, 4, 5):
        acc = sum(int(a[h, m, k]) * int(b[k, h * 5 + d]) for k in range(6))
        assert y[m, h * 5 + d] == clip(requantize(acc, 40000, 20), "int8")


def test_matmul_normalised_by_row_sums():
    rng = np.random.default_rng(5)
    a, b = integers(rng, "uint8", 2, 3, 7), integers(rng, "int8", 7, 8)
    a[0, 0] = 0  # a row without mass divides by one
    y = ops.matmul(a, b, dtype="int8", numerator=40000, shift=46, transpose_b=False, normalize=True, heads=2)
    for h, m, d in np.ndindex(2, 3, 4):
        acc = sum(int(a[h, m, k]) * int(b[k, h * 4 + d]) for k in range(7))
        total = max(int(a[h, m].sum(dtype=int)), 1)
        e = 32 - total.bit_length()
        assert y[m, h * 4 + d] == clip(requantize(acc, (40000 << 31) // (total << e), 46 - e), "int8")


def test_softmax_exp():
    x = np.array([[100, 100, 40, -32768], [-5, -6, -7, 32767]], np.int16)
    y = ops.softmax_exp(x, dtype="uint8", table=np.arange(255, -1, -1).astype(np.uint8), multiplier=1, shift=1)
    assert y.tolist() == [[255, 255, 225, 0], [0, 0, 0, 255]]


@pytest.mark.parametrize("frames", [256, 499, 1500])
def test_flat_rows_keep_their_mass(frames):
    """Normalised 8-bit probabilities of such rows are all zero; unnormalised exponentials are not."""
    numerator, shift = encode_reciprocal(1.0)
    weights = ops.softmax_exp(
        np.zeros((1, frames), np.int16), dtype="uint8", table=exponential_table(0.024), multiplier=1, shift=0
    )
    for value in (-128, -77, 1, 100, 127):
        v = np.full((frames, 1), value, np.int8)
        y = ops.matmul(weights, v, dtype="int8", numerator=numerator, shift=shift, transpose_b=False, normalize=True)
        assert y.item() == value


def test_attention_is_its_three_parts():
    rng = np.random.default_rng(6)
    q, k, v = (integers(rng, "int8", 5, 12) for _ in range(3))
    scores = {"multiplier": 40000, "shift": 16, "transpose_b": True, "heads": 3}
    exp = {"multiplier": 33000, "shift": 23}
    context = {"numerator": 40000, "shift": 46, "transpose_b": False, "normalize": True, "heads": 3}
    table = exponential_table(0.02)
    fused = ops.attention(q, k, v, dtype="int8", table=table, scores=scores, exp=exp, context=context)
    weights = ops.softmax_exp(ops.matmul(q, k, dtype="int16", **scores), dtype="uint8", table=table, **exp)
    assert (fused == ops.matmul(weights, v, dtype="int8", **context)).all()
    assert len(np.unique(fused)) > 10


def layernorm_attributes(width: int, epsilon: int) -> dict[str, int]:
    mean_multiplier, mean_shift = encode_multiplier(1 / width)
    numerator, shift = encode_inverse_sqrt(math.sqrt(width) * 1024)
    attributes = {"mean_multiplier": mean_multiplier, "mean_shift": mean_shift, "numerator": numerator}
    return attributes | {"shift": shift, "epsilon": epsilon}


def layernorm_constants(width: int, factor: float, beta: int) -> dict[str, np.ndarray]:
    multiplier, shift = encode_multiplier(factor)
    return {
        "gamma": np.full(width, multiplier, np.int32),
        "gamma_shift": np.full(width, shift, np.int32),
        "beta": np.full(width, beta, np.int32),
    }


def layernorm_row(x, gamma, gamma_shift, beta, mean_multiplier, mean_shift, numerator, shift, epsilon):
    mean = requantize(sum(x), mean_multiplier, mean_shift)
    variance = max(sum((a - mean) ** 2 for a in x) + epsilon, 1)
    e = (48 - variance.bit_length()) // 2
    m, s = (numerator << 31) // (math.isqrt(variance << 2 * e) << 8), min(max(shift - e, 0), 47)
    normal = [clip(requantize(a - mean, m, s), "int16") for a in x]
    scaled = zip(normal, gamma, gamma_shift, beta, strict=True)
    return [clip(requantize(t, g, gs) + b, "int8") for t, g, gs, b in scaled]


@pytest.mark.parametrize("spread", [1, 100, 32767])
def test_layernorm(spread):
    rng = np.random.default_rng(7)
    x = rng.integers(-spread, spread + 1, (6, 24)).astype(np.int16)
    constants = {
        "gamma": rng.integers(-65536, 65536, 24).astype(np.int32),
        "gamma_shift": rng.integers(18, 23, 24).astype(np.int32),
        "beta": rng.integers(-30, 30, 24).astype(np.int32),
    }
    attributes = layernorm_attributes(24, 3)
    lists = {role: constant.tolist() for role, constant in constants.items()}
    expected = [layernorm_row(row, **lists, **attributes) for row in x.tolist()]
    assert ops.layernorm(x, dtype="int8", **constants, **attributes).tolist() == expected


def test_layernorm_is_close_to_the_real_one():
    x = np.random.default_rng(8).normal(300, 2000, (20, 96)).astype(np.int16)
    y = ops.layernorm(x, dtype="int8", **layernorm_constants(96, 32 / 1024, 5), **layernorm_attributes(96, 0))
    real = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True) * 32 + 5
    assert np.abs(y - np.clip(real, -128, 127)).max() < 0.6


@pytest.mark.parametrize("value", [-32768, 0, 7, 32767])
@pytest.mark.parametrize("epsilon", [0, 5])
def test_layernorm_of_a_constant_row_is_beta(value, epsilon):
    x = np.full((1, 32), value, np.int16)
    constants, attributes = layernorm_constants(32, 0.03, 9), layernorm_attributes(32, epsilon)
    assert (ops.layernorm(x, dtype="int8", **constants, **attributes) == 9).all()


def test_add_saturates():
    a, b = np.array([32767, -32768, 5], np.int16), np.array([1, -1, -6], np.int16)
    assert ops.add(a, b, dtype="int16").tolist() == [32767, -32768, -1]


def test_rescale_rounds_half_up():
    x = np.array([1, -1, 3, -3, 32767], np.int16)
    assert ops.rescale(x, dtype="int8", multiplier=1, shift=1).tolist() == [1, 0, 2, -1, 127]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_table_is_indexed_by_the_byte(dtype):
    x = np.arange(256).astype(np.uint8).view(dtype)
    table = np.random.default_rng(9).integers(0, 256, 256).astype(np.uint8)
    assert (ops.table(x, dtype="uint8", table=table) == table).all()


def test_argmax_takes_the_smallest_index():
    x = np.array([[3, 7, 7, 1], [-1, -1, -1, -1]], np.int16)
    assert ops.argmax(x, dtype="int16").tolist() == [1, 0]


def test_views():
    x = np.arange(24, dtype=np.int16).reshape(2, 12)
    assert ops.slice_columns(x, dtype="int16", start=3, stop=5).tolist() == [[3, 4], [15, 16]]
    assert ops.reshape(x, dtype="int16", tail=[3, 4])[1, 2].tolist() == [20, 21, 22, 23]
