"""Proof that both forms of an array are one machine, in a folder with their Verilog:
``python array_proof.py ROWS COLUMNS PART``.

SAT solvers are slow with multipliers, so there are three parts.

1. ``registers``, by induction over cycles: if all registers of the two forms agree, they agree after the next cycle,
   whatever the inputs. Both take the products from the same free inputs, which are zero where there is no activation.
   The fast form holds an activation as an operand for each lane of each width.
2. ``products``, of any number of columns: the fast form takes the weights that are meant out of a byte, and its sums of
   their products with the operands of an activation are what a processing element gives, for each width.
3. ``wiring``: what part 2 shows for one column holds for all of them. The processing elements have the same text. The
   fast form's sums of column c are those of a form with a single column.

A process of its own, because Yosys may simply exit. Prints `PROVED` at the end.
"""

import re
import sys
from pathlib import Path

from pyosys import libyosys as ys  # pyright: ignore[reportAttributeAccessIssue]

PROVED = "proved: both forms agree"
PRODUCT_BITS, STEP_BITS, WORD = 18, 12, 32
WIDTHS = (8, 4, 2, 1)   # by log2_lanes
# Numbers of 16 bits of a column, one for each lane of each width; the last is not used.
NUMBERS = 256
SUM = r"^ +product = (.*operands.*);$"
PRODUCT = (r"operands\[r\]\[(\d+)\]\[([^\]]*)\] \* "
           r"(weight\[r\]\[c\]|\(+weight\[r\]\[c\] >> \d+\) & \d+\)(?: \^ \d+\) - \d+\))?)")
