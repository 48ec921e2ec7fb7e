"""Verilog of a configured accelerator."""

import re

from amaranth.back import verilog

from phonolith.hw.accelerator import Accelerator
from phonolith.hw.config import MachineConfig
from phonolith.hw.row_verilog import row_verilog

TOP = "phonolith_top"
WIRE = re.compile(r"^  (?:input|output|wire|reg) \[(\d+):0\] (\S+?) ?;$", re.M)
SHIFT = re.compile(r"( assign (\\\$\d+) ) = (\w+) >> (\\\$\d+) ;")
MEMORY_CONTENTS = re.compile(r"  initial begin\n(    \w+\[\d+\] = [^\n]*\n)+  end\n")


def generate(config: MachineConfig) -> str:
    """Return the text of ``phonolith_top`` and all modules below it.

    Memories come without initial contents, as memory macros do: a program reads only what was written.
    """
    top = verilog.convert(Accelerator(config=config), name=TOP, emit_src=False, strip_internal_attrs=True)
    header = f"// Phonolith, array {config.array}, {config.bus_bits}-bit AXI4, configuration {config.hash}\n"
    modules = strip_memory_contents(top).split("endmodule\n")
    return header + "endmodule\n".join(map(index_instead_of_shifting, modules)) + row_verilog(config)


def strip_memory_contents(text: str) -> str:
    """Remove the zeros that every memory starts with."""
    return MEMORY_CONTENTS.sub("", text)


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
