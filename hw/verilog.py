"""Verilog of a configured accelerator."""

import re

from amaranth.back import verilog

from phonolith.hw.accelerator import Accelerator
from phonolith.hw.array_verilog import SIMULATION, with_array_forms
from phonolith.hw.clock_enable import NAME, each_module, with_clock_enables
from phonolith.hw.config import MachineConfig

TOP = "phonolith_top"
WIRE = re.compile(r"^  (?:input|output|wire|reg) \[(\d+):0\] (\S+?) ?;$", re.M)
SHIFT = re.compile(r"( assign (\\\$\d+) ) = (\w+) >> (\\\$\d+) ;")
MEMORY_CONTENTS = re.compile(r"  initial begin\n(    \w+\[\d+\] = [^\n]*\n)+  end\n")
REPEATED_BIT = re.compile(rf"({NAME}\[\d+\])((?:, \1){{2,}})(?=,| \}})")
REGISTER = re.compile(rf"  always @\(posedge (\w+)\)\n    ({NAME}) ?<= (\\\$\d+) ;\n")
# The write port of a memory, and behind it its only read port, whose data are a register.
PORTS = re.compile(r"  always @\(posedge clk\) begin\n((?:    if \([^\n]*\n      (\w+)\[[^\n]*\n)+)  end\n"
                   r"(  reg [^\n]* _0_;\n)"
                   r"  always @\(posedge clk\) begin\n(    if [^\n]*\n      _0_ <= [^\n]*\n    end\n)  end\n")
STORE = f"""\
// A memory's word is stored at once in simulation, where nothing reads it in the same cycle but what did already.
`ifdef {SIMULATION}
/* verilator lint_off BLKSEQ */
`define PHONOLITH_STORE =
`else
`define PHONOLITH_STORE <=
`endif
"""
NEXT_VALUE = re.compile(r"  always @\* begin\n    if \(\S+ \) begin end\n    (\\\$\d+)  = ([^\n]*);\n"
                        r"((?:    [^\n]*\n)*)  end\n")


def generate(config: MachineConfig) -> str:
    """Return the text of ``phonolith_top`` and all modules below it.

    Memories come without initial contents, as memory macros do: a program reads only what was written.
    """
    header = f"// Phonolith, array {config.array}, {config.bus_bits}-bit AXI4, configuration {config.hash}\n"
    text = plain(verilog.convert(Accelerator(config=config), name=TOP, emit_src=False, strip_internal_attrs=True))
    return header + with_array_forms(with_clock_enables(with_immediate_stores(text), TOP), config)


def plain(text: str) -> str:
    """Write the modules of a circuit with less text, which simulators run faster, too."""
    text = strip_memory_contents(text)
    for step in (index_instead_of_shifting, join_registers, replicate_repeated_bits):
        text = each_module(text, step)
    return text


def with_immediate_stores(text: str) -> str:
    """Read a memory before its word is written, in one clocked block, which saves simulators a copy of the word."""
    return STORE + each_module(text, store_immediately)


def store_immediately(module: str) -> str:
    """Join the ports of a memory that nothing else in the module reads."""
    def joined(match: re.Match) -> str:
        writes, name, data, reads = match.groups()
        if module.count(f" {name}[") != writes.count(f" {name}[") + 1:
            return match[0]
        return f"{data}  always @(posedge clk) begin\n{reads}{writes.replace('] <= ', '] `PHONOLITH_STORE ')}  end\n"

    return PORTS.sub(joined, module)


def strip_memory_contents(text: str) -> str:
    """Remove the zeros that every memory starts with."""
    return MEMORY_CONTENTS.sub("", text)


def join_registers(module: str) -> str:
    """Write a register as one clocked block, not as one that takes its next value and one that says what this is.

    Those whose next value is read elsewhere, too, stay.
    """
    registers = {match[3]: match for match in REGISTER.finditer(module)}
    joined = set()

    def clocked(match: re.Match) -> str:
        following, first, changes = match.groups()
        register = registers.get(following)
        inside = changes.count(f"{following} ")
        if register is None or module.count(f"{following} ") != inside + 3:   # declared, given a first value, taken
            return match[0]
        name = register[2]
        start = "" if first.strip() == name.strip() else f"    {name} <= {first};\n"
        assignment = re.compile(rf"^( +){re.escape(following)} +(\[[^\]]*\] )?= ", re.M)
        changes, assigned = assignment.subn(lambda each: f"{each[1]}{name} {each[2] or ''}<= ", changes)
        if assigned != inside:
            return match[0]
        joined.add(following)
        return f"  always @(posedge {register[1]}) begin\n{start}{changes}  end\n"

    module = NEXT_VALUE.sub(clocked, module)
    for following in joined:
        module = module.replace(registers[following][0], "")
        module = re.sub(rf"^  reg (\[\d+:0\] )?{re.escape(following)} ;\n", "", module, flags=re.M)
    return module


def replicate_repeated_bits(module: str) -> str:
    """Write ``{3{a[7]}}`` for ``a[7], a[7], a[7]``, as in the extension of a sign."""
    return REPEATED_BIT.sub(lambda match: f"{{{1 + match[2].count(', ')}{{{match[1]}}}}}", module)


def index_instead_of_shifting(module: str) -> str:
    """Write ``word[bit +: n]`` where a module takes n bits of a word by shifting all of it: simulators are slow at it.

    Both are the same as long as the bits are inside the word, as they are in this accelerator.
    """
    widths = {name: int(top) + 1 for top, name in WIRE.findall(module)}

    def indexed(match: re.Match) -> str:
        start, result, word, bit = match.groups()
        taken, width = widths.get(result, 1), widths.get(word, 1)
        if taken >= width:
            return match[0]
        needed = (width - 1).bit_length()
        index = f"{bit} [{needed - 1}:0]" if needed < widths.get(bit, 1) else bit
        return f"{start} = {word}[{index} +: {taken}];"

    return SHIFT.sub(indexed, module)
