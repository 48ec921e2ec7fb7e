"""The Makefile's own promises: clear lines when something is missing, and nothing done twice."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

BASIC_TOOLS = ("cat", "cksum", "cut", "dirname", "ln", "mkdir", "rm", "sh", "touch")


@pytest.fixture
def checkout(repository, tmp_path) -> Path:
    """A folder with a space in its name that holds what set-up reads."""
    folder = tmp_path / "a checkout"
    (folder / ".ci").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", ".ci/run"):
        shutil.copy(repository / name, folder / name)
    return folder


def tools(folder: Path, *names: str) -> dict[str, str]:
    """Return an environment whose PATH holds some real tools alone."""
    bin_folder = folder.parent / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name in (*BASIC_TOOLS, *names):
        (bin_folder / name).symlink_to(shutil.which(name) or "/bin/false")
    return {**os.environ, "PATH": str(bin_folder), "HOME": str(folder.parent), "XDG_CACHE_HOME": ""}


def run(command: list[str], checkout: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)


def stand_in(path: Path, script: str) -> None:
    """Write an executable shell script in place of a tool."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("present", "missing"), [
    (("make",), "C++ compiler"),
    (("make", "g++"), "python3"),
])
def test_missing_tool_is_named(checkout, present, missing):
    done = run(["make", "test"], checkout, tools(checkout, *present))
    line = done.stderr.splitlines()[0]
    assert done.returncode != 0
    assert line.startswith("phonolith: ") and missing in line and "nstall" in line
    assert not (checkout / ".venv").exists()


def test_extra_zig_stands_in_for_a_compiler(checkout):
    done = run(["make", "test", "EXTRAS=test,zig"], checkout, tools(checkout, "make"))
    assert "python3" in done.stderr.splitlines()[0]


def test_missing_make_is_named(checkout):
    done = run([".ci/run"], checkout, tools(checkout))
    assert done.returncode != 0
    assert done.stderr.startswith("phonolith: make is missing.")


def test_old_python_is_named(checkout):
    environment = tools(checkout, "make")
    stand_in(checkout.parent / "bin" / "python3", '[ "$1" = --version ] && echo Python 3.9.2; exit 1')
    done = run(["make", "setup"], checkout, environment)
    assert done.returncode != 0
    assert done.stderr.startswith("phonolith: Python 3.9.2 is too old. Install Python 3.11 or newer")
    assert not (checkout / ".venv").exists()


FAKE_PYTHON = """
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip "*) echo "$*" >> "$LOG" ;;
esac"""


def test_setup_runs_once_and_adds_extras_to_the_same_environment(checkout):
    log = checkout.parent / "log"
    environment = {**tools(checkout, "make", "cp"), "LOG": str(log)}
    stand_in(checkout.parent / "bin" / "python3", FAKE_PYTHON)

    def installs(extras: str) -> list[str]:
        log.write_text("")
        done = run(["make", "setup", f"EXTRAS={extras}"], checkout, environment)
        assert done.returncode == 0, done.stderr
        return [line.split()[-1] for line in log.read_text().splitlines()]

    assert installs("") == ["."]
    assert installs("") == []
    assert installs("train") == [".[train]"]
    assert installs("test,train") == [".[test]"]
    assert installs("test,train") == []


def test_environment_of_a_checkout_with_a_space_lives_elsewhere(checkout):
    environment = {**tools(checkout, "make", "cp"), "LOG": "/dev/null"}
    stand_in(checkout.parent / "bin" / "python3", FAKE_PYTHON)
    assert run(["make", "setup"], checkout, environment).returncode == 0
    real = (checkout / ".venv").resolve()
    assert " " not in str(real)
    assert run(["make", "clean"], checkout, {**environment, "PATH": os.environ["PATH"]}).returncode == 0
    assert not real.exists() and not (checkout / ".venv").is_symlink()
