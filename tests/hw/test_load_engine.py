"""LOAD against docs/isa.md: random instructions on several machines, exact cycle counts where data stream."""

import math

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import LOAD_CONTROL, Target, pack, unpack
from phonolith.hw.load_engine import LoadEngine
from tests.hw.axi_memory import MEMORY_BYTES, AxiMemory, Stable, Stalls, Watchdog, feed
from tests.hw.machines import MACHINES, STREAMING

LATENCY = 20


def load(target: Target, *, bank_per_word=0, transpose=0, one_bank=0, window=0, address=0, base=0, row_words=0,
         outer=(1, 0), inner=(1, 0), segments=(1, 0), segment_bytes=0) -> dict:
    """Operands of one LOAD; loops are (count, stride)."""
    operands = {
        "control": pack(LOAD_CONTROL, target=int(target), bank_per_word=bank_per_word, transpose=transpose,
                        one_bank=one_bank, window=window),
        "address": address, "base": base, "row_words": row_words, "outer_count": outer[0],
        "outer_stride": outer[1], "inner_count": inner[0], "inner_stride": inner[1],
        "segment_count": segments[0], "segment_stride": segments[1], "segment_bytes": segment_bytes,
    }
    return {name: value % 2**32 for name, value in operands.items()}


def gather(o: dict, memory: np.ndarray) -> list[np.ndarray]:
    """Rows of a LOAD as ``docs/isa.md`` defines them."""
    rows = []
    if not o["segment_count"] * o["segment_bytes"]:
        return rows
    for r in range(o["outer_count"] * o["inner_count"]):
        start = o["address"] + r // o["inner_count"] * o["outer_stride"] + r % o["inner_count"] * o["inner_stride"]
        offsets = [start + s * o["segment_stride"] + np.arange(o["segment_bytes"]) for s in range(o["segment_count"])]
        rows.append(memory[np.concatenate(offsets) % MEMORY_BYTES])
    return rows


def units_of(row: np.ndarray, word: int) -> np.ndarray:
    """Cut a row into units of ``word`` bytes, the last one filled with zeros."""
    count = math.ceil(len(row) / word)
    return np.pad(row, (0, count * word - len(row))).reshape(count, word)


def windows(config: MachineConfig, rows: list[np.ndarray], base: int, row_words: int, control: dict) -> dict:
    """What a LOAD of windows writes: those of each row, or of each column of all rows, in the order of writing."""
    word, length, writes = config.word_bytes, control["window"], {}
    columns = [units_of(column, word) for column in (np.array(rows).T if control["transpose"] else rows)]
    units = [(n, b) for n, column in enumerate(columns) for b in range(len(column))]
    for n, b in sorted(units, key=lambda unit: unit[::-1]) if control["transpose"] else units:
        for s in range(min(length, b + 1)):
            group, bank = divmod(b - s, config.rows)
            writes[Target.ACTIVATION, bank, base + n * row_words + group * length + s, 0] = columns[n][b]
    return writes


def places(config: MachineConfig, write) -> list[tuple]:
    """Where one write goes: (target, bank, address, part), once per bank.

    Operand banks ignore ``part``, the others ``bank``, and the table ``address``.
    """
    target = Target(write.target)
    bank = write.bank if target in (Target.ACTIVATION, Target.WEIGHT) else 0
    address = 0 if target == Target.TABLE else write.address
    return [(target, (bank - s) % config.rows if s else bank, address + s - (s > bank) * (write.reach + 1), write.part)
            for s in range(write.reach + 1)]