# What both forms are compared with: operands and factors of a column by its activation (69 bits) and weight.
MEANT = """
module meant(input [68:0] activation, input [7:0] weight, output [255:0] operands, factors);
  genvar v, i;
  generate for (v = 0; v < 4; v = v + 1)
    for (i = 0; i < (1 << v); i = i + 1) begin
      wire [7:0] lane = activation[8*(i << (3 - v)) +: 8];
      assign operands[16*((1 << v) - 1 + i) +: 16] =
        activation[66:65] == v ? {{8{lane[7] & ~activation[64]}}, lane} : 16'b0;
      wire top = v != 3 && weight[(8 >> v)*(i + 1) - 1];
      assign factors[16*((1 << v) - 1 + i) +: 16] = {{16{top}}, weight[(8 >> v)*i +: 8 >> v]};
    end
  endgenerate
  assign operands[255:240] = 0, factors[255:240] = 0;
endmodule
"""
REGISTERS_TOP = MEANT + """
module top(input clk, input [69*{R}-1:0] activations, input [8*{C}-1:0] weights, input [{B}-1:0] row,
           input [16*{R}*{C}-1:0] free, output [16*{R}*{C}-1:0] used, output [32*{C}-1:0] data_0, data_1,
           output [31:0] row_sum_0, row_sum_1, output [{R}*{C}-1:0] sound);
  localparam R = {R}, C = {C};
  wire [{B}-1:0] asked = row < R ? row : 0;   // the engine asks for no other
  (* keep *) wire [69*R*C-1:0] activations_1;
  (* keep *) wire [8*R*C-1:0] weights_1;
  (* keep *) wire [256*R*C-1:0] operands_0, operands_1;
  (* keep *) wire [R*C-1:0] live, narrow, by_4, by_2, by_1;
  simulated fast(.clk(clk), {edges}, .row(asked), .data(data_0), .row_sum(row_sum_0), .free(free), .used(used),
                 .all_operands(operands_0), .all_live(live));
  synthesized slow(.clk(clk), {edges}, .row(asked), .data(data_1), .row_sum(row_sum_1));
  genvar g;
  generate for (g = 0; g < R*C; g = g + 1) begin
    meant column(activations_1[69*g +: 69], weights_1[8*g +: 8], operands_1[256*g +: 256]);
    assign sound[g] = live[g] || {activations_1[69*g + 64 +: 5], activations_1[69*g +: 8]} == 0;
    assign narrow[g] = activations_1[69*g + 65 +: 2] != 0;
    assign by_4[g] = activations_1[69*g + 65 +: 2] == 1;
    assign by_2[g] = activations_1[69*g + 65 +: 2] == 2;
    assign by_1[g] = activations_1[69*g + 65 +: 2] == 3;
  end endgenerate
endmodule
"""
# Ports and wires that the fast form gets for part 1: registers of all columns, row by row.
USED = """
  input [16*R*C-1:0] free;
  output [16*R*C-1:0] used;
  output [256*R*C-1:0] all_operands;
  output [R*C-1:0] all_live;
  wire [16*R*C-1:0] used_8, used_4, used_2, used_1;
  (* keep *) wire [R*C-1:0] all_narrow, all_by_4, all_by_2, all_by_1, all_first, all_last, all_finished;
  (* keep *) wire [32*R*C-1:0] all_accumulators, all_results;
  (* keep *) wire [16*R*C-1:0] all_weights;
  (* keep *) wire [16*R-1:0] all_entered;
  (* keep *) wire [R-1:0] sound;
  (* keep *) wire [32*R-1:0] all_sums, all_row_sums;
  genvar h, n;
  generate for (h = 0; h < R; h = h + 1) begin
    assign all_entered[16*h +: 16] = entered[h];
    assign sound[h] = live[h][0] || entered[h] == 0;
    assign all_sums[32*h +: 32] = sum[h];
    assign all_row_sums[32*h +: 32] = row_sums[h];
    assign all_live[C*h +: C] = live[h];
    assign all_narrow[C*h +: C] = narrow[h];
    assign all_by_4[C*h +: C] = by_4[h];
    assign all_by_2[C*h +: C] = by_2[h];
    assign all_by_1[C*h +: C] = by_1[h];
    assign all_first[C*h +: C] = first[h];
    assign all_last[C*h +: C] = last[h];
    assign all_finished[C*h +: C] = finished[h];
    for (g = 0; g < C; g = g + 1) begin
      for (n = 0; n < 15; n = n + 1)
        assign all_operands[256*(C*h + g) + 16*n +: 16] = operands[h][n][g];
      assign all_weights[16*(C*h + g) +: 16] = weight[h][g];
      assign all_accumulators[32*(C*h + g) +: 32] = accumulators[h][g];
      assign all_results[32*(C*h + g) +: 32] = results[h][g];
    end
  end
  for (g = 0; g < R*C; g = g + 1) begin
    assign used[16*g +: 16] = all_live[g] ? free[16*g +: 16] : 0;
    assign used_8[16*g +: 16] = all_narrow[g] ? 0 : used[16*g +: 16];
    assign used_4[16*g +: 16] = all_by_4[g] ? used[16*g +: 16] : 0;
    assign used_2[16*g +: 16] = all_by_2[g] ? used[16*g +: 16] : 0;
    assign used_1[16*g +: 16] = all_by_1[g] ? used[16*g +: 16] : 0;
  end endgenerate
"""
PRODUCTS = """
module products #(parameter C = 1) (input [256*C-1:0] operands, factors, output [64*C-1:0] sums);
  genvar c;
  generate for (c = 0; c < C; c = c + 1) begin
SUMS  end endgenerate
endmodule
"""
PRODUCTS_TOP = MEANT + """
module top(input [68:0] activation, input [7:0] weight, output [63:0] sums,
           output [31:0] result, by_4_bits, output [63:0] by_2_bits, by_1_bit);
  wire [255:0] operands, factors;
  meant column(activation, weight, operands, factors);
  products fast(operands, factors, sums);
  \\phonolith_row.pe00 slow(.result(result));
  wire [239:0] each;
  genvar g;
  generate
    for (g = 0; g < 15; g = g + 1) assign each[16*g +: 16] = operands[16*g +: 16] * factors[16*g +: 16];
    for (g = 0; g < 4; g = g + 1) assign by_1_bit[16*g +: 16] = each[16*(7 + 2*g) +: 16] + each[16*(8 + 2*g) +: 16];
  endgenerate
  assign by_4_bits = each[16 +: 32], by_2_bits = each[48 +: 64];
endmodule
"""


def extended(signal: str, width: int, to: int) -> str:
    """Return a signed signal, or part of one, with more bits, as ``sat`` writes them."""
    name, _, part = signal.partition("[")
    top = int(part.partition(":")[0]) if part else width - 1
    return ",".join([f"{name}[{top}]"] * (to - width) + [signal])


