"""cocotb tests of the vector engine against vector_model.py; see component_top.py."""

from copy import deepcopy
from dataclasses import replace

import cocotb
import numpy as np

from phonolith.hw import isa
from phonolith.hw.row_unit import row_cycles
from tests.hw.axi_memory import Stalls
from tests.hw.cocotb_ports import CONFIG, Context, begin
from tests.hw.matmul_model import NOTICE
from tests.hw.vector_model import (
    PARAMETERS,
    SCRATCH_WORDS,
    RowOp,
    State,
    Vector,
    plain,
    put,
    random_follower,
    random_row_operation,
    random_vector,
    tiles_for,
)

ROWS, COLUMNS = CONFIG.rows, CONFIG.columns
LIMIT = 30000


class Bench:
    """Memories, array and dispatcher around the engine; notes the cycles of events.

    Reads show the words of before the cycle's writes. Data that the engine must not use are garbage: those of source
    and residual but in the cycle after the request, and rows of the drain that are not due.

    Parameters
    ----------
    state : State
        Initial contents; a copy is modified by the engine.
    delays, gaps : callable
        Cycles before the next tile is valid, before the next instruction is offered.
    interval : int
        Cycles between tiles, at least.
    """

    def __init__(self, ctx: Context, state: State, delays=lambda: 0, gaps=lambda: 0, interval=1):
        self.ctx, self.ports, self.state, self.delays, self.gaps = ctx, ctx.ports, state, delays, gaps
        self.interval = interval
        self.scratch, self.activation = state.scratch.copy(), state.activation.copy()
        self.parameters = [state.parameter_word(address) for address in range(PARAMETERS)]
        self.tiles, self.tile, self.row = list(state.tiles), None, ROWS
        self.random = np.random.default_rng(99)
        self.cycle = self.stalled = 0
        self.accepted, self.done, self.starts, self.writes = [], [], [], []
        self.reads = {"source": 0, "residual": 0, "parameter": 0}
        self.valid: list[int] = []
        self.soon: list[tuple[int, int]] = []   # a cycle, and which tile comes next

    async def run(self, instructions: list) -> None:
        """Fill the table, then run the instructions to the end."""
        await self.ctx.reset()
        await self.fill_table()
        queue, gap, self.wait = list(instructions), self.gaps(), self.delays()
        while queue or len(self.done) < len(instructions):
            self.offer(queue if gap <= 0 else [])
            await self.play_array()
            if await self.step():
                queue.pop(0)
                gap = self.gaps() + 1
            gap -= 1
            assert self.cycle < LIMIT, f"{len(self.done)} of {len(instructions)} instructions"
        for cycle, tile in self.soon:
            if tile < len(self.valid) and self.valid[tile] <= cycle + NOTICE:
                assert self.starts[tile] <= cycle + NOTICE

    async def fill_table(self) -> None:
        """Write all entries, WB bytes at a time, a byte per cycle; units beyond the end carry garbage."""
        ctx, port, step, stalls = self.ctx, self.ports.table_write, CONFIG.word_bytes, Stalls(3, 0.3)
        for entry in range(0, 256, step):
            while not stalls.go():
                await ctx.tick()
            octets = [*self.state.table[entry:entry + step], *range(step)][:step]
            ctx.set(port.payload, {"entry": entry, "data": int.from_bytes(bytes(octets), "little")})
            ctx.set(port.valid, 1)
            taken = [(await ctx.tick().sample(port.ready))[-1] for _ in range(step)]
            assert taken == [0] * (step - 1) + [1]
            ctx.set(port.valid, 0)

    def offer(self, queue: list) -> None:
        """Offer the next instruction, if any."""
        row = bool(queue) and isinstance(queue[0], RowOp)
        for port, valid in ((self.ports.instruction_vector, bool(queue) and not row),
                            (self.ports.instruction_row, row)):
            self.ctx.set(port.valid, valid)
            if valid:
                self.ctx.set(port.payload, queue[0].operands())

    async def play_array(self) -> None:
        """Offer the next tile; show the row that is asked for where it is the one that is due."""
        ctx, drain = self.ctx, self.ports.drain
        valid = self.wait <= 0 and bool(self.tiles)
        if valid and len(self.valid) == len(self.starts):
            self.valid.append(self.cycle)
        ctx.set(drain.valid, valid)
        await ctx.settle()
        if ctx.get(drain.start):
            self.tile, self.row, self.wait = self.tiles.pop(0), 0, self.delays() + self.interval
        self.wait -= 1
        due = self.row < ROWS and ctx.get(drain.row) == self.row
        *line, row_sum = self.tile[self.row] if due else self.random.integers(-1 << 31, 1 << 31, COLUMNS + 1)
        ctx.set(drain.data, sum((int(value) % 2**32) << 32 * lane for lane, value in enumerate(line)))
        ctx.set(drain.row_sum, row_sum)
        self.row += 1

    async def step(self) -> bool:
        """Go to the next cycle; return whether an instruction was accepted."""
        ports, reads = self.ports, ("source", "residual", "parameter")
        vector, row, status = ports.instruction_vector, ports.instruction_row, ports.status
        asked = [port for name in reads for port in (getattr(ports, f"{name}_read").enable,
                                                     getattr(ports, f"{name}_read").address)]
        written = [ports.scratch_write.enable, ports.activation_write.enable]
        _, _, *sampled = await self.ctx.tick().sample(
            vector.valid, vector.ready, row.valid, row.ready, status.done, ports.drain.start, status.stalled_drain,
            ports.drain.soon, *asked, *written, *[port for kind in (ports.scratch_write, ports.activation_write)
                                for port in (kind.address, kind.data)], ports.activation_bank)
        accepted = sampled[0] and sampled[1] or sampled[2] and sampled[3]
        for events, happened in zip((self.accepted, self.done, self.starts), (accepted, *sampled[4:6]), strict=True):
            if happened:
                events.append(self.cycle)
        self.stalled += sampled[6]
        if sampled[7]:
            self.soon.append((self.cycle, len(self.starts)))
        for name, enable, address in zip(reads, sampled[8:14:2], sampled[9:14:2], strict=True):
            self.answer(name, enable, address)
        self.store(*sampled[14:])
        self.cycle += 1
        return bool(accepted)

    def answer(self, name: str, enable: int, address: int) -> None:
        """Show a word in the next cycle."""
        data = getattr(self.ports, f"{name}_read").data
        self.reads[name] += enable
        if name == "parameter":
            if enable:
                self.ctx.set(data, self.parameters[address % PARAMETERS])
            return
        word = self.scratch[address] if enable else self.random.integers(0, 256, 2 * COLUMNS, np.uint8)
        self.ctx.set(data, int.from_bytes(word.tobytes(), "little"))

    def store(self, enable, bank_enable, address, word, bank_address, bank_word, bank) -> None:
        """Carry out the writes of this cycle."""
        if enable:
            put(self.scratch[address], word, enable, 4 * COLUMNS)
        if bank_enable:
            put(self.activation[bank, bank_address], bank_word, bank_enable, 8 * COLUMNS)
        if enable or bank_enable:
            self.writes.append(self.cycle)


