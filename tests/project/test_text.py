"""The repository holds nothing of the machine it was written on, and no heavy import sneaks in."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = {".py", ".md", ".toml", ".json", ".csv", ".cpp", ".h", ".vlt", ".v", ".txt", ".in", ""}
MACHINE_PATH = re.compile(r"(?<![\w.$})])/(?:home|root|Users|work|mnt|opt)/\w|--(?:extra-)?index-url")


def test_no_path_of_one_machine(repository, project_files):
    found = [f"{name}:{number}"
             for name in project_files if Path(name).suffix in TEXT and Path(name).name != Path(__file__).name
             for number, line in enumerate((repository / name).read_text().splitlines(), 1)
             if MACHINE_PATH.search(line)]
    assert not found


@pytest.mark.parametrize("line", ["open('/home/someone/x')", "see /work/notes", "pip --extra-index-url x"])
def test_pattern_finds_a_path_of_one_machine(line):
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize("line", ["docs/work/x", "$(VENV)/home/x", "https://example.org/home/x", "a/opt/b"])
def test_pattern_leaves_others_alone(line):
    assert not MACHINE_PATH.search(line)


def test_torch_is_imported_only_by_whoever_trains(repository):
    modules = [
        ".".join(("phonolith", *path.relative_to(repository).with_suffix("").parts))
        for folder in ("cli", "hw", "sim", "compiler/passes", "reports")
        for path in sorted((repository / folder).rglob("*.py")) if path.stem not in ("__main__", "__init__")
    ]
    program = (f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
               "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_help_imports_no_library():
    program = ("import sys\nfrom phonolith.cli.main import run\nrun(['--help'])\n"
               "heavy = {'numpy', 'amaranth', 'torch', 'matplotlib', 'rich'} & set(sys.modules)\n"
               "sys.exit(', '.join(heavy) or 0)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
