"""Idle engines cost no time in simulation.

Each engine named here says with ``clock_enable`` whether it may do anything. While that is low, no register changes
but by a reset, and no output depends on an input: proved in tests/hw/test_clock_enable.py. A clock gate may use it.
Where ``PHONOLITH_SIMULATION`` is defined, the emitted text does not compute an engine from the second such cycle on:
its wires keep the values of the first, and so do its outputs.

The signal itself is computed always. So it may depend on registers, inputs, and ``busy`` of the parts of the engine,
which may depend on no more.
"""

import re

from phonolith.hw.array_verilog import SIMULATION

# Instances below the top, and what is inside them; the innermost one counts.
GATED = ("load", "store", "vector", "vector.row_unit")
ALWAYS_COMPUTED = ("clock_enable", "busy")
RESETS = ("rst", "clear")
MACROS = f"""\
// Engines that are idle: neither registers nor wires are computed in simulation.
`ifdef {SIMULATION}
/* verilator lint_off LATCH */
`define PHONOLITH_WIRE reg
`define PHONOLITH_ASSIGN(enable) always @* if (enable)
`define PHONOLITH_WHEN(enable) if (enable)
`else
`define PHONOLITH_WIRE wire
`define PHONOLITH_ASSIGN(enable) assign
`define PHONOLITH_WHEN(enable)
`endif
"""
# A name in Verilog.
NAME = r"(?:\\\S+ |\w+)"
ASSIGN = re.compile(rf"^  assign ({NAME}) ?= ([^;]*);\n", re.M)
PART = re.compile(rf"^  assign ({NAME}) ?\[", re.M)
OPERATOR = re.compile(r"(?:^|[ (])(?:[-+*/%&|^~!<>?]|==|!=|<<|>>|<=|>=|&&|\|\||===)+ ")
WHEN = {"*": "evaluate", "(posedge clk)": "update"}
BLOCK = re.compile(r"^  always @(\*|\(posedge clk\))( begin)?\n", re.M)
HEADER = re.compile(r"^module \\?(\S+) \([^;]*;\n", re.M)


def with_clock_enables(text: str, top: str) -> str:
    """Return Verilog of ``top`` whose engines in ``GATED`` are skipped by simulations while they are idle."""
    return MACROS + "endmodule\n".join(gated(module, top) for module in text.split("endmodule\n"))


def gated(module: str, top: str) -> str:
    """Return a module that computes nothing while the engine it belongs to is idle."""
    header = HEADER.search(module)
    if header is None:
        return module
    inside = [engine for engine in GATED if f"{header[1]}.".startswith(f"{top}.{engine}.")]
    if not inside:
        return module
    engine = max(inside, key=len)
    if header[1] != f"{top}.{engine}":
        return skipped(module, f"{engine.rpartition('.')[2]}.")
    resets = [reset for reset in RESETS if re.search(rf"^  input {reset};", module, re.M)]
    return HEADER.sub(lambda match: match[0] + conditions(resets), skipped(module, ""))


def conditions(resets: list[str]) -> str:
    """Return when, in simulation, the engine's registers are to be computed, and when its wires."""
    return f"""\
`ifdef {SIMULATION}
  wire update = {" | ".join([*resets, "clock_enable"])};
  reg updated = 1'h1;
  wire evaluate = clock_enable | updated;
  always @(posedge clk) updated <= update;
`endif
"""


def skipped(module: str, engine: str) -> str:
    """Return a module whose registers and wires are computed only with ``update`` and ``evaluate`` of the engine.

    What reads a word that is assigned part by part stays: such parts may depend on each other.
    """
    kept, in_parts = cone(module), {name.strip() for name in PART.findall(module)}
    names = []

    def conditional(match: re.Match) -> str:
        name, expression = match[1], match[2]
        if name.strip() in kept or not OPERATOR.search(expression) or in_parts & read(expression):
            return match[0]
        names.append(name)
        return f"  `PHONOLITH_ASSIGN({engine}evaluate) {name} = {expression};\n"

    module = ASSIGN.sub(conditional, module)
    for name in names:
        module = re.sub(rf"^  wire ((?:\[\d+:0\] )?{re.escape(name)} ?;)$", r"  `PHONOLITH_WIRE \1", module, flags=re.M)
    return BLOCK.sub(lambda match: f"  always @{match[1]} `PHONOLITH_WHEN({engine}{WHEN[match[1]]}){match[2] or ''}\n",
                     module)


def cone(module: str) -> set[str]:
    """Return the names that ``clock_enable`` and ``busy`` depend on within a module."""
    sources = {match[1].strip(): read(match[2]) for match in ASSIGN.finditer(module)}
    reached, found = list(ALWAYS_COMPUTED), set()
    while reached:
        name = reached.pop()
        if name not in found:
            found.add(name)
            reached += sources.get(name, [])
    return found


def read(expression: str) -> set[str]:
    """Return the names in an expression (and parts of its constants)."""
    return {name.strip() for name in re.findall(NAME, expression)}
