"""Counts, lengths, addresses and literals beyond those of random programs, on instruction-set simulator and RTL."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.assembler import Emitter, Reg
from phonolith.hw.isa import Destination, Reduce, Source, Target
from phonolith.sim.ladder import machine
from phonolith.sim.program_check import check
from tests.sim.test_random_programs import CONFIG, case_of

MANY, VERY_MANY = 2150, 40_961
HIGH = 1 << 26


@pytest.fixture(scope="module")
def rtl():
    return machine(CONFIG)


def agree(emit: Emitter, rtl) -> bool:
    return check(case_of(emit), rtl) is None


@pytest.mark.parametrize(("row_tiles", "column_tiles"), [(2, MANY), (MANY, 1), (300, 7)])
def test_many_tiles(rtl, row_tiles, column_tiles):
    emit = Emitter()
    emit.matmul(a_base=3, w_base=5, k=1, rows=row_tiles * CONFIG.rows, columns=column_tiles * CONFIG.columns)
    emit.vector(rows=row_tiles * CONFIG.rows, columns=column_tiles * CONFIG.columns, source=Source.DRAIN,
                destination=Destination.SCRATCHPAD, destination_base=7, reduce=Reduce.SUM, reduce_register=1)
    assert agree(emit, rtl)


def test_longest_product(rtl):
    emit = Emitter()
    emit.matmul(a_base=0, w_base=0, k=CONFIG.activation_depth * CONFIG.word_bytes)
    emit.vector(rows=CONFIG.rows, columns=CONFIG.columns, source=Source.DRAIN, destination=Destination.SCRATCHPAD)
    assert agree(emit, rtl)


@pytest.mark.parametrize("reduce", [Reduce.MAX, Reduce.ARGMAX])
def test_many_rows_and_columns(rtl, reduce):
    """As wide as the scratchpad, and as long: every row overwrites the one before."""
    emit = Emitter()
    emit.vector(rows=3, columns=MANY * CONFIG.columns - 3, source=Source.SCRATCHPAD, source_pitch=1,
                destination=Destination.NONE, reduce=reduce, reduce_register=2)
    emit.vector(rows=MANY * CONFIG.rows - 3, columns=5, source=Source.SCRATCHPAD, source_base=2100,
                destination=Destination.SCRATCHPAD, reduce=reduce, reduce_register=3)
    assert agree(emit, rtl)


@pytest.mark.parametrize("counts", [
    {"outer_count": VERY_MANY, "segment_bytes": 3},
    {"inner_count": VERY_MANY, "segment_bytes": 3},
    {"segment_count": VERY_MANY, "segment_bytes": 1},
    {"outer_count": MANY, "outer_stride": 7, "segment_bytes": 3},
    {"inner_count": MANY, "inner_stride": 5, "segment_bytes": 9},
    {"segment_count": MANY, "segment_stride": 4, "segment_bytes": 5},
    {"segment_bytes": 20_001},
    {"outer_count": 3, "outer_stride": 4099, "inner_count": 5, "inner_stride": -301, "segment_bytes": 1200},
])
def test_long_loads(rtl, counts):
    emit = Emitter()
    emit.load(target=Target.SCRATCHPAD, address=2051, row_words=int(VERY_MANY not in counts.values()), base=1, **counts)
    assert agree(emit, rtl)


@pytest.mark.parametrize("target", [Target.ACTIVATION, Target.WEIGHT])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("row_words", [129, 255, 513, 640, 860])
def test_words_far_apart(rtl, target, transpose, row_words):
    emit = Emitter()
    emit.load(target=target, address=2050, base=17, row_words=row_words, outer_count=15, outer_stride=33,
              segment_bytes=16, transpose=transpose)
    assert agree(emit, rtl)


@pytest.mark.parametrize("transpose", [False, True])
def test_engines_meet_at_the_activation_banks(rtl, transpose):
    """LOAD and VECTOR write the same banks at other addresses, MATMUL reads them, for as long as all work."""
    emit = Emitter()
    emit.load(target=Target.ACTIVATION, address=2051, base=3, row_words=30, outer_count=120, outer_stride=17,
              segment_bytes=16, transpose=transpose)
    emit.vector(rows=60 * CONFIG.rows, columns=CONFIG.columns, source=Source.SCRATCHPAD, source_pitch=1,
                destination=Destination.ACTIVATION, destination_base=600, destination_pitch=1)
    emit.matmul(a_base=800, w_base=0, k=900)
    emit.vector(rows=CONFIG.rows, columns=CONFIG.columns, source=Source.DRAIN, destination=Destination.SCRATCHPAD,
                destination_base=3000, destination_pitch=1)
    assert agree(emit, rtl)


def test_the_array_has_more_to_do_than_its_queue_holds(rtl):
    """A MATMUL waits for a long LOAD; those behind it fill the queue and hold up the sequencer."""
    emit = Emitter()
    emit.load(target=Target.SCRATCHPAD, address=2051, segment_bytes=20_000, signal=("LOAD_ARRAY",))
    emit.matmul(a_base=0, w_base=0, k=1, rows=0, wait=("LOAD_ARRAY",))
    for step in range(60):
        emit.matmul(a_base=step, w_base=3, k=5 + step, rows=0)
    emit.matmul(a_base=8, w_base=9, k=70)
    emit.vector(rows=CONFIG.rows, columns=CONFIG.columns, source=Source.DRAIN, destination=Destination.SCRATCHPAD,
                destination_base=3000, destination_pitch=1)
    assert agree(emit, rtl)


@pytest.mark.parametrize("stalls", [None, *range(8)])
def test_many_short_transfers(rtl, stalls):
    """More than the engines hold at a time, some of them empty, with all channels held up in turn."""
    rng = np.random.default_rng(stalls)
    emit = Emitter()
    for step in range(80):
        emit.load(target=Target(int(rng.integers(0, 5))), address=2048 + 100 * step, base=step, row_words=1,
                  segment_bytes=int(rng.integers(0, 9)), outer_count=int(rng.integers(0, 4)), outer_stride=16)
    for step in range(80):
        emit.store(address=12000 + 100 * step, base=2048 + step, pitch=1, row_bytes=int(rng.integers(0, 9)),
                   outer_count=int(rng.integers(0, 4)), outer_stride=int(rng.integers(8, 30)),
                   fence=bool(rng.integers(0, 8) == 0))
    assert check(case_of(emit), rtl, stalls) is None


@pytest.mark.parametrize("counts", [
    {"outer_count": VERY_MANY, "row_bytes": 3},
    {"inner_count": VERY_MANY, "row_bytes": 3},
    {"outer_count": MANY, "outer_stride": 7, "row_bytes": 3},
    {"inner_count": MANY, "inner_stride": 9, "row_bytes": 11},
    {"row_bytes": 20_001},
    {"outer_count": 3, "outer_stride": 4099, "inner_count": 5, "inner_stride": 1203, "row_bytes": 1200},
])
def test_long_stores(rtl, counts):
    emit = Emitter()
    emit.store(address=2051, base=1, pitch=int(VERY_MANY not in counts.values()), **counts)
    assert agree(emit, rtl)


@pytest.mark.parametrize("latency", [1, 300])
def test_many_transactions_under_way(latency):
    """More than the machine may have outstanding, while the first answers take long."""
    rtl = machine(replace(CONFIG, dram_latency=latency))
    emit = Emitter()
    emit.load(target=Target.SCRATCHPAD, address=2051, row_words=1, inner_count=300, inner_stride=33, segment_bytes=9)
    emit.load(target=Target.ACTIVATION, address=3000, row_words=1, inner_count=300, inner_stride=-7, segment_bytes=20)
    emit.store(address=12001, base=2048, pitch=1, inner_count=300, inner_stride=33, row_bytes=9)
    emit.store(address=12005, base=2348, pitch=2, outer_count=150, outer_stride=64, row_bytes=20, fence=True)
    emit.store(address=18001, base=2900, pitch=1, row_bytes=5000)
    assert agree(emit, rtl)


def test_addresses_use_all_their_bits(rtl):
    """Program, operands and results anywhere in 64 MiB, and just above."""
    rng = np.random.default_rng(1)
    reach, half, top = 1 << 24, HIGH // 2, HIGH + (1 << 15)   # loads read below half and top, stores write above
    emit = Emitter()
    for step in range(30):
        low, high, stride = (HIGH, top - 4096, 900) if step % 3 == 0 else (0, half - reach, reach // 4)
        emit.load(target=Target.SCRATCHPAD, address=int(rng.integers(low, high)), base=10 * step, row_words=step % 2,
                  segment_bytes=int(rng.integers(1, 160)), inner_count=4, inner_stride=int(rng.integers(stride)))
    for step in range(30):
        low, high, stride = (top + 4096, top + 30_000, 900) if step % 3 == 0 else (half + reach, HIGH - 256, reach // 4)
        emit.store(address=int(rng.integers(low, high)), base=3000 + 10 * step, pitch=1,
                   row_bytes=int(rng.integers(1, 160)), inner_count=4, inner_stride=-int(rng.integers(stride)))
    case = case_of(emit)
    image = rng.integers(0, 256, HIGH + (1 << 16), np.uint8)
    for program_address in (image.size, image.size + 0x2AAA8):
        grown = np.zeros(program_address, np.uint8)
        grown[:image.size] = image
        assert check(replace(case, image=grown, program_address=program_address), rtl) is None


@pytest.mark.parametrize("seed", range(6))
def test_the_sequencer_computes_with_whole_words(rtl, seed):
    """Sums, shifts and comparisons of words that differ in a bit; what they come to is where a row is stored."""
    rng = np.random.default_rng(seed)
    emit = Emitter()
    emit.set(7, 2048)
    for step in range(60):
        one = int(rng.integers(0, 1 << 32))
        emit.set(5, one)
        emit.set(6, one ^ int(rng.integers(0, 2)) << int(rng.integers(0, 32)))
        emit.add(8, Reg(5), Reg(6, int(rng.integers(-1 << 26, 1 << 26))))
        emit.shift(9, Reg(8), int(rng.integers(-31, 32)))
        left, right = (Reg(int(each)) for each in rng.choice([5, 6, 8, 9], 2))
        (emit.branch_less if step % 2 else emit.branch_equal)(left, right, f"skip {step}")
        emit.add(7, Reg(7), int(rng.integers(1, 64)))
        emit.label(f"skip {step}")
        if step % 10 == 9:
            emit.shift(9, Reg(9), -20)
            emit.add(9, Reg(9), Reg(7))
            emit.store(address=Reg(9, 2048), base=step, pitch=1, row_bytes=9)
    assert agree(emit, rtl)