# By log2_lanes: sums within a processing element, and what they are of the fast form's.
PAIR_BITS = 11
WITHIN = {1: [(f"slow.sum_2_{g}", extended(f"by_4_bits[{16 * g + 15}:{16 * g}]", 16, PRODUCT_BITS)) for g in range(2)],
          2: [(extended(f"slow.pair_{2 * g}", PAIR_BITS, 16), f"by_2_bits[{16 * g + 15}:{16 * g}]") for g in range(4)],
          3: [(extended(f"slow.pair_{2 * g}", PAIR_BITS, 16), f"by_1_bit[{16 * g + 15}:{16 * g}]") for g in range(4)]}
WIRING_TOP = """
module top #(parameter C = 1) (input [256*C-1:0] operands, factors, output [64*C-1:0] sums, sums_1);
  products #(.C(C)) all(operands, factors, sums);
  genvar g;
  generate for (g = 0; g < C; g = g + 1)
    products one(operands[256*g +: 256], factors[256*g +: 256], sums_1[64*g +: 64]);
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
    for bits in WIDTHS:
        simulated = re.sub(SUM, f"  product = used_{bits}[16*(C*r + c) +: 16];", simulated, count=1, flags=re.MULTILINE)
    simulated = replace_once(r"\((?=activations__0,)", "(free, used, all_operands, all_live, ", simulated)
    simulated = replace_once(r"(?<=  reg \[31:0\] r, c;\n)  genvar g;\n", "  genvar g;" + USED, simulated)
    simulated, synthesized = (text.replace("  reg ", "  (* keep *) reg ") for text in (simulated, synthesized))
    edges = [f".activations__{r}(activations[{69 * r + 68}:{69 * r}])" for r in range(rows)]
    edges += [f".weights__{c}(weights[{8 * c + 7}:{8 * c}])" for c in range(columns)]
    top = REGISTERS_TOP.replace("{R}", str(rows)).replace("{C}", str(columns)).replace("{edges}", ", ".join(edges))
    top = top.replace("{B}", str((rows - 1).bit_length()))
    design = read(simulated, synthesized, top)
    places = [(r, c) for r in range(rows) for c in range(columns)]
    for r, c in places:
        pe, place = f"slow.row{r}.pe{c:02}", columns * r + c
        product = extended(f"used[{16 * place + 15}:{16 * place}]", 16, PRODUCT_BITS)
        run(design, f"connect -set {pe}.product {product}")
        run(design, f"connect -set activations_1[{69 * place + 68}:{69 * place}] {pe}.activation")
        run(design, f"connect -set weights_1[{8 * place + 7}:{8 * place}] {pe}.weight")
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
    pe, word, numbers = f"slow.row{row}.pe{column:02}", WORD * place, NUMBERS * place
    return [(f"sound[{place}]", "1"),
            (f"operands_0[{numbers + 239}:{numbers}]", f"operands_1[{numbers + 239}:{numbers}]"),
            (f"fast.all_weights[{16 * place + 15}:{16 * place}]",
             extended(f"weights_1[{8 * place + 7}:{8 * place}]", 8, 16)),
            (f"fast.all_narrow[{place}]", f"narrow[{place}]"),
            *((f"fast.all_by_{bits}[{place}]", f"by_{bits}[{place}]") for bits in WIDTHS[1:]),
            (f"fast.all_first[{place}]", f"{pe}.activation[67]"),
            (f"fast.all_last[{place}]", f"{pe}.activation[68]"),
            (f"fast.all_finished[{place}]", f"{pe}.finished"),
            (f"fast.all_accumulators[{word + 31}:{word}]", f"{pe}.accumulator"),
            (f"fast.all_results[{word + 31}:{word}]", f"{pe}.result")]


def row_pairs(row: int, columns: int) -> list[tuple[str, str]]:
    """Return the same for the sum of what enters a row, which is in step with its column 0.

    Of two hypotheses about the same first signal ``sat`` takes only the second.
    """
    slow, word = f"slow.row{row}.sum", f"[{WORD * row + WORD - 1}:{WORD * row}]"
    return [(f"fast.sound[{row}]", "1"),
            (f"fast.all_entered[{16 * row + 15}:{16 * row}]", extended(f"{slow}.step", STEP_BITS, 16)),
            (f"fast.all_sums{word}", f"{slow}.accumulator"), (f"fast.all_row_sums{word}", f"{slow}.result"),
            *((f"{slow}.{name}", f"fast.all_{name}[{columns * row}]") for name in ("first", "last", "finished"))]


def prove_products(simulated: str, synthesized: str) -> None:
    """Part 2. Multipliers of words, which extend nothing, are taken as signed: they then shrink to what is extended.

    Weights of 8 bits by each value of their upper half. Sums of several products in two steps: those within the element
    are those of the fast form, and so is their sum.
    """
    prove_weights(simulated)
    design = read(products(simulated), synthesized, PRODUCTS_TOP)
    for step in ("setparam -set A_SIGNED 1 -set B_SIGNED 1 t:$mul r:A_WIDTH=16 %i r:B_WIDTH=16 %i",
                 "wreduce t:$mul", "opt_merge -share_all", "opt_clean", "delete t:$dff*",
                 "connect -set slow.activation activation", "connect -set slow.weight weight"):
        run(design, step)
    sums = [f"sums[{16 * width + 15}:{16 * width}]" for width in range(len(WIDTHS))]
    for width, within in WITHIN.items():
        for a, b in within:
            run(design, f"sat -verify -set activation[66:65] {width} -prove {a} {b} top")
        run(design, f"sat -verify -set activation[66:65] {width} {listed('-set', within)} "
                    f"-prove slow.product {extended(sums[width], 16, PRODUCT_BITS)} top")
    for half in range(16):
        run(design, f"sat -verify -set activation[66:65] 0 -set weight[7:4] {half} "
                    f"-prove slow.product {extended(sums[0], 16, PRODUCT_BITS)} top")


def prove_wiring(columns: int, simulated: str, synthesized: str) -> None:
    """Part 3: equal cells with the same inputs become one, which leaves little to prove."""
    elements = re.findall(r"^module \\phonolith_row\.pe\d\d .*?^endmodule", synthesized, re.MULTILINE | re.DOTALL)
    texts = {statements(element) for element in elements}
    if len(elements) != columns or len(texts) != 1:
        raise ValueError(f"{len(elements)} processing elements with {len(texts)} texts")
    design = read(products(simulated), WIRING_TOP.replace("C = 1", f"C = {columns}"))
    run(design, "opt_expr; opt_merge -share_all; opt_clean")
    run(design, "sat -verify -prove sums sums_1 top")


def statements(element: str) -> str:
    """Return what a module does, with Yosys' numbers of registers, which count through the design, from 0 on."""
    numbers = list(dict.fromkeys(re.findall(r"slice\$(\d+)", element)))
    element = re.sub(r"slice\$(\d+)", lambda match: f"slice${numbers.index(match[1])}", element)
    return ";".join(sorted(re.findall(r"^  (?:assign|always).*?;", element, re.MULTILINE | re.DOTALL)))


