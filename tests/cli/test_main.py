"""How results and failures leave the process, with a command made for these tests."""

import json
import os
import subprocess
import sys
import warnings

import click
import numpy as np
import pytest

from phonolith.cli import main
from phonolith.cli.common import verb
from phonolith.hw.errors import PhonolithError

FAILURES = {
    "known": (PhonolithError("audio", "a.wav: no samples", "record it again"), "audio", 1),
    "file": (FileNotFoundError(2, "No such file", "x.npy"), "file", 1),
    "torch": (ModuleNotFoundError("No module named 'torch'", name="torch"), "missing-tool", 1),
    "internal": (ZeroDivisionError("division\n  by zero"), "internal", 1),
    "usage": (click.UsageError("Give one."), "usage", 2),
    "interrupt": (KeyboardInterrupt(), "interrupted", 130),
}


@click.command("probe")
@click.option("--failure", type=click.Choice(sorted(FAILURES)))
@click.option("--code", type=int, default=0)
@verb(lambda result: print("heard", result["words"]), exit_code=lambda result: result["code"])
def probe(config, failure, code):
    print("a library's chatter")
    os.write(1, b"a subprocess's chatter\n")
    warnings.warn("resampled from 16000 Hz", stacklevel=1)
    if failure:
        raise FAILURES[failure][0]
    return {"words": np.int64(3), "row": np.arange(2), "code": code}


@pytest.fixture(autouse=True)
def probe_is_a_verb(monkeypatch):
    monkeypatch.setitem(main.phonolith.commands, "probe", probe)


@pytest.fixture
def run(capfd):
    """Run a command line with warnings shown, as in a process of its own: (code, stdout, stderr)."""
    def call(*arguments: str) -> tuple[int, str, str]:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            code = main.run(arguments)
        return code, *capfd.readouterr()

    return call


def test_json_is_one_object_and_nothing_else(run):
    code, out, err = run("probe", "--array", "8x8", "--json")
    result = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert result["words"] == 3 and result["row"] == [0, 1]
    assert set(result["config"]) == {"array", "bus_bits", "latency", "sram_bytes", "hash"}
    assert result["config"]["array"] == "8x8"
    assert result["version"]
    assert "a library's chatter" in err and "a subprocess's chatter" in err


def test_text_is_the_rendering_alone(run):
    code, out, err = run("probe")
    assert (code, out) == (0, "heard 3\n")
    assert "phonolith: resampled from 16000 Hz\n" in err


def test_exit_code_follows_the_result(run):
    code, out, _ = run("probe", "--code", "1", "--json")
    assert code == 1
    assert "error" not in json.loads(out)


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_as_json(run, failure):
    _, kind, expected = FAILURES[failure]
    code, out, err = run("probe", "--failure", failure, "--json")
    result = json.loads(out)
    assert code == expected
    assert set(result) == {"error", "config", "version"}
    assert set(result["error"]) == {"kind", "message", "remedy"} and all(result["error"].values())
    assert result["error"]["kind"] == kind
    assert "Traceback" not in err


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_as_one_line(run, failure):
    code, out, err = run("probe", "--failure", failure)
    assert code == FAILURES[failure][2]
    assert out == ""
    assert [line for line in err.splitlines() if line.startswith("phonolith: ")][1:] == err.splitlines()[-1:]


def test_message_and_remedy_are_sentences(run):
    assert run("probe", "--failure", "known")[2].endswith("phonolith: a.wav: no samples. Record it again.\n")


def test_debug_shows_the_traceback(run):
    assert "Traceback (most recent call last)" in run("probe", "--failure", "internal", "--debug")[2]


@pytest.mark.parametrize("arguments", [("simulate",), ("nothing-like-it",), ("bench", "gemm", "0", "1", "1"),
                                       ("--no",)])
def test_usage_error_as_json(run, arguments):
    code, out, _ = run(*arguments, "--json")
    result = json.loads(out)
    assert code == 2
    assert result["error"]["kind"] == "usage"
    assert "--help" in result["error"]["remedy"]


def test_impossible_machine(run):
    code, out, _ = run("probe", "--array", "0x3", "--json")
    result = json.loads(out)
    assert code == 1
    assert result["error"]["kind"] == "invalid-configuration" and "0x3" in result["error"]["message"]
    assert "config" not in result


def test_every_verb_has_help(run):
    for name in main.VERBS:
        code, out, _ = run(name, "--help")
        assert code == 0 and f"phonolith {name}" in out


def test_reader_that_goes_away_is_no_error():
    command = f"'{sys.executable}' -m phonolith.cli config | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stderr == ""
