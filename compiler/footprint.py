"""Which words of which memory an engine instruction reads and writes.

Ranges are the smallest interval that holds every access: words of one bank for the operand memories (all banks
alike), words of the scratchpad, of the parameter memory, bytes of DRAM. ``docs/isa.md`` defines the accesses.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from phonolith.compiler.disassembler import Resolved, signed
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import (
    BLOCKS,
    Destination,
    Multiplier,
    Pre,
    Source,
    Target,
    Width,
    chunks_per_word,
    reads_residual,
    rows_per_word,
)


class Memory(IntEnum):
    """A memory that engines share; LOAD targets have their ISA number."""

    ACTIVATION = Target.ACTIVATION
    WEIGHT = Target.WEIGHT
    SCRATCHPAD = Target.SCRATCHPAD
    PARAMETER = Target.PARAMETER
    TABLE = Target.TABLE
    DRAM = 5


@dataclass(frozen=True)
class Access:
    """Half-open interval ``low .. high`` of ``memory``."""

    memory: Memory
    low: int
    high: int
    write: bool


def accesses(instruction: Resolved, config: MachineConfig) -> list[Access]:
    """Return the memory accesses of an engine instruction; none for empty loops."""
    found = FOOTPRINTS[instruction.instruction.mnemonic](instruction, config)
    return [access for access in found if access.low < access.high]


def can_be_followed(instruction: Resolved, config: MachineConfig) -> bool:
    """Tell whether an instruction is a LOAD of operands that the array can follow word by word (early signals)."""
    if instruction.instruction.mnemonic != "LOAD":
        return False
    o, control = instruction.operands, instruction.control
    is_operand = control["target"] in (Target.ACTIVATION, Target.WEIGHT)
    if not is_operand or not control["bank_per_word"] or control["transpose"]:
        return False
    low, high = bank_interval(instruction, o["outer_count"] * o["inner_count"],
                              o["segment_count"] * o["segment_bytes"], config)
    return 0 < o["row_words"] == high - low


def strided(base: int, count: int, pitch: int, width: int) -> tuple[int, int]:
    """Return the interval of ``count`` pieces of ``width``, ``pitch`` apart; empty when there are none."""
    if count <= 0 or width <= 0:
        return (base, base)
    return (base, base + (count - 1) * pitch + width)


def dram_interval(operands: dict[str, int], row_bytes: int, segments: int = 1, stride: int = 0) -> tuple[int, int]:
    """Return the DRAM bytes of a LOAD's or STORE's loops."""
    low = high = operands["address"]
    loops = ((operands["outer_count"], signed(operands["outer_stride"])),
             (operands["inner_count"], signed(operands["inner_stride"])), (segments, stride))
    if min(count for count, _ in loops) == 0 or row_bytes == 0:
        return (low, low)
    for count, step in loops:
        reach = (count - 1) * step
        low, high = low + min(reach, 0), high + max(reach, 0)
    return (low, high + row_bytes)


def load_accesses(instruction: Resolved, config: MachineConfig) -> Iterator[Access]:
    """Accesses of LOAD."""
    o, control = instruction.operands, instruction.control
    target = Target(control["target"])
    source = dram_interval(o, o["segment_bytes"], o["segment_count"], signed(o["segment_stride"]))
    yield Access(Memory.DRAM, *source, False)
    if source[0] == source[1]:
        return
    rows, row_bytes = o["outer_count"] * o["inner_count"], o["segment_count"] * o["segment_bytes"]
    if target is Target.TABLE:
        yield Access(Memory.TABLE, 0, 1, True)
    elif target in (Target.SCRATCHPAD, Target.PARAMETER):
        wide = config.scratch_word_bytes if target is Target.SCRATCHPAD else config.parameter_word_bytes
        yield Access(Memory(target), *strided(o["base"], rows, o["row_words"], -(-row_bytes // wide)), True)
    else:
        yield Access(Memory(target), *bank_interval(instruction, rows, row_bytes, config), True)


def bank_interval(instruction: Resolved, rows: int, row_bytes: int, config: MachineConfig) -> tuple[int, int]:
    """Return the words per bank that a LOAD into an operand memory writes."""
    o, control = instruction.operands, instruction.control
    banks = load_banks(instruction, config)
    words = -(-row_bytes // config.word_bytes)
    if control["transpose"]:
        rows, words = o["segment_bytes"], -(-rows // config.word_bytes)
    if control["window"]:
        return strided(o["base"], rows, o["row_words"], window_extent(words, control["window"], config))
    if control["bank_per_word"] and not control["transpose"]:
        return (o["base"], o["base"] - (-rows * words // banks))
    return strided(o["base"], -(-rows // banks), o["row_words"], words)


def window_extent(words: int, window: int, config: MachineConfig) -> int:
    """Return how far the windows of ``words`` words reach in any bank, one column's or row's."""
    return max(((words - 1 - n) // config.rows * window + n + 1 for n in range(min(words, window))), default=0)


def load_banks(instruction: Resolved, config: MachineConfig) -> int:
    """Return over how many banks a LOAD into an operand memory distributes its words."""
    if instruction.control["one_bank"]:
        return 1
    return config.rows if instruction.control["target"] == Target.ACTIVATION else config.columns


def matmul_accesses(instruction: Resolved, config: MachineConfig) -> Iterator[Access]:
    """Accesses of MATMUL."""
    o = instruction.operands
    (rows, columns), words = config.tile_counts(o["rows"], o["columns"]), -(-o["k"] // config.word_bytes)
    yield Access(Memory.ACTIVATION, *strided(o["a_base"], rows, o["a_tile_words"], words), False)
    weights = rows * columns if instruction.control["band"] else columns
    yield Access(Memory.WEIGHT, *strided(o["w_base"], weights, o["w_tile_words"], weight_words(instruction, config)),
                 False)


def weight_words(instruction: Resolved, config: MachineConfig) -> int:
    """Return the words that a MATMUL reads of a weight bank for one tile."""
    steps = -(-instruction.operands["k"] // (1 << instruction.control["log2_lanes"]))
    steps -= config.columns - 1 if instruction.control["band"] else 0
    return max(-(-steps // config.word_bytes), 0)


def vector_accesses(instruction: Resolved, config: MachineConfig) -> Iterator[Access]:
    """Accesses of VECTOR."""
    o, control = instruction.operands, instruction.control
    rows, chunks = o["rows"], -(-o["columns"] // config.columns)
    if not rows or not chunks:
        return
    halves = -(-chunks // 2)
    if control["source"] == Source.SCRATCHPAD:
        width = chunks if control["source_width"] == Width.INT16 else halves
        yield scratch(o, "source", rows, width, False)
    if reads_residual(control):
        yield scratch(o, "residual", rows, chunks, False)
    if control["destination"] == Destination.SCRATCHPAD:
        height, width = -(-rows // rows_per_word(control)), -(-chunks // chunks_per_word(control))
        yield scratch(o, "destination", height, width, True)
    if control["destination"] == Destination.ACTIVATION:
        tiles, words = -(-rows // config.rows), -(-chunks * config.columns // config.word_bytes)
        interval = strided(o["destination_base"], tiles, o["destination_pitch"], words)
        yield Access(Memory.ACTIVATION, *interval, True)
    uses_parameters = (control["pre"] == Pre.BIAS or control["post_bias"] or control["row_sum"]
                       or control["multiplier"] == Multiplier.COLUMN)
    if uses_parameters:
        words = chunks * block_count(instruction)
        yield Access(Memory.PARAMETER, o["parameter_base"], o["parameter_base"] + words, False)
    if control["table"]:
        yield Access(Memory.TABLE, 0, 1, False)


def block_count(instruction: Resolved) -> int:
    """Return how many tiles a VECTOR takes for one chunk of columns: as many as there are blocks along K."""
    return 1 + instruction.parts["factor"]["blocks"] if instruction.control["partial"] else 1


def sums_per_tile(instruction: Resolved) -> int:
    """Return how many sums a MATMUL makes of each tile, one per block along K."""
    block = BLOCKS[instruction.control["block"]]
    return -(-instruction.operands["k"] // block) if block else 1


def scratch(operands: dict[str, int], name: str, rows: int, width: int, write: bool) -> Access:
    """Return the scratchpad words of one VECTOR operand."""
    interval = strided(operands[f"{name}_base"], rows, operands[f"{name}_pitch"], width)
    return Access(Memory.SCRATCHPAD, *interval, write)


def store_accesses(instruction: Resolved, config: MachineConfig) -> Iterator[Access]:
    """Accesses of STORE."""
    o = instruction.operands
    rows, words = o["outer_count"] * o["inner_count"], -(-o["row_bytes"] // config.scratch_word_bytes)
    yield Access(Memory.SCRATCHPAD, *strided(o["base"], rows, o["pitch"], words), False)
    yield Access(Memory.DRAM, *dram_interval(o, o["row_bytes"]), True)


FOOTPRINTS = {
    "LOAD": load_accesses,
    "MATMUL": matmul_accesses,
    "VECTOR": vector_accesses,
    "ROWOP": lambda instruction, config: (),
    "STORE": store_accesses,
}
