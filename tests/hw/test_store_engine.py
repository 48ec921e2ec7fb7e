"""STORE against docs/isa.md: random instructions on several machines, exact cycle counts where data stream."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import STORE_CONTROL, pack
from phonolith.hw.store_engine import StoreEngine
from tests.hw.axi_memory import MEMORY_BYTES, AxiMemory, Stalls, Watchdog, feed
from tests.hw.machines import MACHINES, STREAMING

LATENCY = 20
SCRATCH_WORDS = 512


def store(*, fence=0, address=0, base=0, pitch=0, outer=(1, 0), inner=(1, 0), row_bytes=0) -> dict:
    """Operands of one STORE; loops are (count, stride)."""
    operands = {
        "control": pack(STORE_CONTROL, fence=fence), "address": address, "base": base, "pitch": pitch,
        "outer_count": outer[0], "outer_stride": outer[1], "inner_count": inner[0], "inner_stride": inner[1],
        "row_bytes": row_bytes,
    }
    return {name: value % 2**32 for name, value in operands.items()}


def apply_store(config: MachineConfig, o: dict, scratch: np.ndarray, memory: np.ndarray) -> int:
    """Execute a STORE as ``docs/isa.md`` defines it; return how many scratchpad words it reads."""
    words = -(-o["row_bytes"] // config.scratch_word_bytes)
    rows = o["outer_count"] * o["inner_count"]
    for r in range(rows):
        first = o["base"] + r * o["pitch"]
        row = scratch[(first + np.arange(words)) % SCRATCH_WORDS].reshape(-1)[:o["row_bytes"]]
        start = o["address"] + r // o["inner_count"] * o["outer_stride"] + r % o["inner_count"] * o["inner_stride"]
        for i, byte in enumerate(row):
            memory[(start + i) % MEMORY_BYTES] = byte
    return rows * words


class Bench:
    """One StoreEngine in Amaranth's simulator, reused from run to run."""

    def __init__(self, config: MachineConfig):
        self.config = config
        self.engine = StoreEngine(config=config)
        self.simulator = Simulator(self.engine)
        self.used = False
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self.drive)
        for peer in (self.write_memory, self.grant_reads, self.watch):
            self.simulator.add_testbench(peer, background=True)
        shape = (SCRATCH_WORDS, config.scratch_word_bytes)
        self.scratch = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)

    def prepare(self, instructions: list[dict], memory: np.ndarray, stalls: float = 0.0, latency: int = LATENCY,
                error_beats=()) -> None:
        """Set what is to be executed, and clear what was observed."""
        self.instructions = instructions
        self.probability = stalls
        self.memory = AxiMemory(self.config.bus_bytes, memory, latency, self.config.writes_outstanding,
                                Stalls(1, stalls), error_beats)
        self.accepted_cycles: list[int] = []
        self.read_cycles: list[int] = []
        self.reads_at_done: list[int] = []
        self.missing_at_done: list[int] = []     # write bursts without response
        self.errors = 0

    def run(self, *arguments, **options) -> None:
        """Execute instructions on ``memory``; what was observed is left in the attributes below."""
        self.prepare(*arguments, **options)
        if self.used:
            self.simulator.reset()
        self.used = True
        self.simulator.run()

    async def drive(self, ctx) -> None:
        await feed(ctx, self.engine.instruction, self.instructions, self.accepted_cycles)
        idle = False
        while not idle or len(self.reads_at_done) < len(self.instructions):
            _, _, idle = await ctx.tick().sample(self.engine.idle)
        assert self.memory.writes_in_flight == 0

    async def write_memory(self, ctx) -> None:
        await self.memory.serve_writes(ctx, self.engine.axi)

    async def grant_reads(self, ctx) -> None:
        read, ready = self.engine.read, self.engine.read_ready
        stalls = Stalls(2, self.probability)
        ctx.set(ready, stalls.go())
        cycle = 0
        async for _, _, enable, granted, address, done in ctx.tick().sample(
                read.enable, ready, read.address, self.engine.status.done):
            if enable and granted:
                self.read_cycles.append(cycle)
                word = self.scratch[address % SCRATCH_WORDS]
                ctx.set(read.data, int.from_bytes(word.tobytes(), "little"))
            if done:
                self.reads_at_done.append(len(self.read_cycles))
                self.missing_at_done.append(self.memory.writes_in_flight)
            cycle += 1
            ctx.set(ready, stalls.go())

    async def watch(self, ctx) -> None:
        engine, status, watchdog = self.engine, self.engine.status, Watchdog()
        async for _, _, busy, idle, port, dram, drain, error in ctx.tick().sample(
                status.busy, engine.idle, status.stalled_port, status.stalled_dram, status.stalled_drain,
                engine.error):
            assert port + dram + drain <= busy
            assert not (busy and idle)
            self.errors += error
            watchdog.check(len(self.memory.data_cycles), self.memory.writes_in_flight, len(self.reads_at_done))