def clear_registers() -> list[Vector]:
    """Instructions that set all row registers to 0."""
    return [Vector(ROWS, 1, plain(source=isa.Source.ZERO, reduce=isa.Reduce.SUM, reduce_register=register))
            for register in range(isa.ROW_REGISTERS)]


def show_registers() -> list:
    """Instructions that write what the row registers hold: the low 32 bits, then the root of all 48."""
    show, place = [], 600
    for register in range(isa.ROW_REGISTERS):
        control = plain(source=isa.Source.ZERO, pre=isa.Pre.MINUS_ROW, row_register=register,
                        multiplier=isa.Multiplier.IMMEDIATE, saturate=isa.Saturate.NONE,
                        destination=isa.Destination.SCRATCHPAD)
        parts = [Vector(ROWS, 1, control, destination_base=place + k * ROWS, destination_pitch=1,
                        factor=isa.pack(isa.FACTOR, multiplier=1, shift=16 * (k % 2))) for k in range(4)]
        root = {"function": isa.RowFunction.INVERSE_SQRT, "source_register": register,
                "destination_register": register}
        show += [*parts[:2], RowOp(ROWS, root, 40000, 40, 0), *parts[2:]]
        place += 4 * ROWS
    return show


async def compare(ctx: Context, state: State, instructions: list, **timing) -> Bench:
    """Run instructions on both sides and compare all memories, and row registers through the instructions."""
    bench = Bench(ctx, state, **timing)
    everything = [*clear_registers(), *instructions, *show_registers()]
    await bench.run(everything)
    for instruction in everything:
        state.execute(instruction)
    np.testing.assert_array_equal(bench.scratch, state.scratch)
    np.testing.assert_array_equal(bench.activation, state.activation)
    assert not bench.tiles
    return bench


