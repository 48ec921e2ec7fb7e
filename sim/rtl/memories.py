"""The back door to the memories of a simulated accelerator: which there are, as C++ text for the harness."""

import re

MODULE = re.compile(r"^module \\?phonolith_top\.(\S+)")
MEMORY = re.compile(r"^\s*reg \[\d+:0\] memory \[\d+:0\];")
ROOT = "harness_top__DOT__phonolith_top__DOT__"


def memory_names(verilog_text: str) -> list[str]:
    """Return the instance paths, ``.`` between levels, of all memories called ``memory`` below ``phonolith_top``.

    These are what programs see: operand banks, scratchpad, parameters, tables, row registers. Queues and the
    sequencer's registers have other names.
    """
    names, module = [], None
    for line in verilog_text.splitlines():
        if line.startswith("module "):
            found = MODULE.match(line)
            module = found and found[1]
        elif module and MEMORY.match(line):
            names.append(module)
    return names


def memory_table(verilog_text: str) -> str:
    """Return one line ``MEMORY("path", member of Verilator's root)`` per memory."""
    return "".join(f'MEMORY("{name}", {ROOT}{name.replace(".", "__DOT__")}__DOT__memory)\n'
                   for name in memory_names(verilog_text))
