"""Assembly text to program words; ``docs/assembly.md`` describes the text, ``listing.py`` writes it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from phonolith.compiler.assembler import (
    LITERAL_REGISTERS,
    SEMAPHORES,
    Issue,
    Item,
    Label,
    Raw,
    Reg,
    Value,
    assemble_behind,
    fits_immediate,
)
from phonolith.compiler.disassembler import enumeration, field_name
from phonolith.compiler.program import Program, Region
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import BY_MNEMONIC, Instruction, Kind, Operand

# What an operand is when a line leaves it out; the others must be there.
DEFAULTS = {
    "outer_count": 1, "inner_count": 1, "segment_count": 1, "rows": 1, "columns": 1,
    **dict.fromkeys(("base", "outer_stride", "inner_stride", "segment_stride", "row_words", "a_tile_words",
                     "w_tile_words", "source_base", "source_pitch", "residual_base", "residual_pitch",
                     "destination_base", "destination_pitch", "parameter_base", "epsilon", "control", "factor"), 0)}
REGISTER = re.compile(r"r(\d+)([+-]\w+)?$")
NAME = re.compile(r"[A-Za-z_.$][\w.$]*$")
WORD_LIMIT = 1 << 32


@dataclass
class Assembly:
    """Parsed text: items, the node of each, and the configuration's hash word if the text names it."""

    items: list[Item] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    configuration: int | None = None
    node: str = ""

    def append(self, item: Item) -> None:
        """Add an item of the current node."""
        self.items.append(item)
        self.nodes.append(self.node)


def assemble_text(text: str, config: MachineConfig, name: str = "program", like: Program | None = None) -> Program:
    """Return the program of assembly text.

    Parameters
    ----------
    text : str
    config : MachineConfig
        The machine it is for; not looked at when there is ``like``.
    name : str
        For messages, and the program's name.
    like : Program, optional
        Take everything but words and the extent of nodes from it: constants, inputs, places of tensors.

    Raises
    ------
    PhonolithError
        ``assembly`` with the line's number; ``wrong-configuration`` when the text is for another machine.
    """
    parsed = parse(text, name)
    config_hash = like.config_hash if like else config.hash
    first = int(config_hash[:8], 16)
    if parsed.configuration not in (None, first):
        raise PhonolithError(
            "wrong-configuration", f"{name} is for configuration {parsed.configuration:08x}, not {first:08x}.",
            "Choose that machine (--array, --config), or remove the .configuration line.")
    words, starts = assemble_behind(parsed.items, first)
    extents = node_extents(parsed.nodes, [*starts, len(words)])
    if like:
        return replace(like, words=words, regions=tuple(
            replace(region, parts=tuple(extents.get(region.node, ()))) for region in like.regions))
    regions = tuple(Region(node, "assembly", 0, 0, tuple(parts)) for node, parts in extents.items())
    return Program(config_hash=config_hash, name=name, words=words, constants=(), inputs={}, tensors={}, outputs=(),
                   size=0, regions=regions)


def assemble_words(text: str, first: int = 0) -> np.ndarray:
    """Return the words (uint32) of assembly text; ``first`` is word 0 where the text has no ``.configuration``."""
    parsed = parse(text, "text")
    return assemble_behind(parsed.items, first if parsed.configuration is None else parsed.configuration)[0]


def node_extents(nodes: list[str], edges: list[int]) -> dict[str, list[tuple[int, int]]]:
    """Return the (start, stop) word ranges of each node; item i lies at ``edges[i]`` .. ``edges[i + 1]``."""
    extents: dict[str, list[tuple[int, int]]] = {}
    for node, start, stop in zip(nodes, edges, edges[1:], strict=False):
        parts = extents.setdefault(node, [])
        if parts and parts[-1][1] == start:
            start, _ = parts.pop()
        if stop > start:
            parts.append((start, stop))
    extents.pop("", None)
    return extents


def parse(text: str, name: str) -> Assembly:
    """Read assembly text; PhonolithError ``assembly`` with the line's number for a mistake."""
    parsed = Assembly()
    used: list[tuple[int, str]] = []
    labels: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            for item in line_items(line, parsed):
                if isinstance(item, Label):
                    require(item.name not in labels, f"label {item.name!r} is there twice")
                    labels.add(item.name)
                elif isinstance(item, Issue):
                    used += [(number, value) for value in item.operands.values() if isinstance(value, str)]
                parsed.append(item)
        except ValueError as error:
            raise mistake(name, number, str(error)) from None
    for number, label in used:
        if label not in labels:
            raise mistake(name, number, f"there is no label {label!r}")
    return parsed


def mistake(name: str, number: int, what: str) -> PhonolithError:
    """Return the error for a line that cannot be assembled."""
    return PhonolithError("assembly", f"{name}:{number}: {what}.",
                          "Correct the line; `phonolith disasm` of a compiled program shows the form.")


