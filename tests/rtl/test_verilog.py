"""The emitted Verilog as other tools see it: Verilator's lint, Yosys, and how its text grows."""

import subprocess
import sys
from pathlib import Path

import pytest

from phonolith.hw.array_verilog import SIMULATION
from phonolith.hw.config import MachineConfig
from phonolith.hw.verilog import (
    TOP,
    index_instead_of_shifting,
    join_registers,
    replicate_repeated_bits,
    store_immediately,
)
from phonolith.sim.rtl.source import verilog_text
from phonolith.sim.rtl.toolchain import find_toolchain

READ = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for step in (f"read_verilog {sys.argv[1]}", f"hierarchy -check -top {sys.argv[2]}", "proc", "check -assert"):
    libyosys.run_pass(step, design)
print("read to the end")
"""
MACHINES = {"4x4": 64, "8x12": 64}


def design(array: str) -> str:
    return verilog_text(MachineConfig.load(array=array, bus_bits=MACHINES.get(array, 64)))


def lint(text: str, waivers: Path, folder: Path, *flags: str) -> str:
    """Return what Verilator says with all warnings on."""
    tools, source = find_toolchain(), folder / "design.v"
    source.write_text(text)
    command = [tools.verilator, "--lint-only", "-Wall", *flags, "--top-module", TOP, waivers, source]
    return subprocess.run(command, env=tools.environment, capture_output=True, text=True, timeout=100).stderr


@pytest.mark.parametrize("flags", [(), (f"+define+{SIMULATION}",)])
@pytest.mark.parametrize("array", MACHINES)
def test_lint_is_clean_but_for_the_waivers(array, flags, repository, tmp_path):
    assert lint(design(array), repository / "hw/phonolith.vlt", tmp_path, *flags) == ""


@pytest.mark.parametrize("rule, fault", [
    ("UNDRIVEN", "wire nothing;\nwire [3:0] something = {4{nothing}};"),
    ("LATCH", "reg latch;\nalways @* if (rst) latch = clk;"),
    ("WIDTHTRUNC", "wire [3:0] cut = s_axil_wdata;"),
])
def test_lint_with_waivers_finds_faults(rule, fault, repository, tmp_path):
    head, end, tail = design("4x4").partition("endmodule")
    assert f"%Warning-{rule}" in lint(f"{head}{fault}\n{end}{tail}", repository / "hw/phonolith.vlt", tmp_path)


@pytest.mark.parametrize("array", MACHINES)
def test_yosys_reads_it_without_a_warning(array, tmp_path):
    (tmp_path / "design.v").write_text(design(array))
    command = [sys.executable, "-c", READ, "design.v", TOP]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    said = finished.stdout + finished.stderr
    assert "read to the end" in said, said[-2000:]
    assert [line for line in said.splitlines() if "Warning" in line or "ERROR" in line] == []


def test_text_grows_with_rows_plus_columns():
    """Rows cost the same statements whatever the columns; lists of ports are several lines when they are long."""
    lines = {array: design(array).replace("\n, ", ", ").count("\n") for array in ("4x8", "8x8", "4x12", "8x12")}
    assert lines["8x12"] - lines["4x12"] == lines["8x8"] - lines["4x8"] > 0


@pytest.mark.parametrize("index_bits, index", [(7, "\\$9"), (8, "\\$9 [6:0]")])
def test_taking_bits_by_a_shift_becomes_an_index(index_bits, index):
    declared = f"  wire [127:0] word;\n  wire [7:0] \\$1 ;\n  wire [127:0] \\$2 ;\n  wire [{index_bits - 1}:0] \\$9 ;\n"
    taken = "  assign \\$1  = word >> \\$9 ;\n"
    whole = "  assign \\$2  = word >> \\$9 ;\n  assign \\$3  = { word, 8'h00 } >> \\$9 ;\n"
    assert index_instead_of_shifting(declared + taken + whole) == \
        declared + f"  assign \\$1  = word[{index} +: 8];\n" + whole


REGISTER_APART = """module m(clk, enable, d, q);
  reg [7:0] \\$1 ;
  reg [7:0] q = 8'h00;
  always @(posedge clk)
    q <= \\$1 ;
  always @* begin
    if (\\$trigger ) begin end
    \\$1  = q;
    if (enable) begin
      \\$1  = d;
      \\$1 [3:0] = 4'h0;
    end
  end
"""
REGISTER_JOINED = """module m(clk, enable, d, q);
  reg [7:0] q = 8'h00;
  always @(posedge clk) begin
    if (enable) begin
      q <= d;
      q [3:0] <= 4'h0;
    end
  end
"""


def test_a_register_is_one_clocked_block():
    assert join_registers(REGISTER_APART) == REGISTER_JOINED
    other = REGISTER_APART.replace("\\$1  = q;", "\\$1  = d;")
    start = "begin\n    if"
    assert join_registers(other) == REGISTER_JOINED.replace(start, "begin\n    q <= d;\n    if")
    read_elsewhere = REGISTER_APART + "  assign y = \\$1 ;\n"
    assert join_registers(read_elsewhere) == read_elsewhere


def test_repeated_bits_are_replicated():
    assert replicate_repeated_bits("a = { b[7], b[7], b[7], b };") == "a = { {3{b[7]}}, b };"
    assert replicate_repeated_bits("a = { \\$1 [7], \\$1 [7], \\$1 [7] };") == "a = { {3{\\$1 [7]}} };"
    assert replicate_repeated_bits("a = { b[7], b[7], b };") == "a = { b[7], b[7], b };"


MEMORY = """\
  reg [7:0] words [3:0];
  always @(posedge clk) begin
    if (enable)
      words[address] <= data;
  end
  reg [7:0] _0_;
  always @(posedge clk) begin
    if (reads) begin
      _0_ <= words[place];
    end
  end
"""


def test_a_memory_is_read_before_its_word_is_stored():
    text = store_immediately(MEMORY)
    assert text.index("_0_ <= words[place];") < text.index("words[address] `PHONOLITH_STORE data;")
    assert text.count("always @") == 1 and "words[address] <= " not in text


def test_a_memory_with_another_reader_stays():
    module = MEMORY + "  assign other = words[elsewhere];\n"
    assert store_immediately(module) == module
