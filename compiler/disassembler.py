"""From program words back to instructions: readable lines, and the trace of what the engines are given."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from phonolith.compiler.assembler import mask_names
from phonolith.hw import isa
from phonolith.hw.isa import BY_OPCODE, Instruction, Kind, Queue

ENUMS = {
    "target": isa.Target, "source": isa.Source, "source_width": isa.Width, "pre": isa.Pre,
    "saturate": isa.Saturate, "destination": isa.Destination, "reduce": isa.Reduce,
    "function": isa.RowFunction, "multiplier": isa.Multiplier,
}
WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Resolved:
    """One engine instruction as the engine sees it: operands are unsigned 32-bit numbers.

    ``position`` is the index of its header word, ``parts`` the fields of packed operands by operand name.
    """

    position: int
    instruction: Instruction
    wait: int
    signal: int
    operands: dict[str, int]
    parts: dict[str, dict[str, int]]

    @property
    def queue(self) -> Queue:
        """The engine that executes it."""
        return self.instruction.queue

    @property
    def control(self) -> dict[str, int]:
        """The fields of its control operand."""
        return self.parts["control"]


def signed(word: int) -> int:
    """Read 32 bits as two's complement."""
    return (word & WORD) - ((word & 0x80000000) << 1)


def instruction_at(words: np.ndarray, position: int) -> Instruction:
    """Return the instruction whose header is at ``position``; ValueError when there is none."""
    opcode = int(words[position]) & (1 << isa.OPCODE_BITS) - 1
    if opcode not in BY_OPCODE:
        raise ValueError(f"word {position}: unknown opcode {opcode}")
    return BY_OPCODE[opcode]


def disassemble(words: np.ndarray) -> list[str]:
    """Return one line per instruction: ``index: MNEMONIC operand=value ... wait=... signal=...``."""
    lines, position = [f"0: configuration {int(words[0]):08x}"], 1
    while position < len(words):
        instruction = instruction_at(words, position)
        lines.append(line(words, position, instruction))
        position += 1 + len(instruction.operands)
    return lines


def line(words: np.ndarray, position: int, instruction: Instruction) -> str:
    """Return the line of one instruction."""
    return f"{position}: {instruction_text(words, position, instruction, {})}"


def instruction_text(words: np.ndarray, position: int, instruction: Instruction, labels: dict[int, str]) -> str:
    """Return an instruction as text that :mod:`phonolith.compiler.assembly` reads back to the same words.

    ``labels`` names branch targets by word index; others stay numbers.
    """
    header = isa.unpack(isa.HEADER, int(words[position]))
    shown = [instruction.mnemonic]
    for offset, operand in enumerate(instruction.operands):
        shown += operand_texts(instruction, operand, int(words[position + 1 + offset]), labels)
    for name in ("wait", "signal"):
        if header[name]:
            shown.append(f"{name}={','.join(mask_names(header[name]))}")
    return " ".join(shown)


def operand_texts(instruction: Instruction, operand: isa.Operand, word: int, labels: dict[int, str]) -> list[str]:
    """Return ``name=value`` of an operand, or of each nonzero part of a packed one."""
    register, immediate = isa.decode_value(word)
    if operand.kind is Kind.RAW:
        return [f"{operand.name}={labels.get(word, word) if operand.name == 'target' else word}"]
    if operand.kind is Kind.VALUE and not register and operand.fields:
        parts = isa.unpack(operand.fields, immediate)
        if isa.pack(operand.fields, **parts) == immediate:
            return [f"{field_name(instruction, operand, name)}={part_text(operand, name, part)}"
                    for name, part in parts.items() if part]
    return [f"{operand.name}={value_text(operand.kind, register, immediate)}"]


def value_text(kind: Kind, register: int, immediate: int) -> str:
    """Return a register and an immediate as ``r5``, ``r5-3`` or ``7``."""
    if not register and kind is Kind.VALUE:
        return str(immediate)
    return f"r{register}{immediate:+d}" if immediate else f"r{register}"


def field_name(instruction: Instruction, operand: isa.Operand, name: str) -> str:
    """Return what a field is called in text: with its operand where an operand before it has such a field, too."""
    first = next(each for each in instruction.operands if name in each.fields)
    return name if first is operand else f"{operand.name}.{name}"


