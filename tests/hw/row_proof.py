"""Proof that both forms of a row are one machine, in a folder with their Verilog: ``python row_proof.py COLUMNS PART``.

SAT solvers are slow with multipliers, so there are three parts.

1. ``registers``, by induction over cycles: if all registers of the two forms agree, they agree after the next cycle,
   whatever the inputs. Both take the products from the same free inputs, which are zero where there is no activation.
   What the fast form relies on is part of the hypothesis: where no column is live, nothing is held; words hold their
   sign.
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
ACTIVATION_BITS, WEIGHT_BITS, PRODUCT_BITS, WORD, LANES = 69, 8, 18, 32, 64
WIDE_PRODUCT, NARROW_PRODUCT = r"\+ (operands\[32\*c \+: 32\] \* .*?);", r"\+ (narrow\(widths.*?\));"
REGISTERS_TOP = """
module top(input clk, input [68:0] activation, input [8*{C}-1:0] weights_in, input [18*{C}-1:0] free,
           output [32*{C}-1:0] used, results_0, results_1, output [8*{C}-1:0] weights_0, weights_1,
           output [{C}-1:0] sound);
  simulated fast(.clk(clk), .activation(activation), .weights_in(weights_in), .weights_out(weights_0),
                 .results(results_0), .free(free), .used(used), .sound(sound));
  synthesized slow(.clk(clk), .activation(activation), .weights_in(weights_in), .weights_out(weights_1),
                   .results(results_1));
endmodule
"""
# Ports and wires that the fast form gets for part 1.
USED = """
  input [18*C-1:0] free;
  output [32*C-1:0] used;
  output [C-1:0] sound;
  genvar g;
  generate for (g = 0; g < C; g = g + 1) begin
    assign used[32*g +: 32] = operands[32*g +: 32] == 0 && widths[2*g +: 2] == 0 ? 0
                              : {{14{free[18*g + 17]}}, free[18*g +: 18]};
    assign sound[g] = operands[32*g + 8 +: 24] == {24{operands[32*g + 7] & ~unsigneds[g]}} && (live[g]
      || {operands[32*g +: 32], widths[2*g +: 2], unsigneds[g], first[g], last[g]} == 0);
  end endgenerate
"""
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
           output [63:0] by_4_bits, output [127:0] by_2_bits);
  products fast(.operands({{24{activation[7] & ~activation[64]}}, activation[7:0]}), .lanes(activation[63:0]),
                .widths(activation[66:65]), .unsigneds(activation[64]), .weights_out(weight), .wide(wide),
                .narrowed(narrowed));
  \\synthesized.pe00 slow(.result(result));
  genvar g;
  generate
    for (g = 0; g < 2; g = g + 1)
      assign by_4_bits[32*g +: 32] = {{24{activation[32*g + 7] & ~activation[64]}}, activation[32*g +: 8]}
                                     * {{28{weight[4*g + 3]}}, weight[4*g +: 4]};
    for (g = 0; g < 4; g = g + 1)
      assign by_2_bits[32*g +: 32] = {{24{activation[16*g + 7] & ~activation[64]}}, activation[16*g +: 8]}
                                     * {{30{weight[2*g + 1]}}, weight[2*g +: 2]};
  endgenerate
endmodule
"""
# By log2_lanes: sums within a processing element, and the products that they are.
WITHIN = {1: [(f"slow.sum_2_{g}", f"by_4_bits[{32 * g + 17}:{32 * g}]") for g in range(2)],
          2: [(f"slow.pair_{2 * g}", f"by_2_bits[{32 * g + 10}:{32 * g}]") for g in range(4)], 3: []}
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
    for expression in (WIDE_PRODUCT, NARROW_PRODUCT):
        simulated = replace_once(expression, "+ used[32*c +: 32];", simulated)
    simulated = replace_once(r"\(activation, weights_in,", "(free, used, sound, activation, weights_in,", simulated)
    simulated = replace_once("integer c;", "integer c;" + USED, simulated).replace("  reg ", "  (* keep *) reg ")
    design = read(simulated, synthesized, REGISTERS_TOP.replace("{C}", str(columns)))
    for column in range(columns):
        low = WORD * column
        run(design, f"connect -set slow.pe{column:02}.product used[{low + PRODUCT_BITS - 1}:{low}]")
    for step in ("setattr -set keep 1 w:slow.*.activation", "opt_merge -share_all", "opt_muxtree", "opt_clean"):
        run(design, step)
    everything = [pair for column in range(columns) for pair in pairs(column)]
    run(design, f"sat -verify -seq 1 -set-init-zero {listed('-prove', everything)} top")
    for column in range(columns):
        run(design, f"sat -verify -seq 2 -prove-skip 1 {listed('-set-at 1', everything)} "
                    f"{listed('-prove', pairs(column))} top")


def listed(option: str, equalities: list[tuple[str, str]]) -> str:
    """Return an option of ``sat`` for each of some equalities."""
    return " ".join(f"{option} {a} {b}" for a, b in equalities)


def pairs(column: int) -> list[tuple[str, str]]:
    """Return the registers of a column that must agree: those of the simulated form, those of the synthesized one."""
    pe, word, lanes = f"slow.pe{column:02}", WORD * column, LANES * column
    return [(f"fast.sound[{column}]", "1"),
            (f"fast.operands[{word + 7}:{word}]", f"{pe}.activation[7:0]"),
            (f"fast.lanes[{lanes + 63}:{lanes + 8}]", f"{pe}.activation[63:8]"),
            (f"fast.unsigneds[{column}]", f"{pe}.activation[64]"),
            (f"fast.widths[{2 * column + 1}:{2 * column}]", f"{pe}.activation[66:65]"),
            (f"fast.first[{column}]", f"{pe}.activation[67]"),
            (f"fast.last[{column}]", f"{pe}.activation[68]"),
            (f"fast.weights_out[{8 * column + 7}:{8 * column}]", f"{pe}.weight"),
            (f"fast.finished[{column}]", f"{pe}.finished"),
            (f"fast.accumulators[{word + 31}:{word}]", f"{pe}.accumulator"),
            (f"fast.results[{word + 31}:{word}]", f"{pe}.result")]


def prove_products(columns: int, simulated: str, synthesized: str) -> None:
    """Part 2. Multipliers of words, which extend nothing, are taken as signed: they then shrink to what is extended.

    Weights of 8 bits by each value of their upper half. Sums of several products in two steps: those within the element
    are the products, and so their sum is that of the products.
    """
    design = read(products(simulated), synthesized, PRODUCTS_TOP)
    for step in (f"setparam -set A_SIGNED 1 -set B_SIGNED 1 t:$mul r:A_WIDTH={WORD} %i r:B_WIDTH={WORD} %i",
                 "wreduce t:$mul", "opt_merge -share_all", "opt_clean", "delete t:$dff*",
                 "connect -set slow.activation activation", "connect -set slow.weight weight"):
        run(design, step)
    product = ",".join(["slow.product[17]"] * (WORD - PRODUCT_BITS) + ["slow.product"])
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
    """Return a module with the products of the fast form alone."""
    functions = "\n".join(re.findall(r"function .*?endfunction", simulated, re.DOTALL))
    wide, narrow = (found(each, simulated)[1] for each in (WIDE_PRODUCT, NARROW_PRODUCT))
    return PRODUCTS.replace("FUNCTIONS", functions).replace("WIDE", wide).replace("NARROW", narrow)


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
