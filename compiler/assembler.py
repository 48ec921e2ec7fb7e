"""Text-free assembler: instructions as method calls (``assembly.py`` reads text).

Operands are named as in ``hw/isa.py``. A VALUE operand is an int or a :class:`Reg`; ints beyond the 27-bit
immediate (DRAM addresses above 64 MiB) are set in a register first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import BY_MNEMONIC, Kind, Queue

ENGINES = (Queue.LOAD, Queue.ARRAY, Queue.VECTOR, Queue.STORE)
# One semaphore for each ordered pair of engines: a counter with one producer and one consumer.
SEMAPHORES = tuple(f"{p.name}_{c.name}" for p in ENGINES for c in ENGINES if p != c)
SEMAPHORE_LIMIT = (1 << isa.SEMAPHORE_BITS) - 1
# Registers that hold large literals, in turn; the sequencer has resolved them before it goes on.
LITERAL_REGISTERS = (28, 29, 30, 31)


@dataclass(frozen=True)
class Reg:
    """``register + immediate`` as an operand."""

    number: int
    immediate: int = 0


Value = int | Reg


@dataclass(frozen=True)
class Issue:
    """One instruction before encoding: operands by ISA name, packed ones already packed."""

    mnemonic: str
    operands: dict[str, Value | str] = field(default_factory=dict)
    wait: tuple[str, ...] = ()
    signal: tuple[str, ...] = ()


@dataclass(frozen=True)
class Label:
    """A branch target."""

    name: str


@dataclass(frozen=True)
class Raw:
    """One word as it is, for what is no instruction."""

    word: int


Item = Issue | Label | Raw


def semaphore_mask(names: Iterable[str]) -> int:
    """Return the mask of named semaphores; ValueError for an unknown name."""
    return sum(1 << SEMAPHORES.index(name) for name in set(names))


def mask_names(mask: int) -> tuple[str, ...]:
    """Return the names in a semaphore mask."""
    return tuple(name for bit, name in enumerate(SEMAPHORES) if mask >> bit & 1)


class Emitter:
    """Collects instructions; :meth:`assemble` encodes them.

    ``owners`` holds for each item the ``owner`` (a node's name) that was set when it was emitted.
    """

    def __init__(self):
        self.items: list[Item] = []
        self.owner = ""
        self.owners: list[str] = []

    def __len__(self) -> int:
        """Instructions and labels so far."""
        return len(self.items)

    def label(self, name: str) -> None:
        """Name the next instruction as a branch target."""
        self.items.append(Label(name))
        self.owners.append(self.owner)

    def end(self) -> None:
        """Stop when everything is done."""
        self._append("END", {})

    def set(self, destination: int, literal: int) -> None:
        """Put a literal into a register."""
        self._append("SET", {"destination": destination, "literal": literal})

    def add(self, destination: int, a: Value, b: Value) -> None:
        """Add two values."""
        self._append("ADD", {"destination": destination, "a": a, "b": b})

    def shift(self, destination: int, a: Value, amount: Value) -> None:
        """Shift left, or right when ``amount`` is negative."""
        self._append("SHIFT", {"destination": destination, "a": a, "amount": amount})

    def clamp(self, destination: int, a: Value, limit: Value) -> None:
        """Limit a signed value to 0 .. ``limit``."""
        self._append("CLAMP", {"destination": destination, "a": a, "limit": limit})

    def branch_less(self, a: Value, b: Value, target: str) -> None:
        """Continue at label ``target`` if a < b."""
        self._append("BRANCH_LESS", {"a": a, "b": b, "target": target})

    def branch_equal(self, a: Value, b: Value, target: str) -> None:
        """Continue at label ``target`` if a = b."""
        self._append("BRANCH_EQUAL", {"a": a, "b": b, "target": target})

    def load(self, *, target: isa.Target, address: Value, base: Value = 0, row_words: Value = 0,
             outer_count: Value = 1, outer_stride: Value = 0, inner_count: Value = 1, inner_stride: Value = 0,
             segment_count: Value = 1, segment_stride: Value = 0, segment_bytes: Value,
             bank_per_word: bool = False, transpose: bool = False, one_bank: bool = False, window: int = 0,
             wait=(), signal=()) -> None:
        """Gather rows from DRAM into an on-chip memory."""
        control = isa.pack(isa.LOAD_CONTROL, target=target, bank_per_word=bank_per_word, transpose=transpose,
                           one_bank=one_bank, window=window)
        self._append("LOAD", {
            "control": control, "address": address, "base": base, "row_words": row_words,
            "outer_count": outer_count, "outer_stride": outer_stride, "inner_count": inner_count,
            "inner_stride": inner_stride, "segment_count": segment_count, "segment_stride": segment_stride,
            "segment_bytes": segment_bytes,
        }, wait, signal)

    def matmul(self, *, a_base: Value, w_base: Value, k: Value, a_tile_words: Value = 0,
               w_tile_words: Value = 0, rows: Value = 1, columns: Value = 1,
               a_unsigned: bool = False, bits: int = 8, block: int = 0, band: bool = False, wait=(),
               signal=()) -> None:
        """Multiply rows by columns, tile by tile; the results go to the drain, of each ``block`` of k its own."""
        control = isa.pack(isa.MATMUL_CONTROL, a_unsigned=a_unsigned, log2_lanes=isa.WEIGHT_WIDTHS.index(bits),
                           band=band, block=isa.BLOCKS.index(block))
        self._append("MATMUL", {
            "control": control, "a_base": a_base, "a_tile_words": a_tile_words, "w_base": w_base,
            "w_tile_words": w_tile_words, "rows": rows, "columns": columns, "k": k,
        }, wait, signal)

    def vector(self, *, rows: Value, columns: Value, source: isa.Source, source_base: Value = 0,
               source_pitch: Value = 0, source_width: isa.Width = isa.Width.INT16,
               pre: isa.Pre = isa.Pre.NONE, multiplier: isa.Multiplier = isa.Multiplier.ONE,
               factor: tuple[int, int] = (0, 0), parameter_base: Value = 0, post_bias: bool = False,
               residual: bool = False, residual_base: Value = 0, residual_pitch: Value = 0,
               saturate: isa.Saturate = isa.Saturate.NONE, table: bool = False, table_signed: bool = False,
               destination: isa.Destination = isa.Destination.NONE, destination_base: Value = 0,
               destination_pitch: Value = 0, destination_byte: bool = False, nibble: bool = False,
               reduce: isa.Reduce = isa.Reduce.NONE, reduce_register: int = 0, row_register: int = 0,
               factor_register: int = 0, row_sum: bool = False, zero_shift: int = 0, blocks: int = 0, wait=(),
               signal=()) -> None:
        """Pass rows through the vector data path.

        ``factor`` is (multiplier, shift); ``blocks`` 0: no partial sums.
        """
        control = isa.pack(
            isa.VECTOR_CONTROL, source=source, source_width=source_width, pre=pre, multiplier=multiplier,
            post_bias=post_bias, residual=residual, saturate=saturate, table=table, table_signed=table_signed,
            destination=destination, destination_byte=destination_byte, reduce=reduce,
            reduce_register=reduce_register, row_register=row_register, factor_register=factor_register,
            row_sum=row_sum, zero_shift=zero_shift, partial=blocks > 0, nibble=nibble)
        self._append("VECTOR", {
            "control": control, "rows": rows, "columns": columns, "source_base": source_base,
            "source_pitch": source_pitch, "residual_base": residual_base, "residual_pitch": residual_pitch,
            "destination_base": destination_base, "destination_pitch": destination_pitch,
            "factor": isa.pack(isa.FACTOR, multiplier=factor[0], shift=factor[1], blocks=max(blocks - 1, 0)),
            "parameter_base": parameter_base,
        }, wait, signal)

    def rowop(self, *, function: isa.RowFunction, source_register: int, destination_register: int,
              rows: Value, factor: tuple[int, int], epsilon: Value = 0, wait=(), signal=()) -> None:
        """Turn row registers into factors; ``factor`` is (numerator, shift)."""
        control = isa.pack(isa.ROWOP_CONTROL, function=function, source_register=source_register,
                           destination_register=destination_register)
        packed = isa.pack(isa.ROWOP_FACTOR, numerator=factor[0], shift=factor[1])
        self._append("ROWOP", {"control": control, "rows": rows, "factor": packed, "epsilon": epsilon},
                     wait, signal)

    def store(self, *, address: Value, base: Value, pitch: Value, row_bytes: Value, outer_count: Value = 1,
              outer_stride: Value = 0, inner_count: Value = 1, inner_stride: Value = 0, fence: bool = False,
              wait=(), signal=()) -> None:
        """Write scratchpad rows to DRAM."""
        self._append("STORE", {
            "control": isa.pack(isa.STORE_CONTROL, fence=fence), "address": address, "base": base,
            "pitch": pitch, "outer_count": outer_count, "outer_stride": outer_stride,
            "inner_count": inner_count, "inner_stride": inner_stride, "row_bytes": row_bytes,
        }, wait, signal)

    def _append(self, mnemonic: str, operands: dict[str, Value | str], wait=(), signal=()) -> None:
        self.items.append(Issue(mnemonic, operands, tuple(wait), tuple(signal)))
        self.owners.append(self.owner)

    def assemble(self, config: MachineConfig) -> tuple[np.ndarray, list[int]]:
        """Return the program's words (uint32) and, per item, the index of its first word."""
        return assemble(self.items, config)


def assemble(items: Sequence[Item], config: MachineConfig) -> tuple[np.ndarray, list[int]]:
    """Encode instructions after the configuration's hash word.

    Returns the words (uint32) and the index of each item's first word. ValueError for a label that does not
    exist or an operand that does not fit.
    """
    return assemble_behind(items, config.hash_word)


def assemble_behind(items: Sequence[Item], first: int) -> tuple[np.ndarray, list[int]]:
    """Encode as :func:`assemble` does, behind the word ``first``."""
    expanded = [large_literals(item) for item in items]
    starts, position = [], 1
    for group in expanded:
        starts.append(position)
        position += sum(1 if isinstance(each, Raw) else 1 + len(each.operands) for each in group)
    labels = {item.name: start for item, start in zip(items, starts, strict=True) if isinstance(item, Label)}
    words = [first]
    for group in expanded:
        for each in group:
            words += [each.word] if isinstance(each, Raw) else encode(each, labels)
    return np.array(words, np.uint32), starts


def large_literals(item: Item) -> Sequence[Issue | Raw]:
    """Return the instruction, behind SETs for its operands that do not fit an immediate."""
    if isinstance(item, Label | Raw):
        return [item] if isinstance(item, Raw) else []
    sets, operands = [], dict(item.operands)
    for operand in BY_MNEMONIC[item.mnemonic].operands:
        value = item.operands[operand.name]
        if operand.kind is Kind.VALUE and isinstance(value, int) and not fits_immediate(value):
            register = LITERAL_REGISTERS[len(sets)]
            sets.append(Issue("SET", {"destination": register, "literal": value}))
            operands[operand.name] = Reg(register)
    return [*sets, Issue(item.mnemonic, operands, item.wait, item.signal)]


def fits_immediate(value: int) -> bool:
    """Tell whether ``value`` fits the signed immediate of a VALUE operand."""
    return -(1 << isa.IMMEDIATE_BITS - 1) <= value < 1 << isa.IMMEDIATE_BITS - 1


def encode(issue: Issue, labels: dict[str, int]) -> list[int]:
    """Return the words of one instruction."""
    instruction = BY_MNEMONIC[issue.mnemonic]
    header = isa.pack(isa.HEADER, opcode=instruction.opcode, wait=semaphore_mask(issue.wait),
                      signal=semaphore_mask(issue.signal))
    return [header, *(encode_operand(o.kind, issue.operands[o.name], labels) for o in instruction.operands)]


def encode_operand(kind: Kind, value: Value | str, labels: dict[str, int]) -> int:
    """Return the word of one operand."""
    if isinstance(value, str):
        if value not in labels:
            raise ValueError(f"unknown label {value!r}")
        return labels[value]
    if isinstance(value, Reg):
        return isa.encode_value(value.immediate, value.number)
    if kind is Kind.RAW:
        return int(value) & 0xFFFFFFFF
    return isa.encode_value(int(value)) if kind is Kind.VALUE else isa.encode_value(0, int(value))