async def measure(ctx: Context, state: State, instructions: list, **timing) -> Bench:
    """Run instructions on both sides without comparing row registers; events are those of the instructions alone."""
    bench = Bench(ctx, deepcopy(state), **timing)
    await bench.run(instructions)
    for instruction in instructions:
        state.execute(instruction)
    np.testing.assert_array_equal(bench.scratch, state.scratch)
    np.testing.assert_array_equal(bench.activation, state.activation)
    return bench


def random_instruction(random, before: list) -> Vector | RowOp:
    """Any instruction; often a VECTOR much like the one before."""
    if random.random() < 0.2:
        return random_row_operation(random, CONFIG)
    if before and isinstance(before[-1], Vector) and random.random() < 0.4:
        return random_follower(random, before[-1], CONFIG)
    return random_vector(random, CONFIG)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def vector_engine(dut):
    """Random instructions, waiting for tiles and for instructions at random."""
    ctx = await begin(dut, "vector_engine")
    for seed, slowest in enumerate((0, 3, 40)):
        random = np.random.default_rng(seed)
        state, instructions = State(CONFIG, seed), []
        for _ in range(25):
            instructions.append(random_instruction(random, instructions))
            state.tiles += tiles_for(random, instructions[-1], CONFIG)
        await compare(ctx, state, instructions, delays=lambda r=random, n=slowest: int(r.integers(n + 1)), interval=2,
                      gaps=lambda r=random, n=slowest: int(r.choice([0, 0, n])))


@cocotb.test(timeout_time=500, timeout_unit="us")
async def vector_engine_cycles(dut):
    """Writes 6 cycles after acceptance and one per cycle; B + 5 or B + 7 cycles; an empty instruction takes 1."""
    ctx = await begin(dut, "vector_engine")
    rows, chunks = ROWS + 2, 3
    reduces = [isa.Reduce.NONE, isa.Reduce.SUM, isa.Reduce.NONE]
    vectors = [Vector(rows, chunks * COLUMNS - 1, plain(destination=isa.Destination.SCRATCHPAD, reduce=r),
                      source_pitch=3, destination_base=300, destination_pitch=3) for r in reduces]
    bench = await measure(ctx, State(CONFIG, 5), vectors)
    first = bench.accepted[0]
    assert bench.writes[:rows * chunks] == list(range(first + 6, first + 6 + rows * chunks))
    assert np.diff([first, *bench.done]).tolist() == [rows * chunks + 5, rows * chunks + 7, rows * chunks + 5]
    assert bench.accepted[1:] == bench.done[:-1]
    empty = [Vector(n, 4 * (n == 0), plain(source=isa.Source.DRAIN, destination=isa.Destination.SCRATCHPAD))
             for n in (0, 4, 0)]
    bench = await measure(ctx, State(CONFIG, 9), empty)
    assert bench.done == [bench.accepted[0] + n for n in (1, 2, 3)] and not bench.writes
    operations = [RowOp(n, {"function": function, "source_register": 0, "destination_register": 1}, 40000, 31, n)
                  for function in isa.RowFunction for n in (1, ROWS, ROWS + 1, 0)]
    bench = await measure(ctx, State(CONFIG, 8), operations)
    expected = [row_cycles(CONFIG, o.control["function"], min(o.rows, ROWS)) if o.rows else 1 for o in operations]
    assert np.diff([bench.accepted[0], *bench.done]).tolist() == expected


@cocotb.test(timeout_time=500, timeout_unit="us")
async def vector_engine_drain(dut):
    """Tiles are taken back to back when they are there; otherwise the wait is counted."""
    ctx = await begin(dut, "vector_engine")
    vector = Vector(ROWS + 1, 3 * COLUMNS, plain(source=isa.Source.DRAIN, destination=isa.Destination.ACTIVATION),
                    destination_pitch=3)
    state = State(CONFIG, 6, tiles_for(np.random.default_rng(6), vector, CONFIG))
    bench = await measure(ctx, state, [vector])
    assert np.diff(bench.starts).tolist() == [ROWS] * 3 + [1, 1]
    firsts = [start + ROWS - NOTICE for start in bench.starts[:3]]
    assert [cycle for cycle, _ in bench.soon] == [*(first + n for first in firsts for n in range(NOTICE)),
                                                  *bench.starts[3:5]]
    assert bench.starts[0] == bench.accepted[0] + 1 and bench.stalled == 0
    assert bench.done == [bench.starts[-1] + 5]
    vector = Vector(ROWS, 2 * COLUMNS, plain(source=isa.Source.DRAIN))
    state = State(CONFIG, 7, tiles_for(np.random.default_rng(7), vector, CONFIG))
    bench = await measure(ctx, state, [vector], delays=lambda: 300)
    assert np.diff(bench.starts).tolist() == [300 + 1]
    assert bench.stalled == bench.starts[1] - bench.accepted[0] - ROWS - 1
    assert [cycle for cycle, _ in bench.soon] == [
        *range(bench.accepted[0] + 1, bench.starts[0]), *range(bench.starts[0] + ROWS - NOTICE, bench.starts[1])]


