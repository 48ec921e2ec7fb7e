"""The operators of Conformers against loops over Python integers."""

import itertools

import numpy as np
import pytest

from phonolith.compiler.fixed_point import exponential_table, far_offset, wide_exponential_tables
from phonolith.sim.golden import ops
from tests.golden.loops import RANGES, clip, integers, requantize

HEADS, WIDTH = 2, 5


def channels(rng, count: int, *kernel: int) -> dict[str, np.ndarray]:
    return {
        "weight": integers(rng, "int8", count, *kernel),
        "bias": rng.integers(-20000, 20000, count).astype(np.int32),
        "multiplier": rng.integers(-65536, 65536, count).astype(np.int32),
        "shift": rng.integers(20, 26, count).astype(np.int32),
    }


@pytest.mark.parametrize(("kernel", "padding"), [(1, (0, 0)), (3, (1, 1)), (4, (1, 2)), (33, (32, 0)), (8, (0, 9))])
@pytest.mark.parametrize(("x_dtype", "dtype"), [*itertools.product(["int8", "uint8"], RANGES)])
def test_depthwise_conv1d(kernel, padding, x_dtype, dtype):
    rng = np.random.default_rng(kernel)
    x, constants = integers(rng, x_dtype, 11, 3), channels(rng, 3, kernel)
    y = ops.depthwise_conv1d(x, dtype=dtype, padding=list(padding), **constants)
    assert y.shape == (11 + sum(padding) - kernel + 1, 3) and y.dtype == dtype
    for t, c in np.ndindex(y.shape):
        acc = int(constants["bias"][c])
        for m in range(kernel):
            row = t + m - padding[0]
            acc += int(constants["weight"][c, m]) * int(x[row, c]) if 0 <= row < 11 else 0
        m, s = int(constants["multiplier"][c]), int(constants["shift"][c])
        assert y[t, c] == clip(requantize(acc, m, s), dtype)


def test_products_with_a_table_are_products_and_a_table():
    rng = np.random.default_rng(0)
    x, table = integers(rng, "int8", 7, 6), integers(rng, "uint8", 256)
    image, stride = x.reshape(7, 3, 2), {"stride": [1, 2], "padding": [1, 0]}
    cases = ((ops.linear, x, channels(rng, 4, 6), {}), (ops.conv2d, image, channels(rng, 4, 3, 2, 2), stride),
             (ops.depthwise_conv1d, x, channels(rng, 6, 3), {"padding": [2, 0]}))
    for product, operand, constants, attributes in cases:
        index = product(operand, dtype="int8", **constants, **attributes)
        fused = product(operand, dtype="uint8", table=table, table_dtype="int8", **constants, **attributes)
        assert fused.dtype == np.uint8 and (fused == table[index.view(np.uint8)]).all()


@pytest.mark.parametrize(("dtype", "shift"), [("int8", 13), ("uint8", 15), ("int16", 7), ("int16", 0)])
@pytest.mark.parametrize("b_dtype", [*RANGES])
def test_multiply(dtype, shift, b_dtype):
    rng = np.random.default_rng(1)
    a, b = integers(rng, "int16", 5, 9), integers(rng, b_dtype, 5, 9)
    a[0, :2], b[0, :2] = (-32768, 32767), RANGES[b_dtype]
    y = ops.multiply(a, b, dtype=dtype, shift=shift)
    for index in np.ndindex(y.shape):
        assert y[index] == clip(requantize(int(a[index]) * int(b[index]), 1, shift), dtype)


def test_add_rows():
    x, rows = np.array([[32767, 5], [-32768, -6]], np.int16), np.array([[1, 2], [-1, 7], [9, 9]], np.int16)
    assert ops.add_rows(x, dtype="int16", rows=rows).tolist() == [[32767, 7], [-32768, 1]]
    with pytest.raises(ValueError, match="3 rows, but constants for 2"):
        ops.add_rows(rows, dtype="int16", rows=rows[:2])


