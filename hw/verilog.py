"""Verilog of a configured accelerator."""

import re

from amaranth.back import verilog

from phonolith.hw.accelerator import Accelerator
from phonolith.hw.config import MachineConfig
from phonolith.hw.row_verilog import row_verilog

TOP = "phonolith_top"
MEMORY_CONTENTS = re.compile(r"  initial begin\n(    \w+\[\d+\] = [^\n]*\n)+  end\n")


def generate(config: MachineConfig) -> str:
    """Return the text of ``phonolith_top`` and all modules below it.

    Memories come without initial contents, as memory macros do: a program reads only what was written.
    """
    top = verilog.convert(Accelerator(config=config), name=TOP, emit_src=False, strip_internal_attrs=True)
    header = f"// Phonolith, array {config.array}, {config.bus_bits}-bit AXI4, configuration {config.hash}\n"
    return header + strip_memory_contents(top) + row_verilog(config)


def strip_memory_contents(text: str) -> str:
    """Remove the zeros that every memory starts with."""
    return MEMORY_CONTENTS.sub("", text)
