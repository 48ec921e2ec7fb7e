"""Proof that both forms of an array are one machine, in a folder with their Verilog:
``python array_proof.py ROWS COLUMNS PART``.

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
WIDE_PRODUCT, NARROW_PRODUCT = r"\+ (operands\[r\]\[c\] \* .*?);", r"\+ (narrow\(widths.*?\));"
# Vectors and arrays of the fast form of which a product takes a column's part, by the width of that.
ARRAYS = {"operands": 32, "lanes": 64, "bytes": 8, "widths": 2, "unsigneds": 1, "biased": 8}
REGISTERS_TOP = """
module top(input clk, input [69*{R}-1:0] activations, input [8*{C}-1:0] weights, input [{B}-1:0] row,
           input [18*{R}*{C}-1:0] free, output [32*{R}*{C}-1:0] used, output [32*{C}-1:0] data_0, data_1,
           output [31:0] row_sum_0, row_sum_1, output [{R}*{C}-1:0] sound, same_lanes);
  (* keep *) wire [64*{R}*{C}-1:0] lanes_0, lanes_1;
  (* keep *) wire [2*{R}*{C}-1:0] widths;
  simulated fast(.clk(clk), {edges}, .weights(weights), .row(row), .data(data_0),
                 .row_sum(row_sum_0), .free(free), .used(used), .sound(sound),
                 .all_lanes(lanes_0), .all_widths(widths));
  synthesized slow(.clk(clk), {edges}, .weights(weights), .row(row), .data(data_1),
                   .row_sum(row_sum_1));
  genvar g;
  generate for (g = 0; g < {R}*{C}; g = g + 1)
    assign same_lanes[g] = widths[2*g +: 2] == 0 || lanes_0[64*g + 8 +: 56] == lanes_1[64*g + 8 +: 56];
  endgenerate
endmodule
"""
# Ports and wires that the fast form gets for part 1: registers of all columns, row by row.
USED = """
  input [18*R*C-1:0] free;
  output [32*R*C-1:0] used;
  output [R*C-1:0] sound;
  output [64*R*C-1:0] all_lanes;
  output [2*R*C-1:0] all_widths;
  (* keep *) wire [R*C-1:0] all_unsigneds, all_first, all_last, all_finished, all_live;
  (* keep *) wire [32*R*C-1:0] all_operands, all_accumulators, all_results;
  (* keep *) wire [8*R*C-1:0] all_weights;
  (* keep *) wire [32*R-1:0] entered, all_sums, all_row_sums;
  genvar h;
  generate for (h = 0; h < R; h = h + 1) begin
    assign entered[32*h +: 32] = step(all_widths[2*C*h +: 2], operands[h][0], all_unsigneds[C*h], lanes[h][0]);
    assign all_sums[32*h +: 32] = sum[h];
    assign all_row_sums[32*h +: 32] = row_sums[h];
    assign all_widths[2*C*h +: 2*C] = widths[h];
    assign all_unsigneds[C*h +: C] = unsigneds[h];
    assign all_first[C*h +: C] = first[h];
    assign all_last[C*h +: C] = last[h];
    assign all_finished[C*h +: C] = finished[h];
    assign all_live[C*h +: C] = live[h];
    assign all_weights[8*C*h +: 8*C] = weights_in[h];
    for (g = 0; g < C; g = g + 1) begin
      assign all_lanes[64*(C*h + g) +: 64] = lanes[h][g];
      assign all_operands[32*(C*h + g) +: 32] = operands[h][g];
      assign all_accumulators[32*(C*h + g) +: 32] = accumulators[h][g];
      assign all_results[32*(C*h + g) +: 32] = results[h][g];
    end
  end
  for (g = 0; g < R*C; g = g + 1) begin
    assign used[32*g +: 32] = all_operands[32*g +: 32] == 0 && all_widths[2*g +: 2] == 0
      ? 0 : {{14{free[18*g + 17]}}, free[18*g +: 18]};
    assign sound[g] = all_operands[32*g + 8 +: 24] == {24{all_operands[32*g + 7] & ~all_unsigneds[g]}} && (all_live[g]
      || {all_operands[32*g +: 32], all_widths[2*g +: 2], all_unsigneds[g], all_first[g], all_last[g]} == 0);
  end endgenerate
