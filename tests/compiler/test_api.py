"""A user's torch module: one call, or one command, to a program whose RTL equals the golden model."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from phonolith.cli.main import run
from phonolith.compiler import api, model_file, program
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_iss, first_difference, make_case

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

CONFIG = MachineConfig.load(array="8x8")
FACTORY = """
import torch
def make():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(10, 24), torch.nn.ReLU(), torch.nn.Linear(24, 5))
    return module, torch.zeros(1, 33, 10), [torch.randn(1, 40, 10)]
def wrong():
    return 3
"""


def made():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(10, 24), torch.nn.ReLU(), torch.nn.Linear(24, 5))
    calibration = np.random.default_rng(0).standard_normal((4, 30, 10)).astype(np.float32)
    return module, torch.zeros(1, 33, 10), calibration


def test_compiled_module_computes_the_same_ids():
    module, example, calibration = made()
    compiled = api.compile(module, (example,), calibration, CONFIG)
    x = np.random.default_rng(1).standard_normal((33, 10)).astype(np.float32)
    inputs = compiled.inputs(torch.from_numpy(x[None]))
    case = make_case(compiled.graph, inputs, CONFIG, compiled.program)
    assert first_difference(case, "iss", execute_iss(case, CONFIG)) is None
    ids = interpret(compiled.graph, inputs)[compiled.graph.outputs[0]]
    wanted = module(torch.from_numpy(x[None])).argmax(-1)[0].numpy()
    assert np.mean(ids.ravel() == wanted) > 0.9
    assert compiled.graph.name == "Sequential"


@pytest.mark.parametrize(("example", "calibration", "message"), [
    (torch.zeros(33, 10), [np.zeros((5, 10))], r"example inputs must be one tensor \[1, T, F\], not \[\[33, 10\]\]"),
    ((torch.zeros(1, 3, 10),) * 2, [np.zeros((5, 10))], r"not \[\[1, 3, 10\], \[1, 3, 10\]\]"),
    (torch.zeros(1, 33, 10), [np.zeros((2, 5, 10))], r"features must be .*, not \[2, 5, 10\]"),
    (torch.zeros(1, 33, 10), [], "nothing to calibrate with"),
])
def test_bad_input(example, calibration, message):
    with pytest.raises(PhonolithError, match=message):
        api.compile(made()[0], example, calibration, CONFIG)


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Compile a factory of a module in the current folder with --json: (exit code, result)."""
    (tmp_path / "my_nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)

    def call(spec: str, *more: str) -> tuple[int, dict]:
        code = run(["compile", spec, "--array", "8x8", "-o", "my.program", "--json", *more])
        return code, json.loads(capfd.readouterr().out)

    return call


def test_command_takes_a_factory(command):
    code, found = command("my_nets:make", "--save-model", "my.safetensors")
    assert code == 0 and found["frames"] == 33
    assert len(program.load("my.program", CONFIG).words) == found["words"]
    assert model_file.load("my.safetensors").outputs == program.load("my.program").outputs


@pytest.mark.parametrize(("spec", "message"), [
    ("no_such_nets:make", "there is no no_such_nets:make"),
    ("my_nets:nothing", "there is no my_nets:nothing"),
    ("my_nets:wrong", "my_nets:wrong returned int"),
])
def test_command_names_a_factory_that_is_none(command, tmp_path, spec, message):
    code, found = command(spec)
    assert code == 1 and found["error"]["kind"] == "factory" and message in found["error"]["message"]
    assert not (tmp_path / "my.program").exists()


def test_readme_example_runs(repository, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True)
    assert (tmp_path / "my.program").is_file()
