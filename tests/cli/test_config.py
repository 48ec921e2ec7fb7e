"""``phonolith config``: what it prints is what ``--config`` reads."""

import json
import tomllib

import pytest

from phonolith.cli.main import run
from phonolith.hw.config import MachineConfig


def test_printed_configuration_reads_back(tmp_path, capfd):
    assert run(["config", "--array", "8x12", "--latency", "33"]) == 0
    path = tmp_path / "machine.toml"
    path.write_text(capfd.readouterr().out)
    assert MachineConfig.load(path) == MachineConfig(rows=8, columns=12, dram_latency=33)


def test_default_ignores_overrides(capfd):
    assert run(["config", "--print-default", "--array", "8x8"]) == 0
    assert tomllib.loads(capfd.readouterr().out) == MachineConfig().as_dict()


@pytest.mark.parametrize(("option", "value", "key", "expected"), [
    ("--array", "8x12", "array", "8x12"), ("--bus", "64", "bus_bits", 64), ("--latency", "7", "latency", 7),
])
def test_option_overrides_file(tmp_path, capfd, option, value, key, expected):
    path = tmp_path / "machine.toml"
    path.write_text('array = "16x16"\nbus_bits = 128\ndram_latency = 99\n')
    assert run(["config", "--config", str(path), option, value, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["config"][key] == expected


def test_missing_file(capfd):
    assert run(["config", "--config", "nowhere.toml", "--json"]) == 1
    assert "nowhere.toml" in json.loads(capfd.readouterr().out)["error"]["message"]