"""
# What part 1 takes for the products; a wrong one where narrow weights are not the column's.
USED_WIDE = "used[32*(C*r + c) +: 32]"
USED_NARROW = "(bytes[c] == weights_in[r][8*c +: 8] ? used[32*(C*r + c) +: 32] : ~used[32*(C*r + c) +: 32])"
SIGNED_WEIGHT = "{{24{weight[7]}}, weight}"
PRODUCTS = """
module products #(parameter C = 1) (input [32*C-1:0] operands, input [64*C-1:0] lanes, input [2*C-1:0] widths,
    input [C-1:0] unsigneds, input [8*C-1:0] bytes, output [32*C-1:0] wide, output [32*C-1:0] narrowed);
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
                .widths(activation[66:65]), .unsigneds(activation[64]), .bytes(weight), .wide(wide),
                .narrowed(narrowed));
  \\phonolith_row.pe00 slow(.result(result));
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
    input [C-1:0] unsigneds, input [8*C-1:0] bytes, output [32*C-1:0] wide, narrowed, wide_1, narrowed_1);
  products #(.C(C)) all(operands, lanes, widths, unsigneds, bytes, wide, narrowed);
  genvar g;
  generate for (g = 0; g < C; g = g + 1)
    products one(operands[32*g +: 32], lanes[64*g +: 64], widths[2*g +: 2], unsigneds[g], bytes[8*g +: 8],
                 wide_1[32*g +: 32], narrowed_1[32*g +: 32]);
  endgenerate
