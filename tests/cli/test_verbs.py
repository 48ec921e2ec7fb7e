"""Verbs that need neither recordings nor torch: keys of the contract, files written whole or not at all."""

import json
import re

import numpy as np
import pytest

from phonolith.cli.main import run
from phonolith.compiler import model_file, program
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import MachineConfig


@pytest.fixture
def model(tmp_path):
    """A random quantized model file and the frames of its random input."""
    graph, inputs = random_graph(0)
    path = tmp_path / "random.safetensors"
    model_file.save(path, graph)
    return path, len(inputs["x"])


@pytest.fixture
def result(capfd):
    """Run a command line with --json: (exit code, its one object)."""
    def call(*arguments: object) -> tuple[int, dict]:
        code = run([*map(str, arguments), "--json"])
        return code, json.loads(capfd.readouterr().out)

    return call


def test_inspect(model, result):
    path, frames = model
    code, found = result("inspect", path, "--frames", frames)
    graph = model_file.load(path)
    assert code == 0
    assert [layer["name"] for layer in found["layers"]] == [node.name for node in graph.nodes]
    assert found["macs"] == sum(layer["macs"] for layer in found["layers"])


def test_compile_for_one_machine(model, result, tmp_path):
    path, frames = model
    output = tmp_path / "random.program"
    code, found = result("compile", path, "--frames", frames, "--array", "8x8", "-o", output)
    config = MachineConfig.load(array="8x8")
    assert code == 0
    assert found["config"]["hash"] == config.hash
    assert len(program.load(output, config).words) == found["words"]


def test_failed_compile_writes_nothing(model, result, tmp_path):
    path, frames = model
    before = set(tmp_path.iterdir())
    code, found = result("compile", path, "--frames", frames, "-o", tmp_path / "no" / "folder")
    assert code == 1
    assert "folder" in found["error"]["message"]
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("verb", [("inspect",), ("compile", "-o", "out"), ("evaluate", "--data", ".", "--model")])
def test_unknown_model(result, verb):
    code, found = result(*verb, "no-such-model")
    assert code == 1
    assert found["error"]["kind"] == "unknown-model" and "no-such-model" in found["error"]["message"]


def test_verilog_on_stdout_and_in_a_file_are_the_same(result, tmp_path, capfd):
    code, found = result("verilog", "--array", "8x8", "-o", tmp_path / "rtl")
    text = (tmp_path / "rtl" / "phonolith_top.v").read_text()
    assert code == 0 and found["files"][0] == str(tmp_path / "rtl" / "phonolith_top.v")
    assert sorted(map(str, (tmp_path / "rtl").iterdir())) == sorted(found["files"]) and len(found["files"]) == 4
    assert len(re.findall(r"^module phonolith_top\(", text, re.MULTILINE)) == 1
    assert run(["verilog", "--array", "8x8"]) == 0
    assert capfd.readouterr().out == text


def test_bench_gemm(result):
    code, found = result("bench", "gemm", 17, 40, 9, "--array", "8x8")
    assert code == 0
    assert found["macs"] == 17 * 40 * 9
    assert found["utilisation"] == found["macs"] / (8 * 8 * found["cycles"])
    assert found["bit_exact"] is True
    for engine in found["engines"].values():
        assert engine["busy"] + engine["idle"] + sum(engine["stalled"].values()) == found["cycles"]


def test_bench_gemm_explains(result, capfd):
    product = ("bench", "gemm", "17", "40", "9", "--array", "8x8", "--explain")
    _, found = result(*product)
    (explained,) = found["products"]
    assert (explained["m"], explained["k"], explained["n"]) == (17, 40, 9)
    assert run(list(product)) == 0
    text = capfd.readouterr().out
    assert f"estimated   {explained['predicted_cycles']:,} cycles" in text and explained["plan"] in text
    assert found["predicted_cycles"] == found["cycles"] and "bound by" in text
    assert f"measured   {found['cycles']:,} cycles (+0.00%)" in text


def test_compile_explains(model, tmp_path, result, capfd):
    path, frames = model
    command = ["compile", str(path), "--frames", str(frames), "-o", str(tmp_path / "p"), "--explain"]
    _, found = result(*command)
    assert sum(each["predicted_cycles"] for each in found["operators"]) == found["predicted_cycles"] > 0
    assert run(command) == 0
    text = capfd.readouterr().out
    assert f"{found['predicted_cycles']:,} cycles" in text
    assert all(each["operator"] in text for each in found["operators"])


def test_bench_gemm_refuses_an_operand_of_another_shape(result, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.int8))
    code, found = result("bench", "gemm", 4, 4, 4, "--a", tmp_path / "a.npy")
    assert code == 1
    assert "[3, 4]" in found["error"]["message"]


def test_bench_gemm_takes_one_kind_of_b(result):
    code, found = result("bench", "gemm", 4, 4, 4, "--transpose-b", "--runtime-b")
    assert code == 2
    assert found["error"]["kind"] == "usage"
