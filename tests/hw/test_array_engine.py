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
from phonolith.hw.isa import MATMUL_CONTROL, pack

DEPTH = 24


def machine(rows: int, columns: int) -> MachineConfig:
    """Return a small machine with DEPTH words per operand bank and a 64-bit bus (WB = C, or 2C for fewer than 8)."""
    word = columns * -(-8 // columns)
    return MachineConfig(rows=rows, columns=columns, bus_bits=64, activation_sram_bytes=rows * word * DEPTH,
                         weight_sram_bytes=columns * word * DEPTH)


@dataclass(frozen=True)
class Matmul:
    """One instruction with literal operands; ``missing``: rows and columns that its last tiles lack, if they can."""

    k: int
    row_tiles: int = 1
    column_tiles: int = 1
    a_base: int = 0
    a_tile_words: int = 0
    w_base: int = 0
    w_tile_words: int = 0
    a_unsigned: int = 0
    band: int = 0
    missing: int = 0

    def operands(self, config: MachineConfig) -> dict[str, int]:
        """Return the resolved operands."""
        values = {name: getattr(self, name) for name in ("a_base", "a_tile_words", "w_base", "w_tile_words", "k")}
        values |= {name: max(0, tiles * size - self.missing % size) for name, tiles, size in (
            ("rows", self.row_tiles, config.rows), ("columns", self.column_tiles, config.columns))}
        return {"control": pack(MATMUL_CONTROL, a_unsigned=self.a_unsigned, band=self.band), **values}

    def tiles(self, activations: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
        """Return the int32 tiles for bank contents of shape (banks, depth, WB), int8."""
        return [self.tile(activations, weights, i, j) for i in range(self.row_tiles) for j in range(self.column_tiles)]

    def tile(self, activations: np.ndarray, weights: np.ndarray, i: int, j: int) -> np.ndarray:
        """Return tile (i, j)."""
        a = activations.reshape(len(activations), -1)[:, self.slice(activations, self.a_base + i * self.a_tile_words)]
        tile = i * self.column_tiles + j if self.band else j
        w = weights.reshape(len(weights), -1)[:, self.slice(weights, self.w_base + tile * self.w_tile_words)]
        w = banded(w[0], len(weights)) if self.band else w
        a = a.view(np.uint8) if self.a_unsigned else a
        return a.astype(np.int32) @ w.astype(np.int32).T

    def slice(self, banks: np.ndarray, address: int) -> slice:
        """Return the bytes of one tile in a flattened bank."""
        return slice(address * banks.shape[2], address * banks.shape[2] + self.k)


def banded(kernel: np.ndarray, columns: int) -> np.ndarray:
    """Return the operand of a band by its definition: element (c, k) is byte k - c of the kernel, or 0."""
    length = len(kernel) - columns + 1
    return np.array([[kernel[k - c] if 0 <= k - c < length else 0 for k in range(len(kernel))] for c in range(columns)])


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
    """Takes tiles from the drain, each ``delay()`` cycles after it is valid, a row per cycle."""

    def __init__(self, drain, record: Record, rows: int, delay):
        self.drain, self.record, self.rows, self.delay = drain, record, rows, delay
        self.row = rows
        self.wait = delay()

    def cycle(self, ctx, cycle: int) -> None:
        """Act in one cycle, before the clock edge."""
        start = self.row == self.rows and ctx.get(self.drain.valid) and self.wait <= 0
        if self.row == self.rows and ctx.get(self.drain.valid):
            self.wait -= 1
        if start:
            self.row, self.wait = 0, self.delay()
            self.record.started.append(cycle)
            self.record.tiles.append(np.zeros((self.rows, len(self.drain.data)), np.int32))
        ctx.set(self.drain.start, int(start))
        if self.row < self.rows:
            ctx.set(self.drain.row, self.row)
            self.record.tiles[-1][self.row] = ctx.get(self.drain.data)
            self.row += 1


def run(bench: Bench, instructions: list[Matmul], tiles: int, *, delay=lambda: 0, gap=lambda: 0, limit=20000,
        each_cycle=lambda ctx, cycle: None) -> Record:
    """Execute instructions until all tiles are read and all are done; AssertionError after ``limit`` cycles."""
    record = Record()
    engine = bench.engine
    reader = Reader(engine.drain, record, bench.config.rows, delay)

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
            if len(record.done) == len(instructions) and len(record.tiles) == tiles and reader.row == reader.rows:
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


def random_matmul(random: np.random.Generator, word_bytes: int) -> Matmul:
    """Return an instruction that stays within the banks."""
    k = int(random.choice([1, 2, word_bytes - 1, word_bytes, word_bytes + 1, 2 * word_bytes, 3 * word_bytes - 2]))
    words = -(-k // word_bytes)
    row_tiles, column_tiles = (int(n) for n in random.integers(0, 4, 2))
    band = int(random.integers(2)) if max(row_tiles * column_tiles, 1) * words <= DEPTH else 0
    w_words = max(row_tiles * column_tiles * band, 4) * words
    return Matmul(
        k=k, row_tiles=row_tiles, column_tiles=column_tiles, a_unsigned=int(random.integers(2)), band=band,
        missing=int(random.integers(12)),
        a_tile_words=words + int(random.integers(2)), w_tile_words=words,
        a_base=int(random.integers(DEPTH - 4 * (words + 1) + 1)), w_base=int(random.integers(DEPTH - w_words + 1)))


def expect(instructions: list[Matmul], record: Record, activations: np.ndarray, weights: np.ndarray) -> None:
    """Check every tile, in order."""
    expected = [tile for i in instructions for tile in i.tiles(activations, weights)]
    assert len(record.tiles) == len(expected)
    for index, (actual, tile) in enumerate(zip(record.tiles, expected, strict=True)):
        np.testing.assert_array_equal(actual, tile, err_msg=f"tile {index}")


def count(instructions: list[Matmul]) -> int:
    """Return how many tiles the instructions compute."""
    return sum(i.row_tiles * i.column_tiles for i in instructions)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (8, 8), (5, 7)])
@pytest.mark.parametrize("slow", [0, 40])
def test_random_instructions_equal_numpy(rows, columns, slow):
    random = np.random.default_rng(rows * 100 + columns + slow)
    bench, activations, weights = bench_and_memory(rows, columns, seed=1)
    instructions = [random_matmul(random, bench.config.word_bytes) for _ in range(24)]
    record = run(bench, instructions, count(instructions), delay=lambda: int(random.integers(slow + 1)),
                 gap=lambda: int(random.integers(3)))
    expect(instructions, record, activations, weights)
    assert len(record.done) == len(instructions)


@pytest.mark.parametrize("a_unsigned", [0, 1])
def test_extreme_operands(a_unsigned):
    bench, activations, weights = bench_and_memory(4, 4, seed=2)
    activations[:2], activations[2:] = -128, -1
    weights[:3], weights[3:] = -128, 127
    instruction = Matmul(k=DEPTH * bench.config.word_bytes, a_unsigned=a_unsigned)
    expect([instruction], run(bench, [instruction], 1), activations, weights)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (8, 8), (5, 7), (12, 4)])
