"""Proof that both forms of a row are one machine, in a folder with their Verilog: ``python row_proof.py COLUMNS PART``.

SAT solvers are slow with multipliers, so there are three parts.

1. ``registers``, by induction over cycles: if all registers of the two forms agree, they agree after the next cycle,
   whatever the inputs. Both take the products from the same free inputs, which are zero where there is no activation.
   Lanes need to agree where weights are narrow: nothing else reads them. What the fast form relies on is part of the
   hypothesis: where no column is live, nothing is held; words hold their sign.
2. ``products``, of any number of columns: from the same registers, both expressions of the fast form give what a
   processing element does, for each width.
3. ``wiring``: what part 2 shows for one column holds for all of them. The processing elements have the same text. The
   fast form's product of column c is that of a form with a single column.

A process of its own, because Yosys may simply exit. Prints `PROVED` at the end.
"""

import re
import sys
from pathlib import Path

from pyosys import libyosys as ys  # pyright: ignore[reportAttributeAccessIssue]

PROVED = "proved: both forms agree"
PRODUCT_BITS, STEP_BITS, WORD, LANES = 18, 12, 32, 64
WIDE_PRODUCT, NARROW_PRODUCT = r"\+ (operands\[c\] \* .*?);", r"\+ (narrow\(widths.*?\));"
# Arrays of the fast form, a word per column, by the width of a word.
ARRAYS = {"operands": 32, "lanes": 64, "bytes": 8}
REGISTERS_TOP = """
module top(input clk, input [68:0] activation, input [8*{C}-1:0] weights_in, input [18*{C}-1:0] free,
           output [32*{C}-1:0] used, results_0, results_1, output [8*{C}-1:0] weights_0, weights_1,
           output [31:0] row_sum_0, row_sum_1, output [{C}-1:0] sound, same_lanes);
  (* keep *) wire [64*{C}-1:0] lanes_0, lanes_1;
  (* keep *) wire [2*{C}-1:0] widths;
  simulated fast(.clk(clk), .activation(activation), .weights_in(weights_in), .weights_out(weights_0),
                 .results(results_0), .row_sum(row_sum_0), .free(free), .used(used), .sound(sound),
                 .all_lanes(lanes_0), .all_widths(widths));
  synthesized slow(.clk(clk), .activation(activation), .weights_in(weights_in), .weights_out(weights_1),
                   .results(results_1), .row_sum(row_sum_1));
  genvar g;
  generate for (g = 0; g < {C}; g = g + 1)
    assign same_lanes[g] = widths[2*g +: 2] == 0 || lanes_0[64*g + 8 +: 56] == lanes_1[64*g + 8 +: 56];
  endgenerate
endmodule
"""
# Ports and wires that the fast form gets for part 1.
USED = """
  input [18*C-1:0] free;
  output [32*C-1:0] used;
  output [C-1:0] sound;
  output [64*C-1:0] all_lanes;
  output [2*C-1:0] all_widths;
  (* keep *) wire [32*C-1:0] all_operands, all_accumulators;
  (* keep *) wire [31:0] entered;
  assign all_widths = widths;
  assign entered = step(widths[1:0], operands[0], unsigneds[0], lanes[0]);
  genvar g;
  generate for (g = 0; g < C; g = g + 1) begin
    assign all_lanes[64*g +: 64] = lanes[g];
    assign all_operands[32*g +: 32] = operands[g];
    assign all_accumulators[32*g +: 32] = accumulators[g];
    assign used[32*g +: 32] = operands[g] == 0 && widths[2*g +: 2] == 0 ? 0 : {{14{free[18*g + 17]}}, free[18*g +: 18]};
    assign sound[g] = all_operands[32*g + 8 +: 24] == {24{all_operands[32*g + 7] & ~unsigneds[g]}} && (live[g]
      || {all_operands[32*g +: 32], widths[2*g +: 2], unsigneds[g], first[g], last[g]} == 0);
  end endgenerate
"""
# What part 1 takes for the products; a wrong one where narrow weights are not the column's.
USED_WIDE = "used[32*c +: 32]"
USED_NARROW = "(bytes[n] == weights_out[8*n +: 8] ? used[32*n +: 32] : ~used[32*n +: 32])"
PRODUCTS = """
module products #(parameter C = 1) (input [32*C-1:0] operands, input [64*C-1:0] lanes, input [2*C-1:0] widths,
    input [C-1:0] unsigneds, input [8*C-1:0] weights_out, output [32*C-1:0] wide, output [32*C-1:0] narrowed);
  FUNCTIONS
  genvar c;
  generate for (c = 0; c < C; c = c + 1) begin
    assign wide[32*c +: 32] = WIDE;
    assign narrowed[32*c +: 32] = NARROW;
  end endgenerate
endmodule
"""
PRODUCTS_TOP = """
module top(input [68:0] activation, input [7:0] weight, output [31:0] wide, narrowed, result,
           output [63:0] by_4_bits, by_2_bits, by_1_bit);
  FUNCTIONS
  products fast(.operands({{24{activation[7] & ~activation[64]}}, activation[7:0]}), .lanes(activation[63:0]),
                .widths(activation[66:65]), .unsigneds(activation[64]), .weights_out(weight), .wide(wide),
                .narrowed(narrowed));
  \\synthesized.pe00 slow(.result(result));
  wire [63:0] of_2_bits, of_1_bit;
  assign of_2_bits = products(activation[64], activation[63:0], spread(weight), spread(weight >> 1));
  assign of_1_bit = pairs(activation[64], activation[63:0], spread(weight), spread(weight >> 1));
  genvar g;
  generate
    for (g = 0; g < 2; g = g + 1)
      assign by_4_bits[32*g +: 32] = {{24{activation[32*g + 7] & ~activation[64]}}, activation[32*g +: 8]}
                                     * {{28{weight[4*g + 3]}}, weight[4*g +: 4]};
    for (g = 0; g < 4; g = g + 1) begin
      assign by_2_bits[16*g +: 16] = of_2_bits[16*g +: 16] - 1024;
      assign by_1_bit[16*g +: 16] = of_1_bit[16*g +: 16] - 256;
    end
  endgenerate
endmodule
"""


