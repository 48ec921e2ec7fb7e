"""Proof that both forms of a row are one machine: ``python row_proof.py COLUMNS`` in a folder with their Verilog.

By induction over cycles: if all registers of the two forms agree, they agree after the next cycle, whatever the inputs.
SAT solvers are slow with multipliers, so each pair of them becomes one free input, after a look at their operands: the
same value, once with its sign extended by the operator, once by the wires. That the register of an operand holds its
sign in all upper bits is part of what is proved.

A process of its own, because Yosys may simply exit. Prints `PROVED` at the end.
"""

import sys

from pyosys import libyosys as ys  # pyright: ignore[reportAttributeAccessIssue]

PROVED = "proved: both forms agree"
ACTIVATION_BITS, WEIGHT_BITS, WORD = 9, 8, 32
TOP = """
module top(input clk, enable, input [10:0] activation, input [{weights}:0] weights_in,
           output [{weights}:0] weights_0, weights_1, output [{results}:0] results_0, results_1);
  simulated fast(.clk(clk), .enable(enable), .activation(activation), .weights_in(weights_in),
                 .weights_out(weights_0), .results(results_0));
  synthesized slow(.clk(clk), .enable(enable), .activation(activation), .weights_in(weights_in),
                   .weights_out(weights_1), .results(results_1));
endmodule
"""


def main() -> None:
    columns = int(sys.argv[1])
    design = ys.Design()
    with open("top.v", "w") as file:
        file.write(TOP.format(weights=WEIGHT_BITS * columns - 1, results=WORD * columns - 1))
    for step in ("read_verilog simulated.v synthesized.v top.v", "hierarchy -check -top top", "proc", "flatten",
                 "opt_clean"):
        ys.run_pass(step, design)
    module = design.top_module()
    for column in range(columns):
        share_product(module, column)
    equalities = " ".join(f"-prove {a} {b}" for column in range(columns) for a, b in pairs(column))
    ys.run_pass(f"sat -verify -set-init-zero -tempinduct {equalities} top", design)
    print(PROVED)


def pairs(column: int) -> list[tuple[str, str]]:
    """Return the registers of a column that must agree: those of the simulated form, those of the synthesized one."""
    pe, word = f"slow.pe{column:02}", WORD * column
    operand = [(f"fast.operands[{word + bit}]", f"{pe}.activation[{min(bit, ACTIVATION_BITS - 1)}]")
               for bit in range(WORD)]
    return [*operand,
            (f"fast.weights_out[{8 * column + 7}:{8 * column}]", f"{pe}.weight_out"),
            (f"fast.first[{column}]", f"{pe}.activation[9]"),
            (f"fast.last[{column}]", f"{pe}.activation[10]"),
            (f"fast.finished[{column}]", f"{pe}.finished"),
            (f"fast.accumulators[{word + 31}:{word}]", f"{pe}.accumulator"),
            (f"fast.results[{word + 31}:{word}]", f"{pe}.result")]


def share_product(module, column: int) -> None:
    """Replace both multipliers of a column by one free input, for they multiply the same two numbers."""
    pe = f"slow.pe{column:02}"
    simulated = multiplier(module, [("fast.operands", WORD * column + bit) for bit in range(WORD)],
                           extended("fast.weights_out", WEIGHT_BITS * column, WEIGHT_BITS))
    synthesized = multiplier(module, extended(f"{pe}.activation", 0, ACTIVATION_BITS),
                             extended(f"{pe}.weight_out", 0, WEIGHT_BITS))
    product = module.addWire(ys.IdString(f"\\product_{column}"), WORD)
    product.port_input = True
    module.fixup_ports()
    for cell in (simulated, synthesized):
        result = cell.getPort(ys.IdString("\\Y"))
        module.remove(cell)
        module.connect(result, ys.SigSpec(product).extract(0, result.size()))


def extended(wire: str, first: int, bits: int) -> list[tuple[str, int]]:
    """Return the bits of a signed number, as (wire, index), extended to a word."""
    return [(wire, first + min(bit, bits - 1)) for bit in range(WORD)]


def multiplier(module, *operands: list[tuple[str, int]]):
    """Return the only cell that multiplies two numbers modulo 2^32."""
    found = [cell for cell in module.selected_cells() if cell.type.str() == "$mul" and
             all(word(cell, port) == operand for port, operand in zip(("A", "B"), operands, strict=True))]
    if len(found) != 1:
        raise ValueError(f"{len(found)} multipliers of {operands[0][0][0]} and {operands[1][0][0]}")
    return found[0]


def word(cell, port: str) -> list[tuple[str, int]]:
    """Return the bits of an operand, as (wire, index), extended to a word as the multiplier does it."""
    value = cell.getPort(ys.IdString(f"\\{port}"))
    chunks = [(chunk.wire.name.str().removeprefix("\\"), chunk.offset) if chunk.wire else ("", 0)
              for chunk in (value.extract(bit, 1).as_chunk() for bit in range(value.size()))]
    top = chunks[-1] if cell.getParam(ys.IdString(f"\\{port}_SIGNED")).as_bool() else ("", 0)
    return (chunks + [top] * WORD)[:WORD]


if __name__ == "__main__":
    main()