def attention_case(frames: int, longest: int, wide: bool):
    """Return operands, attributes and constants of an attention with positions."""
    rng = np.random.default_rng(frames)
    q, k, v = (integers(rng, "int8", frames, HEADS * WIDTH) for _ in range(3))
    exp = {"multiplier": 40000, "shift": 24}
    context = {"numerator": 40000, "shift": 45, "transpose_b": False, "normalize": True, "heads": HEADS}
    if wide:
        exp["offset"] = far_offset(exp["multiplier"], exp["shift"])
        context["wide"] = True
    attributes = {
        "scores": {"multiplier": 50000, "shift": 17, "transpose_b": True, "heads": HEADS},
        "exp": exp,
        "context": context,
        "table": wide_exponential_tables(0.03) if wide else exponential_table(0.03),
    }
    positions = {
        "positions": integers(rng, "int8", 2 * longest - 1, HEADS * WIDTH),
        "position_bias": rng.integers(-9000, 9000, (HEADS, 2 * longest - 1)).astype(np.int32),
        "position_scores": {"multiplier": 45000, "shift": 16},
    }
    return (q, k, v), attributes, positions


def score(q, k, h: int, i: int, j: int, scores: dict, positions=None, position_bias=None, position_scores=None) -> int:
    """Return the score of query i and key j of head h."""
    columns = range(h * WIDTH, (h + 1) * WIDTH)
    content = sum(int(q[i, c]) * int(k[j, c]) for c in columns)
    total = clip(requantize(content, scores["multiplier"], scores["shift"]), "int16")
    if positions is None:
        return total
    n = (len(positions) - 1) // 2 + j - i
    term = sum(int(q[i, c]) * int(positions[n, c]) for c in columns) + int(position_bias[h, n])
    return clip(total + clip(requantize(term, **_pair(position_scores)), "int16"), "int16")


def _pair(factor: dict) -> dict:
    return {"m": factor["multiplier"], "s": factor["shift"]}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("chunk", "left"), [(0, 0), (3, 1), (4, 0), (1, 2), (20, 1)])
@pytest.mark.parametrize("with_positions", [False, True])
def test_attention_of_one_query_at_a_time(wide, chunk, left, with_positions):
    """Each row is the softmax and context, as plain operators, of its own scores over the keys that it sees."""
    frames = 10
    (q, k, v), attributes, positions = attention_case(frames, frames + 2, wide)
    positions = positions if with_positions else {}
    chunks = {"chunk": chunk, "left": left} if chunk else {}
    y = ops.attention(q, k, v, dtype="int8", **attributes, **positions, **chunks)
    for i in range(frames):
        c = i // chunk if chunk else 0
        seen = range(max(c - left, 0) * chunk, min((c + 1) * chunk, frames)) if chunk else range(frames)
        scores = np.array([[[score(q, k, h, i, j, attributes["scores"], **positions) for j in seen]]
                           for h in range(HEADS)], np.int16)
        weights = ops.softmax_exp(scores, dtype="uint8", table=attributes["table"], **attributes["exp"])
        row = ops.matmul(weights, v[list(seen)], dtype="int8", **attributes["context"])
        assert (y[i] == row[0]).all(), i


def test_chunked_attention_reaches_no_offset_beyond_its_chunks():
    (q, k, v), attributes, positions = attention_case(40, 6, False)
    assert len(ops.attention(q, k, v, dtype="int8", **attributes, **positions, chunk=3, left=1)) == 40
    with pytest.raises(ValueError, match="positions reach offsets below 6, not 39"):
        ops.attention(q, k, v, dtype="int8", **attributes, **positions)


def test_positions_shift_with_the_query():
    """With all queries and keys alike, what a row adds for a key depends on their distance alone."""
    _, _, positions = attention_case(6, 6, False)
    q = np.tile(np.arange(HEADS * WIDTH, dtype=np.int8), (6, 1))
    factor = positions.pop("position_scores")
    terms = ops.shifted(ops.position_terms(q, HEADS, **positions, **factor), 6, 0)
    for i, j in itertools.product(range(5), range(5)):
        assert (terms[:, i, j] == terms[:, i + 1, j + 1]).all()
    assert len(np.unique(terms)) > 10