@cocotb.test(timeout_time=500, timeout_unit="us")
async def vector_engine_follows(dut):
    """VECTORs that take tiles with the same settings follow each other without a pause, all others do not."""
    ctx = await begin(dut, "vector_engine")
    drain = {"source": isa.Source.DRAIN, "destination": isa.Destination.SCRATCHPAD, "partial": 1}
    vector = Vector(ROWS + 2, 2 * COLUMNS - 1, plain(**drain), destination_base=300, destination_pitch=2,
                    residual_base=SCRATCH_WORDS, factor=isa.pack(isa.FACTOR, blocks=1))
    one = replace(vector, rows=1, destination_base=330, parameter_base=5)
    cases = [(True, [vector, one, one, one]),
             (False, [vector, replace(one, columns=2 * COLUMNS)]),
             (False, [vector, replace(one, factor=isa.pack(isa.FACTOR, blocks=1, multiplier=1))]),
             (False, [vector, replace(one, control=plain(**drain, zero_shift=1))]),
             (False, [replace(each, control=plain(**drain, residual=1)) for each in (vector, one)]),
             (False, [replace(each, control=plain(**drain, reduce=isa.Reduce.SUM)) for each in (vector, one)]),
             (False, [replace(each, control=plain(**drain, multiplier=isa.Multiplier.ELEMENT))
                      for each in (vector, one)]),
             (False, [replace(each, control=plain(**drain | {"source": isa.Source.ZERO, "partial": 0}))
                      for each in (vector, one)])]
    for follows, vectors in cases:
        tiles = [tile for each in vectors for tile in tiles_for(np.random.default_rng(6), each, CONFIG)]
        bench = await measure(ctx, State(CONFIG, 6, tiles), vectors, interval=2)
        assert len(bench.done) == len(vectors)
        if not follows:
            assert bench.accepted[1] == bench.done[0]
            continue
        ends = [bench.starts[7] + 1, *bench.starts[11::4]]
        assert bench.accepted[1:] == ends[:-1] and bench.done == [end + 5 for end in ends]
        assert np.diff(bench.starts[7:]).tolist() == [2] * 12
        assert {cycle for cycle, _ in bench.soon} >= set(range(bench.starts[7], bench.starts[-2] + 1))