@pytest.mark.parametrize("k", [1, 5, 13, 40])
def test_latency_and_initiation_interval(rows, columns, k):
    bench, activations, weights = bench_and_memory(rows, columns, seed=3)
    words = -(-k // bench.config.word_bytes)
    instructions = [Matmul(k=k, row_tiles=2, column_tiles=2, a_tile_words=words, w_tile_words=words)] * 3
    record = run(bench, instructions, 12)
    expect(instructions, record, activations, weights)
    accepted = record.accepted[0]
    assert record.reads.index([1] + [0] * (rows - 1) + [1] + [0] * (columns - 1)) == accepted + 1
    assert record.valid[0] == accepted + k + columns + 3
    assert record.started[0] == record.valid[0]
    assert set(np.diff(record.started)) == {max(k, rows, columns + 3)}
    assert bool(record.stalled) == (k < max(rows, columns + 3))


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

    record = run(bench, [instruction], 4, each_cycle=advance)
    expect([instruction], record, activations, weights)
    assert read == set(range(3, 3 + 2 * words)) and waited > 100


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (5, 7), (8, 4)])
def test_done_comes_with_the_last_read_of_the_last_bank(rows, columns):
    bench, _, _ = bench_and_memory(rows, columns, seed=4)
    k = 2 * bench.config.word_bytes + 3
    record = run(bench, [Matmul(k=k, column_tiles=2)], 2)
    last_read = max(cycle for cycle, enables in enumerate(record.reads) if any(enables))
    assert record.done == [last_read]
    assert record.done == [record.accepted[0] + 1 + k + 2 * bench.config.word_bytes + max(rows, columns) - 1]


def test_instructions_without_tiles_complete_in_order():
    bench, activations, weights = bench_and_memory(4, 4, seed=5)
    instructions = [Matmul(k=9), Matmul(k=9, row_tiles=0), Matmul(k=3, column_tiles=0), Matmul(k=2)]
    record = run(bench, instructions, 2)
    expect(instructions, record, activations, weights)
    assert len(record.done) == 4
    assert np.diff(record.accepted).tolist() == [9, 1, 1]


def test_stalls_while_a_tile_waits_and_never_overwrites_it():
    bench, activations, weights = bench_and_memory(4, 4, seed=6)
    instruction = Matmul(k=20, column_tiles=3, w_tile_words=3)
    record = run(bench, [instruction], 3, delay=lambda: 100)
    expect([instruction], record, activations, weights)
    assert record.started[1] - record.started[0] == 4 + 3 + 100
    assert len(record.stalled) == 2 * (4 + 3 + 100 - 20)
    assert set(record.stalled) <= set(record.busy)


def test_idle_engine_is_not_busy():
    bench, _, _ = bench_and_memory(4, 4, seed=7)
    record = run(bench, [Matmul(k=3)], 1, delay=lambda: 50)
    assert record.busy == list(range(record.accepted[0] + 1, record.accepted[0] + 1 + 3 + 4 + 4))
