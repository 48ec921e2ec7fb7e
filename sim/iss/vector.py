"""VECTOR and ROWOP."""

from collections.abc import Iterator
from math import isqrt

import numpy as np

from phonolith.hw import isa
from phonolith.hw.isa import Destination, Multiplier, Pre, Reduce, RowFunction, Saturate, Source, Width
from phonolith.sim.iss.state import State, illegal, signed, view_range

LIMITS = {Saturate.INT8: (-128, 127), Saturate.UINT8: (0, 255), Saturate.INT16: (-32768, 32767)}


def vector(state: State, operands: dict[str, int], control: dict[str, int]) -> None:
    """Execute VECTOR, one row tile at a time (its chunks and rows do not read what the others write)."""
    check_encodings(control)
    if not operands["rows"] or not operands["columns"]:
        return
    check_banks(state, operands, control)
    check_row_pairs(state, control)
    for first in range(0, operands["rows"], state.config.rows):
        count = min(state.config.rows, operands["rows"] - first)
        Tile(state, operands, control, first, count).execute()


def check_encodings(control: dict) -> None:
    """Refuse encodings without a meaning, and what is read for two purposes, or while it is written."""
    for name, kinds in (("source", Source), ("source_width", Width), ("multiplier", Multiplier),
                        ("destination", Destination)):
        if control[name] >= len(kinds):
            raise illegal(f"VECTOR has no {name} {control[name]}.")
    if control["nibble"] and control["destination"] != Destination.SCRATCHPAD:
        raise illegal("VECTOR writes results of 4 bits to the scratchpad only.")
    if control["partial"] and control["source"] != Source.DRAIN:
        raise illegal("VECTOR adds partial sums of tiles from the drain only.")
    if control["multiplier"] == Multiplier.ELEMENT and control["residual"]:
        raise illegal("VECTOR with multiplier ELEMENT has no residual besides.")
    read = {control["row_register"]} if control["pre"] in (Pre.MINUS_ROW, Pre.MINUS_INDEX) else set()
    read |= {control["factor_register"]} if control["multiplier"] == Multiplier.ROW else set()
    if control["reduce"] and control["reduce_register"] in read:
        raise illegal(f"VECTOR reads row register {control['reduce_register']} and reduces into it.")


def check_banks(state: State, operands: dict, control: dict) -> None:
    """Refuse a source and a residual operand that share a scratchpad bank."""
    if control["source"] != Source.SCRATCHPAD or not isa.reads_residual(control):
        return
    banks = [bank_of(state, operands, control, name) for name in ("source", "residual")]
    if banks[0] == banks[1]:
        raise illegal(f"VECTOR reads source and residual from scratchpad bank {banks[0]}; they must differ.")