def products(simulated: str) -> str:
    """Return a module with the sums of products of the fast form alone; its arrays are vectors there."""
    sums = re.findall(SUM, simulated, re.MULTILINE)
    if len(sums) != len(WIDTHS):
        raise ValueError(f"{len(sums)} sums of products, not {len(WIDTHS)}")
    numbers = r"operands[256*(\2) + 16*\1 +: 16] * factors[256*c + 16*\1 +: 16]"
    lines = [f"    assign sums[64*c + {16 * width} +: 16] = {re.sub(PRODUCT, numbers, each)};\n"
             for width, each in enumerate(sums)]
    return PRODUCTS.replace("SUMS", "".join(lines))


def prove_weights(simulated: str) -> None:
    """That what the fast form multiplies its operands with are the weights of a byte that are meant."""
    factors = re.findall(PRODUCT, simulated)
    lines = [f"  assign factors_0[16*{n} +: 16] = {factor.replace('weight[r][c]', 'signed_weight')};\n"
             for n, _, factor in factors]
    design = read(MEANT, f"""module top(input [7:0] weight, output [255:0] factors_0, factors_1);
  wire [15:0] signed_weight = {{{{8{{weight[7]}}}}, weight}};
{"".join(lines)}  assign factors_0[255:240] = 0;
  meant column(.activation(69'b0), .weight(weight), .factors(factors_1));
endmodule
""")
    run(design, "sat -verify -prove factors_0 factors_1 top")


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