def enumeration(operand: isa.Operand, name: str) -> type[IntEnum] | None:
    """Return the enumeration of a field's values, None for a number."""
    return ENUMS.get(name) if operand.name == "control" else None


def part_text(operand: isa.Operand, name: str, part: int) -> str:
    """Return a field's value, by its name where it is one of an enumeration."""
    named = enumeration(operand, name)
    if named:
        return named(part).name if part in set(named) else str(part)
    if name == "multiplier":
        return str(part - ((part >> isa.MULTIPLIER_BITS - 1) << isa.MULTIPLIER_BITS))
    return str(part)


def trace(words: np.ndarray, arguments: tuple[int, ...] = ()) -> list[Resolved]:
    """Run the sequencer part of a program and return the engine instructions in the order of issue."""
    return list(issue_all(np.asarray(words), arguments))


def issue_all(words: np.ndarray, arguments: tuple[int, ...]) -> Iterator[Resolved]:
    """Yield the engine instructions of a program with operands resolved, up to END."""
    for position, instruction, values in executed(words, arguments):
        if instruction.queue is not Queue.SEQUENCER:
            yield resolved(position, instruction, int(words[position]), values)


def executed(words: np.ndarray, arguments: tuple[int, ...]) -> Iterator[tuple[int, Instruction, dict[str, int]]]:
    """Yield (index of the header, instruction, operands by name) in the order of execution, END included."""
    registers = [0, *arguments] + [0] * (isa.REGISTERS - 1 - len(arguments))
    position = 1
    while True:
        instruction = instruction_at(words, position)
        following = position + 1 + len(instruction.operands)
        values = {o.name: resolve(o.kind, int(words[position + 1 + i]), registers)
                  for i, o in enumerate(instruction.operands)}
        yield position, instruction, values
        if instruction.mnemonic == "END":
            return
        position = sequence(instruction.mnemonic, values, registers, following)


def resolve(kind: Kind, word: int, registers: list[int]) -> int:
    """Return the 32-bit value of an operand word."""
    register, immediate = isa.decode_value(word)
    if kind is not Kind.VALUE:
        return word if kind is Kind.RAW else register
    return (registers[register] + immediate) & WORD


def resolved(position: int, instruction: Instruction, header: int, values: dict[str, int]) -> Resolved:
    """Return an engine instruction with its header and packed operands taken apart."""
    head = isa.unpack(isa.HEADER, header)
    parts = {o.name: isa.unpack(o.fields, values[o.name]) for o in instruction.operands if o.fields}
    return Resolved(position, instruction, head["wait"], head["signal"], values, parts)


def sequence(mnemonic: str, values: dict[str, int], registers: list[int], following: int) -> int:
    """Execute a sequencer instruction and return the index of the next header."""
    if mnemonic == "SET":
        registers[values["destination"]] = values["literal"]
    elif mnemonic == "ADD":
        registers[values["destination"]] = (values["a"] + values["b"]) & WORD
    elif mnemonic == "SHIFT":
        registers[values["destination"]] = shift(values["a"], signed(values["amount"]))
    elif mnemonic == "CLAMP":
        registers[values["destination"]] = clamp(values["a"], values["limit"])
    elif branches(mnemonic, values):
        return values["target"]
    registers[0] = 0
    return following


def branches(mnemonic: str, values: dict[str, int]) -> bool:
    """Tell whether a sequencer instruction is a branch that is taken."""
    if mnemonic == "BRANCH_LESS":
        return signed(values["a"]) < signed(values["b"])
    return mnemonic == "BRANCH_EQUAL" and values["a"] == values["b"]


def shift(value: int, amount: int) -> int:
    """Shift left by ``amount``, or arithmetically right by its negative."""
    return (value << amount if amount >= 0 else signed(value) >> -amount) & WORD


def clamp(value: int, limit: int) -> int:
    """Limit a signed value to 0 .. ``limit``, signed, too; 0 where it is negative, whatever the limit."""
    return 0 if signed(value) < 0 else limit if signed(limit) < value else value


def count_instructions(words: np.ndarray) -> dict[str, int]:
    """Return how many instructions of each mnemonic a program holds."""
    counts: dict[str, int] = {}
    position = 1
    while position < len(words):
        instruction = instruction_at(words, position)
        counts[instruction.mnemonic] = counts.get(instruction.mnemonic, 0) + 1
        position += 1 + len(instruction.operands)
    return counts
