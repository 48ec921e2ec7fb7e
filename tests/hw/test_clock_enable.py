"""Engines may be skipped while their ``clock_enable`` is low, and the emitted text skips them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.back import verilog

from phonolith.hw import clock_enable, registers
from phonolith.hw.accelerator import ENGINE_INSTRUCTIONS
from phonolith.hw.clock_enable import DRIVEN, GATED, cone, with_clock_enables
from phonolith.hw.config import MachineConfig
from phonolith.hw.dispatch import Dispatcher, Semaphores
from phonolith.hw.fetch import Fetch
from phonolith.hw.history import History
from phonolith.hw.isa import BY_MNEMONIC
from phonolith.hw.load_engine import LoadEngine
from phonolith.hw.row_unit import RowUnit
from phonolith.hw.scratchpad import Scratchpad
from phonolith.hw.sequencer import Sequencer
from phonolith.hw.store_engine import StoreEngine
from phonolith.hw.vector_engine import VectorEngine
from phonolith.hw.verilog import generate
from tests.hw import clock_enable_proof

ENGINES = {"load": LoadEngine, "store": StoreEngine, "vector": VectorEngine, "vector.row_unit": RowUnit, "fetch": Fetch,
           "sequencer": Sequencer, "scratchpad": Scratchpad}
MODULE = """\
module top.load (rst, valid, payload, clock_enable, sum, clk);
  input rst;
  input valid;
  input [7:0] payload;
  output clock_enable;
  wire clock_enable;
  output [7:0] sum;
  wire [7:0] sum;
  wire [7:0] alias;
  reg [7:0] count = 8'h00;
  wire \\$1 ;
  wire \\$2 ;
  assign \\$1  = | count;
  assign \\$2  = count == payload;
  assign clock_enable = valid | \\$1 ;
  assign sum = payload + { 7'h00, \\$2  };
  assign alias = { count[3:0], 4'h0 };
  always @(posedge clk) begin
    count <= sum;
  end
endmodule
"""


def engine(name: str, array: str, bus_bits: int) -> str:
    config = MachineConfig.load(array=array, bus_bits=bus_bits)
    return verilog.convert(component(name, config), name="engine", emit_src=False)


def component(name: str, config: MachineConfig):
    """Return one of ``GATED``."""
    if name in ENGINES:
        return ENGINES[name](config=config)
    if name == "semaphores":
        return Semaphores(ports=len(ENGINE_INSTRUCTIONS) + 1)
    if name == "history":
        return History()
    of_engine = ENGINE_INSTRUCTIONS[registers.ENGINES.index(name.removesuffix("_dispatcher"))]
    return Dispatcher(instructions=tuple(BY_MNEMONIC[each] for each in of_engine), queue_words=config.queue_words)


def prove(folder: Path, text: str) -> str:
    """Return what the proof prints."""
    (folder / "engine.v").write_text(text)
    command = [sys.executable, clock_enable_proof.__file__, "engine.v"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("array, bus_bits", [("4x4", 64), pytest.param("5x12", 128, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", GATED)
def test_nothing_changes_while_the_clock_is_disabled(name, array, bus_bits, tmp_path):
    said = prove(tmp_path, engine(name, array, bus_bits))
    assert clock_enable_proof.PROVED in said, said[-2000:]


@pytest.mark.parametrize("name, right, wrong", [
    ("vector.row_unit", r"assign clock_enable = busy \| valid;", "assign clock_enable = busy;"),
    ("vector.row_unit", r"(assign busy = .*?)\| done;", r"\1;"),
    ("load", r"(assign clock_enable = )instruction__valid \|", r"\1"),
    ("load", r"(assign busy = )active \| early;", r"\1active;"),
    ("store", r"(assign busy = .*?)\| fencing;", r"\1;"),
    ("semaphores", r"(assign clock_enable = .*) give__0,", r"\1"),
    ("sequencer", r"(assign clock_enable = .* \? )start :", r"\g<1>1'h0 :"),
    *((name, r"(assign clock_enable = \S+) +\| \S+ ?;", r"\1 ;")
      for name in ("fetch", "history", "scratchpad", "load_dispatcher")),
])
def test_the_proof_finds_faults(name, right, wrong, tmp_path):
    text, replaced = re.subn(right, wrong, engine(name, "4x4", 64))
    assert replaced
    said = prove(tmp_path, text)
    assert clock_enable_proof.PROVED not in said and "may change:" in said, said[-2000:]


def test_what_the_clock_enable_depends_on_is_always_computed():
    text = with_clock_enables(MODULE, "top")
    assert "  assign \\$1  = | count;\n" in text
    assert "  assign clock_enable = valid | \\$1 ;\n" in text
    assert "  `PHONOLITH_ASSIGN(evaluate) \\$2  = count == payload;\n" in text
    assert "  `PHONOLITH_ASSIGN(evaluate) sum = payload + { 7'h00, \\$2  };\n" in text
    assert "  output [7:0] sum;\n  `PHONOLITH_WIRE [7:0] sum;\n" in text
    assert "  assign alias = { count[3:0], 4'h0 };\n" in text
    assert "  always @(posedge clk) `PHONOLITH_WHEN(update) begin\n" in text
    assert "wire update = rst | clock_enable;" in text


@pytest.mark.parametrize("module, engine", [
    ("top.load.packer", "load"), ("top.vector.row_unit.unit_0", "row_unit"), ("top.vector.row_units", "vector"),
    ("top.loads", None), ("top.array", None)])
def test_parts_follow_the_engine_around_them(module, engine):
    text = with_clock_enables(MODULE.replace("top.load", module), "top")
    used = set(re.findall(r"`PHONOLITH_(?:ASSIGN|WHEN)\((\w+\.\w+)\)", text))
    assert used == ({f"{engine}.evaluate", f"{engine}.update"} if engine else set())


def test_words_assigned_in_parts_stay():
    parts = MODULE.replace("assign alias = ", "assign alias[7:1] = ").replace("= payload + ", "= alias + ")
    assert "  assign sum = alias + " in with_clock_enables(parts, "top")


def instances(top: str, text: str) -> dict[str, tuple[dict[str, str], set[str]]]:
    """Return what the ports of each instance in a module are connected to, and which of them are inputs."""
    inputs = {match[1]: set(re.findall(r"^  input (?:\[\d+:0\] )?(\S+) ?;$", match[0], re.M))
              for match in re.finditer(r"^module \\?(\S+) .*?^endmodule", text, re.M | re.S)}
    return {name: (dict(re.findall(r"\.(\S+?) ?\((.*?) ?\)(?:,|\n)", ports)), inputs[module])
            for module, name, ports in re.findall(r"^  \\(\S+)  (\w+) \(\n(.*?)^  \);", top, re.M | re.S)}


def drivers(top: str, wires: set[str], found: dict) -> set[str]:
    """Return the instances that wires of a module depend on, and its inputs."""
    outputs = {wire: name for name, (ports, inputs) in found.items()
               for port, wire in ports.items() if port not in inputs}
    reached = cone(top, wires)
    return {outputs[wire] for wire in reached if wire in outputs} | {
        wire for wire in reached if re.search(rf"^  input (?:\[\d+:0\] )?{re.escape(wire)} ?;$", top, re.M)}


@pytest.mark.parametrize("machine", ["4x4", "16x16"])
def test_what_is_computed_with_engines_depends_on_them_alone(machine):
    text = generate(MachineConfig.load(array=machine))
    top = re.search(r"^module phonolith_top\(.*?^endmodule", text, re.M | re.S)[0]
    found, checked = instances(top, text), set()
    for pattern, engines in DRIVEN:
        for name in filter(re.compile(pattern).fullmatch, found):
            ports, inputs = found[name]
            read = {wire for port in inputs if not port.startswith(("read", "clk", "rst"))
                    for wire in clock_enable.read(ports[port])}
            allowed = {*engines, "activation_writes"} if pattern.startswith("activation_bank") else {*engines}
            assert read and drivers(top, read, found) <= allowed, name
            checked.add(pattern)
    assert len(checked) == len(DRIVEN)
