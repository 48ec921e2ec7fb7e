"""Disks that are full, files cut short, inputs out of range: one line, a non-zero exit code, nothing half-written."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from phonolith.cli import __main__, main
from phonolith.compiler import files, model_file, program
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.rtl.recording import Recording

MODEL = "encoder-ctc-w8"


@pytest.fixture
def fail(capfd):
    """Run a command that fails: return its error, the same as one line and as JSON."""
    def call(*arguments: object) -> dict:
        words = [str(each) for each in arguments]
        code = main.run(words)
        out, err = capfd.readouterr()
        (line,) = [line for line in err.splitlines() if line.startswith("phonolith: ")]
        assert main.run([*words, "--json"]) == code != 0 and out == ""
        error = json.loads(capfd.readouterr().out)["error"]
        assert error["message"].rstrip(".") in line
        return error

    return call


@pytest.fixture
def full_disk(tmp_path) -> Iterator[Path]:
    """A folder in which no file can grow beyond 20 kB."""
    folder = tmp_path / "full"
    folder.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def compiled(tmp_path) -> Path:
    """A program of a random graph."""
    graph, inputs = random_graph(3)
    path = tmp_path / "whole.program"
    compile_graph(graph, MachineConfig(), len(inputs["x"])).save(path)
    return path


# -- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["compile", "disasm", "verilog"])
def test_full_disk(fail, monkeypatch, compiled, full_disk, verb):
    monkeypatch.setattr("phonolith.hw.verilog.generate", lambda config: "module phonolith_top(); endmodule\n" * 1000)
    subject = {"compile": [MODEL], "disasm": [compiled], "verilog": []}[verb]
    error = fail(verb, *subject, "-o", full_disk / "output")
    assert error["kind"] == "disk-full" and str(full_disk / "output") in error["message"]
    assert "Free some space" in error["remedy"] and list(full_disk.iterdir()) == []


def test_what_was_there_stays(full_disk):
    path = full_disk / "file"
    files.write_atomically(path, b"before")
    with pytest.raises(PhonolithError, match="cannot write .*file: File too large"):
        files.write_atomically(path, bytes(50_000))
    with pytest.raises(PhonolithError, match="cannot write .*second: File too large"):
        files.write_folder(full_disk, {"file": b"after", "second": bytes(50_000)})
    assert path.read_bytes() == b"before" and list(full_disk.iterdir()) == [path]


def test_read_only_folder(fail, monkeypatch, tmp_path):
    def refuse(*_arguments, **_options):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    error = fail("compile", MODEL, "-o", tmp_path / "program")
    assert error["kind"] == "cannot-write" and "Read-only file system" in error["message"]


def test_yosys_without_its_cache(fail, monkeypatch, tmp_path):
    from amaranth.back.verilog import YosysError

    def refuse(_config):
        raise YosysError("Traceback:\n  File ...\nOSError: Read-only file system\n")

    monkeypatch.setattr("phonolith.hw.verilog.generate", refuse)
    error = fail("verilog", "-o", tmp_path / "rtl")
    assert error["kind"] == "verilog" and error["message"].endswith("Verilog: OSError: Read-only file system.")
    assert "XDG_CACHE_HOME" in error["remedy"] and not (tmp_path / "rtl").exists()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_full_standard_output(options):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "phonolith.cli", "config", *options], stdout=full,
                              stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "phonolith: No space left on device. Free some space there, or write elsewhere.\n"


# -- waveforms --------------------------------------------------------------------------------------


def record(path: Path, size: int) -> Recording:
    """Write zeros as a simulator would."""
    recording = Recording(path)
    with open(recording.pipe, "wb") as pipe:
        pipe.write(bytes(size))
    return recording


def test_waveforms_appear_when_they_are_whole(tmp_path):
    recording = record(tmp_path / "w.vcd", 3_000_000)
    assert not (tmp_path / "w.vcd").exists()
    recording.finish()
    assert (tmp_path / "w.vcd").read_bytes() == bytes(3_000_000)
    assert list(tmp_path.iterdir()) == [tmp_path / "w.vcd"] and not recording.pipe.parent.exists()


def test_waveforms_on_a_full_disk(full_disk):
    recording = record(full_disk / "w.vcd", 3_000_000)
    with pytest.raises(PhonolithError, match=r"Cannot write waveforms to .*w\.vcd: File too large") as caught:
        recording.finish()
    assert caught.value.kind == "disk-full" and list(full_disk.iterdir()) == []


def test_waveforms_that_nobody_finishes_leave_nothing(tmp_path):
    recording = record(tmp_path / "w.vcd", 100)
    folder = recording.pipe.parent
    del recording
    assert list(tmp_path.iterdir()) == [] and not folder.exists()


# -- programs, models, inputs -----------------------------------------------------------------------


def test_truncated_programs(fail, compiled, tmp_path):
    whole = compiled.read_bytes()
    cut = tmp_path / "cut.program"
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        assert fail("disasm", cut)["kind"] == "not-a-program"


def test_a_program_with_fewer_words_or_other_bits_is_damaged(fail, compiled, tmp_path):
    tensors = safetensors.numpy.load(compiled.read_bytes())
    header = model_file.read_header(compiled)
    half, other = dict(tensors), dict(tensors)
    half["words"], other["words"] = tensors["words"][:-1], tensors["words"] ^ (np.arange(len(tensors["words"])) == 9)
    for changed in (half, other):
        path = tmp_path / "changed.program"
        changed["words"] = changed["words"].astype(np.uint32)
        path.write_bytes(safetensors.numpy.save(changed, header))
        assert "is damaged: its content does not match its hash" in fail("disasm", path)["message"]
    assert program.load(compiled).words.size == tensors["words"].size


@pytest.mark.parametrize("frames", [1, 22])
def test_too_few_frames(fail, tmp_path, frames):
    np.save(tmp_path / "x.npy", np.zeros((frames, 40), np.int8))
    for arguments in (("compile", MODEL, "--frames", frames, "-o", tmp_path / "p"),
                      ("inspect", MODEL, "--frames", frames), ("simulate", tmp_path / "x.npy")):
        error = fail(*arguments)
        assert error["kind"] == "input-too-short" and "at least 23 frames" in error["remedy"]
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("frames", [16385, 10**9])
def test_too_many_frames(fail, tmp_path, frames):
    for arguments in (("compile", MODEL, "--frames", frames, "-o", tmp_path / "p"),
                      ("inspect", MODEL, "--frames", frames)):
        error = fail(*arguments)
        assert error["kind"] == "input-too-long" and "at most 16384" in error["message"]


def test_a_recording_of_too_many_frames(fail, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((16385, 40), np.int8))
    for verb in ("simulate", "verify"):
        assert fail(verb, tmp_path / "x.npy")["kind"] == "input-too-long"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers(fail, tmp_path, value):
    features = np.zeros((50, 40), np.float32)
    features[3, 7] = value
    np.save(tmp_path / "x.npy", features)
    for verb in ("simulate", "verify"):
        error = fail(verb, tmp_path / "x.npy")
        assert error["kind"] == "audio" and error["message"] == f"feature (3, 7) is {value}."


# -- interrupts -------------------------------------------------------------------------------------


def test_interrupted_while_starting(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "main", interrupt)
    with pytest.raises(SystemExit) as caught:
        __main__.start()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "phonolith: Interrupted. Run the command again.\n"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_interrupted_at_work(tmp_path, options):
    """A long verification prints its failure and nothing else."""
    command = [sys.executable, "-m", "phonolith.cli", "verify", "--random", "100000", "--rungs", "golden,iss", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    time.sleep(5)    # Python itself, while it starts, says more
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (json.loads(out)["error"]["kind"] == "interrupted" and err == "") if options else \
        (out, err) == ("", "phonolith: Interrupted. Run the command again.\n")
    assert list(tmp_path.iterdir()) == []


def test_random_weights_that_there_are_not(fail):
    random = ("verify", "--random", 1, "--rungs", "golden,iss")
    assert "weights of 3 bits" in fail(*random, "--bits", 3)["message"]
    assert "scheme 'rows'" in fail(*random, "--scheme", "rows")["message"]
    assert "neither a number of bits nor any" in fail(*random, "--bits", "few")["message"]
    for case in (("--random", 1, "--kind", "program"), ("speech.wav",)):
        assert "--bits and --scheme go with --random N" in fail("verify", *case, "--bits", 4)["message"]
