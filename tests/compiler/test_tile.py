"""Tiling, allocation and packing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonolith.compiler import pack
from phonolith.compiler.allocate import Ring
from phonolith.compiler.tile import ProductSize, balanced, pieces, plan_product, row_blocks
from phonolith.compiler.views import View, common_rows, flat_tails
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
def test_pieces_cover_a_range_in_order(count, most, small):
    parts = list(pieces(range(7, 7 + count), most, small))
    assert [tile for part in parts for tile in part] == list(range(7, 7 + count))
    assert max(map(len, parts)) <= most
    assert not small or len(parts[0]) == 1


@given(st.integers(1, 300), SMALL)
def test_balanced_ranges_differ_by_one(count, most):
    sizes = [len(part) for part in balanced(count, most)]
    assert sum(sizes) == count and max(sizes) <= most and max(sizes) - min(sizes) <= 1


def size(m: int, k: int, n: int, **changes) -> ProductSize:
    """Return the size of a plain product."""
    config = MachineConfig()
    fields = dict(outer=1, inner=m, columns=n, k=k, tile_columns=config.columns, byte_results=True,
                  has_parameters=True, most_rows=m)
    return ProductSize(**fields | changes)


def test_the_operand_that_fits_stays():
    """128x512x512: the weights are too large, so all rows stay and weights stream once, the first tile alone."""
    plan = plan_product(size(128, 512, 512), MachineConfig(), first_small=True)
    assert plan.rows_stay and len(plan.row_groups) == 1
    assert len(plan.column_groups[0]) == 1
    plan = plan_product(size(1000, 96, 384), MachineConfig(), first_small=True)
    assert not plan.rows_stay and len(plan.column_groups) == 1


@given(st.integers(1, 300), st.integers(1, 1000), st.integers(1, 900), st.booleans())
def test_every_tile_is_computed_once(m, k, n, first_small):
    config = MachineConfig(rows=8, columns=8, activation_sram_bytes=1 << 14, weight_sram_bytes=1 << 14,
                           scratchpad_bytes=4096, parameter_bytes=512)
    plan = plan_product(size(m, k, n, tile_columns=8), config, first_small)
    seen = np.zeros((m, -(-n // 8)), int)
    for step in plan.steps():
        seen[step.block.inner:step.block.inner + step.block.inner_count, step.tiles.start:step.tiles.stop] += 1
        assert step.block in step.row_group and step.tiles.stop <= step.column_group.stop
    assert (seen == 1).all()


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
