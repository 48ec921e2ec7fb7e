"""Are the tools there? What is installed, what the package asks for, and what to do about a difference."""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from phonolith.hw.errors import PhonolithError
from phonolith.sim.rtl.cache import default_folder
from phonolith.sim.rtl.toolchain import find_toolchain

DISTRIBUTION = "phonolith"
PINNED = re.compile(r"([\w.-]+)==([^ ;]+)(?:; extra == \"(\w+)\")?")
WANTED_PYTHON = (3, 11)
FREE_BYTES = 200_000_000
EXTRAS = {"train": "train, quantize, evaluate --float, modules of your own", "test": "the tests", "dev": "make check",
          "zig": "building the simulator without a compiler of the system"}


@dataclass(frozen=True)
class Tool:
    """One thing that commands need.

    Parameters
    ----------
    name, version, wanted : str
        ``version`` is None when it is not there, ``wanted`` None when any will do.
    path : str or None
        Where it is, for programs and folders.
    needed_for : str
    required : bool
        Whether the core commands need it.
    ok : bool
    remedy : str or None
        What to do when it is not as it should be; optional tools that are not there have one too.
    """

    name: str
    version: str | None
    wanted: str | None
    path: str | None
    needed_for: str
    required: bool
    ok: bool
    remedy: str | None


def examine() -> dict:
    """Return ``{ok, tools: [...]}``: ``ok`` when all required tools are as they should be."""
    tools = [python(), compiler(), cache_folder(), *packages()]
    return {"ok": all(tool.ok for tool in tools if tool.required), "tools": [asdict(tool) for tool in tools]}


def python() -> Tool:
    """Look at the interpreter."""
    version, ok = platform.python_version(), tuple(map(int, platform.python_version_tuple()[:2])) >= WANTED_PYTHON
    wanted = ".".join(map(str, WANTED_PYTHON))
    return Tool("python", version, f">={wanted}", sys.executable, "everything", True, ok,
                None if ok else f"Install Python {wanted} or newer.")


def compiler() -> Tool:
    """Look for a C++ compiler that runs."""
    try:
        found = find_toolchain()
    except PhonolithError as error:
        return Tool("C++ compiler", None, None, None, "building the simulator", True, False, error.remedy)
    return Tool("C++ compiler", found.compiler_version, None, found.compiler, "building the simulator", True, True,
                None)


def cache_folder() -> Tool:
    """See whether builds can be kept."""
    folder = default_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    writable, free = os.access(existing, os.W_OK | os.X_OK), shutil.disk_usage(existing).free
    ok = writable and free >= FREE_BYTES
    remedy = None if ok else (f"Free {FREE_BYTES // 10**6} MB there" if writable else "Make it writable") + \
        ", or choose another folder (XDG_CACHE_HOME moves it)."
    return Tool("cache folder", f"{free // 10**6} MB free" if writable else "not writable",
                f"{FREE_BYTES // 10**6} MB", str(folder), "simulator builds", True, ok, remedy)


def packages() -> Iterator[Tool]:
    """Look at every Python package that this distribution pins."""
    for requirement in importlib.metadata.requires(DISTRIBUTION) or ():
        pinned = PINNED.match(requirement)
        if pinned:
            yield package(*pinned.groups())


def package(name: str, wanted: str, extra: str | None) -> Tool:
    """Look at one Python package; one of an extra may be missing."""
    version = installed(name)
    same = version is not None and version.partition("+")[0] == wanted
    needed_for = EXTRAS.get(extra or "", "everything")
    command = f"make setup EXTRAS={extra}" if extra else "make setup"
    remedy = None if same else f"Run `{command}`, or pip install {name}=={wanted}."
    return Tool(name, version, wanted, None, needed_for, extra is None, version is not None and (same or bool(extra)),
                remedy)


def installed(name: str) -> str | None:
    """Return the version of an installed distribution, None without it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