endmodule
"""


def main() -> None:
    rows, columns, part = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    simulated, synthesized = Path("simulated.v").read_text(), Path("synthesized.v").read_text()
    if part == "registers":
        prove_registers(rows, columns, simulated, synthesized)
    elif part == "products":
        prove_products(simulated, synthesized)
    else:
        prove_wiring(columns, simulated, synthesized)
    print(PROVED)


def prove_registers(rows: int, columns: int, simulated: str, synthesized: str) -> None:
    """Part 1."""
    simulated = replace_once(WIDE_PRODUCT, f"+ {USED_WIDE};", simulated)
    simulated = replace_once(NARROW_PRODUCT, f"+ {USED_NARROW};", simulated)
    simulated = replace_once(r"\((?=activations__0,)", "(free, used, sound, all_lanes, all_widths, ", simulated)
    simulated = replace_once(r"(?<=row_sums \[0:R-1\];\n)  integer r, c;\n  genvar g;",
                             "  integer r, c;\n  genvar g;" + USED, simulated)
    simulated, synthesized = (text.replace("  reg ", "  (* keep *) reg ") for text in (simulated, synthesized))
    edges = ", ".join(f".activations__{r}(activations[{69 * r + 68}:{69 * r}])" for r in range(rows))
    top = REGISTERS_TOP.replace("{R}", str(rows)).replace("{C}", str(columns)).replace("{edges}", edges)
    top = top.replace("{B}", str((rows - 1).bit_length()))
    design = read(simulated, synthesized, top)
    places = [(r, c) for r in range(rows) for c in range(columns)]
    for r, c in places:
        pe, place = f"slow.row{r}.pe{c:02}", columns * r + c
        run(design, f"connect -set {pe}.product used[{WORD * place + PRODUCT_BITS - 1}:{WORD * place}]")
        run(design, f"connect -set lanes_1[{LANES * place + LANES - 1}:{LANES * place}] {pe}.activation[63:0]")
    for step in ("setattr -set keep 1 w:slow.*.activation", "opt_merge -share_all", "opt_muxtree", "opt_clean"):
        run(design, step)
    parts = [*(row_pairs(r, columns) for r in range(rows)), *(pairs(r, c, columns) for r, c in places)]
    everything = [pair for part in parts for pair in part]
    run(design, f"sat -verify -seq 1 -set-init-zero {listed('-prove', everything)} top")
    for proved in [*parts, [("data_0", "data_1"), ("row_sum_0", "row_sum_1")]]:
        run(design, f"sat -verify -seq 2 -prove-skip 1 {listed('-set-at 1', everything)} "
                    f"{listed('-prove', proved)} top")


def listed(option: str, equalities: list[tuple[str, str]]) -> str:
    """Return an option of ``sat`` for each of some equalities."""
    return " ".join(f"{option} {a} {b}" for a, b in equalities)


def pairs(row: int, column: int, columns: int) -> list[tuple[str, str]]:
    """Return the registers of a column that must agree: those of the simulated form, those of the synthesized one."""
    place = columns * row + column
    pe, word = f"slow.row{row}.pe{column:02}", WORD * place
    return [(f"fast.sound[{place}]", "1"),
            (f"same_lanes[{place}]", "1"),
            (f"fast.all_operands[{word + 7}:{word}]", f"{pe}.activation[7:0]"),
            (f"fast.all_unsigneds[{place}]", f"{pe}.activation[64]"),
            (f"fast.all_widths[{2 * place + 1}:{2 * place}]", f"{pe}.activation[66:65]"),
            (f"fast.all_first[{place}]", f"{pe}.activation[67]"),
            (f"fast.all_last[{place}]", f"{pe}.activation[68]"),
            (f"fast.all_weights[{8 * place + 7}:{8 * place}]", f"{pe}.weight"),
            (f"fast.all_finished[{place}]", f"{pe}.finished"),
            (f"fast.all_accumulators[{word + 31}:{word}]", f"{pe}.accumulator"),
            (f"fast.all_results[{word + 31}:{word}]", f"{pe}.result")]


def row_pairs(row: int, columns: int) -> list[tuple[str, str]]:
    """Return the same for the sum of what enters a row, which is in step with its column 0.

    Of two hypotheses about the same first signal ``sat`` takes only the second.
    """
    slow, word = f"slow.row{row}.sum", f"[{WORD * row + WORD - 1}:{WORD * row}]"
    return [(f"fast.entered{word}", extended(f"{slow}.step", STEP_BITS, WORD)),
            (f"fast.all_sums{word}", f"{slow}.accumulator"), (f"fast.all_row_sums{word}", f"{slow}.result"),
            *((f"{slow}.{name}", f"fast.all_{name}[{columns * row}]") for name in ("first", "last", "finished"))]


def prove_products(simulated: str, synthesized: str) -> None:
    """Part 2. Multipliers of words, which extend nothing, are taken as signed: they then shrink to what is extended.

    Weights of 8 bits by each value of their upper half. Sums of several products in two steps: those within the element
    are those of the fast form, and so is their sum.
    """
    prove_weights(simulated)
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
    elements = re.findall(r"^module \\phonolith_row\.pe\d\d .*?^endmodule", synthesized, re.MULTILINE | re.DOTALL)
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
        text = text.replace(name, part_of_vectors(found(expression, simulated)[1]))
    return text.replace(weight_of(simulated), "{{24{bytes[8*c + 7]}}, bytes[8*c +: 8]}")


def weight_of(simulated: str) -> str:
    """Return how a product takes a weight of 8 bits from ``biased``."""
    return found(r"(\(\{24'b0, biased\[8\*c \+: 8\]\} - \d+\));", simulated)[1]


def prove_weights(simulated: str) -> None:
    """That products of 8-bit weights take them with their sign: multipliers of that are much easier for ``sat``."""
    bias = found(r"biased = weights_in\[r\] \^ \{C\{(.*?)\}\};", simulated)[1]
    taken = weight_of(simulated).replace("biased[8*c +: 8]", f"(weight ^ {bias})")
    design = read(f"module top(input [7:0] weight, output [31:0] taken, signed_weight);\n  assign taken = {taken};\n"
                  f"  assign signed_weight = {SIGNED_WEIGHT};\nendmodule\n")
    run(design, "sat -verify -prove taken signed_weight top")


def part_of_vectors(product: str) -> str:
    """Return a product of the fast form with vectors of all columns of a row in place of its arrays."""
    for name, width in ARRAYS.items():
        product = re.sub(rf"\b{name}(\[r\])?\[c\]|\b{name}(\[r\])?\[{width}\*c \+: {width}\]",
                         f"{name}[{width}*c +: {width}]", product)
    return product


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
