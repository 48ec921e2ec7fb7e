"""The C header and the table of registers that go with the Verilog: what a driver needs, from the definitions."""

from collections.abc import Iterator

from phonolith.hw import isa, registers
from phonolith.hw.config import MachineConfig
from phonolith.hw.sequencer import ARGUMENTS, Error

HEADER = "phonolith.h"
TABLE = "registers.md"
PREFIX = "PHONOLITH"
# Integers of hw/registers.py that are no register's offset.
NO_OFFSETS = ("ARGUMENTS", "IDENTIFIER", "ADDRESS_BITS", "ARGUMENT_BASE", "ENGINE_BASE", "ENGINE_STRIDE")
BITS = {"CONTROL_START": 1, "CONTROL_CLEAR": 2, "STATUS_BUSY": 1, "STATUS_DONE": 2, "STATUS_ERROR": 4,
        "STATUS_ERROR_CODE_SHIFT": 8, "STATUS_ERROR_CODE_MASK": 0xFF}
ENUMERATIONS = (isa.Target, isa.Source, isa.Width, isa.Pre, isa.Multiplier, isa.Saturate, isa.Destination, isa.Reduce,
                isa.RowFunction)
MEANINGS = {
    "ID": ("R", f"{registers.IDENTIFIER:#010x}"),
    "CONTROL": ("W", "bit 0: start; bit 1: clear done, error and the interrupt"),
    "STATUS": ("R", "bit 0 busy, bit 1 done, bit 2 error, bits 15:8 error code"),
    "PROGRAM": ("RW", "byte address of the program's first word"),
    "ERROR_ADDRESS": ("R", "word index of the instruction at which the program stopped"),
    "IRQ_ENABLE": ("RW", "bit 0: irq follows done or error"),
    "CONFIG_HASH": ("R", "what a program's first word must be"),
    "CYCLES": ("R", "cycles of the run, low word"),
    "CYCLES_HIGH": ("R", "cycles of the run, high word"),
    "INSTRUCTIONS": ("R", "instructions decoded"),
    "READ_BEATS": ("R", "AXI read data beats"),
    "WRITE_BEATS": ("R", "AXI write data beats"),
}


def offsets() -> dict[str, int]:
    """Return the byte offset of every register by name, ascending."""
    named = {name: value for name, value in vars(registers).items()
             if name.isupper() and type(value) is int and name not in NO_OFFSETS}
    named |= {f"ARG{n}": registers.ARGUMENT_BASE + 4 * n for n in range(ARGUMENTS)}
    named |= {f"{engine}_{cause}".upper(): registers.counter_address(engine, cause)
              for engine in registers.ENGINES for cause in registers.CAUSES}
    return dict(sorted(named.items(), key=lambda item: item[1]))


def constants(config: MachineConfig) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield groups of constants: a comment, and values by name."""
    yield "Machine; the hash is the first word of every program", {
        "ROWS": config.rows, "COLUMNS": config.columns, "BUS_BITS": config.bus_bits, "CONFIG_HASH": config.hash_word}
    yield "Registers: byte offsets on s_axil", {f"REG_{name}": offset for name, offset in offsets().items()}
    yield "Bits of CONTROL and STATUS, and what ID reads as", {**BITS, "IDENTIFIER": registers.IDENTIFIER}
    yield "Error codes in STATUS", {f"ERROR_{error.name}": int(error) for error in Error}
    yield "Instructions: opcodes", {f"OP_{each.mnemonic}": each.opcode for each in isa.INSTRUCTIONS}
    yield "Instructions: operand words behind the header", {
        f"OPERANDS_{each.mnemonic}": len(each.operands) for each in isa.INSTRUCTIONS}
    yield "Header word", dict(field_constants("HEADER", isa.HEADER))
    yield "Operands: register in the upper bits, signed immediate below", {"IMMEDIATE_BITS": isa.IMMEDIATE_BITS}
    for each in isa.INSTRUCTIONS:
        for operand in each.operands:
            if operand.fields:
                prefix = f"{each.mnemonic}_{operand.name}".upper()
                yield f"{each.mnemonic}: {operand.name}", dict(field_constants(prefix, operand.fields))
    for named in ENUMERATIONS:
        yield named.__doc__ or "", {f"{constant_name(named.__name__)}_{each.name}": int(each) for each in named}


def constant_name(name: str) -> str:
    """Return ``ROW_FUNCTION`` of ``RowFunction``."""
    return "".join(f"_{c}" if c.isupper() else c.upper() for c in name).lstrip("_")


def field_constants(prefix: str, fields: dict[str, tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """Yield lowest bit and width of each field of a packed word."""
    for name, (low, width) in fields.items():
        yield f"{prefix}_{name.upper()}_SHIFT", low
        yield f"{prefix}_{name.upper()}_BITS", width


def c_header(config: MachineConfig) -> str:
    """Return ``phonolith.h``: macros for C and C++."""
    lines = [f"/* Phonolith, array {config.array}, {config.bus_bits}-bit AXI4, configuration {config.hash}.",
             "   Made by `phonolith verilog`. */", f"#ifndef {PREFIX}_H", f"#define {PREFIX}_H"]
    for comment, values in constants(config):
        lines += ["", f"/* {comment.rstrip('.')} */"]
        lines += [f"#define {PREFIX}_{name} {value:#x}u" for name, value in values.items()]
    return "\n".join([*lines, "", "#endif", ""])


def register_table(config: MachineConfig) -> str:
    """Return ``registers.md``: the register map as a table."""
    lines = [f"# Registers of the accelerator, array {config.array}, configuration {config.hash}", "",
             "AXI4-Lite slave `s_axil_*`, 32-bit registers.", "",
             "| offset | name | access | meaning |", "|---|---|---|---|"]
    for name, offset in offsets().items():
        access, meaning = MEANINGS.get(name) or described(name)
        lines.append(f"| 0x{offset:03X} | {name} | {access} | {meaning} |")
    lines += ["", "Error codes: " + ", ".join(f"{int(error)} {error.name.lower().replace('_', ' ')}"
                                              for error in Error if error) + ".", ""]
    return "\n".join(lines)


def described(name: str) -> tuple[str, str]:
    """Return access and meaning of arguments and engine counters."""
    if name.startswith("ARG"):
        return "RW", f"initial value of sequencer register {int(name[3:]) + 1}"
    engine, _, cause = name.lower().partition("_")
    if engine not in registers.ENGINES:
        return "", ""
    what = cause if cause in ("busy", "idle") else f"stalled on {cause}"
    return "R", f"cycles of the {engine} engine: {what}"