def extended(signal: str, width: int, to: int) -> str:
    """Return a signed signal with more bits, as ``sat`` writes them."""
    return ",".join([f"{signal}[{width - 1}]"] * (to - width) + [signal])


# By log2_lanes: sums within a processing element, and what they are of the fast form's.
PAIR_BITS = 11
WITHIN = {1: [(f"slow.sum_2_{g}", f"by_4_bits[{32 * g + 17}:{32 * g}]") for g in range(2)],
          2: [(extended(f"slow.pair_{2 * g}", PAIR_BITS, 16), f"by_2_bits[{16 * g + 15}:{16 * g}]") for g in range(4)],
          3: [(extended(f"slow.pair_{2 * g}", PAIR_BITS, 16), f"by_1_bit[{16 * g + 15}:{16 * g}]") for g in range(4)]}
WIRING_TOP = """
module top #(parameter C = 1) (input [32*C-1:0] operands, input [64*C-1:0] lanes, input [2*C-1:0] widths,
    input [C-1:0] unsigneds, input [8*C-1:0] weights_out, output [32*C-1:0] wide, narrowed, wide_1, narrowed_1);
  products #(.C(C)) all(operands, lanes, widths, unsigneds, weights_out, wide, narrowed);
  genvar g;
  generate for (g = 0; g < C; g = g + 1)
    products one(operands[32*g +: 32], lanes[64*g +: 64], widths[2*g +: 2], unsigneds[g], weights_out[8*g +: 8],
                 wide_1[32*g +: 32], narrowed_1[32*g +: 32]);
  endgenerate
endmodule
"""


def main() -> None:
    columns, part = int(sys.argv[1]), sys.argv[2]
    prove = {"registers": prove_registers, "products": prove_products, "wiring": prove_wiring}[part]
    prove(columns, Path("simulated.v").read_text(), Path("synthesized.v").read_text())
    print(PROVED)


