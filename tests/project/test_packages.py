"""What is installed: the explicit package list is complete, and a wheel holds what a checkout holds."""

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import phonolith

# The root package's folder; the others have their packages' names.
ROOT = "api"
FOLDERS = ("cli", "compiler", "hw", "models", "reports", "sim")
DATA_SUFFIXES = {".toml", ".json", ".safetensors", ".wav", ".csv", ".cpp", ".h", ".vlt", ".md", ".v"}


def setuptools_table(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]


def packages_in_tree(repository: Path) -> set[str]:
    """Return the dotted name of every folder that holds Python code."""
    files = [path for folder in FOLDERS for path in (repository / folder).rglob("*.py")]
    return {"phonolith", *("phonolith." + ".".join(path.parent.relative_to(repository).parts) for path in files)}


def folder(repository: Path, package: str) -> Path:
    """Return where a package's code lies."""
    return repository.joinpath(*(package.split(".")[1:] or [ROOT]))


def test_package_list_is_complete(repository):
    assert set(setuptools_table(repository)["packages"]) == packages_in_tree(repository)


@pytest.mark.parametrize("name", ["__init__.py", "py.typed"])
def test_every_package_has(repository, name):
    missing = [package for package in setuptools_table(repository)["packages"]
               if not (folder(repository, package) / name).is_file()]
    assert not missing


def test_every_name_of_the_root_is_there():
    """Without importing any of it first; and nothing else is."""
    assert dir(phonolith) == sorted(phonolith.PLACES)
    for name, place in phonolith.PLACES.items():
        found = getattr(phonolith, name)
        assert callable(found) and found is getattr(importlib.import_module(place), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = phonolith.nothing


def test_wheel_holds_every_file(repository, project_files, tmp_path):
    export(repository, project_files, tmp_path / "source")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                    "--disable-pip-version-check", "--wheel-dir", tmp_path, tmp_path / "source"], check=True)
    wheel, = tmp_path.glob("phonolith-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {"phonolith/__init__.py", "phonolith/py.typed"}
    expected |= {f"phonolith/{name}" for name in project_files if name.split("/")[0] in FOLDERS
                and (Path(name).suffix in DATA_SUFFIXES | {".py"} or Path(name).name == "py.typed")}
    assert expected <= held
    assert not [name for name in held if not name.startswith(("phonolith/", "phonolith-"))]


def export(repository: Path, names: list[str], target: Path) -> None:
    """Copy files, so that a build leaves nothing in the checkout."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes((repository / name).read_bytes())
