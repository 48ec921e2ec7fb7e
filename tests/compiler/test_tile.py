"""Tiling, allocation and packing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonolith.compiler import pack
from phonolith.compiler.allocate import Ring
from phonolith.compiler.plan import plan_product
from phonolith.compiler.tile import Drop, Load, ProductSize, Step, growing, row_blocks
from phonolith.compiler.views import Block, Unfolded, View, common_rows, flat_tails
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError

SMALL = st.integers(1, 40)


@given(SMALL, SMALL, st.integers(1, 100), st.integers(1, 100), st.integers(4, 16))
def test_row_blocks_cover_every_row_once(outer, inner, target, most, rows):
    seen = np.zeros((outer, inner), int)
    for block in row_blocks(outer, inner, target, most, rows):
        assert 0 < block.rows <= most
        seen[block.outer:block.outer + block.outer_count, block.inner:block.inner + block.inner_count] += 1
    assert (seen == 1).all()


def test_row_blocks_fill_the_array():
    """19 rows per step on 16 array rows: five steps are 95 of 96 rows."""
    assert row_blocks(99, 19, 16, 192, 16)[0].outer_count == 5


@given(st.integers(1, 300), SMALL, st.booleans())
def test_growing_pieces_cover_a_range_in_order(count, most, small):
    parts = list(growing(count, most, small))
    assert [tile for part in parts for tile in part] == list(range(count))
    assert max(map(len, parts)) <= most
    assert not small or len(parts[0]) == 1


def size(m: int, k: int, n: int, **changes) -> ProductSize:
    """Return the size of a plain product with constant weights."""
    config = MachineConfig()
    fields = dict(outer=1, inner=m, columns=n, k=k, tile_columns=config.columns, row_beats=-(-k // 16), segments=1,
                  byte_results=True, has_parameters=True, has_residual=False, most_rows=m, rows_ready=True,
                  follows=True, sliceable=k % 16 == 0)
    return ProductSize(**fields | changes)


def test_the_operand_that_fits_stays():
    """128x512x512: the weights are too large, so all rows stay and weights stream once, the first tile alone."""
    plan = plan_product(size(128, 512, 512), MachineConfig())
    assert plan.rows_together and not plan.columns_together
    assert len(plan.column_pieces()) == sum(isinstance(a, Load) and isinstance(a.piece, range) for a in plan.actions)
    assert len(plan.column_pieces()[0]) == 1
    assert plan_product(size(1000, 96, 384), MachineConfig()).columns_together


def test_rows_that_leave_the_array_empty_come_first():
    """50x192x50: two rows beyond three whole tiles cost a twelfth of a tile's beats; what follows is sliced."""
    first, *_ = plan_product(size(50, 192, 50), MachineConfig()).actions
    assert isinstance(first, Load) and isinstance(first.piece, Block) and first.piece.rows == 2