def bank_of(state: State, operands: dict, control: dict, name: str) -> int:
    """Return the scratchpad bank in which all words of an operand lie."""
    chunks = -(-operands["columns"] // state.config.columns)
    words = chunks if name == "residual" or control["source_width"] == Width.INT16 else -(-chunks // 2)
    first = operands[f"{name}_base"]
    last = first + (operands["rows"] - 1) * operands[f"{name}_pitch"] + words - 1
    depth = state.config.scratch_bank_depth
    if first // depth != last // depth:
        raise illegal(f"VECTOR {name} words {first}..{last} cross the scratchpad banks at {depth}.")
    return first // depth


def check_row_pairs(state: State, control: dict) -> None:
    """Refuse pairs of rows across tiles."""
    if control["nibble"] and not control["destination_byte"] and state.config.rows % 2:
        raise illegal(f"VECTOR writes rows in pairs, but a tile has {state.config.rows}: an odd number.")


class Tile:
    """One row tile of a VECTOR instruction: ``count`` rows from row ``first``, all columns."""

    def __init__(self, state: State, operands: dict, control: dict, first: int, count: int):
        self.state = state
        self.operands = operands
        self.control = control
        self.first = first
        self.count = count
        self.columns = operands["columns"]
        self.chunks = -(-self.columns // state.config.columns)
        self.blocks = 1 + isa.unpack(isa.FACTOR, operands["factor"])["blocks"] if control["partial"] else 1
        self.active = np.arange(self.chunks * state.config.columns) < self.columns

    def execute(self) -> None:
        """Source, pre-add, multiply, post-add, saturate, table, destination, reduction."""
        y = self.partial_sums() if self.control["partial"] else self.requantized(self.source(), 0)
        if self.control["residual"]:
            y = np.clip(y, *LIMITS[Saturate.INT16]) + self.scratch_rows("residual", "<i2")
        y = self.saturate(y)
        y = self.look_up(y)
        self.write(y)
        self.reduce(y)

    def requantized(self, source: np.ndarray, block: int) -> np.ndarray:
        """Return the source after addition, multiplication and bias, with the parameters of a block."""
        y = self.multiply(signed(source + self.pre(block), 32), block)
        return y + self.parameters(0, block) if self.control["post_bias"] else y

    def partial_sums(self) -> np.ndarray:
        """Add up blocks modulo 2^32 and return their sum in steps of the result."""
        tiles = self.take_tiles()
        total = np.zeros((self.count, len(self.active)), np.int64)
        for block in range(self.blocks):
            total = total + self.requantized(self.from_tiles(tiles[block::self.blocks], block), block)
        return signed(total, 32) >> isa.PARTIAL_SHIFT

    def source(self) -> np.ndarray:
        """Return int64 ``[count, chunks * C]``."""
        kind = self.control["source"]
        if kind == Source.DRAIN:
            return self.from_tiles(self.take_tiles(), 0)
        if kind == Source.SCRATCHPAD:
            dtype = {Width.INT16: "<i2", Width.INT8: "i1", Width.UINT8: "u1"}[Width(self.control["source_width"])]
            return self.scratch_rows("source", dtype).astype(np.int64)
        return np.zeros((self.count, len(self.active)), np.int64)

    def take_tiles(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Take the next finished tiles: one per chunk and block, blocks innermost."""
        needed = self.chunks * self.blocks
        if len(self.state.tiles) < needed:
            raise illegal(f"VECTOR drains {needed} tiles but only {len(self.state.tiles)} are finished.")
        return [self.state.tiles.popleft() for _ in range(needed)]

    def from_tiles(self, tiles: list[tuple[np.ndarray, np.ndarray]], block: int) -> np.ndarray:
        """Return what a block's tiles, one per chunk, give each lane, int64 ``[count, chunks * C]``."""
        sums = np.concatenate([tile for tile, _ in tiles], axis=1)[:self.count].astype(np.int64)
        if not self.control["row_sum"]:
            return sums
        row_sums = np.repeat([rows for _, rows in tiles], self.state.config.columns, axis=0).T[:self.count]
        return (sums << self.control["zero_shift"]) + row_sums * self.zeros(block)

    def scratch_rows(self, name: str, dtype: str) -> np.ndarray:
        """Return a writable view-like list of scratchpad rows as one array ``[count, chunks * C]``."""
        rows = range(self.first, self.first + self.count)
        return np.stack([self.scratch_row(name, row, len(self.active), dtype) for row in rows])

    def scratch_row(self, name: str, row: int, size: int, dtype: str) -> np.ndarray:
        """Return ``size`` scratchpad elements of one row, a writable view."""
        word = self.operands[f"{name}_base"] + row * self.operands[f"{name}_pitch"]
        start = word * self.state.config.scratch_word_bytes
        length = size * np.dtype(dtype).itemsize
        return view_range(self.state.scratchpad, start, length, "scratchpad").view(dtype)

    def row_values(self, register: str) -> np.ndarray:
        """Return one row register as an int64 column ``[count, 1]``."""
        return self.state.row_registers[self.control[register], :self.count, None]

    def parameters(self, index: int, block: int) -> np.ndarray:
        """Return word ``index`` (0 bias; 1 multiplier, shift, zero) of each column's parameters for a block, int64."""
        size = self.state.config.parameter_word_bytes
        start = self.operands["parameter_base"] * size
        words = view_range(self.state.parameter, start, self.chunks * self.blocks * size, "parameter").view("<i4")
        by_block = words.reshape(self.chunks, self.blocks, -1, 2)[:, block]
        return by_block.reshape(-1, 2)[:, index].astype(np.int64)

    def zeros(self, block: int) -> np.ndarray:
        """Return what row sums count in each column, int64."""
        low, bits = isa.PARAMETER_FACTOR["zero"]
        return signed(self.parameters(1, block) >> low & (1 << bits) - 1, bits)

    def pre(self, block: int):
        """Return what is added before the multiplier."""
        kind = self.control["pre"]
        if kind == Pre.BIAS:
            return self.parameters(0, block)
        if kind == Pre.MINUS_ROW:
            return -self.row_values("row_register")
        if kind == Pre.MINUS_INDEX:
            return -(65535 - (self.row_values("row_register") & 65535))
        return 0

    def multiply(self, x: np.ndarray, block: int) -> np.ndarray:
        """Multiply, round and shift."""
        kind = self.control["multiplier"]
        if kind == Multiplier.SQUARE:
            x = signed(x, 17)
            return x * x
        if kind == Multiplier.ONE:
            return x
        factor = self.factor(kind, block)
        multiplier = (self.scratch_rows("residual", "<i2").astype(np.int64) if kind == Multiplier.ELEMENT
                      else signed(factor & (1 << isa.MULTIPLIER_BITS) - 1, isa.MULTIPLIER_BITS))
        shift = np.minimum(factor >> isa.MULTIPLIER_BITS & (1 << isa.SHIFT_BITS) - 1, isa.MAX_SHIFT)
        half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
        return x * multiplier + half >> shift

    def factor(self, kind: int, block: int):
        """Return the packed multiplier and shift: per column, per row, or one for all."""
        if kind == Multiplier.COLUMN:
            return self.parameters(1, block)
        if kind == Multiplier.ROW:
            return self.row_values("factor_register")
        return np.int64(self.operands["factor"])

    def saturate(self, y: np.ndarray) -> np.ndarray:
        """Clip to the selected range."""
        if self.control["nibble"]:
            return np.clip(y, *isa.NIBBLE_LIMITS)
        kind = Saturate(self.control["saturate"])
        return signed(y, 34) if kind == Saturate.NONE else np.clip(y, *LIMITS[kind])

    def look_up(self, y: np.ndarray) -> np.ndarray:
        """Apply the table."""
        if not self.control["table"]:
            return y
        entries = self.state.table[y & 255]
        return (entries.view(np.int8) if self.control["table_signed"] else entries).astype(np.int64)

    def write(self, y: np.ndarray) -> None:
        """Write to the scratchpad or to the activation banks; inactive lanes write zeros."""
        y = np.where(self.active, y, 0)
        if self.control["destination"] == Destination.SCRATCHPAD:
            self.write_results(y)
        elif self.control["destination"] == Destination.ACTIVATION:
            self.write_activation(y.astype(np.uint8))

    def write_results(self, y: np.ndarray) -> None:
        """Write rows to the scratchpad in the selected form: words, bytes, or nibbles in pairs of columns or rows."""
        first, byte = self.first, self.control["destination_byte"]
        if self.control["nibble"] and byte:
            self.write_nibbles(y & 15)
        elif self.control["nibble"]:
            self.write_scratch(row_pairs(y), "u1", first // 2)
        else:
            self.write_scratch(y, "u1" if byte else "<u2", first)

    def write_scratch(self, y: np.ndarray, dtype: str, first: int) -> None:
        """Write rows from number ``first`` on to the scratchpad; where they overlap, the order is chunk by chunk."""
        rows = [self.scratch_row("destination", first + row, len(self.active), dtype) for row in range(len(y))]
        for lanes in self.written_together(y.shape[1] * np.dtype(dtype).itemsize):
            for target, values in zip(rows, y[:, lanes].astype(dtype), strict=True):
                target[lanes] = values

    def write_nibbles(self, y: np.ndarray) -> None:
        """Write rows of nibbles to the scratchpad, low ones first, in the order of :meth:`write_scratch`."""
        size = -(-y.shape[1] // 2)
        rows = [self.scratch_row("destination", self.first + row, size, "u1") for row in range(len(y))]
        for lanes in self.written_together(size):
            for target, values in zip(rows, y[:, lanes], strict=True):
                nibbles = np.stack([target & 15, target >> 4], axis=1).reshape(-1)
                nibbles[lanes] = values
                target[:] = nibbles[::2] | nibbles[1::2] << 4

    def written_together(self, row_bytes: int) -> Iterator[slice]:
        """Yield the lanes of one chunk after the other if rows of so many bytes overlap, else all."""
        overlap = self.operands["destination_pitch"] * self.state.config.scratch_word_bytes < row_bytes
        step = self.state.config.columns if overlap else len(self.active)
        for first in range(0, len(self.active), step):
            yield slice(first, first + step)

    def write_activation(self, y: np.ndarray) -> None:
        """Write row r to activation bank r."""
        tile = self.first // self.state.config.rows
        word = self.operands["destination_base"] + tile * self.operands["destination_pitch"]
        start = word * self.state.config.word_bytes
        view_range(self.state.activation, start, y.shape[1], "activation bank")[:self.count] = y

    def reduce(self, y: np.ndarray) -> None:
        """Reduce the active columns into a row register."""
        kind = self.control["reduce"]
        if kind == Reduce.NONE:
            return
        y = y[:, self.active]
        if kind == Reduce.ARGMAX:
            y = signed(y * 65536 + 65535 - np.arange(self.columns), 48)
        result = y.sum(axis=1) if kind == Reduce.SUM else y.max(axis=1)
        self.state.row_registers[self.control["reduce_register"], :self.count] = signed(result, 48)


def row_pairs(y: np.ndarray) -> np.ndarray:
    """Return rows in pairs: an even one in the low, the odd one behind it, or zeros, in the high nibbles."""
    low, high = y[::2] & 15, np.zeros_like(y[::2])
    high[:len(y) // 2] = y[1::2] & 15
    return low | high << 4


def row_operation(state: State, operands: dict[str, int], control: dict[str, int]) -> None:
    """Execute ROWOP."""
    factor = isa.unpack(isa.ROWOP_FACTOR, operands["factor"])
    source = state.row_registers[control["source_register"]]
    target = state.row_registers[control["destination_register"]]
    function = reciprocal if control["function"] == RowFunction.RECIPROCAL else inverse_sqrt
    for row in range(min(operands["rows"], state.config.rows)):
        value = (int(source[row]) + operands["epsilon"]) % (1 << 48)
        multiplier, shift = function(value, factor["numerator"], factor["shift"])
        target[row] = shift << isa.MULTIPLIER_BITS | multiplier


def reciprocal(value: int, numerator: int, shift: int) -> tuple[int, int]:
    """Return (multiplier, shift) of numerator / value; see docs/graph.md."""
    value = max(value % (1 << 32), 1)
    exponent = 32 - value.bit_length()
    return (numerator << 31) // (value << exponent), clip_shift(shift - exponent)


def inverse_sqrt(value: int, numerator: int, shift: int) -> tuple[int, int]:
    """Return (multiplier, shift) of numerator / sqrt(value); see docs/graph.md."""
    value = max(value, 1)
    exponent = (48 - value.bit_length()) // 2
    root = isqrt(value << 2 * exponent)
    return (numerator << 31) // (root << 8), clip_shift(shift - exponent)


def clip_shift(shift: int) -> int:
    """Keep a shift within what the requantizer takes."""
    return min(max(shift, 0), isa.MAX_SHIFT)
