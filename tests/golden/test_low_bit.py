"""Products with weights of few bits, zero points and blocks, and operands of 4 bits, against loops over integers."""

import itertools

import numpy as np
import pytest

from phonolith.sim.golden import ops
from tests.golden.loops import clip, integers, low_bit_product, requantize

CODES = {8: (-128, 127), 4: (-8, 7), 2: (-2, 1), 1: (-1, 0)}
CASES = [case for case in itertools.product(CODES, (None, 0, 3, 7), (None, 32, 64, 256)) if case[:2] != (1, None)]


def constants_of(rng, channels: int, depth: int, bits: int, zero_shift: int | None, block: int | None) -> dict:
    """Return random constants of a linear, with scales that leave most outputs unsaturated."""
    low, high = CODES[bits]
    shape = (channels, -(-depth // block)) if block else (channels,)
    shift = 9 + bits + (zero_shift or bits) + 8 * (block is None)
    constants = {
        "weight": rng.integers(low, high + 1, (channels, depth)).astype(np.int8),
        "bias": rng.integers(-9000, 9000, channels).astype(np.int32),
        "multiplier": rng.integers(-65536, 65536, shape).astype(np.int32),
        "shift": rng.integers(shift, shift + 4, shape).astype(np.int32),
    }
    zero = {} if zero_shift is None else {"zero": rng.integers(-255, 256, shape).astype(np.int32)}
    return constants | zero


def attributes_of(bits: int, zero_shift: int | None, block: int | None) -> dict:
    given = {"bits": bits, "zero_shift": zero_shift, "block": block}
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize(("bits", "zero_shift", "block"), CASES)
def test_linear(bits, zero_shift, block):
    """Depth 77 is three blocks of 32, the last one shorter, and less than one block of 256."""
    rng = np.random.default_rng(bits)
    for x_dtype, dtype in (("int8", "int16"), ("uint8", "int8"), ("int8", "int4")):
        x, constants = integers(rng, x_dtype, 3, 77), constants_of(rng, 5, 77, bits, zero_shift, block)
        y = ops.linear(x, dtype=dtype, **constants, **attributes_of(bits, zero_shift, block))
        expected = [[clip(low_bit_product(row, constants["weight"], constants, n, zero_shift, block), dtype)
                     for n in range(5)] for row in x]
        assert y.tolist() == expected and y.dtype == (np.int8 if dtype == "int4" else dtype)


@pytest.mark.parametrize(("bits", "zero_shift", "block"), [(4, None, None), (4, 4, 32), (1, 1, None), (2, 7, 64)])
def test_conv2d_blocks_run_over_kernel_and_channels(bits, zero_shift, block):
    """Padding is zeros in x: it adds nothing to the sum of x either."""
    rng = np.random.default_rng(3)
    constants = constants_of(rng, 2, 3 * 2 * 7, bits, zero_shift, block)
    x, kernel, codes = integers(rng, "int8", 5, 4, 7), (3, 2, 7), constants["weight"]
    weight = constants | {"weight": codes.reshape(2, *kernel)}
    y = ops.conv2d(x, dtype="int16", stride=[2, 1], padding=[1, 1], **weight,
                   **attributes_of(bits, zero_shift, block))
    assert y.shape == (3, 5, 2)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    for t, f, n in np.ndindex(y.shape):
        row = padded[2 * t : 2 * t + 3, f : f + 2].ravel()
        assert y[t, f, n] == clip(low_bit_product(row, codes, constants, n, zero_shift, block), "int16")


def test_one_bit_weights_are_plus_and_minus_one_half():
    x = np.array([[3, -5, 7], [1, 1, 1]], np.int8)
    constants = {"weight": np.array([[-1, 0, 0]], np.int8), "zero": np.array([1], np.int32),
                 "bias": np.zeros(1, np.int32), "multiplier": np.ones(1, np.int32), "shift": np.zeros(1, np.int32)}
    y = ops.linear(x, dtype="int8", bits=1, zero_shift=1, **constants)
    assert y.tolist() == [[-3 - 5 + 7], [-1 + 1 + 1]]


def test_residual_and_table_follow_blocks():
    rng = np.random.default_rng(4)
    x, constants = integers(rng, "int8", 6, 70), constants_of(rng, 4, 70, 4, 4, 32)
    attributes, residual = attributes_of(4, 4, 32), integers(rng, "int16", 6, 4)
    table = integers(rng, "uint8", 256)
    plain = ops.linear(x, dtype="int16", **constants, **attributes)
    added = ops.linear(x, residual, dtype="int16", **constants, **attributes)
    assert (added == ops.add(plain, residual, dtype="int16")).all()
    index = ops.linear(x, dtype="int8", **constants, **attributes)
    fused = ops.linear(x, dtype="uint8", table=table, table_dtype="int8", **constants, **attributes)
    assert (fused == table[index.view(np.uint8)]).all() and len(np.unique(fused)) > 5


@pytest.mark.parametrize("bias", [(1 << 31) - 128, -(1 << 31) - 129])
def test_block_sums_that_leave_int32_are_refused(bias):
    """Half a step is added for the rounding."""
    constants = constants_of(np.random.default_rng(0), 1, 1, 4, None, 32)
    constants["bias"] = np.array([bias])
    with pytest.raises(OverflowError, match="does not fit int32"):
        ops.linear(np.zeros((1, 1), np.int8), dtype="int8", bits=4, block=32, **constants)


@pytest.mark.parametrize(("bias", "expected"), [((1 << 31) - 129, 127), (-(1 << 31), -128), (127, 0), (128, 1)])
def test_block_sums_round_to_the_nearest_step(bias, expected):
    constants = constants_of(np.random.default_rng(0), 1, 1, 4, None, 32)
    constants["bias"] = np.array([bias], np.int32)
    y = ops.linear(np.zeros((1, 1), np.int8), dtype="int8", bits=4, block=32, **constants)
    assert y.item() == expected


def test_a_block_beyond_the_depth_is_one_block():
    rng = np.random.default_rng(5)
    x, constants = integers(rng, "int8", 4, 20), constants_of(rng, 3, 20, 4, 2, 32)
    results = [ops.linear(x, dtype="int16", **constants, **attributes_of(4, 2, block)) for block in (32, 256)]
    assert (results[0] == results[1]).all()


def test_operands_of_four_bits():
    rng = np.random.default_rng(6)
    a, b = integers(rng, "int8", 3, 6), integers(rng, "int4", 5, 6)
    y = ops.matmul(a, b, dtype="int8", multiplier=40000, shift=17, transpose_b=True)
    for m, n in np.ndindex(3, 5):
        total = sum(int(p) * int(q) for p, q in zip(a[m], b[n], strict=True))
        assert y[m, n] == clip(requantize(total, 40000, 17), "int8")
    assert ops.slice_columns(b, dtype="int4", start=1, stop=3).tolist() == b[:, 1:3].tolist()
