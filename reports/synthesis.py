"""Synthesis of Verilog to standard cells, by Yosys in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from phonolith.hw.errors import PhonolithError
from phonolith.reports.liberty import Library
from phonolith.sim.rtl.cache import BuildCache, content_key, default_folder

WORKER = "yosys_worker.py"
RESULT = "result.json"
TIMEOUT_SECONDS = 3600
# SKY130's isolation cells between power domains: abc would take them for gates.
NOT_LOGIC = "__lpflow_"
# Smaller memories take less area as flip-flops, shallow ones up to a larger size.
MACRO_BITS, MACRO_WORDS, SHALLOW_MACRO_BITS = 2048, 32, 16384
MAPPING = ("Yosys synth (no -booth), module by module, modules with the same cells once, not flattened; dfflibmap; "
           "abc -liberty with its default script, no timing goal; memories of at least 2048 bits and 32 words (or "
           "16384 bits) with one write port and one clocked read port as SRAM macros, smaller ones as flip-flops")


@dataclass(frozen=True)
class Memory:
    """A memory with one read and one write port."""

    words: int
    bits: int

    @property
    def is_macro(self) -> bool:
        """Whether it becomes an SRAM macro: as ``yosys_worker.py`` decides."""
        least = MACRO_BITS if self.words >= MACRO_WORDS else SHALLOW_MACRO_BITS
        return self.words * self.bits >= least


@dataclass(frozen=True)
class Instance:
    """One module instance: its path with the top's name in front, its own standard cells' um2, its own macros."""

    path: str
    logic_um2: float
    memories: tuple[Memory, ...]


@dataclass(frozen=True)
class Netlist:
    """A synthesized design.

    Members
    -------
    modules : dict
        Number of cells and instances of each type, by module. Modules that equal another are left out.
    same_as : dict
        Which one they equal.
    memories : dict
        Macros by module.
    library : Library
    tool : str
        Name and version.
    """

    top: str
    modules: dict[str, dict[str, int]]
    same_as: dict[str, str]
    memories: dict[str, tuple[Memory, ...]]
    library: Library
    tool: str

    def instances(self) -> Iterator[Instance]:
        """Yield every instance in the design, the top first."""
        yield from self.below(self.top, self.top)

    def below(self, module: str, path: str) -> Iterator[Instance]:
        """Yield an instance of ``module`` and what is in it."""
        name = self.same_as.get(module, module)
        counts = self.modules.get(name, {})
        areas = self.library.areas
        logic = sum(areas.get(kind, 0.0) * count for kind, count in counts.items())
        yield Instance(path, logic, self.memories.get(name, ()))
        for kind, count in counts.items():
            if kind in areas or self.same_as.get(kind, kind) not in self.modules:
                continue
            # A module that stands for an equal one lends its contents, not its name.
            inner = path + kind.removeprefix(name) if kind.startswith(f"{name}.") else kind
            for _ in range(count):
                yield from self.below(kind, inner)

    @property
    def logic_um2(self) -> float:
        """Standard cells of the whole design."""
        return sum(instance.logic_um2 for instance in self.instances())


def synthesize(verilog: str, top: str, library: Library, timeout: float = TIMEOUT_SECONDS,
               cache: Path | None = None) -> Netlist:
    """Map a design to standard cells; the result of the same text, library and tool comes from the cache.

    Parameters
    ----------
    verilog : str
        Text of all modules.
    top : str
        Module to start at.
    library : Library
    timeout : float
        Seconds.

    Raises
    ------
    PhonolithError
        kind ``synthesis``: Yosys rejects the text, is stopped at the time limit, or ends without a result.
    """
    def make(folder: Path) -> None:
        run_worker(verilog, top, library, timeout, folder / RESULT)

    worker = resources.files("phonolith.reports").joinpath(WORKER).read_bytes()
    key = content_key("synthesis", tool(), worker, top, verilog, *library.texts)
    result = json.loads((BuildCache(cache or default_folder()).get(key, make) / RESULT).read_text())
    memories = {name: tuple(Memory(shape["words"], shape["bits"]) for shape in shapes)
                for name, shapes in plain(result["memories"]).items()}
    modules = {name: plain(counts) for name, counts in plain(result["modules"]).items()}
    same_as = {plain_name(name): plain_name(other) for name, other in result["same_as"].items()}
    return Netlist(top, modules, same_as, memories, library, tool())


def tool() -> str:
    """Return name and version of the synthesizer."""
    return f"pyosys {metadata.version('pyosys')}"


def plain(table: dict) -> dict:
    """Return a dict without the backslash that Yosys puts before names from source text."""
    return {plain_name(key): value for key, value in table.items()}


def plain_name(name: str) -> str:
    """Return a name without Yosys' backslash."""
    return name.removeprefix("\\")


def run_worker(verilog: str, top: str, library: Library, timeout: float, result: Path) -> None:
    """Run Yosys on one job; it may end without a word, so only the result file counts."""
    with tempfile.TemporaryDirectory(prefix="phonolith-synthesis-") as name:
        folder = Path(name)
        job = write_job(folder, verilog, top, library, folder / RESULT)
        worker = resources.files("phonolith.reports").joinpath(WORKER)
        log = folder / "log"
        try:
            with log.open("wb") as stream:
                subprocess.run([sys.executable, str(worker), str(job)], cwd=folder, stdin=subprocess.DEVNULL,
                               stdout=stream, stderr=subprocess.STDOUT, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise synthesis_error(f"synthesis of {top} took more than {timeout:g} s.",
                                  "Price a smaller machine, or give more time.") from error
        if not (folder / RESULT).exists():
            raise synthesis_error(f"synthesis of {top} failed: {complaint(log)}",
                                  "Check the Liberty files; `phonolith doctor` tests the tools.")
        result.write_bytes((folder / RESULT).read_bytes())


def write_job(folder: Path, verilog: str, top: str, library: Library, result: Path) -> Path:
    """Write everything the worker reads; return the job's path."""
    libraries = [folder / f"library{index}.lib" for index in range(len(library.texts))]
    for path, text in zip(libraries, library.texts, strict=True):
        path.write_text(text)
    design, job = folder / "design.v", folder / "job.json"
    design.write_text(verilog)
    job.write_text(json.dumps({"verilog": str(design), "top": top, "libraries": [str(p) for p in libraries],
                               "dont_use": [cell for cell in library.areas if NOT_LOGIC in cell],
                               "result": str(result)}))
    return job


def complaint(log: Path) -> str:
    """Return the line of a log that says what went wrong."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or "Error" in line]
    return (errors or lines or ["Yosys said nothing."])[-1].strip()


def synthesis_error(message: str, remedy: str) -> PhonolithError:
    """Build the error for a synthesis that gave nothing."""
    return PhonolithError("synthesis", message, remedy)
