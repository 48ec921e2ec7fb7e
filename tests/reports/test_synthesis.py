"""Liberty files and synthesis, on a library and designs small enough to count by hand."""

import gzip
from pathlib import Path

import pytest

from phonolith.hw.errors import PhonolithError
from phonolith.reports.liberty import evaluate, read_library
from phonolith.reports.synthesis import Memory, synthesize

TINY = Path(__file__).with_name("tiny.lib")
# Two equal modules under different names, each a register and a NAND; a third one with a memory.
DESIGN = """
module top(input clk, input a, input b, input [31:0] w, output x, output y, output [31:0] z);
  left l(.clk(clk), .a(a), .b(b), .q(x));
  right r(.clk(clk), .c(b), .d(a), .q(y));
  store s(.clk(clk), .write(a), .read(b), .in(w), .data(z));
endmodule
module left(input clk, input a, input b, output reg q);
  always @(posedge clk) q <= ~(a & b);
endmodule
module right(input clk, input c, input d, output reg q);
  always @(posedge clk) q <= ~(c & d);
endmodule
module store(input clk, input write, input read, input [31:0] in, output reg [31:0] data);
  reg [31:0] memory [0:127];
  reg [6:0] address;
  always @(posedge clk) begin
    address <= {address[5:0], write};
    if (write) memory[address] <= in;
    if (read) data <= memory[address];
  end
endmodule
"""


def test_library_knows_its_cells():
    library = read_library([TINY])
    assert (library.name, library.nand2) == ("tiny", 2.0)
    assert library.areas == {"BUF": 1.5, "INV": 1.0, "NAND2": 2.0, "NOR2": 2.5, "DFF": 10.0}


def test_gzipped_library_is_the_same(tmp_path):
    packed = tmp_path / "tiny.lib.gz"
    packed.write_bytes(gzip.compress(TINY.read_bytes()))
    assert read_library([packed]) == read_library([TINY])


def test_library_in_two_files(tmp_path):
    text = TINY.read_text()
    cut = text.index("  cell(DFF)")
    (tmp_path / "gates.lib").write_text(text[:cut] + "}\n")
    (tmp_path / "registers.lib").write_text("library(more) {\n" + text[cut:])
    library = read_library([tmp_path / "gates.lib", tmp_path / "registers.lib"])
    assert library.name == "tiny + more"
    assert library.areas == read_library([TINY]).areas


@pytest.mark.parametrize(("text", "complaint"), [
    (None, "cannot read Liberty file"),
    ("not a library", "is not a Liberty file"),
    ("library(empty) {\n}\n", "no flip-flop in"),
    ("library(l) {\n cell(D) {\n area : 1;\n ff(IQ, IQN) { }\n }\n}\n", "no two-input NAND in"),
])
def test_unusable_library(tmp_path, text, complaint):
    path = tmp_path / "bad.lib"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PhonolithError, match=complaint) as raised:
        read_library([path])
    assert raised.value.kind == "liberty" and raised.value.remedy
    assert "bad.lib" in raised.value.message


def test_damaged_gzip(tmp_path):
    path = tmp_path / "bad.lib.gz"
    path.write_bytes(gzip.compress(TINY.read_bytes())[:100])
    with pytest.raises(PhonolithError, match="cannot read Liberty file"):
        read_library([path])


@pytest.mark.parametrize(("tokens", "expected"), [
    ("! A | ! B", (1, 1, 1, 0)),
    ("( A B ) '", (1, 1, 1, 0)),
    ("! ( A * B )", (1, 1, 1, 0)),
    ("A ^ B", (0, 1, 1, 0)),
    ("A + B & 0", (0, 0, 1, 1)),
    ("A ' B", (0, 1, 0, 0)),
])
def test_functions(tokens, expected):
    rows = [(a, b) for a in (False, True) for b in (False, True)]
    assert tuple(evaluate(tokens.split(), {"A": a, "B": b}) for a, b in rows) == expected


def test_tiny_design(tmp_path):
    netlist = synthesize(DESIGN, "top", read_library([TINY]), cache=tmp_path)
    found = {instance.path: instance for instance in netlist.instances()}
    assert set(found) == {"top", "left", "right", "store"}
    assert found["top"].logic_um2 == 0
    assert found["left"].logic_um2 == found["right"].logic_um2 == 10 + 2
    assert len(netlist.same_as) == 1   # one of the two was mapped for both
    assert found["store"].memories == (Memory(words=128, bits=32),)
    assert found["store"].logic_um2 >= 7 * 10
    assert netlist.logic_um2 == sum(instance.logic_um2 for instance in found.values())


def test_small_memory_is_flip_flops(tmp_path):
    netlist = synthesize(DESIGN.replace("[0:127]", "[0:3]"), "top", read_library([TINY]), cache=tmp_path)
    store = next(instance for instance in netlist.instances() if instance.path == "store")
    assert store.memories == ()
    assert store.logic_um2 >= 4 * 32 * 10


def test_rejected_verilog(tmp_path):
    with pytest.raises(PhonolithError, match="synthesis of top failed: .*ERROR"):
        synthesize("module top(input a); nonsense", "top", read_library([TINY]), cache=tmp_path)


def test_time_limit(tmp_path):
    with pytest.raises(PhonolithError, match="took more than 0.01 s"):
        synthesize(DESIGN, "top", read_library([TINY]), timeout=0.01, cache=tmp_path)
