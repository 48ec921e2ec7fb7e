"""The vector engine against a numpy reading of docs/isa.md: random instructions, corners, latency, throughput."""

from dataclasses import dataclass, field
from math import isqrt

import numpy as np
import pytest
from amaranth.sim import Simulator

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.row_unit import row_cycles
from phonolith.hw.vector_engine import VectorEngine

CONFIGS = {
    "16x16/128": MachineConfig(),
    "8x8/128": MachineConfig(rows=8, columns=8, row_units=3),
    "12x20/256": MachineConfig(rows=12, columns=20, bus_bits=256, row_units=12),
    "4x4/64": MachineConfig(rows=4, columns=4, bus_bits=64, row_units=1),
}
SCRATCH_WORDS = 512     # of each bank; as much memory as the tests use
BANK_WORDS = 64
PARAMETERS = 16


def wrap(value, bits: int):
    """Two's complement of ``bits`` bits, signed."""
    half = 1 << bits - 1
    return (value + half) % (1 << bits) - half


def shift_round(x, s):
    """Shift right, rounding half up."""
    return (x + ((1 << s) >> 1)) >> s


@dataclass
class Vector:
    """One VECTOR instruction: operands, and the parts of its control word."""

    rows: int
    columns: int
    control: dict
    source_base: int = 0
    source_pitch: int = 0
    residual_base: int = 0
    residual_pitch: int = 0
    destination_base: int = 0
    destination_pitch: int = 0
    parameter_base: int = 0
    factor: int = 0

    def operands(self) -> dict:
        """Values of the 32-bit operand words."""
        words = {name: value & 0xFFFFFFFF for name, value in vars(self).items() if name != "control"}
        return {"control": isa.pack(isa.VECTOR_CONTROL, **self.control), **words}


@dataclass
class RowOp:
    """One ROWOP instruction."""

    rows: int
    control: dict
    numerator: int
    shift: int
    epsilon: int

    def operands(self) -> dict:
        """Values of the 32-bit operand words."""
        return {"control": isa.pack(isa.ROWOP_CONTROL, **self.control), "rows": self.rows, "epsilon": self.epsilon,
                "factor": isa.pack(isa.ROWOP_FACTOR, numerator=self.numerator, shift=self.shift)}