@pytest.fixture(scope="module")
def benches() -> dict[str, Bench]:
    """Benches by machine name, built when first used."""
    return {}


def bench_of(benches: dict[str, Bench], name: str) -> Bench:
    if name not in benches:
        benches[name] = Bench(MACHINES[name])
    return benches[name]


def blank() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, MEMORY_BYTES, dtype=np.uint8)


@st.composite
def instructions(draw, config: MachineConfig) -> dict:
    """Any STORE of moderate size; rows may overlap."""
    strides = st.integers(-300, 300)
    return store(
        fence=draw(st.booleans()), address=draw(st.integers(0, 2**32 - 1)), base=draw(st.integers(0, 200)),
        pitch=draw(st.integers(0, 20)), outer=(draw(st.integers(0, 3)), draw(strides)),
        inner=(draw(st.integers(0, 9)), draw(strides)), row_bytes=draw(st.integers(0, 9 * config.bus_bytes)))


@pytest.mark.parametrize("name", MACHINES)
def test_random_instructions(benches, name):
    """DRAM ends as docs/isa.md says, to the last byte; words are read once; done comes in time."""
    config = MACHINES[name]
    bench = bench_of(benches, name)

    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(st.lists(instructions(config), min_size=1, max_size=7), st.sampled_from([0.0, 0.3, 0.7]),
           st.sampled_from([1, 20]))
    def check(program, stalls, latency):
        memory, expected = blank(), blank()
        bench.run(program, memory, stalls, latency)
        reads = np.cumsum([apply_store(config, o, bench.scratch, expected) for o in program])
        assert np.array_equal(memory, expected)
        assert bench.reads_at_done == reads.tolist()
        assert not any(missing for o, missing in zip(program, bench.missing_at_done, strict=True) if o["control"])

    check()


def assert_streaming(cycles: list[int], count: int) -> None:
    """``count`` transfers without a pause."""
    assert len(cycles) == count
    assert cycles[-1] - cycles[0] + 1 == count


@pytest.mark.parametrize("name", STREAMING)
def test_rows_stream(benches, name):
    """One beat per cycle over bursts, rows and instructions, aligned or not."""
    bench = bench_of(benches, name)
    beat = bench.config.bus_bytes
    aligned = store(address=4096 - 3 * beat, pitch=5, inner=(5, 8 * beat), row_bytes=8 * beat)
    ragged = store(address=5, pitch=3, outer=(2, -999), inner=(4, 4 * beat), row_bytes=3 * beat)
    long = store(address=2**32 - 10 * beat, row_bytes=100 * beat)
    bench.run([aligned, ragged, long, aligned], blank())
    assert_streaming(bench.memory.data_cycles, 40 + 32 + 100 + 40)


def test_single_beat_rows_stream(benches):
    """Rows within a beat: one per cycle."""
    bench = bench_of(benches, "16x16/128")
    bench.run([store(address=3, pitch=1, inner=(60, 48), row_bytes=11)] * 2, blank())
    assert_streaming(bench.memory.data_cycles, 120)
    assert_streaming(bench.memory.address_cycles, 120)


def test_latency(benches):
    """Two cycles to the address, three to the first read, five to the first beat."""
    bench = bench_of(benches, "16x16/128")
    bench.run([store(address=7, row_bytes=64)], blank())
    start = bench.accepted_cycles[0]
    assert bench.memory.address_cycles[0] == start + 2
    assert bench.read_cycles[0] == start + 3
    assert bench.memory.data_cycles[0] == start + 5


def test_fence_waits_for_earlier_stores(benches):
    """A fence without data of its own completes when the responses of earlier stores are there."""
    bench = bench_of(benches, "16x16/128")
    bench.run([store(address=7, row_bytes=64), store(fence=1), store(row_bytes=1)], blank())
    assert bench.missing_at_done[0] > 0
    assert bench.missing_at_done[1] == 0


def test_bus_error(benches):
    """A response other than OKAY is reported once."""
    bench = bench_of(benches, "8x8/128")
    bench.run([store(row_bytes=64)] * 2, blank())
    assert bench.errors == 0
    bench.run([store(row_bytes=64)] * 2, blank(), error_beats={8})
    assert bench.errors == 1
