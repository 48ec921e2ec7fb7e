"""The one definition of the instruction set: RTL decoder, assembler, disassembler and simulators read it.

A program is a stream of 32-bit words. An instruction is a header word and one word per operand; see ``docs/isa.md``
for what each instruction does. Every operand of kind VALUE is ``register[bits 31:27] + signed(bits 26:0)``,
register 0 being zero, so any size or address may vary at run time. REGISTER names a register, RAW is a literal.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum

OPCODE_BITS = 6
SEMAPHORES = 12
SEMAPHORE_BITS = 6
REGISTERS = 32
IMMEDIATE_BITS = 27
ROW_REGISTERS = 4
ROW_BITS = 48
MULTIPLIER_BITS = 17
SHIFT_BITS = 6
MAX_SHIFT = 47
WINDOW_BITS = 3
ZERO_BITS = 9
BLOCK_BITS = 9
PARTIAL_SHIFT = 8
# Range of results of 4 bits.
NIBBLE_LIMITS = (-8, 7)
# Widths of weights, by ``log2_lanes`` of MATMUL; sizes of blocks along K, by ``block``.
WEIGHT_WIDTHS = (8, 4, 2, 1)
BLOCKS = (0, 32, 64, 128, 256)


class Queue(IntEnum):
    """Which unit executes an instruction."""

    SEQUENCER = 0
    LOAD = 1
    ARRAY = 2
    VECTOR = 3
    STORE = 4


class Kind(Enum):
    """How an operand word is resolved."""

    VALUE = "value"
    REGISTER = "register"
    RAW = "raw"


@dataclass(frozen=True)
class Operand:
    """One operand word; ``fields`` names bit ranges (lowest bit, width) of a packed operand."""

    name: str
    kind: Kind = Kind.VALUE
    fields: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Instruction:
    """One opcode."""

    mnemonic: str
    opcode: int
    queue: Queue
    operands: tuple[Operand, ...]

    def operand(self, name: str) -> Operand:
        """Return the operand called ``name``."""
        return self.operands[self.index(name)]

    def index(self, name: str) -> int:
        """Return the position of operand ``name``."""
        return [o.name for o in self.operands].index(name)


class Target(IntEnum):
    """Where LOAD writes."""

    ACTIVATION = 0
    WEIGHT = 1
    SCRATCHPAD = 2
    PARAMETER = 3
    TABLE = 4


class Source(IntEnum):
    """What VECTOR reads: a finished tile of the array, scratchpad rows, or zeros."""

    DRAIN = 0
    SCRATCHPAD = 1
    ZERO = 2


class Width(IntEnum):
    """Element type of scratchpad data that VECTOR reads."""

    INT16 = 0
    INT8 = 1
    UINT8 = 2


class Pre(IntEnum):
    """Added to the source before the multiplier."""

    NONE = 0
    BIAS = 1
    MINUS_ROW = 2
    MINUS_INDEX = 3


class Multiplier(IntEnum):
    """What the value is multiplied by."""

    ONE = 0
    COLUMN = 1
    ROW = 2
    IMMEDIATE = 3
    SQUARE = 4
    ELEMENT = 5


class Saturate(IntEnum):
    """Range after the last addition."""

    INT8 = 0
    UINT8 = 1
    INT16 = 2
    NONE = 3


class Destination(IntEnum):
    """Where VECTOR writes."""

    NONE = 0
    SCRATCHPAD = 1
    ACTIVATION = 2


class Reduce(IntEnum):
    """Reduction along a row into a row register."""

    NONE = 0
    SUM = 1
    MAX = 2
    ARGMAX = 3


class RowFunction(IntEnum):
    """What ROWOP computes from a row register."""

    RECIPROCAL = 0
    INVERSE_SQRT = 1


LOAD_CONTROL = {"target": (0, 3), "bank_per_word": (3, 1), "transpose": (4, 1), "early": (5, SEMAPHORES),
                "one_bank": (17, 1), "window": (18, WINDOW_BITS)}
MATMUL_CONTROL = {"a_unsigned": (0, 1), "log2_lanes": (1, 2), "band": (3, 1), "block": (4, 3)}
VECTOR_CONTROL = {
    "source": (0, 2), "source_width": (2, 2), "pre": (4, 2), "multiplier": (6, 3), "post_bias": (9, 1),
    "residual": (10, 1), "saturate": (11, 2), "table": (13, 1), "table_signed": (14, 1),
    "destination": (15, 2), "destination_byte": (17, 1), "reduce": (18, 2), "reduce_register": (20, 2),
    "row_register": (22, 2), "factor_register": (24, 2), "row_sum": (26, 1), "zero_shift": (27, 3), "partial": (30, 1),
    "nibble": (31, 1),
}
FACTOR = {"multiplier": (0, MULTIPLIER_BITS), "shift": (MULTIPLIER_BITS, SHIFT_BITS),
          "blocks": (MULTIPLIER_BITS + SHIFT_BITS, BLOCK_BITS)}
PARAMETER_FACTOR = {"multiplier": (0, MULTIPLIER_BITS), "shift": (MULTIPLIER_BITS, SHIFT_BITS),
                    "zero": (MULTIPLIER_BITS + SHIFT_BITS, ZERO_BITS)}
ROWOP_CONTROL = {"function": (0, 1), "source_register": (1, 2), "destination_register": (3, 2)}
ROWOP_FACTOR = {"numerator": (0, 16), "shift": (16, SHIFT_BITS)}
STORE_CONTROL = {"fence": (0, 1)}
HEADER = {"opcode": (0, OPCODE_BITS), "wait": (OPCODE_BITS, SEMAPHORES),
          "signal": (OPCODE_BITS + SEMAPHORES, SEMAPHORES)}


def values(*names: str) -> tuple[Operand, ...]:
    """Return one VALUE operand per name."""
    return tuple(Operand(name) for name in names)


LOOPS = ("outer_count", "outer_stride", "inner_count", "inner_stride")

INSTRUCTIONS = (
    Instruction("END", 0, Queue.SEQUENCER, ()),
    Instruction("SET", 1, Queue.SEQUENCER, (Operand("destination", Kind.REGISTER), Operand("literal", Kind.RAW))),
    Instruction("ADD", 2, Queue.SEQUENCER, (Operand("destination", Kind.REGISTER), *values("a", "b"))),
    Instruction("SHIFT", 3, Queue.SEQUENCER, (Operand("destination", Kind.REGISTER), *values("a", "amount"))),
    Instruction("BRANCH_LESS", 4, Queue.SEQUENCER, (*values("a", "b"), Operand("target", Kind.RAW))),
    Instruction("BRANCH_EQUAL", 5, Queue.SEQUENCER, (*values("a", "b"), Operand("target", Kind.RAW))),
    Instruction("CLAMP", 6, Queue.SEQUENCER, (Operand("destination", Kind.REGISTER), *values("a", "limit"))),
    Instruction("LOAD", 16, Queue.LOAD, (
        Operand("control", fields=LOAD_CONTROL),
        *values("address", "base", "row_words", *LOOPS, "segment_count", "segment_stride", "segment_bytes"))),
    Instruction("MATMUL", 17, Queue.ARRAY, (
        Operand("control", fields=MATMUL_CONTROL),
        *values("a_base", "a_tile_words", "w_base", "w_tile_words", "rows", "columns", "k"))),
    Instruction("VECTOR", 18, Queue.VECTOR, (
        Operand("control", fields=VECTOR_CONTROL),
        *values("rows", "columns", "source_base", "source_pitch", "residual_base", "residual_pitch",
                "destination_base", "destination_pitch"),
        Operand("factor", fields=FACTOR), *values("parameter_base"))),
    Instruction("ROWOP", 19, Queue.VECTOR, (
        Operand("control", fields=ROWOP_CONTROL), *values("rows"),
        Operand("factor", fields=ROWOP_FACTOR), *values("epsilon"))),
    Instruction("STORE", 20, Queue.STORE, (
        Operand("control", fields=STORE_CONTROL), *values("address", "base", "pitch", *LOOPS, "row_bytes"))),
)

BY_MNEMONIC = {i.mnemonic: i for i in INSTRUCTIONS}
BY_OPCODE = {i.opcode: i for i in INSTRUCTIONS}


def pack(fields: dict[str, tuple[int, int]], **parts: int) -> int:
    """Pack named parts into one word; ValueError when a part is unknown or does not fit.

    A negative part is taken as two's complement of its field.
    """
    word = 0
    for name, part in parts.items():
        low, width = fields[name] if name in fields else missing(name, fields)
        if not -(1 << width - 1) <= part < 1 << width:
            raise ValueError(f"{name} must fit {width} bits, not {part!r}")
        word |= (int(part) & (1 << width) - 1) << low
    return word


def unpack(fields: dict[str, tuple[int, int]], word: int) -> dict[str, int]:
    """Split a word into its named parts, unsigned."""
    return {name: word >> low & (1 << width) - 1 for name, (low, width) in fields.items()}


def reads_residual(control: dict[str, int]) -> bool:
    """Tell whether a VECTOR with these control fields reads its residual operand."""
    return bool(control["residual"]) or control["multiplier"] == Multiplier.ELEMENT


def chunks_per_word(control: dict[str, int]) -> int:
    """Return how many chunks of C results share a scratchpad word that a VECTOR writes."""
    if control["nibble"]:
        return 4 if control["destination_byte"] else 2
    return 2 if control["destination_byte"] else 1


def rows_per_word(control: dict[str, int]) -> int:
    """Return how many rows of results share a scratchpad word that a VECTOR writes."""
    return 2 if control["nibble"] and not control["destination_byte"] else 1


def missing(name: str, fields: dict) -> tuple[int, int]:
    """Raise ValueError for an unknown field."""
    raise ValueError(f"unknown field {name!r}; known: {', '.join(fields)}")


def encode_value(immediate: int, register: int = 0) -> int:
    """Encode ``register + immediate`` as a VALUE operand word; ValueError when it does not fit."""
    if not -(1 << IMMEDIATE_BITS - 1) <= immediate < 1 << IMMEDIATE_BITS - 1:
        raise ValueError(f"immediate must fit {IMMEDIATE_BITS} signed bits, not {immediate!r}")
    if not 0 <= register < REGISTERS:
        raise ValueError(f"register must be 0..{REGISTERS - 1}, not {register!r}")
    return register << IMMEDIATE_BITS | int(immediate) & (1 << IMMEDIATE_BITS) - 1


def decode_value(word: int) -> tuple[int, int]:
    """Return (register, signed immediate) of a VALUE operand word."""
    immediate = word & (1 << IMMEDIATE_BITS) - 1
    return word >> IMMEDIATE_BITS, immediate - (immediate >> IMMEDIATE_BITS - 1 << IMMEDIATE_BITS)
