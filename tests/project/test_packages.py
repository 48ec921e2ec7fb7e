"""What is installed: the explicit package list is complete, and a wheel holds what a checkout holds."""

import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

FOLDERS = ("cli", "compiler", "hw", "models", "reports", "sim")
DATA_SUFFIXES = {".toml", ".json", ".safetensors", ".wav", ".csv", ".cpp", ".h", ".vlt", ".md", ".v"}


def setuptools_table(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]


def packages_in_tree(repository: Path) -> set[str]:
    """Return the dotted name of every folder that holds Python code."""
    files = [path for folder in FOLDERS for path in (repository / folder).rglob("*.py")]
    return {"phonolith." + ".".join(path.parent.relative_to(repository).parts) for path in files}


def test_package_list_is_complete(repository):
    assert set(setuptools_table(repository)["packages"]) == packages_in_tree(repository)


@pytest.mark.parametrize("name", ["__init__.py", "py.typed"])
def test_every_package_has(repository, name):
    missing = [package for package in setuptools_table(repository)["packages"]
               if not (repository.joinpath(*package.split(".")[1:]) / name).is_file()]
    assert not missing


def test_root_is_a_namespace():
    assert importlib.util.find_spec("phonolith").origin is None


def test_wheel_holds_every_file(repository, project_files, tmp_path):
    export(repository, project_files, tmp_path / "source")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                    "--disable-pip-version-check", "--wheel-dir", tmp_path, tmp_path / "source"], check=True)
    wheel, = tmp_path.glob("phonolith-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"phonolith/{name}" for name in project_files if name.split("/")[0] in FOLDERS
                and (Path(name).suffix in DATA_SUFFIXES | {".py"} or Path(name).name == "py.typed")}
    assert expected <= held
    assert not [name for name in held if not name.startswith(("phonolith/", "phonolith-"))]


def export(repository: Path, names: list[str], target: Path) -> None:
    """Copy files, so that a build leaves nothing in the checkout."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes((repository / name).read_bytes())
