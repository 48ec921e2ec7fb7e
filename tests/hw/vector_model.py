"""A numpy reading of what docs/isa.md says of VECTOR and ROWOP, and random instructions."""

from dataclasses import dataclass, field, replace
from math import isqrt

import numpy as np

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig

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


def saturated(y, control: dict):
    """Step 5."""
    if control["nibble"]:
        return np.clip(y, -8, 7)
    if control["saturate"] == isa.Saturate.NONE:
        return wrap(y, 34)
    return np.clip(y, *{isa.Saturate.INT8: (-128, 127), isa.Saturate.UINT8: (0, 255),
                        isa.Saturate.INT16: (-32768, 32767)}[control["saturate"]])


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

    @property
    def blocks(self) -> int:
        """Tiles that are added up for each chunk."""
        return 1 + (self.factor >> 23 & 511) if self.control["partial"] else 1

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
    """Everything that instructions read and write, in numpy.

    ``tiles`` is what the array will deliver: R rows of C sums, and in the last column the sum of the row's activations.
    """

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
        self.zero = random.choice([-256, -1, 0, 1, 255, *range(-20, 20)], (PARAMETERS, config.columns))
        self.table = random.integers(0, 256, 256, np.uint8)
        self.registers = np.zeros((isa.ROW_REGISTERS, config.rows), np.int64)
        self.partial_sums = np.zeros((config.rows, config.columns), np.int64)

    def parameter_word(self, address: int) -> int:
        """The packed parameter word at an address."""
        word = 0
        for lane in range(self.config.columns):
            bias, multiplier, shift, zero = (int(a[address, lane]) for a in (
                self.bias, self.multiplier, self.shift, self.zero))
            factor = isa.pack(isa.PARAMETER_FACTOR, multiplier=multiplier, shift=shift, zero=zero)
            word |= (bias & 0xFFFFFFFF | factor << 32) << 64 * lane
        return word

    def execute(self, instruction) -> None:
        """Carry out one instruction."""
        if isinstance(instruction, RowOp):
            self.row_operation(instruction)
            return
        rows, columns = self.config.rows, self.config.columns
        for i in range(-(-instruction.rows // rows)):
            for j in range(-(-instruction.columns // columns)):
                for block in range(instruction.blocks):
                    tile = None
                    if instruction.control["source"] == isa.Source.DRAIN:
                        tile = self.tiles.pop(0)
                    for r in range(min(rows, instruction.rows - i * rows)):
                        self.one_row(instruction, i, j, block, r, tile)

    def one_row(self, vector: Vector, i: int, j: int, block: int, r: int, tile) -> None:
        """All steps for one row of one chunk and block."""
        y = self.requantized(vector, i * self.config.rows + r, j, block, r, tile)
        if vector.control["partial"]:
            total = wrap(y + (self.partial_sums[r] if block else 0), 32)
            self.partial_sums[r] = total
            if block < vector.blocks - 1:
                return
            y = total // 256
        self.finish_row(vector, i, j, r, y)

    def requantized(self, vector: Vector, n: int, j: int, block: int, r: int, tile):
        """From the source to the bias behind the multiplier."""
        c = vector.control
        parameter = (vector.parameter_base + j * vector.blocks + block) % PARAMETERS
        x = self.source(vector, n, j, r, tile, parameter)
        register = int(self.registers[c["row_register"], r])
        x = x + {isa.Pre.NONE: 0, isa.Pre.BIAS: self.bias[parameter], isa.Pre.MINUS_ROW: -wrap(register, 32),
                 isa.Pre.MINUS_INDEX: -(65535 - register % 65536)}[c["pre"]]
        x = wrap(x, 32)
        y = self.multiplied(x, vector, parameter, n, j, r)
        return y + self.bias[parameter] if c["post_bias"] else y

    def finish_row(self, vector: Vector, i: int, j: int, r: int, y) -> None:
        """From the residual operand on."""
        c, n, lanes = vector.control, i * self.config.rows + r, self.config.columns
        active = j * lanes + np.arange(lanes) < vector.columns
        if c["residual"]:
            y = np.clip(y, -32768, 32767) + self.residual(vector, n, j)
        y = saturated(y, c)
        if c["table"]:
            entry = self.table[y % 256]
            y = entry.view(np.int8).astype(np.int64) if c["table_signed"] else entry.astype(np.int64)
        self.write(vector, i, j, r, np.where(active, y, 0))
        self.reduce(c, r, j, y[active], 65535 - j * lanes - np.arange(lanes)[active])

    def source(self, vector: Vector, n: int, j: int, r: int, tile, parameter: int):
        """Step 1, as int64."""
        c, lanes = vector.control, self.config.columns
        if c["source"] == isa.Source.DRAIN:
            sums, row_sum = tile[r][:lanes], tile[r][lanes]
            return sums * 2 ** c["zero_shift"] + row_sum * self.zero[parameter] if c["row_sum"] else sums
        if c["source"] == isa.Source.ZERO:
            return np.zeros(lanes, np.int64)
        start = vector.source_base + n * vector.source_pitch
        if c["source_width"] == isa.Width.INT16:
            return self.scratch[start + j].view(np.int16).astype(np.int64)
        half = self.scratch[start + j // 2][j % 2 * lanes:][:lanes]
        return (half.view(np.int8) if c["source_width"] == isa.Width.INT8 else half).astype(np.int64)

    def residual(self, vector: Vector, n: int, j: int):
        """The residual operand, as int64."""
        return self.scratch[vector.residual_base + n * vector.residual_pitch + j].view(np.int16).astype(np.int64)

    def multiplied(self, x, vector: Vector, parameter: int, n: int, j: int, r: int):
        """Step 3."""
        mode = vector.control["multiplier"]
        if mode == isa.Multiplier.SQUARE:
            return wrap(x, 17) ** 2
        if mode == isa.Multiplier.ONE:
            return x
        if mode == isa.Multiplier.COLUMN:
            m, s = self.multiplier[parameter], self.shift[parameter]
        elif mode == isa.Multiplier.ELEMENT:
            m, s = self.residual(vector, n, j), isa.unpack(isa.FACTOR, vector.factor)["shift"]
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
        elif c["destination"] == isa.Destination.SCRATCHPAD and c["nibble"]:
            self.write_nibbles(vector, n, j, y % 16)
        elif c["destination"] == isa.Destination.SCRATCHPAD:
            start = vector.destination_base + n * vector.destination_pitch
            if c["destination_byte"]:
                self.scratch[start + j // 2][j % 2 * lanes:][:lanes] = octets
            else:
                self.scratch[start + j] = (y % 65536).astype(np.uint16).view(np.uint8)

    def write_nibbles(self, vector: Vector, n: int, j: int, y) -> None:
        """Step 7, two results to a byte: of two columns, or of two rows."""
        lanes = self.config.columns
        if vector.control["destination_byte"]:
            word = self.scratch[vector.destination_base + n * vector.destination_pitch + j // 4]
            nibbles = np.stack([word % 16, word // 16], axis=1).reshape(-1)
            nibbles[j % 4 * lanes:][:lanes] = y
            word[:] = nibbles[::2] + 16 * nibbles[1::2]
        else:
            word = self.scratch[vector.destination_base + n // 2 * vector.destination_pitch + j // 2]
            octets = word[j % 2 * lanes:][:lanes]
            octets[:] = octets % 16 + 16 * y if n % 2 else y

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


def put(word: np.ndarray, value: int, enable: int, granule_bits: int):
    """Write the enabled granules of a memory word, uint8."""
    granule = (1 << granule_bits) - 1
    mask = sum(granule << index * granule_bits for index in range(enable.bit_length()) if enable >> index & 1)
    merged = int.from_bytes(word.tobytes(), "little") & ~mask | value & mask
    word[:] = np.frombuffer(merged.to_bytes(len(word), "little"), np.uint8)


def random_vector(random, config: MachineConfig) -> Vector:
    """Any legal VECTOR: source, residual and destination in different places."""
    choose = lambda kind: int(random.choice(list(kind)))  # noqa: E731
    control = {
        "source": choose(isa.Source), "source_width": choose(isa.Width), "pre": choose(isa.Pre),
        "multiplier": choose(isa.Multiplier), "saturate": choose(isa.Saturate),
        "destination": choose(isa.Destination), "reduce": choose(isa.Reduce),
        **{name: int(random.integers(2)) for name in ("post_bias", "residual", "table", "table_signed",
                                                       "destination_byte", "row_sum", "partial", "nibble")},
        "zero_shift": int(random.integers(8)),
        **{name: int(random.integers(4)) for name in ("reduce_register", "row_register", "factor_register")},
    }
    control["residual"] &= control["multiplier"] != isa.Multiplier.ELEMENT
    control["partial"] &= control["source"] == isa.Source.DRAIN
    can_pair = control["destination_byte"] or not config.rows % 2
    control["nibble"] &= control["destination"] == isa.Destination.SCRATCHPAD and can_pair
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
        factor=int(random.choice([int(random.integers(1 << 23)), isa.pack(isa.FACTOR, multiplier=40000, shift=22)]))
        | int(random.choice([0, 1, 2, 3, 5] if control["partial"] else [0, 511])) << 23,
    )


def random_follower(random, vector: Vector, config: MachineConfig) -> Vector:
    """A VECTOR that may enter the pipeline right behind another, or one that differs in what forbids it."""
    same = {"rows": int(random.choice([1, 2, config.rows, config.rows + 1])),
            "destination_base": vector.destination_base + int(random.integers(4)),
            "parameter_base": int(random.integers(8))}
    if random.random() < 0.2:
        same["columns"] = int(random.integers(1, 4 * config.columns))
    if random.random() < 0.2:
        same["control"] = vector.control | {"saturate": int(random.integers(4)), "zero_shift": int(random.integers(8))}
    if random.random() < 0.2:
        same["factor"] = vector.factor ^ 1
    return replace(vector, **same)


def random_row_operation(random, config: MachineConfig) -> RowOp:
    """Any legal ROWOP."""
    source, destination = (int(v) for v in random.integers(0, 4, 2))
    control = {"function": int(random.integers(2)), "source_register": source, "destination_register": destination}
    return RowOp(int(random.integers(1, config.rows + 3)), control, int(random.integers(1 << 15, 1 << 16)),
                 int(random.integers(64)), int(random.integers(1 << 32)) >> int(random.integers(32)))


def tiles_for(random, instruction, config: MachineConfig) -> list[np.ndarray]:
    """What the array must deliver for an instruction: R x (C + 1) int32, large and small."""
    if isinstance(instruction, RowOp) or instruction.control["source"] != isa.Source.DRAIN:
        return []
    count = -(-instruction.rows // config.rows) * -(-instruction.columns // config.columns) * instruction.blocks
    shape = (count, config.rows, config.columns + 1)
    return list(random.integers(-1 << 31, 1 << 31, shape) >> random.choice([0, 0, 8, 16], (count, 1, 1)))


def plain(**control) -> dict:
    """Control parts of a VECTOR that copies; with changes."""
    parts = {name: 0 for name in isa.VECTOR_CONTROL}
    return {**parts, "source": isa.Source.SCRATCHPAD, "saturate": isa.Saturate.INT16, **control}
