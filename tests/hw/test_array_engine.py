"""MATMUL engine in Amaranth's simulator: products equal to numpy, latencies, launch rule, order of completion."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator

from phonolith.hw.array_engine import ArrayEngine
from phonolith.hw.config import MachineConfig
from tests.hw.matmul_model import DEPTH, NOTICE, Fickle, Matmul, Pace, count, random_matmul


def machine(rows: int, columns: int) -> MachineConfig:
    """Return a small machine with DEPTH words per operand bank and a 64-bit bus (WB = C, or 2C for fewer than 8)."""
    word = columns * -(-8 // columns)
    return MachineConfig(rows=rows, columns=columns, bus_bits=64, activation_sram_bytes=rows * word * DEPTH,
                         weight_sram_bytes=columns * word * DEPTH)


@dataclass
class Record:
    """What happened: tiles read, and the cycles of events."""

    tiles: list[np.ndarray] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    valid: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    stalled: list[int] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)
    reads: list[list[int]] = field(default_factory=list)


class Bench(wiring.Component):
    """The engine with preloaded operand banks."""

    def __init__(self, config: MachineConfig, activations: np.ndarray, weights: np.ndarray):
        super().__init__({})
        self.config = config
        self.banks = (activations, weights)
        self.engine = ArrayEngine(config=config, twin=True)

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = self.engine
        for ports, banks in zip((self.engine.activation_read, self.engine.weight_read), self.banks, strict=True):
            for port, bank in zip(ports, banks, strict=True):
                words = [int.from_bytes(word.tobytes(), "little") for word in bank]
                m.submodules += (memory := Memory(shape=8 * self.config.word_bytes, depth=len(words), init=words))
                reader = memory.read_port()
                m.d.comb += [reader.en.eq(port.enable), reader.addr.eq(port.address), port.data.eq(reader.data)]
        return m


class Reader:
    """Takes tiles from the drain at some pace, a row per cycle."""

    def __init__(self, drain, record: Record, pace: Pace):
        self.drain, self.record, self.pace = drain, record, pace
        self.row = pace.rows

    def cycle(self, ctx, cycle: int) -> None:
        """Act in one cycle, before the clock edge."""
        start = self.pace.start(cycle, bool(ctx.get(self.drain.valid)))
        if start:
            self.row = 0
            self.record.started.append(cycle)
            self.record.tiles.append(np.zeros((self.pace.rows, len(self.drain.data) + 1), np.int32))
        ctx.set(self.drain.start, int(start))
        ctx.set(self.drain.soon, int(self.pace.soon(cycle)))
        if self.row < self.pace.rows:
            ctx.set(self.drain.row, self.row)
            self.record.tiles[-1][self.row] = [*ctx.get(self.drain.data), ctx.get(self.drain.row_sum)]
            self.row += 1


def run(bench: Bench, instructions: list[Matmul], *, pace: Pace | None = None, gap=lambda: 0, limit=20000,
        each_cycle=lambda ctx, cycle: None) -> Record:
    """Execute instructions until all tiles are read and all are done; AssertionError after ``limit`` cycles."""
    record = Record()
    engine, tiles = bench.engine, count(instructions)
    reader = Reader(engine.drain, record, pace or Pace(bench.config.rows))

    async def testbench(ctx):
        queue, pause, was_valid = list(instructions), gap(), False
        for cycle in range(limit):
            offered = bool(queue) and pause <= 0
            pause -= 1
            ctx.set(engine.instruction.valid, int(offered))
            ctx.set(engine.instruction.payload, queue[0].operands(engine.config) if offered else {})
            reader.cycle(ctx, cycle)
            each_cycle(ctx, cycle)
            if offered and ctx.get(engine.instruction.ready):
                record.accepted.append(cycle)
                queue.pop(0)
                pause = gap()
            valid = ctx.get(engine.drain.valid)
            note(ctx, engine, record, cycle, bool(valid and not was_valid))
            was_valid = valid and not ctx.get(engine.drain.start)
            if len(record.done) == len(instructions) and len(record.tiles) == tiles and reader.row == bench.config.rows:
                return
            await ctx.tick()
        raise AssertionError(f"{len(record.tiles)} of {tiles} tiles after {limit} cycles")

    simulator = Simulator(bench)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return record


def note(ctx, engine: ArrayEngine, record: Record, cycle: int, became_valid: bool) -> None:
    """Append the cycle to each event that happens in it."""
    events = {"done": engine.status.done, "stalled": engine.status.stalled_drain, "busy": engine.status.busy}
    for name, signal in events.items():
        if ctx.get(signal):
            getattr(record, name).append(cycle)
    if became_valid:
        record.valid.append(cycle)
    record.reads.append([ctx.get(port.enable) for port in (*engine.activation_read, *engine.weight_read)])


def bench_and_memory(rows: int, columns: int, seed: int) -> tuple[Bench, np.ndarray, np.ndarray]:
    """Return a bench whose banks hold random bytes, and the bytes."""
    config = machine(rows, columns)
    random = np.random.default_rng(seed)
    activations = random.integers(-128, 128, (rows, DEPTH, config.word_bytes)).astype(np.int8)
    weights = random.integers(-128, 128, (columns, DEPTH, config.word_bytes)).astype(np.int8)
    return Bench(config, activations, weights), activations, weights


def expect(instructions: list[Matmul], record: Record, activations: np.ndarray, weights: np.ndarray) -> None:
    """Check every tile, in order."""
    expected = [tile for i in instructions for tile in i.sums(activations, weights)]
    assert len(record.tiles) == len(expected)
    for index, (actual, tile) in enumerate(zip(record.tiles, expected, strict=True)):
        np.testing.assert_array_equal(actual, tile, err_msg=f"tile {index}")


@pytest.mark.parametrize(("rows", "columns", "instructions"), [(4, 4, 16), (8, 8, 3), (5, 7, 6)])
@pytest.mark.parametrize("notice", [None, 0, NOTICE])
def test_random_instructions_equal_numpy(rows, columns, instructions, notice):
    random = np.random.default_rng(rows * 100 + columns + (notice or 0))
    bench, activations, weights = bench_and_memory(rows, columns, seed=1)
    instructions = [random_matmul(random, bench.config.word_bytes, most_tiles=2) for _ in range(instructions)]
    pace = Pace(rows, lambda: int(random.choice([0, 0, 1, 2, 5, 40])), notice)
    record = run(bench, instructions, pace=pace, gap=lambda: int(random.integers(3)))
    expect(instructions, record, activations, weights)
    assert len(record.done) == len(instructions)


@pytest.mark.parametrize("a_unsigned", [0, 1])
def test_extreme_operands(a_unsigned):
    """Both ends of the ranges, all bits of a weight set, only its sign."""
    bench, activations, weights = bench_and_memory(4, 4, seed=2)
    activations[:2], activations[2:] = -128, -1
    weights[:] = np.array([-128, 127, -1, 0x55])[:, None, None]
    instructions = [Matmul(k=DEPTH * bench.config.word_bytes, a_unsigned=a_unsigned, log2_lanes=width)
                    for width in range(4)]
    expect(instructions, run(bench, instructions), activations, weights)


@pytest.mark.parametrize("log2_lanes", range(4))
def test_activations_beyond_k_do_not_count(log2_lanes):
    """Every k within two words, also in the middle of a step; all activations have the sign bit set."""
    bench, activations, weights = bench_and_memory(4, 4, seed=8)
    activations |= -128
    instructions = [Matmul(k=k, a_base=k % 5, w_base=k % 3, a_unsigned=k % 2, log2_lanes=log2_lanes)
                    for k in range(1, 2 * bench.config.word_bytes + 2)]
    expect(instructions, run(bench, instructions), activations, weights)


@pytest.mark.parametrize(("block", "k"), [(1, 32), (1, 33), (1, 95), (2, 64), (2, 150), (3, 257), (4, 255), (4, 320)])
def test_blocks_are_sums_of_their_own(block, k):
    """In order of k, the last one shorter, and the next tile's from its own k = 0 on."""
    bench, activations, weights = bench_and_memory(4, 4, seed=9)
    words = -(-k // bench.config.word_bytes)
    instructions = [Matmul(k=k, block=block, log2_lanes=log2_lanes, column_tiles=2, w_tile_words=words >> log2_lanes)
                    for log2_lanes in ((0, 3) if k < 100 else (2, 3))]
    record = run(bench, instructions)
    expect(instructions, record, activations, weights)


# Machine, k, log2_lanes, block; the reader's notice.
SHAPES = [(4, 4, 1, 0, 0), (4, 4, 5, 0, 0), (5, 7, 13, 0, 0), (12, 4, 5, 0, 0), (12, 4, 13, 0, 0), (4, 4, 40, 0, 0),
          (4, 4, 13, 3, 0), (4, 4, 40, 2, 0), (8, 8, 64, 3, 0), (5, 7, 32, 1, 0), (4, 4, 96, 3, 1), (4, 4, 128, 2, 1)]


@pytest.mark.parametrize(("rows", "columns", "k", "log2_lanes", "block", "notice"), [
    *((*shape, NOTICE) for shape in SHAPES), *((*shape, None) for shape in SHAPES[:4])])
def test_latency_and_initiation_interval(rows, columns, k, log2_lanes, block, notice):
    """A reader that does not say when it starts costs the three cycles that it could have said it ahead."""
    bench, activations, weights = bench_and_memory(rows, columns, seed=3)
    words = -(-k // bench.config.word_bytes)
    matmul = Matmul(k=k, row_tiles=2, column_tiles=2, a_tile_words=words, w_tile_words=words >> log2_lanes,
                    log2_lanes=log2_lanes, block=block)
    instructions, steps = [matmul] * (3 if k < 32 else 1), matmul.steps[0]
    assert set(matmul.steps) == {steps}
    record = run(bench, instructions, pace=Pace(rows, notice=notice))
    expect(instructions, record, activations, weights)
    accepted = record.accepted[0]
    assert record.reads.index([1] + [0] * (rows - 1) + [1] + [0] * (columns - 1)) == accepted + 1
    assert record.valid[0] == accepted + steps + columns + 3
    assert record.started[0] == record.valid[0]
    interval = max(steps, rows, columns + (3 if notice is None else 0))
    assert set(np.diff(record.started)) == {interval}
    assert bool(record.stalled) == (steps < interval)


@pytest.mark.parametrize("followed", ["activation", "weight"])
def test_the_array_follows_a_load(followed):
    """No word between frontier and end is read; words outside are; the wait counts as one for DRAM."""
    bench, activations, weights = bench_and_memory(4, 5, seed=5)
    engine, words = bench.engine, 6
    instruction = Matmul(k=words * bench.config.word_bytes, a_base=3, w_base=3, row_tiles=2, column_tiles=2,
                         a_tile_words=words, w_tile_words=words)
    frontier, end = 3, 3 + words
    ports = engine.activation_read if followed == "activation" else engine.weight_read
    read, waited = set(), 0

    def advance(ctx, cycle):
        nonlocal frontier, waited
        frontier += cycle > 60 and cycle % 23 == 0
        ctx.set(getattr(engine.chain, followed), int(frontier < end))
        ctx.set(engine.chain.frontier, frontier)
        ctx.set(engine.chain.end, end)
        address = ctx.get(ports[0].address)
        if ctx.get(ports[0].enable):
            assert not frontier <= address < end
            read.add(address)
        waited += ctx.get(engine.status.stalled_dram)
        assert not (ctx.get(engine.status.stalled_dram) and ctx.get(engine.status.stalled_drain))

    record = run(bench, [instruction], each_cycle=advance)
    expect([instruction], record, activations, weights)
    assert read == set(range(3, 3 + 2 * words)) and waited > 100


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (5, 7), (8, 4)])
def test_done_comes_with_the_last_read_of_the_last_bank(rows, columns):
    bench, _, _ = bench_and_memory(rows, columns, seed=4)
    k = 2 * bench.config.word_bytes + 3
    record = run(bench, [Matmul(k=k, column_tiles=2)])
    last_read = max(cycle for cycle, enables in enumerate(record.reads) if any(enables))
    assert record.done == [last_read]
    assert record.done == [record.accepted[0] + 1 + k + 2 * bench.config.word_bytes + max(rows, columns) - 1]