@dataclass
class State:
    """Everything that instructions read and write, in numpy; ``tiles`` is what the array will deliver."""

    config: MachineConfig
    seed: int
    tiles: list = field(default_factory=list)

    def __post_init__(self):
        config, random = self.config, np.random.default_rng(self.seed)
        self.scratch = random.integers(0, 256, (2 * SCRATCH_WORDS, 2 * config.columns), np.uint8)
        self.activation = random.integers(0, 256, (config.rows, BANK_WORDS, config.word_bytes), np.uint8)
        self.bias = random.integers(-1 << 31, 1 << 31, (PARAMETERS, config.columns))
        self.bias[::2] >>= 20
        self.multiplier = random.integers(-1 << 16, 1 << 16, (PARAMETERS, config.columns))
        self.shift = random.integers(0, 64, (PARAMETERS, config.columns))
        self.shift[::2] = random.integers(14, 30, self.shift[::2].shape)
        self.table = random.integers(0, 256, 256, np.uint8)
        self.registers = np.zeros((isa.ROW_REGISTERS, config.rows), np.int64)

    def parameter_word(self, address: int) -> int:
        """The packed parameter word at an address."""
        word = 0
        for lane in range(self.config.columns):
            bias, multiplier, shift = (int(a[address, lane]) for a in (self.bias, self.multiplier, self.shift))
            word |= (bias & 0xFFFFFFFF | isa.pack(isa.FACTOR, multiplier=multiplier, shift=shift) << 32) << 64 * lane
        return word

    def execute(self, instruction) -> None:
        """Carry out one instruction."""
        if isinstance(instruction, RowOp):
            self.row_operation(instruction)
            return
        rows, columns = self.config.rows, self.config.columns
        for i in range(-(-instruction.rows // rows)):
            for j in range(-(-instruction.columns // columns)):
                tile = None
                if instruction.control["source"] == isa.Source.DRAIN:
                    tile = self.tiles.pop(0)
                for r in range(min(rows, instruction.rows - i * rows)):
                    self.one_row(instruction, i, j, r, tile)

    def one_row(self, vector: Vector, i: int, j: int, r: int, tile) -> None:
        """All eight steps for one row of one chunk."""
        c, n, lanes = vector.control, i * self.config.rows + r, self.config.columns
        active = j * lanes + np.arange(lanes) < vector.columns
        x = self.source(vector, n, j, r, tile)
        register = int(self.registers[c["row_register"], r])
        parameter = (vector.parameter_base + j) % PARAMETERS
        x = x + {isa.Pre.NONE: 0, isa.Pre.BIAS: self.bias[parameter], isa.Pre.MINUS_ROW: -wrap(register, 32),
                 isa.Pre.MINUS_INDEX: -(65535 - register % 65536)}[c["pre"]]
        x = wrap(x, 32)
        y = self.multiplied(x, vector, parameter, r)
        if c["post_bias"]:
            y = y + self.bias[parameter]
        if c["residual"]:
            word = self.scratch[vector.residual_base + n * vector.residual_pitch + j]
            y = np.clip(y, -32768, 32767) + word.view(np.int16)
        y = {isa.Saturate.INT8: lambda: np.clip(y, -128, 127), isa.Saturate.UINT8: lambda: np.clip(y, 0, 255),
             isa.Saturate.INT16: lambda: np.clip(y, -32768, 32767), isa.Saturate.NONE: lambda: wrap(y, 34)}[
                 c["saturate"]]()
        if c["table"]:
            entry = self.table[y % 256]
            y = entry.view(np.int8).astype(np.int64) if c["table_signed"] else entry.astype(np.int64)
        self.write(vector, i, j, r, np.where(active, y, 0))
        self.reduce(c, r, j, y[active], 65535 - j * lanes - np.arange(lanes)[active])

    def source(self, vector: Vector, n: int, j: int, r: int, tile):
        """Step 1, as int64."""
        c, lanes = vector.control, self.config.columns
        if c["source"] == isa.Source.DRAIN:
            return tile[r]
        if c["source"] == isa.Source.ZERO:
            return np.zeros(lanes, np.int64)
        start = vector.source_base + n * vector.source_pitch
        if c["source_width"] == isa.Width.INT16:
            return self.scratch[start + j].view(np.int16).astype(np.int64)
        half = self.scratch[start + j // 2][j % 2 * lanes:][:lanes]
        return (half.view(np.int8) if c["source_width"] == isa.Width.INT8 else half).astype(np.int64)

    def multiplied(self, x, vector: Vector, parameter: int, r: int):
        """Step 3."""
        mode = vector.control["multiplier"]
        if mode == isa.Multiplier.SQUARE:
            return wrap(x, 17) ** 2
        if mode == isa.Multiplier.ONE:
            return x
        if mode == isa.Multiplier.COLUMN:
            m, s = self.multiplier[parameter], self.shift[parameter]
        else:
            row = int(self.registers[vector.control["factor_register"], r])
            factor = isa.unpack(isa.FACTOR, (row if mode == isa.Multiplier.ROW else vector.factor) & (1 << 23) - 1)
            m, s = wrap(factor["multiplier"], 17), factor["shift"]
        return shift_round(x * m, np.minimum(s, 47))

    def write(self, vector: Vector, i: int, j: int, r: int, y) -> None:
        """Step 7."""
        c, lanes, n = vector.control, self.config.columns, i * self.config.rows + r
        octets = (y % 256).astype(np.uint8)
        if c["destination"] == isa.Destination.ACTIVATION:
            place = vector.destination_base + i * vector.destination_pitch + j * lanes // self.config.word_bytes
            self.activation[r, place][j * lanes % self.config.word_bytes:][:lanes] = octets
        elif c["destination"] == isa.Destination.SCRATCHPAD:
            start = vector.destination_base + n * vector.destination_pitch
            if c["destination_byte"]:
                self.scratch[start + j // 2][j % 2 * lanes:][:lanes] = octets
            else:
                self.scratch[start + j] = (y % 65536).astype(np.uint16).view(np.uint8)

    def reduce(self, c: dict, r: int, j: int, y, index) -> None:
        """Step 8."""
        if c["reduce"] == isa.Reduce.NONE:
            return
        old = [] if j == 0 else [int(self.registers[c["reduce_register"], r])]
        if c["reduce"] == isa.Reduce.SUM:
            new = sum(old) + int(y.sum())
        else:
            keys = y if c["reduce"] == isa.Reduce.MAX else wrap(y * 65536 + index, 48)
            new = max([*old, *map(int, keys)])
        self.registers[c["reduce_register"], r] = wrap(new, 48)

    def row_operation(self, operation: RowOp) -> None:
        """ROWOP, by Python's integers."""
        for r in range(min(operation.rows, self.config.rows)):
            v = (int(self.registers[operation.control["source_register"], r]) + operation.epsilon) % (1 << 48)
            compute = row_function(operation.control["function"])
            m, s = compute(v, operation.numerator, operation.shift)
            self.registers[operation.control["destination_register"], r] = m | s << isa.MULTIPLIER_BITS


def row_function(function: isa.RowFunction):
    """The reference of a row function."""
    return reciprocal if function == isa.RowFunction.RECIPROCAL else inverse_sqrt


def reciprocal(v: int, c: int, h: int) -> tuple[int, int]:
    """docs/graph.md."""
    x = max(v % (1 << 32), 1)
    e = 32 - x.bit_length()
    return (c << 31) // (x << e), min(max(h - e, 0), 47)


def inverse_sqrt(v: int, c: int, h: int) -> tuple[int, int]:
    """docs/graph.md."""
    x = max(v, 1)
    e = (48 - x.bit_length()) // 2
    return (c << 31) // (isqrt(x << 2 * e) << 8), min(max(h - e, 0), 47)


class Bench:
    """The engine with behavioural memories and array around it; runs instructions and logs cycles.

    Parameters
    ----------
    state : State
        Initial contents; a copy is modified by the engine.
    drain_delay : callable
        Cycles before the next tile becomes valid.
    """

    def __init__(self, state: State, drain_delay=lambda: 0):
        self.config, self.state, self.drain_delay = state.config, state, drain_delay
        self.scratch, self.activation = state.scratch.copy(), state.activation.copy()
        self.parameters = [state.parameter_word(address) for address in range(PARAMETERS)]
        self.tiles = list(state.tiles)
        self.cycle = self.stalled = 0
        self.accepted, self.done, self.starts, self.writes = [], [], [], []
        self.dut = VectorEngine(config=self.config)

    def run(self, instructions: list) -> np.ndarray:
        """Run to the end; return the row registers."""
        self.instructions = instructions
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self.memories, background=True)
        simulator.add_testbench(self.array, background=True)
        simulator.add_testbench(self.drive)
        simulator.run()
        return self.registers

    async def drive(self, ctx):
        """Fill the table, then offer the instructions one after another; wait for the last."""
        await self.fill_table(ctx)
        for instruction in self.instructions:
            name = "instruction_row" if isinstance(instruction, RowOp) else "instruction_vector"
            port = getattr(self.dut, name)
            ctx.set(port.payload, instruction.operands())
            ctx.set(port.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(port.ready)
            ctx.set(port.valid, 0)
        busy = True
        while busy:
            _, _, busy = await ctx.tick().sample(self.dut.status.busy)
        memory = self.dut.registers.memory
        self.registers = np.array([ctx.get(memory.data[k]) for k in range(memory.depth)]).reshape(isa.ROW_REGISTERS, -1)

    async def fill_table(self, ctx):
        """Write all entries, one word at a time; units beyond the end carry garbage."""
        port, step = self.dut.table_write, self.config.word_bytes
        for entry in range(0, 256, step):
            octets = [*self.state.table[entry:entry + step], *range(step)][:step]
            ctx.set(port.payload.entry, entry)
            ctx.set(port.payload.data, int.from_bytes(bytes(octets), "little"))
            ctx.set(port.valid, 1)
            for k in range(step):
                assert ctx.get(port.ready) == (k == step - 1)
                await ctx.tick()
        ctx.set(port.valid, 0)

    async def memories(self, ctx):
        """Answer reads with the words of before this cycle's writes; log every event with its cycle."""
        dut = self.dut
        reads = {"source": dut.source_read, "residual": dut.residual_read, "parameter": dut.parameter_read}
        events = [dut.instruction_vector.valid & dut.instruction_vector.ready,
                  dut.instruction_row.valid & dut.instruction_row.ready, dut.status.done, dut.drain.start,
                  dut.status.stalled_drain]
        asked = [signal for port in reads.values() for signal in (port.enable, port.address)]
        scratch, activation = dut.scratch_write, dut.activation_write
        written = [scratch.enable, scratch.address, scratch.data,
                   activation.enable, activation.address, activation.data, dut.activation_bank]
        while True:
            _, _, *sampled = await ctx.tick().sample(*events, *asked, *written)
            self.log(*sampled[:5])
            for k, (name, port) in enumerate(reads.items()):
                if sampled[5 + 2 * k]:
                    ctx.set(port.data, self.word(name, sampled[6 + 2 * k]))
            self.store(*sampled[-7:])
            self.cycle += 1

    def word(self, name: str, address: int) -> int:
        """Contents of one word of the memory behind a port."""
        if name == "parameter":
            return self.parameters[address % PARAMETERS]
        return int.from_bytes(self.scratch[address].tobytes(), "little")

    def log(self, vector, row, done, start, stalled):
        """Note accepted and completed instructions, tiles taken, and cycles lost to the drain."""
        for events, happened in ((self.accepted, vector or row), (self.done, done), (self.starts, start)):
            if happened:
                events.append(self.cycle)
        self.stalled += stalled

    def store(self, enable, address, word, bank_enable, bank_address, bank_word, bank):
        """Carry out the writes of this cycle."""
        if enable:
            put(self.scratch[address], word, enable, self.config.columns)
        if bank_enable:
            put(self.activation[bank, bank_address], bank_word, bank_enable, self.config.columns)
        if enable or bank_enable:
            self.writes.append(self.cycle)

    async def array(self, ctx):
        """Offer tiles; present the row asked for in the same cycle, and garbage where no row is due."""
        port, tile, row = self.dut.drain, None, None
        wait = self.drain_delay()
        while True:
            ctx.set(port.valid, int(wait == 0 and bool(self.tiles)))
            start = ctx.get(port.start)
            if start:
                tile, row, wait = self.tiles.pop(0), 0, self.drain_delay() + 1
            if row is not None and row < self.config.rows:
                asked = ctx.get(port.row)
                line = tile[asked] if asked == row else np.full(self.config.columns, -86)
                for lane, value in enumerate(line):
                    ctx.set(port.data[lane], int(value))
                row += 1
            await ctx.tick()
            wait = max(wait - 1, 0)


def put(word: np.ndarray, value: int, enable: int, granule: int):
    """Write the enabled granules of a memory word."""
    octets = np.frombuffer(value.to_bytes(len(word), "little"), np.uint8)
    for index in range(len(word) // granule):
        if enable >> index & 1:
            word[index * granule:(index + 1) * granule] = octets[index * granule:(index + 1) * granule]


def random_vector(random, config: MachineConfig) -> Vector:
    """Any legal VECTOR: source, residual and destination in different places."""
    choose = lambda kind: int(random.choice(list(kind)))  # noqa: E731
    control = {
        "source": choose(isa.Source), "source_width": choose(isa.Width), "pre": choose(isa.Pre),
        "multiplier": choose(isa.Multiplier), "saturate": choose(isa.Saturate),
        "destination": choose(isa.Destination), "reduce": choose(isa.Reduce),
        **{name: int(random.integers(2)) for name in ("post_bias", "residual", "table", "table_signed",
                                                       "destination_byte")},
        **{name: int(random.integers(4)) for name in ("reduce_register", "row_register", "factor_register")},
    }
    if control["reduce"]:   # a register must not be read while it is reduced into
        control["reduce_register"] = 0
        control["row_register"], control["factor_register"] = (int(v) for v in random.integers(1, 4, 2))
    rows = int(random.choice([1, config.rows - 1, config.rows, config.rows + 1, 2 * config.rows + 3]))
    columns = int(random.integers(1, 4 * config.columns))
    pitches = [int(v) for v in random.integers(4, 7, 3)]
    # bank 0: source in its lower half, destination above; bank 1: residual
    return Vector(
        rows, columns, control,
        source_base=int(random.integers(0, 20)), source_pitch=pitches[0],
        residual_base=SCRATCH_WORDS + int(random.integers(0, 20)), residual_pitch=pitches[1],
        destination_base=int(random.integers(0, 8)) + (
            256 if control["destination"] == isa.Destination.SCRATCHPAD else 0),
        destination_pitch=pitches[2], parameter_base=int(random.integers(0, 8)),
        factor=int(random.choice([int(random.integers(1 << 23)), isa.pack(isa.FACTOR, multiplier=40000, shift=22)])),
    )


def random_row_operation(random, config: MachineConfig) -> RowOp:
    """Any legal ROWOP."""
    source, destination = (int(v) for v in random.integers(0, 4, 2))
    control = {"function": int(random.integers(2)), "source_register": source, "destination_register": destination}
    return RowOp(int(random.integers(1, config.rows + 3)), control, int(random.integers(1 << 15, 1 << 16)),
                 int(random.integers(64)), int(random.integers(1 << 32)) >> int(random.integers(32)))


def tiles_for(random, instruction, config: MachineConfig) -> list[np.ndarray]:
    """What the array must deliver for an instruction: R x C int32, large and small."""
    if isinstance(instruction, RowOp) or instruction.control["source"] != isa.Source.DRAIN:
        return []
    count = -(-instruction.rows // config.rows) * -(-instruction.columns // config.columns)
    shape = (count, config.rows, config.columns)
    return list(random.integers(-1 << 31, 1 << 31, shape) >> random.choice([0, 0, 8, 16], (count, 1, 1)))


def compare(state: State, instructions: list, drain_delay=lambda: 0) -> Bench:
    """Run instructions on both sides and compare all memories and registers."""
    bench = Bench(state, drain_delay)
    registers = bench.run(instructions)
    for instruction in instructions:
        state.execute(instruction)
    np.testing.assert_array_equal(registers, state.registers)
    np.testing.assert_array_equal(bench.scratch, state.scratch)
    np.testing.assert_array_equal(bench.activation, state.activation)
    assert not bench.tiles
    return bench


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(2))
def test_random_instructions(name, seed):
    config, random = CONFIGS[name], np.random.default_rng(seed)
    state, instructions = State(config, seed), []
    for _ in range(20):
        make = random_row_operation if random.random() < 0.2 else random_vector
        instructions.append(make(random, config))
        state.tiles += tiles_for(random, instructions[-1], config)
    compare(state, instructions, drain_delay=lambda: int(random.choice([0, 0, 3, 40])))


def plain(**control) -> dict:
    """Control parts of a VECTOR that copies; with changes."""
    parts = {name: 0 for name in isa.VECTOR_CONTROL}
    return {**parts, "source": isa.Source.SCRATCHPAD, "saturate": isa.Saturate.INT16, **control}


@pytest.mark.parametrize("name", CONFIGS)
def test_latency_and_throughput(name):
    config = CONFIGS[name]
    rows, chunks = config.rows + 2, 3
    reduces = [isa.Reduce.NONE, isa.Reduce.SUM, isa.Reduce.NONE]
    instructions = [Vector(rows, chunks * config.columns - 1, plain(destination=isa.Destination.SCRATCHPAD, reduce=r),
                           source_pitch=3, destination_base=300, destination_pitch=3) for r in reduces]
    bench = compare(State(config, 5), instructions)
    first = bench.accepted[0]
    assert bench.writes[:rows * chunks] == list(range(first + 6, first + 6 + rows * chunks))
    lengths = np.diff([first, *bench.done])
    assert lengths.tolist() == [rows * chunks + 5, rows * chunks + 7, rows * chunks + 5]
    assert bench.accepted[1:] == bench.done[:-1]


@pytest.mark.parametrize("name", CONFIGS)
def test_tiles_of_the_drain_are_taken_back_to_back(name):
    config = CONFIGS[name]
    state = State(config, 6)
    vector = Vector(config.rows + 1, 3 * config.columns,
                    plain(source=isa.Source.DRAIN, destination=isa.Destination.ACTIVATION), destination_pitch=3)
    state.tiles = tiles_for(np.random.default_rng(6), vector, config)
    bench = compare(state, [vector])
    gaps = [config.rows] * 3 + [1, 1]
    assert np.diff(bench.starts).tolist() == gaps
    assert bench.starts[0] == bench.accepted[0] + 1
    assert bench.stalled == 0
    assert bench.done == [bench.starts[-1] + 5]


def test_waits_for_the_drain_are_counted():
    config = CONFIGS["4x4/64"]
    state = State(config, 7)
    vector = Vector(4, 8, plain(source=isa.Source.DRAIN))
    state.tiles = tiles_for(np.random.default_rng(7), vector, config)
    bench = Bench(state, drain_delay=lambda: 300)
    bench.run([vector])
    assert np.diff(bench.starts).tolist() == [300 + 1]
    assert bench.stalled == bench.starts[1] - bench.accepted[0] - 4 - 1


def test_row_operations_take_their_documented_cycles():
    config = CONFIGS["12x20/256"]
    operations = [RowOp(rows, {"function": function, "source_register": 0, "destination_register": 1}, 40000, 31, rows)
                  for function in isa.RowFunction for rows in (1, 12, 13, 0)]
    bench = compare(State(config, 8), operations)
    expected = [row_cycles(config, o.control["function"], min(o.rows, 12)) if o.rows else 1 for o in operations]
    assert np.diff([bench.accepted[0], *bench.done]).tolist() == expected


@pytest.mark.parametrize("rows, columns", [(0, 4), (4, 0)])
def test_nothing_to_do_takes_one_cycle(rows, columns):
    config = CONFIGS["4x4/64"]
    vector = Vector(rows, columns, plain(source=isa.Source.DRAIN, destination=isa.Destination.SCRATCHPAD))
    bench = compare(State(config, 9), [vector, vector])
    assert bench.done == [bench.accepted[0] + 1, bench.accepted[0] + 2]


@pytest.mark.parametrize("saturation", isa.Saturate)
def test_saturation_and_ties(saturation):
    """Both ends and every tie near them: x = 2 * limit + d, shifted right by one."""
    config = CONFIGS["8x8/128"]
    state = State(config, 10)
    limits = [-32768, -129, -128, -1, 0, 127, 255, 32767]
    tile = np.array([[2 * limit + d for limit in limits] for d in (-3, -2, -1, 0, 1, 2, 3, 4)], np.int64)
    state.tiles = [tile]
    control = plain(source=isa.Source.DRAIN, multiplier=isa.Multiplier.IMMEDIATE, saturate=saturation,
                    destination=isa.Destination.SCRATCHPAD, reduce=isa.Reduce.MAX)
    compare(state, [Vector(8, 8, control, destination_pitch=1, factor=isa.pack(isa.FACTOR, multiplier=1, shift=1))])


def test_argmax_prefers_the_smallest_column():
    config = CONFIGS["4x4/64"]
    state = State(config, 11)
    tiles = [np.full((4, 4), -7, np.int64) for _ in range(3)]
    tiles[1][1, 2] = tiles[2][1, 0] = -5
    tiles[2][3, 1] = 9
    state.tiles = tiles
    argmax = plain(source=isa.Source.DRAIN, reduce=isa.Reduce.ARGMAX, reduce_register=2)
    index = plain(source=isa.Source.ZERO, pre=isa.Pre.MINUS_INDEX, row_register=2,
                  destination=isa.Destination.SCRATCHPAD)
    bench = compare(state, [Vector(4, 10, argmax), Vector(4, 1, index, destination_pitch=1)])
    assert (-bench.scratch[:4].view(np.int16)[:, 0]).tolist() == [0, 6, 0, 9]