def test_slices_are_not_chosen_where_latency_bounds_them():
    assert plan_product(size(50, 192, 50), MachineConfig()).sliced
    assert plan_product(size(50, 192, 50), MachineConfig(dram_latency=900)).sliced is None


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 1000), st.integers(1, 900), st.booleans(), st.booleans())
def test_every_tile_is_computed_once_from_what_is_on_chip(m, k, n, ready, residual):
    config = MachineConfig(rows=8, columns=8, activation_sram_bytes=1 << 14, weight_sram_bytes=1 << 14,
                           scratchpad_bytes=4096, parameter_bytes=512)
    plan = plan_product(size(m, k, n, tile_columns=8, rows_ready=ready, has_residual=residual), config)
    seen, here = np.zeros((m, -(-n // 8)), int), set()
    for action in plan.actions:
        if isinstance(action, Load):
            assert action.piece not in here
            here.add(action.piece)
        elif isinstance(action, Drop):
            here.remove(action.piece)
        else:
            assert {action.block, action.tiles} <= here
            rows = slice(action.block.inner, action.block.inner + action.block.inner_count)
            seen[rows, action.tiles.start:action.tiles.stop] += 1
    assert (seen == 1).all()


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 600), st.integers(1, 300))
def test_what_is_on_chip_fits(m, k, n):
    config = MachineConfig(rows=8, columns=8, activation_sram_bytes=1 << 13, weight_sram_bytes=1 << 13,
                           scratchpad_bytes=4096, parameter_bytes=512)
    plan = plan_product(size(m, k, n, tile_columns=8), config)
    words, used, most = -(-k // config.word_bytes), {True: 0, False: 0}, {True: 0, False: 0}
    for action in plan.actions:
        if isinstance(action, Step):
            continue
        rows = isinstance(action.piece, Block)
        tiles = -(-action.piece.rows // 8) if isinstance(action.piece, Block) else len(action.piece)
        used[rows] += tiles * words * (1 if isinstance(action, Load) else -1)
        most[rows] = max(most[rows], used[rows])
    assert most[True] <= config.activation_depth and most[False] <= config.weight_depth


def test_ring_goes_round():
    ring = Ring("weight", 10, 20)
    first, second = ring.take(4, "a"), ring.take(4, "a")
    ring.release(first)
    third = ring.take(4, "a")
    assert (first.low, second.low, third.low) == (10, 14, 10)
    ring.release(second)
    assert ring.free == 6
    assert ring.take(5, "a").low == 14


def test_full_ring():
    ring = Ring("weight", 10, 20)
    ring.take(8, "a")
    with pytest.raises(PhonolithError) as error:
        ring.take(3, "node 'y' (linear)")
    assert error.value.message == ("node 'y' (linear) needs 3 words of the weight memory at once; "
                                   "10 exist and 2 are free.")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60))
def test_ring_never_hands_out_live_words(actions):
    ring, held = Ring("weight", 0, 24), []
    for take, words in actions:
        if take and ring.free >= words:
            region = ring.take(words, "a")
            assert region.low >= 0 and region.high <= 24
            assert all(region.high <= other.low or other.high <= region.low for other in held)
            held.append(region)
        elif held:
            ring.release(held.pop(words % len(held)))


def test_weights_are_slice_major():
    config = MachineConfig(rows=4, columns=4, bus_bits=64)
    weight = np.arange(5 * 10, dtype=np.int8).reshape(5, 10)
    packed = pack.weights(weight, config)
    assert packed.shape == (2, 2, 4, 8)
    np.testing.assert_array_equal(packed[0, 0, 3], weight[3, :8])
    np.testing.assert_array_equal(packed[0, 1, 3], [*weight[3, 8:], 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(packed[1, 0, 0], weight[4, :8])
    assert not packed[1, :, 1:].any()


def test_parameters():
    words = pack.parameters(np.array([-2]), np.array([-65536]), np.array([47])).view("<u4")
    assert words.tolist() == [[0xFFFFFFFE, 47 << 17 | 1 << 16]]


def test_views_read_what_they_wrote():
    image = np.zeros(200, np.uint8)
    view = View(3, (4, 5), (20, 2), "int16")
    tensor = np.arange(20, dtype=np.int16).reshape(4, 5) - 9
    view.write(image, tensor)
    np.testing.assert_array_equal(view.read(image), tensor)
    np.testing.assert_array_equal(view.slice(1, 3).read(image), tensor[:, 1:3])
    assert view.reshape((4, 5, 1)).read(image).shape == (4, 5, 1)
    assert View(0, (2, 3, 4), (100, 10, 1), "int8").reshape((2, 12)) is None


def test_rows_of_padded_tensors_need_two_loops():
    padded = View(0, (4, 3, 2), (16, 2, 1), "int8")
    packed = View(0, (4, 3, 2), (6, 2, 1), "int8")
    ((rows, others),) = common_rows(padded, packed)
    assert (rows.outer_count, rows.outer_stride, rows.inner_count, rows.inner_stride) == (4, 16, 3, 2)
    assert (others.outer_stride, others.inner_stride) == (6, 2)
    ((rows,),) = common_rows(packed)
    assert (rows.outer_count, rows.inner_count, rows.inner_stride) == (1, 12, 2)
    assert flat_tails(padded)[0].shape == (4, 6)


def test_unfolded_copy_holds_windows():
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (11, 6)).astype(np.int8)
    for step, before, taps in ((1, 0, 3), (2, 0, 3), (2, 1, 3), (1, 2, 4)):
        rows = (11 + 2 * before - taps) // step + 1
        copy = Unfolded(address=5, rows=rows, columns=6, pitch=32, taps=taps, step=step, before=before)
        image = np.zeros(5 + 32 * rows, np.uint8)
        copy.write(image, x)
        padded = np.pad(x, ((before, before + step), (0, 0)))
        for t in range(rows):
            for f in range(6):
                start = 5 + 32 * t + f * taps
                window = padded[step * t:step * t + taps, f]
                assert np.array_equal(image[start:start + taps].view(np.int8), window)
