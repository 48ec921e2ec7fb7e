"""cocotb tests of LOAD and STORE with the peers of their Amaranth benches; see component_top.py."""

import math

import cocotb
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from phonolith.hw.isa import Target
from tests.hw import test_load_engine, test_store_engine
from tests.hw.axi_memory import MEMORY_BYTES
from tests.hw.cocotb_ports import CONFIG, Context, begin

LATENCY, EXAMPLES = 20, 12


def draw(strategy) -> list:
    """Programs drawn from a strategy of instructions, always the same."""
    programs = []

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(st.lists(strategy, min_size=1, max_size=5))
    def keep(program):
        programs.append(program)

    keep()
    return programs


class LoadBench(test_load_engine.Bench):
    """The LOAD bench on Verilog."""

    def __init__(self, ctx: Context):
        self.config, self.engine = CONFIG, ctx.ports
        self.peers = (self.read_memory, self.take_writes, self.watch, self.follow, check_status, check_write_port)


class StoreBench(test_store_engine.Bench):
    """The STORE bench on Verilog."""

    def __init__(self, ctx: Context):
        self.config, self.engine = CONFIG, ctx.ports
        self.peers = (self.write_memory, self.grant_reads, self.watch, check_status, check_read_port)
        shape = (test_store_engine.SCRATCH_WORDS, CONFIG.scratch_word_bytes)
        self.scratch = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)


def check_streaming(cycles: list[int], octets: int) -> None:
    """All bytes moved without a pause, ``dma_bytes`` per cycle."""
    beats, parts = octets // CONFIG.bus_bytes, CONFIG.bus_bytes // CONFIG.dma_bytes
    assert len(cycles) == beats and cycles[-1] - cycles[0] == (beats - 1) * parts


async def find_errors(ctx: Context, bench, program: list[dict], memory, owners: list[int], first: int) -> None:
    """Fail each beat in turn: one error, with the number of the instruction whose beat or burst it is."""
    for k, owner in enumerate(owners):
        numbers: list[int] = []

        async def note_errors(ctx, numbers=numbers):
            async for _, _, error, number in ctx.tick().sample(bench.engine.error, bench.engine.error_number):
                if error:
                    numbers.append(number)

        await execute(ctx, bench, program, memory, (0.0, 0.4)[k % 2], error_beats={first + k}, more=[note_errors])
        assert numbers == [owner] and bench.errors == 1


async def check_status(ctx: Context) -> None:
    """Busy from the cycle after an instruction is accepted to that of its ``done``."""
    engine, status, pending = ctx.ports, ctx.ports.status, 0
    async for _, _, valid, ready, busy, done in ctx.tick().sample(
            engine.instruction.valid, engine.instruction.ready, status.busy, status.done):
        assert busy == (pending > 0) and not (done and not busy)
        pending += (valid and ready) - done


async def check_write_port(ctx: Context) -> None:
    """LOAD waits for its target in cycles in which a word is refused."""
    async for _, _, valid, ready, stalled in ctx.tick().sample(
            ctx.ports.write.valid, ctx.ports.write.ready, ctx.ports.status.stalled_port):
        assert stalled == (valid and not ready)


async def check_read_port(ctx: Context) -> None:
    """STORE waits for the scratchpad in cycles in which a read is refused."""
    async for _, _, enable, ready, stalled in ctx.tick().sample(
            ctx.ports.read.enable, ctx.ports.read_ready, ctx.ports.status.stalled_port):
        assert stalled == (enable and not ready)


