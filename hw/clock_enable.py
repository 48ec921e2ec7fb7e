"""Idle engines cost no time in simulation.

Each engine named here says with ``clock_enable`` whether it may do anything. While that is low, no register changes
but by a reset, and no output depends on an input (data excepted that go with an output which is low): proved in
tests/hw/test_clock_enable.py. A clock gate may use it. Where ``PHONOLITH_SIMULATION`` is defined, the emitted text does
not compute an engine from the second such cycle on: its wires keep the values of the first, and so do its outputs.

The signal itself is computed always. So it may depend on registers, inputs, and those outputs of the engine's parts
that are named in ``ALWAYS_COMPUTED``, which may depend on no more. If it depends on what an engine's own outputs lead
to, Verilator finds a loop (tests/rtl/test_verilog.py); such outputs are computed always, too.

What engines alone drive is computed when one of them is.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable

from phonolith.hw.array_verilog import SIMULATION
from phonolith.hw.registers import ENGINES

# Instances below the top, and what is inside them (the innermost one counts), with outputs that are computed always.
GATED = {
    "fetch": ("words__payload",), "history": (), "sequencer": (), "semaphores": (),
    **{f"{engine}_dispatcher": ("words__ready", "i0__valid", "i1__valid") for engine in ENGINES},
    "load": (), "store": (), "vector": (), "vector.row_unit": (), "scratchpad": ()}
# Instances without registers, and write ports of memories, with the engines that drive them.
DRIVEN = (("activation_writes", ("load", "vector")), (r"activation_bank_\d+", ("load", "vector")),
          (r"weight_bank_\d+|parameters", ("load",)))
ALWAYS_COMPUTED = ("clock_enable", "busy", "level", "w_level", "w_rdy")
RESETS = ("rst", "clear", "halt")
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
PART = re.compile(rf"^  assign ({NAME}) ?\[[^\]]*\] = ([^;]*);\n", re.M)
OPERATOR = re.compile(r"(?:^|[ (])(?:[-+*/%&|^~!<>?]|==|!=|<<|>>|<=|>=|&&|\|\||===)+ |\{\d+\{")
COMBINATIONAL = re.compile(r"^  always @\* begin\n((?:    .*\n)*)  end\n", re.M)
ASSIGNED = re.compile(rf"^ +({NAME}) ?(?:\[[^\]]*\] )?= ", re.M)
HEADER = re.compile(r"^module \\?(\S+) \([^;]*;\n", re.M)


def with_clock_enables(text: str, top: str) -> str:
    """Return Verilog of ``top`` whose engines in ``GATED`` are skipped by simulations while they are idle."""
    return MACROS + each_module(text, lambda module: gated(module, top))


def each_module(text: str, change: Callable[[str], str]) -> str:
    """Return Verilog whose modules are changed one by one."""
    return "endmodule\n".join(map(change, text.split("endmodule\n")))


def gated(module: str, top: str) -> str:
    """Return a module that computes nothing while the engine it belongs to is idle."""
    header = HEADER.search(module)
    if header is None:
        return module
    name = header[1].removeprefix(f"{top}.")
    for pattern, engines in DRIVEN:
        if re.fullmatch(pattern, name):
            return skipped(module, " | ".join(f"{engine}.evaluate" for engine in engines), wires_read(module))
    inside = [engine for engine in GATED if f"{name}.".startswith(f"{engine}.")]
    if not inside:
        return module
    engine = max(inside, key=len)
    prefix = "" if name == engine else f"{engine.rpartition('.')[2]}."
    module = skipped(module, f"{prefix}evaluate", cone(module, (*ALWAYS_COMPUTED, *GATED[engine])))
    module = module.replace("  always @(posedge clk)", f"  always @(posedge clk) `PHONOLITH_WHEN({prefix}update)")
    if prefix:
        return module
    resets = [reset for reset in RESETS if re.search(rf"^  input {reset};", module, re.M)]
    return HEADER.sub(lambda match: match[0] + conditions(resets), module)


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


def skipped(module: str, condition: str, kept: set[str]) -> str:
    """Return a module whose wires, but for those of ``kept``, are computed only under a condition.

    What reads a word that is assigned part by part stays, too: such parts may depend on each other.
    """
    in_parts = {match[1].strip() for match in PART.finditer(module)}
    names = []

    def assignment(match: re.Match) -> str:
        name, expression = match[1], match[2]
        if name.strip() in kept or not OPERATOR.search(expression) or in_parts & read(expression):
            return match[0]
        names.append(name)
        return f"  `PHONOLITH_ASSIGN({condition}) {name} = {expression};\n"

    def block(match: re.Match) -> str:
        if kept & assigned(match[1]):
            return match[0]
        return match[0].replace("always @*", f"always @* `PHONOLITH_WHEN({condition})", 1)

    module = ASSIGN.sub(assignment, module)
    for name in names:
        module = re.sub(rf"^  wire ((?:\[\d+:0\] )?{re.escape(name)} ?;)$", r"  `PHONOLITH_WIRE \1", module, flags=re.M)
    return COMBINATIONAL.sub(block, module)


def sources(module: str) -> dict[str, set[str]]:
    """Return what each wire of a module is computed from."""
    found = defaultdict(set)
    for match in (*ASSIGN.finditer(module), *PART.finditer(module)):
        found[match[1].strip()] |= read(match[2])
    for match in COMBINATIONAL.finditer(module):
        for name in assigned(match[1]):
            found[name] |= read(match[1])
    return found


def cone(module: str, names: Iterable[str]) -> set[str]:
    """Return the names that some depend on within a module."""
    computed_from = sources(module)
    reached, found = list(names), set()
    while reached:
        name = reached.pop()
        if name not in found:
            found.add(name)
            reached += computed_from.get(name, [])
    return found


def wires_read(module: str) -> set[str]:
    """Return the wires that depend on a memory's read port."""
    return {name for name in sources(module) if any(each.startswith("read") for each in cone(module, [name]))}


def assigned(block: str) -> set[str]:
    """Return the names that a block assigns."""
    return {name.strip() for name in ASSIGNED.findall(block)}


def read(expression: str) -> set[str]:
    """Return the names in an expression (and parts of its constants)."""
    return {name.strip() for name in re.findall(NAME, expression)}