def prove_registers(columns: int, simulated: str, synthesized: str) -> None:
    """Part 1."""
    simulated = replace_once(WIDE_PRODUCT, f"+ {USED_WIDE};", simulated)
    simulated = replace_once(NARROW_PRODUCT, f"+ {USED_NARROW};", simulated)
    ports = "(free, used, sound, all_lanes, all_widths, activation, weights_in,"
    simulated = replace_once(r"\(activation, weights_in,", ports, simulated)
    simulated = replace_once("(?<=sum;\n)  integer c;", "  integer c;" + USED, simulated)
    simulated = simulated.replace("  reg ", "  (* keep *) reg ")
    design = read(simulated, synthesized, REGISTERS_TOP.replace("{C}", str(columns)))
    for column in range(columns):
        pe = f"slow.pe{column:02}"
        run(design, f"connect -set {pe}.product used[{WORD * column + PRODUCT_BITS - 1}:{WORD * column}]")
        run(design, f"connect -set lanes_1[{LANES * column + LANES - 1}:{LANES * column}] {pe}.activation[63:0]")
    for step in ("setattr -set keep 1 w:slow.*.activation", "opt_merge -share_all", "opt_muxtree", "opt_clean"):
        run(design, step)
    everything = [*row_pairs(), *(pair for column in range(columns) for pair in pairs(column))]
    run(design, f"sat -verify -seq 1 -set-init-zero {listed('-prove', everything)} top")
    for proved in (row_pairs(), *map(pairs, range(columns))):
        run(design, f"sat -verify -seq 2 -prove-skip 1 {listed('-set-at 1', everything)} "
                    f"{listed('-prove', proved)} top")


def listed(option: str, equalities: list[tuple[str, str]]) -> str:
    """Return an option of ``sat`` for each of some equalities."""
    return " ".join(f"{option} {a} {b}" for a, b in equalities)


def pairs(column: int) -> list[tuple[str, str]]:
    """Return the registers of a column that must agree: those of the simulated form, those of the synthesized one."""
    pe, word = f"slow.pe{column:02}", WORD * column
    return [(f"fast.sound[{column}]", "1"),
            (f"same_lanes[{column}]", "1"),
            (f"fast.all_operands[{word + 7}:{word}]", f"{pe}.activation[7:0]"),
            (f"fast.unsigneds[{column}]", f"{pe}.activation[64]"),
            (f"fast.widths[{2 * column + 1}:{2 * column}]", f"{pe}.activation[66:65]"),
            (f"fast.first[{column}]", f"{pe}.activation[67]"),
            (f"fast.last[{column}]", f"{pe}.activation[68]"),
            (f"fast.weights_out[{8 * column + 7}:{8 * column}]", f"{pe}.weight"),
            (f"fast.finished[{column}]", f"{pe}.finished"),
            (f"fast.all_accumulators[{word + 31}:{word}]", f"{pe}.accumulator"),
            (f"fast.results[{word + 31}:{word}]", f"{pe}.result")]


def row_pairs() -> list[tuple[str, str]]:
    """Return the same for the sum of what enters the row, which is in step with column 0.

    Of two hypotheses about the same first signal ``sat`` takes only the second.
    """
    return [("fast.entered", extended("slow.sum.step", STEP_BITS, WORD)),
            ("fast.sum", "slow.sum.accumulator"), ("row_sum_0", "row_sum_1"),
            *((f"slow.sum.{name}", f"fast.{name}[0]") for name in ("first", "last", "finished"))]