async def execute(ctx: Context, bench, *arguments, more=(), **options) -> None:
    """Run a program from reset to its end; ``more`` coroutines look on."""
    bench.prepare(*arguments, **options)
    await ctx.reset()
    peers = [cocotb.start_soon(peer(ctx)) for peer in (*bench.peers, *more)]
    await bench.drive(ctx)
    for peer in peers:
        peer.cancel()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def load_engine(dut):
    """Random programs write what docs/isa.md says; 2 cycles to the address, 2 from a beat to its write."""
    ctx = await begin(dut, "load_engine")
    bench, load = LoadBench(ctx), test_load_engine.load
    dram = np.random.default_rng(3).integers(1, 256, MEMORY_BYTES, dtype=np.uint8)
    for k, program in enumerate(draw(test_load_engine.instructions(CONFIG))):
        await execute(ctx, bench, program, dram, (0.0, 0.3, 0.7)[k % 3], (1, LATENCY)[k % 2])
        assert bench.writes[-1] == {}
        for operands, written in zip(program, bench.writes[:-1], strict=True):
            assert written == test_load_engine.expected_writes(CONFIG, operands, dram)
    await execute(ctx, bench, [load(Target.WEIGHT, segment_bytes=CONFIG.word_bytes)], dram)
    assert bench.memory.address_cycles[0] == bench.accepted_cycles[0] + 2
    assert bench.write_cycles[-1] == bench.memory.data_cycles[-1] + 2
    for stalls in (0.0, 0.5):
        await execute(ctx, bench, test_load_engine.early_program(CONFIG), dram, stalls)
        test_load_engine.check_early(bench)
    row = math.lcm(CONFIG.bus_bytes, CONFIG.word_bytes)
    rows = load(Target.ACTIVATION, address=4096 - row, row_words=8, inner=(6, 4 * row), segment_bytes=4 * row)
    tiles = load(Target.WEIGHT, bank_per_word=1, address=2**15 - 5 * row, segment_bytes=40 * row)
    await execute(ctx, bench, [rows, tiles, rows], dram, latency=1)
    check_streaming(bench.memory.data_cycles, 88 * row)
    beat = CONFIG.bus_bytes
    program = [load(Target.SCRATCHPAD, row_words=2, inner=(rows, beat), segment_bytes=beat) for rows in (2, 1, 0, 3)]
    await find_errors(ctx, bench, program, dram, [0, 0, 1, 3, 3, 3], 0)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def store_engine(dut):
    """Random programs leave what docs/isa.md says in DRAM.

    2 cycles to the address, 3 to the read, 5 to the beat and one more for each further part of it.
    """
    ctx = await begin(dut, "store_engine")
    bench = StoreBench(ctx)
    for k, program in enumerate(draw(test_store_engine.instructions(CONFIG))):
        memory, expected = test_store_engine.blank(), test_store_engine.blank()
        await execute(ctx, bench, program, memory, (0.0, 0.3, 0.7)[k % 3], (1, LATENCY)[k % 2])
        reads = np.cumsum([test_store_engine.apply_store(CONFIG, o, bench.scratch, expected) for o in program])
        assert np.array_equal(memory, expected)
        assert bench.reads_at_done == reads.tolist()
        assert not any(missing for o, missing in zip(program, bench.missing_at_done, strict=True) if o["control"])
    await execute(ctx, bench, [test_store_engine.store(address=7, row_bytes=64)], test_store_engine.blank())
    start = bench.accepted_cycles[0]
    first = (bench.memory.address_cycles[0], bench.read_cycles[0], bench.memory.data_cycles[0])
    assert first == (start + 2, start + 3, start + 4 + CONFIG.bus_bytes // CONFIG.dma_bytes)
    beat = CONFIG.bus_bytes
    ragged = test_store_engine.store(address=5, pitch=3, outer=(2, -999), inner=(4, 4 * beat), row_bytes=3 * beat)
    aligned = test_store_engine.store(address=4096 - 3 * beat, pitch=5, inner=(5, 8 * beat), row_bytes=8 * beat)
    await execute(ctx, bench, [aligned, aligned], test_store_engine.blank(), latency=1)
    check_streaming(bench.memory.data_cycles, 80 * beat)
    fenced = ragged | {"control": 1}
    await execute(ctx, bench, [fenced, fenced], test_store_engine.blank())
    assert bench.missing_at_done == [0, 0]
    program = [test_store_engine.store(inner=(rows, beat), row_bytes=beat) for rows in (2, 1, 0, 3)]
    await find_errors(ctx, bench, program, test_store_engine.blank(), [0, 0, 1, 3, 3, 3], 1)