def expected_writes(config: MachineConfig, o: dict, memory: np.ndarray) -> dict:
    """What one LOAD writes: (target, bank, address, part) -> WB bytes, in the manner of the table of docs/isa.md."""
    word = config.word_bytes
    control = unpack(LOAD_CONTROL, o["control"])
    target, bank_per_word, transpose = Target(control["target"]), control["bank_per_word"], control["transpose"]
    rows, base, row_words = gather(o, memory), o["base"], o["row_words"]
    writes = {}
    if target in (Target.ACTIVATION, Target.WEIGHT):
        banks = 1 if control["one_bank"] else config.rows if target == Target.ACTIVATION else config.columns
        if control["window"]:
            writes = windows(config, rows, base, row_words, control)
        elif transpose:
            for block in range(math.ceil(len(rows) / word)):
                for n, column in enumerate(np.array(rows[block * word:(block + 1) * word]).T):
                    key = (target, n % banks, base + n // banks * row_words + block, 0)
                    writes[key], = units_of(column, word)
        elif bank_per_word:
            units = [unit for row in rows for unit in units_of(row, word)]
            for i, unit in enumerate(units):
                writes[target, i % banks, base + i // banks, 0] = unit
        else:
            for r, row in enumerate(rows):
                for w, unit in enumerate(units_of(row, word)):
                    writes[target, r % banks, base + r // banks * row_words + w, 0] = unit
    elif target == Target.TABLE:
        for row in rows:
            for w, unit in enumerate(units_of(row, word)):
                if w * word < 256:
                    writes[target, 0, 0, w * word] = unit
    else:
        per_word = (config.scratch_word_bytes if target == Target.SCRATCHPAD else config.parameter_word_bytes) // word
        for r, row in enumerate(rows):
            for w, unit in enumerate(units_of(row, word)):
                writes[target, 0, base + r * row_words + w // per_word, w % per_word] = unit
    return {key: bytes(unit) for key, unit in writes.items()}


class Bench:
    """One LoadEngine in Amaranth's simulator, reused from run to run."""

    def __init__(self, config: MachineConfig):
        self.config = config
        self.engine = LoadEngine(config=config)
        self.simulator = Simulator(self.engine)
        self.used = False
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self.drive)
        self.simulator.add_testbench(self.read_memory, background=True)
        self.simulator.add_testbench(self.take_writes, background=True)
        self.simulator.add_testbench(self.watch, background=True)
        self.simulator.add_testbench(self.follow, background=True)

    def prepare(self, instructions: list[dict], memory: np.ndarray, stalls: float = 0.0, latency: int = LATENCY,
                error_beats=()) -> None:
        """Set what is to be executed, and clear what was observed."""
        self.instructions = instructions
        self.probability = stalls
        self.memory = AxiMemory(self.config.bus_bytes, memory, latency, self.config.reads_outstanding,
                                Stalls(1, stalls), error_beats)
        self.writes: list[dict] = [{}]        # one per instruction
        self.write_cycles: list[int] = []
        self.done_cycles: list[int] = []
        self.accepted_cycles: list[int] = []
        self.errors = 0
        self.early: list[tuple[int, int]] = []   # mask, instructions done before
        self.frontiers: set[int] = set()
        self.status_counts = dict.fromkeys(("busy", "port", "dram"), 0)

    def run(self, *arguments, **options) -> None:
        """Execute instructions; the results are left in the attributes below."""
        self.prepare(*arguments, **options)
        if self.used:
            self.simulator.reset()
        self.used = True
        self.simulator.run()

    async def drive(self, ctx) -> None:
        await feed(ctx, self.engine.instruction, self.instructions, self.accepted_cycles)
        while len(self.done_cycles) < len(self.instructions):
            await ctx.tick()

    async def read_memory(self, ctx) -> None:
        await self.memory.serve_reads(ctx, self.engine.axi)

    async def take_writes(self, ctx) -> None:
        write, done = self.engine.write, self.engine.status.done
        stalls, stable = Stalls(2, self.probability), Stable("write")
        ctx.set(write.ready, stalls.go())
        cycle = 0
        async for _, _, valid, ready, payload, is_done in ctx.tick().sample(
                write.valid, write.ready, write.payload, done):
            stable.check(valid, ready, payload.as_value().value if hasattr(payload, "as_value") else payload)
            if valid and ready:
                self.record(payload)
                self.write_cycles.append(cycle)
            if is_done:
                self.done_cycles.append(cycle)
                self.writes.append({})
            cycle += 1
            ctx.set(write.ready, stalls.go())

    def record(self, payload) -> None:
        """Note a write."""
        data = int(payload.data).to_bytes(self.config.word_bytes, "little")
        self.writes[-1].update(dict.fromkeys(places(self.config, payload), data))

    async def follow(self, ctx) -> None:
        """Check that what lies before the frontier is written; note early signals and how much was done by then."""
        engine, chain = self.engine, self.engine.chain
        async for _, _, early, mask, activation, weight, frontier, end, is_done in ctx.tick().sample(
                engine.early, engine.early_mask, chain.activation, chain.weight, chain.frontier, chain.end,
                engine.status.done):
            if early and mask:
                self.early.append((mask, len(self.writes) - 1 - is_done))
            assert not (activation and weight)
            if activation or weight:
                written = {key[1:3] for key in self.writes[-1 - is_done]}
                banks = self.config.rows if activation else self.config.columns
                first = self.instructions[len(self.writes) - 1 - is_done]["base"]
                missing = {(b, w) for b in range(banks) for w in range(first, frontier)} - written
                # what is accepted in this very cycle may be noted already
                assert not missing and frontier <= end
                self.frontiers.add(frontier)

    async def watch(self, ctx) -> None:
        status, watchdog = self.engine.status, Watchdog()
        async for _, _, busy, port, dram, drain, error in ctx.tick().sample(
                status.busy, status.stalled_port, status.stalled_dram, status.stalled_drain, self.engine.error):
            assert port + dram + drain <= busy
            self.errors += error
            watchdog.check(len(self.memory.data_cycles), len(self.write_cycles), len(self.done_cycles))
            for name, value in (("busy", busy), ("port", port), ("dram", dram)):
                self.status_counts[name] += value


@pytest.fixture(scope="module")
def benches() -> dict[str, Bench]:
    """Benches by machine name, built when first used."""
    return {}


def bench_of(benches: dict[str, Bench], name: str) -> Bench:
    if name not in benches:
        benches[name] = Bench(MACHINES[name])
    return benches[name]


@pytest.fixture(scope="module")
def dram() -> np.ndarray:
    """Random memory without zeros, so that filling shows."""
    return np.random.default_rng(3).integers(1, 256, MEMORY_BYTES, dtype=np.uint8)


def strides():
    return st.integers(-300, 300)


@st.composite
def instructions(draw, config: MachineConfig) -> dict:
    """Any legal LOAD of moderate size."""
    target = draw(st.sampled_from(list(Target)))
    operand = target in (Target.ACTIVATION, Target.WEIGHT)
    transpose = operand and draw(st.booleans())
    small = st.integers(0, 3)
    longest = config.dma_bytes if transpose else 5 * config.bus_bytes
    if target == Target.TABLE:
        return load(target, address=draw(st.integers(0, 2**32 - 1)),
                    segments=(draw(st.integers(1, 2)), draw(strides())), segment_bytes=draw(st.integers(100, 300)))
    window = draw(st.integers(0, min(config.rows, 7))) if target == Target.ACTIVATION and draw(st.booleans()) else 0
    return load(
        target, bank_per_word=operand and not transpose and not window and draw(st.booleans()), transpose=transpose,
        one_bank=operand and not window and draw(st.integers(0, 3)) == 0, window=window,
        address=draw(st.integers(0, 2**32 - 1)), base=draw(st.integers(0, 100)), row_words=draw(st.integers(0, 40)),
        outer=(draw(small), draw(strides())), inner=(draw(st.integers(0, 9)), draw(strides())),
        segments=(1 if transpose else draw(small), draw(strides())), segment_bytes=draw(st.integers(0, longest)))


@pytest.mark.parametrize("name", MACHINES)
def test_random_instructions(benches, dram, name):
    """Every instruction writes exactly what docs/isa.md says, and is done with its last write."""
    config = MACHINES[name]
    bench = bench_of(benches, name)

    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(st.lists(instructions(config), min_size=1, max_size=7), st.sampled_from([0.0, 0.3, 0.7]),
           st.sampled_from([1, 20]))
    def check(program, stalls, latency):
        bench.run(program, dram, stalls, latency)
        assert bench.writes[-1] == {}
        for operands, written in zip(program, bench.writes[:-1], strict=True):
            assert written == expected_writes(config, operands, dram)

    check()


def assert_streaming(cycles: list[int], count: int) -> None:
    """``count`` transfers without a pause."""
    assert len(cycles) == count
    assert cycles[-1] - cycles[0] + 1 == count


@pytest.mark.parametrize("name", STREAMING)
def test_aligned_rows_stream(benches, dram, name):
    """Aligned contiguous data: one beat per cycle over segments, bursts, rows and instructions."""
    config = MACHINES[name]
    bench = bench_of(benches, name)
    row = config.bus_bytes * config.word_bytes // math.gcd(config.bus_bytes, config.word_bytes)
    rows = load(Target.ACTIVATION, address=4096 - row, row_words=8, inner=(6, 4 * row), segment_bytes=4 * row)
    tiles = load(Target.WEIGHT, bank_per_word=1, address=2**15 - 5 * row, segment_bytes=40 * row)
    bench.run([rows, tiles, rows], dram)
    assert_streaming(bench.memory.data_cycles, (24 + 40 + 24) * row // config.bus_bytes)
    assert bench.status_counts["port"] == 0


@pytest.mark.parametrize("name", ["16x16/128", "12x20/256"])
def test_single_beat_segments_stream(benches, dram, name):
    """Segments within a beat, scattered: one per cycle, as rows of their own or as parts of rows."""
    bench = bench_of(benches, name)
    beat = bench.config.bus_bytes
    rows = load(Target.ACTIVATION, address=3, row_words=1, outer=(5, -777 * beat), inner=(10, 5 * beat),
                segment_bytes=beat - 3)
    parts = load(Target.SCRATCHPAD, address=1, row_words=8, inner=(6, -beat), segments=(9, 80 * beat),
                 segment_bytes=beat // 3)
    bench.run([rows, parts], dram)
    assert_streaming(bench.memory.data_cycles, 50 + 54)
    assert_streaming(bench.memory.address_cycles, 50 + 54)


def test_latency(benches, dram):
    """Two cycles to the first address, two from a beat to its write; unaligned rows flush in one more cycle."""
    bench = bench_of(benches, "16x16/128")
    bench.run([load(Target.WEIGHT, address=32, segment_bytes=32)], dram)
    assert bench.memory.address_cycles[0] == bench.accepted_cycles[0] + 2
    assert bench.memory.data_cycles[0] == bench.memory.address_cycles[0] + LATENCY
    assert bench.write_cycles == [cycle + 2 for cycle in bench.memory.data_cycles]
    bench.run([load(Target.WEIGHT, address=33, segment_bytes=32)], dram)
    last_beat = bench.memory.data_cycles[-1]
    assert bench.write_cycles == [last_beat + 1, last_beat + 2]


def test_windows_in_two_groups(benches, dram):
    """More words than banks, by columns and by rows; as fast as without windows."""
    bench = bench_of(benches, "8x8/128")
    cycles = []
    for window in (0, 1, 3, 7):
        turned = load(Target.ACTIVATION, transpose=1, window=window, base=3, row_words=19, inner=(16 * 16 + 5, 16),
                      segment_bytes=5)
        plain = load(Target.ACTIVATION, window=window, base=3, row_words=19, inner=(3, 300), segment_bytes=16 * 18 - 1)
        bench.run([turned, plain], dram)
        cycles.append(bench.done_cycles)
        for operands, written in zip([turned, plain], bench.writes[:-1], strict=True):
            assert written == expected_writes(bench.config, operands, dram)
    assert cycles[0] == cycles[1] == cycles[2] == cycles[3]


def test_transpose_rate(benches, dram):
    """A block of WB rows and n columns: WB cycles in, n out."""
    bench = bench_of(benches, "16x16/128")
    bench.run([load(Target.WEIGHT, transpose=1, row_words=3, inner=(48, 16), segment_bytes=16)], dram)
    assert bench.write_cycles[-1] - bench.memory.data_cycles[0] == 1 + 3 * 32


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("transpose", [0, 1])
def test_empty_instruction_waits_for_columns(benches, dram, count, transpose):
    """An instruction without data behind a transposing one is done behind it."""
    bench = bench_of(benches, "16x16/128")
    turn = load(Target.WEIGHT, transpose=1, inner=(count, 16), segment_bytes=4)
    empty = load(Target.WEIGHT, transpose=transpose)
    bench.run([empty, turn, empty, empty, turn], dram)
    assert [len(writes) for writes in bench.writes] == [0, 4 * count, 0, 0, 4 * count, 0]


def test_small_instructions_overlap(benches, dram):
    """One-beat instructions do not wait for one another's latency."""
    bench = bench_of(benches, "16x16/128")
    bench.run([load(Target.PARAMETER, address=16 * i, segment_bytes=16) for i in range(12)], dram)
    assert bench.done_cycles[-1] - bench.accepted_cycles[0] < 3 * (LATENCY + 10)


def early_program(config: MachineConfig) -> list[dict]:
    """LOADs that signal early, each with one behind it that does not."""
    program = []
    for index, (target, banks) in enumerate([(Target.WEIGHT, config.columns), (Target.ACTIVATION, config.rows)] * 2):
        words = 3 + index
        one = load(target, bank_per_word=1, base=5 * index, row_words=words, address=16 * index + index % 2,
                   segment_bytes=words * banks * config.word_bytes)
        one["control"] |= (1 << index | 1 << 11) << LOAD_CONTROL["early"][0]
        program += [one, load(Target.SCRATCHPAD, segment_bytes=40)]
    return program


def check_early(bench: Bench) -> None:
    """Signals come when all before is done; the frontier stops at every word."""
    assert bench.early == [(1 << index | 1 << 11, 2 * index) for index in range(4)]
    assert bench.frontiers >= {5 * index + word for index in range(4) for word in range(3 + index)}


@pytest.mark.parametrize("name", ["8x8/128", "12x20/256"])
@pytest.mark.parametrize("stalls", [0.0, 0.5])
def test_early_signals(benches, dram, name, stalls):
    """They come when all before is done, and the frontier never passes a word that is not written in all banks."""
    bench = bench_of(benches, name)
    bench.run(early_program(bench.config), dram, stalls)
    check_early(bench)


def test_bus_error(benches, dram):
    """A response other than OKAY is reported once, and the data still arrive."""
    bench = bench_of(benches, "8x8/128")
    program = [load(Target.SCRATCHPAD, segment_bytes=64)]
    bench.run(program, dram)
    assert bench.errors == 0
    bench.run(program, dram, error_beats={2})
    assert bench.errors == 1
    assert bench.writes[0] == expected_writes(bench.config, program[0], dram)