def prove_products(columns: int, simulated: str, synthesized: str) -> None:
    """Part 2. Multipliers of words, which extend nothing, are taken as signed: they then shrink to what is extended.

    Weights of 8 bits by each value of their upper half. Sums of several products in two steps: those within the element
    are those of the fast form, and so is their sum.
    """
    design = read(products(simulated), synthesized, PRODUCTS_TOP.replace("FUNCTIONS", functions(simulated)))
    for step in (f"setparam -set A_SIGNED 1 -set B_SIGNED 1 t:$mul r:A_WIDTH={WORD} %i r:B_WIDTH={WORD} %i",
                 "wreduce t:$mul", "opt_merge -share_all", "opt_clean", "delete t:$dff*",
                 "connect -set slow.activation activation", "connect -set slow.weight weight"):
        run(design, step)
    product = extended("slow.product", PRODUCT_BITS, WORD)
    for width, pairs_ in WITHIN.items():
        for a, b in pairs_:
            run(design, f"sat -verify -set activation[66:65] {width} -prove {a} {b} top")
        known = listed("-set", pairs_)
        run(design, f"sat -verify -set activation[66:65] {width} {known} -prove narrowed {product} top")
    for half in range(16):
        run(design, f"sat -verify -set activation[66:65] 0 -set weight[7:4] {half} -prove wide {product} top")
    run(design, "sat -verify -set activation[66:65] 0 -prove narrowed wide top")


def prove_wiring(columns: int, simulated: str, synthesized: str) -> None:
    """Part 3: equal cells with the same inputs become one, which leaves little to prove."""
    elements = re.findall(r"^module \\synthesized\.pe\d\d .*?^endmodule", synthesized, re.MULTILINE | re.DOTALL)
    texts = {statements(element) for element in elements}
    if len(elements) != columns or len(texts) != 1:
        raise ValueError(f"{len(elements)} processing elements with {len(texts)} texts")
    design = read(products(simulated), WIRING_TOP.replace("C = 1", f"C = {columns}"))
    run(design, "opt_expr; opt_merge -share_all; opt_clean")
    run(design, "sat -verify -prove wide wide_1 -prove narrowed narrowed_1 top")


def statements(element: str) -> str:
    """Return what a module does, with Yosys' numbers of registers, which count through the design, from 0 on."""
    numbers = list(dict.fromkeys(re.findall(r"slice\$(\d+)", element)))
    element = re.sub(r"slice\$(\d+)", lambda match: f"slice${numbers.index(match[1])}", element)
    return ";".join(sorted(re.findall(r"^  (?:assign|always).*?;", element, re.MULTILINE | re.DOTALL)))


def products(simulated: str) -> str:
    """Return a module with the products of the fast form alone; its arrays are vectors there."""
    text = PRODUCTS.replace("FUNCTIONS", functions(simulated))
    for name, expression in (("WIDE", WIDE_PRODUCT), ("NARROW", NARROW_PRODUCT)):
        column = re.sub(r"\bn\b", "c", found(expression, simulated)[1])
        text = text.replace(name, re.sub(r"(\w+)\[c\]", vector_of, column))
    return text


def vector_of(element: re.Match) -> str:
    """Return an element of an array of the fast form as a part of a vector; any other text as it is."""
    name, width = element[1], ARRAYS.get(element[1])
    name = {"bytes": "weights_out"}.get(name, name)
    return f"{name}[{width}*c +: {width}]" if width else element[0]


def functions(simulated: str) -> str:
    """Return the functions of the fast form and the constant that they use."""
    return "\n".join(re.findall(r"localparam \[63:0\].*?;|function .*?endfunction", simulated, re.DOTALL))


def found(expression: str, text: str) -> re.Match:
    """Return the only match."""
    matches = list(re.finditer(expression, text, re.DOTALL))
    if len(matches) != 1:
        raise ValueError(f"{len(matches)} places like {expression}")
    return matches[0]


def replace_once(expression: str, new: str, text: str) -> str:
    """Replace the only match."""
    match = found(expression, text)
    return text[:match.start()] + new + text[match.end():]


def read(*texts: str):
    """Return a flat design of some Verilog."""
    Path("design.v").write_text("\n".join(texts))
    design = ys.Design()
    for step in ("read_verilog design.v", "hierarchy -check -top top", "proc", "flatten", "opt_clean"):
        run(design, step)
    return design


def run(design, step: str) -> None:
    """Run a pass of Yosys."""
    ys.run_pass(step, design)


if __name__ == "__main__":
    main()