def test_instructions_without_tiles_complete_in_order():
    bench, activations, weights = bench_and_memory(4, 4, seed=5)
    instructions = [Matmul(k=9), Matmul(k=9, row_tiles=0), Matmul(k=3, column_tiles=0), Matmul(k=2)]
    record = run(bench, instructions)
    expect(instructions, record, activations, weights)
    assert len(record.done) == 4
    assert np.diff(record.accepted).tolist() == [9, 1, 1]


@pytest.mark.parametrize("notice", [None, 0, 1, 2, NOTICE])
def test_stalls_while_a_tile_waits_and_never_overwrites_it(notice):
    """The last step of a tile comes as long ahead of the reader's start as the reader says it, or with the start."""
    bench, activations, weights = bench_and_memory(4, 4, seed=6)
    instruction = Matmul(k=20, column_tiles=4, w_tile_words=3)
    record = run(bench, [instruction], pace=Pace(4, lambda: 100, notice))
    expect([instruction], record, activations, weights)
    assert np.diff(record.started).tolist() == [4 + 100] * 3
    launched = [start - (notice or 0) for start in record.started[:3]]
    assert [valid - 4 - 3 for valid in record.valid[1:]] == launched
    assert len(record.stalled) == launched[-1] - record.accepted[0] - 4 * 20
    assert set(record.stalled) <= set(record.busy)


@pytest.mark.parametrize("seed", range(3))
def test_no_reader_that_keeps_its_word_loses_a_tile(seed):
    """Whatever a reader says: it is bound only if a tile is valid by then."""
    bench, activations, weights = bench_and_memory(5, 4, seed=6)
    random = np.random.default_rng(seed)
    instructions = [Matmul(k=int(k), column_tiles=3, w_tile_words=2) for k in random.integers(1, 9, 5)]
    record = run(bench, instructions, pace=Fickle(5, random, (0.1, 0.3, 0.7)[seed]))
    expect(instructions, record, activations, weights)


def test_idle_engine_is_not_busy():
    bench, _, _ = bench_and_memory(4, 4, seed=7)
    record = run(bench, [Matmul(k=3)], pace=Pace(4, lambda: 50))
    assert record.busy == list(range(record.accepted[0] + 1, record.accepted[0] + 1 + 3 + 4 + 4))