@cocotb.test(timeout_time=500, timeout_unit="us")
async def vector_engine_partial(dut):
    """Sums of blocks wrap at 2^32 and round down; only the last block writes, reads its residual, and reduces."""
    ctx = await begin(dut, "vector_engine")
    immediate = {"source": isa.Source.DRAIN, "destination": isa.Destination.SCRATCHPAD, "partial": 1,
                 "multiplier": isa.Multiplier.IMMEDIATE}
    ends = np.array([-1 << 31, (1 << 31) - 1, -257, -256, -255, -1, 0, 1, 255, 256, 257])
    source = np.random.default_rng(13)
    for changes in ({}, {"residual": 1}, {"reduce": isa.Reduce.SUM}, {"saturate": isa.Saturate.NONE},
                    {"row_sum": 1, "zero_shift": 7, "post_bias": 1}):
        for blocks, rows in ((1, ROWS), (2, 1), (3, ROWS + 1)):
            vector = Vector(rows, COLUMNS + 1, plain(**immediate | changes), residual_base=SCRATCH_WORDS,
                            residual_pitch=2, destination_base=300, destination_pitch=2, parameter_base=3,
                            factor=isa.pack(isa.FACTOR, multiplier=1, shift=0, blocks=blocks - 1))
            tiles = [source.choice(ends, tile.shape) for tile in tiles_for(source, vector, CONFIG)]
            bench = await measure(ctx, State(CONFIG, 13, tiles), [vector], interval=max(ROWS, 2))
            taken = 2 * blocks * -(-rows // ROWS)
            assert len(bench.writes) == 2 * rows and len(bench.starts) == taken
            assert bench.reads["residual"] == (2 * rows if vector.control["residual"] else 0)
            assert bench.reads["parameter"] == (taken if vector.control["row_sum"] else 0)
    vector = Vector(1, 1, plain(**immediate, saturate=isa.Saturate.NONE), destination_base=300,
                    factor=isa.pack(isa.FACTOR, multiplier=1, shift=0, blocks=511))
    bench = await measure(ctx, State(CONFIG, 14, tiles_for(source, vector, CONFIG)), [vector], interval=COLUMNS)
    assert np.diff(bench.starts).tolist() == [COLUMNS] * 511


@cocotb.test(timeout_time=500, timeout_unit="us")
async def vector_engine_nibbles(dut):
    """Results of 4 bits in all quarters of words, and in pairs of rows; both limits; what lies beside them stays."""
    ctx = await begin(dut, "vector_engine")
    for columns_in_pairs in (1,) if ROWS % 2 else (0, 1):
        for rows in (1, ROWS, ROWS + 3):
            control = plain(nibble=1, destination_byte=columns_in_pairs, destination=isa.Destination.SCRATCHPAD)
            vector = Vector(rows, 4 * COLUMNS + 2, control, source_pitch=5, destination_base=300, destination_pitch=4)
            state = State(CONFIG, 15)
            words = state.scratch[:5 * rows].view(np.int16)
            words[:] = np.random.default_rng(15).choice([-32768, -9, -8, -1, 0, 3, 7, 8, 32767], words.shape)
            bench = await measure(ctx, state, [vector])
            assert len(bench.writes) == 5 * rows


def beside(tile: np.ndarray) -> np.ndarray:
    """A tile with sums of activations that do not matter."""
    return np.column_stack([tile, np.full(ROWS, 12345)])


@cocotb.test(timeout_time=500, timeout_unit="us")
async def vector_engine_corners(dut):
    """Both ends of each range with every tie near them; equal keys; one row, one column."""
    ctx = await begin(dut, "vector_engine")
    values = [2 * limit + d for limit in (-32768, -129, -128, -1, 0, 127, 255, 32767) for d in range(-4, 5)]
    values += [-1 << 31, (1 << 31) - 1] + [0] * (ROWS * COLUMNS)
    for saturation in isa.Saturate:
        control = plain(source=isa.Source.DRAIN, multiplier=isa.Multiplier.IMMEDIATE, saturate=saturation,
                        destination=isa.Destination.SCRATCHPAD, reduce=isa.Reduce.MAX)
        size, factor = ROWS * COLUMNS, isa.pack(isa.FACTOR, multiplier=1, shift=1)
        tiles = [beside(np.array(values[k:k + size]).reshape(ROWS, COLUMNS))
                 for k in range(0, len(values) - size + 1, size)]
        vector = Vector(ROWS, len(tiles) * COLUMNS, control, destination_pitch=len(tiles), factor=factor)
        await compare(ctx, State(CONFIG, 10, list(tiles)), [vector])
    tiles = [beside(np.full((ROWS, COLUMNS), -7)) for _ in range(3)]
    tiles[1][1, 2] = tiles[2][1, 0] = -5
    tiles[2][3, 1] = 9
    argmax = plain(source=isa.Source.DRAIN, reduce=isa.Reduce.ARGMAX, reduce_register=2)
    index = plain(source=isa.Source.ZERO, pre=isa.Pre.MINUS_INDEX, row_register=2,
                  destination=isa.Destination.SCRATCHPAD)
    bench = await compare(ctx, State(CONFIG, 11, tiles), [
        Vector(ROWS, 2 * COLUMNS + 2, argmax), Vector(ROWS, 1, index, destination_pitch=1)])
    found = (-bench.scratch[:4].view(np.int16)[:, 0]).tolist()
    assert found == [0, COLUMNS + 2, 0, 2 * COLUMNS + 1]
    one = plain(saturate=isa.Saturate.INT8, destination=isa.Destination.ACTIVATION, reduce=isa.Reduce.ARGMAX)
    await compare(ctx, State(CONFIG, 12), [Vector(1, 1, one, source_base=SCRATCH_WORDS)])