def require(condition: bool, message: str) -> None:
    """Raise ValueError unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


def line_items(line: str, parsed: Assembly) -> Iterator[Item]:
    """Yield the items of one line; a directive changes ``parsed`` instead."""
    tokens = re.split("[;#]", line)[0].split()
    while tokens and tokens[0].endswith(":"):
        require(NAME.match(tokens[0][:-1]) is not None, f"{tokens[0]!r} is no label")
        yield Label(tokens.pop(0)[:-1])
    if not tokens:
        return
    first, *rest = tokens
    if first == ".node":
        parsed.node = " ".join(rest)
    elif first == ".configuration":
        parsed.configuration = one_word(first, rest)
    elif first == ".word":
        yield Raw(one_word(first, rest))
    else:
        yield issue(first, rest)


def one_word(directive: str, arguments: list[str]) -> int:
    """Return the one 32-bit number after a directive."""
    require(len(arguments) == 1, f"{directive} takes one number")
    return number_of(arguments[0]) % WORD_LIMIT


def number_of(text: str) -> int:
    """Read a decimal, hexadecimal or binary integer of 32 bits, signed or unsigned."""
    try:
        value = int(text, 0)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    require(-WORD_LIMIT // 2 <= value < WORD_LIMIT, f"{text} does not fit 32 bits")
    return value


def issue(mnemonic: str, arguments: list[str]) -> Issue:
    """Return the instruction of a line's mnemonic and its ``name=value`` words."""
    require(mnemonic in BY_MNEMONIC, f"unknown instruction {mnemonic!r}; there are {', '.join(BY_MNEMONIC)}")
    instruction = BY_MNEMONIC[mnemonic]
    given = assignments(arguments)
    masks = {name: semaphores(given.pop(name, "")) for name in ("wait", "signal")}
    operands = {operand.name: operand_value(instruction, operand, given) for operand in instruction.operands}
    require(not given, f"{mnemonic} has no operand {', '.join(given)}")
    large = [value for operand, value in operands.items() if instruction.operand(operand).kind is Kind.VALUE
             and isinstance(value, int) and not fits_immediate(value)]
    require(len(large) <= len(LITERAL_REGISTERS), f"more than {len(LITERAL_REGISTERS)} operands exceed 27 bits")
    return Issue(mnemonic, operands, masks["wait"], masks["signal"])


def assignments(arguments: list[str]) -> dict[str, str]:
    """Return ``name=value`` words as a dict."""
    given: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        require(bool(name and equals and value), f"{argument!r} is not of the form name=value")
        require(name not in given, f"{name} is given twice")
        given[name] = value
    return given


def semaphores(text: str) -> tuple[str, ...]:
    """Return comma-separated semaphores."""
    names = tuple(filter(None, text.split(",")))
    unknown = [name for name in names if name not in SEMAPHORES]
    require(not unknown, f"there is no semaphore {', '.join(unknown)}; there are {', '.join(SEMAPHORES)}")
    return names


def operand_value(instruction: Instruction, operand: Operand, given: dict[str, str]) -> Value | str:
    """Take an operand out of ``given``: as a whole, by its fields, or its default."""
    fields = {name: given.pop(spelled) for name in operand.fields
              for spelled in (f"{operand.name}.{name}", field_name(instruction, operand, name)) if spelled in given}
    if operand.name in given:
        require(not fields, f"{operand.name} is given as a whole and by field")
        return plain_value(operand, given.pop(operand.name))
    if fields:
        return isa.pack(operand.fields, **{name: field_value(operand, name, text) for name, text in fields.items()})
    require(operand.name in DEFAULTS, f"{instruction.mnemonic} needs {operand.name}")
    return DEFAULTS[operand.name]


def plain_value(operand: Operand, text: str) -> Value | str:
    """Read a number, ``r5+3``, or, as a literal, a label."""
    register = REGISTER.match(text)
    if operand.kind is Kind.RAW:
        return text if NAME.match(text) else number_of(text)
    if register is None:
        require(operand.kind is Kind.VALUE, f"{operand.name} must be a register, not {text}")
        return number_of(text)
    value = Reg(int(register[1]), number_of(register[2] or "0"))
    isa.encode_value(value.immediate, value.number)
    return value


def field_value(operand: Operand, name: str, text: str) -> int:
    """Read a field: a number, or a name of its enumeration."""
    named = enumeration(operand, name)
    if named and text in named.__members__:
        return named[text]
    try:
        return number_of(text)
    except ValueError:
        known = f"; {name} is one of {', '.join(named.__members__)}" if named else ""
        raise ValueError(f"{text!r} is no number{known}") from None
