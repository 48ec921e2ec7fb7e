"""Counts that follow from an utterance's length, and the registers that hold them."""

from copy import deepcopy
from itertools import product as pairs

import numpy as np
import pytest

from phonolith.compiler.assembler import Emitter
from phonolith.compiler.counts import Count, Size, Stride, at_least_one, convolved, halved, part, plus, product, times
from phonolith.compiler.disassembler import trace
from phonolith.compiler.pipeline import END, assemble_counts
from phonolith.compiler.registers import BEHIND, FIRST
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Target

CONFIG = MachineConfig()
LONGEST = 300


def whole(scale: int = 1, *strides: Stride) -> Count:
    frames = Count(Size(LONGEST))
    for stride in strides:
        frames = convolved(frames, stride)
    return times(frames, scale)


def test_a_count_is_its_value_for_the_longest_input():
    count = whole()
    assert (count, count.at(7), part(count, 290, 32), times(count, 3)) == (300, 7, 10, 900)
    assert not isinstance(count + 1, Count) and not isinstance(part(20, 3, 4), Count)


@pytest.mark.parametrize("frames", [0, 1, 15, 16, 17, 31, 299, 300])
def test_parts_and_multiples(frames):
    """Rows 16 .. 32 of T: none, some or all; then 9 columns of each."""
    some = part(whole(), 16, 16)
    assert isinstance(some, Count) and some.at(frames) == min(max(frames - 16, 0), 16)
    assert times(some, 9).at(frames) == 9 * some.at(frames)
    assert part(some, 4, 8).at(frames) == min(max(some.at(frames) - 4, 0), 8)
    assert product(3, some).at(frames) == product(some, 3).at(frames) == 3 * some.at(frames)
    more = plus(some, 5)
    assert more.at(frames) == some.at(frames) + 5 and times(more, 2).at(frames) == 2 * more.at(frames)
    for first, most in ((0, 3), (0, 9), (3, 2), (3, 4), (5, 4), (8, 30)):
        piece = part(more, first, most)
        assert (piece.at(frames) if isinstance(piece, Count) else piece) == min(max(more.at(frames) - first, 0), most)
    assert at_least_one(some).at(frames) == max(some.at(frames), 1) and at_least_one(3) == 3


def test_pairs_begin_with_even_numbers():
    for frames in (0, 1, 2, 15, 16, 17, 26, 299, 300):
        for count in (whole(), part(whole(), 16, 9), part(whole(), 16, 10), plus(part(whole(), 4, 11), 6)):
            pairs_of = halved(count)
            assert isinstance(pairs_of, Count) and pairs_of.at(frames) == -(-count.at(frames) // 2)
            assert part(pairs_of, 3, 4).at(frames) == -(-part(count, 6, 8).at(frames) // 2)
    assert halved(7) == 4
    for count in (part(whole(), 3, 8), plus(whole(), 1), whole(3)):
        with pytest.raises(ValueError, match="pairs must begin"):
            halved(count)


def test_copies_stay_counts():
    count = plus(part(whole(), 3, 20), 2)
    again = deepcopy(count)
    assert [each.at(10) for each in (count, again)] == [9, 9]


def test_a_convolution_that_keeps_the_length_keeps_the_count():
    count = whole()
    assert convolved(count, Stride(5, 1, 4)) is count


STRIDES = [Stride(kernel, step, padding) for kernel, step, padding in pairs((1, 3, 4), (1, 2, 3, 5, 8), (0, 2))]


@pytest.mark.parametrize("strides", [*((each,) for each in STRIDES), (Stride(3, 2, 0), Stride(3, 2, 0)),
                                     (Stride(10, 5, 0), Stride(3, 3, 2), Stride(2, 2, 0))])
@pytest.mark.parametrize("scale", [1, 2, 37, 320])
def test_registers_hold_sizes(strides, scale):
    """What the sequencer computes is what Python does, for every length; less than nothing is nothing."""
    size = whole(scale, *strides)
    counts = [size, part(size, 5, 40), part(size, size - 1, 9), plus(part(size, 3, 9), 4)]
    emitter = Emitter()
    for count in counts:
        emitter.load(target=Target.TABLE, address=0, segment_bytes=count)
    words = program(emitter)
    for frames in (0, 1, 2, 3, 9, 10, 11, 30, 151, 152, 153, 299, 300):
        loads = [each.operands["segment_bytes"] for each in trace(words, (frames,))]
        assert loads == ([] if size.size.at(frames) < scale else [each.at(frames) for each in counts]), frames


def test_longer_inputs_than_the_longest_count_as_the_longest():
    emitter = Emitter()
    emitter.load(target=Target.TABLE, address=0, segment_bytes=whole())
    assert trace(program(emitter), (LONGEST + 1,))[0].operands["segment_bytes"] == LONGEST


def test_more_counts_than_registers():
    """What has made room is computed again."""
    rng = np.random.default_rng(0)
    firsts = [int(first) for first in rng.integers(0, 2 * (BEHIND - FIRST), 200)]
    emitter = Emitter()
    for first in firsts:
        emitter.load(target=Target.TABLE, address=times(part(whole(), first, 5), 3), base=part(whole(), first, 7),
                     segment_bytes=part(whole(), 1, first + 1))
    loads = trace(program(emitter), (20,))
    expected = [(3 * min(max(20 - first, 0), 5), min(max(20 - first, 0), 7), min(19, first + 1)) for first in firsts]
    assert [tuple(each.operands[name] for name in ("address", "base", "segment_bytes")) for each in loads] == expected


def program(emitter: Emitter) -> np.ndarray:
    emitter.label(END)
    emitter.end()
    return assemble_counts(emitter.items, CONFIG)[0]
