"""Verilog in, shared library out, from the cache when the same build was made before."""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from phonolith.hw.config import MachineConfig
from phonolith.sim.rtl.cache import BuildCache, content_key, default_folder
from phonolith.sim.rtl.compile import PREFIX, Build, CompileOptions, children_cpu_seconds, compile_library
from phonolith.sim.rtl.toolchain import Toolchain, find_toolchain

TOP = "phonolith_top"
LIBRARY = "model.so"
FACTS = "build.json"
SOURCES = Path(__file__).parent
HARNESS_FILES = ("harness.cpp", "harness.h", "dram.h")
VERILATOR_FLAGS = (
    "--cc", "--make", "json", "--prefix", PREFIX, "--top-module", TOP, "-O3", "--x-assign", "fast",
    "--x-initial", "fast", "--no-timing", "--output-split", "20000", "--output-split-cfuncs", "2000",
    "-Wno-fatal", "-Wno-lint", "-Wno-style", "--Mdir", ".")


@dataclass(frozen=True)
class BuiltModel:
    """A simulator ready to load.

    Parameters
    ----------
    library : Path
        The shared library; its C ABI is ``harness.h``.
    array : str
        Array of the machine it was built for.
    cpu_seconds, seconds : float
        What the build took when it was made.
    cached : bool
        Whether it was found rather than made.
    traced : bool
        Whether it can write waveforms.
    """

    library: Path
    array: str
    cpu_seconds: float
    seconds: float
    cached: bool
    traced: bool


def build(verilog_text: str, config: MachineConfig, trace: bool = False, *, cache: Path | None = None,
          compiler: str | None = None, options: CompileOptions | None = None) -> BuiltModel:
    """Make the simulator of one machine, or find it in the cache.

    Parameters
    ----------
    verilog_text : str
        Verilog with a module ``phonolith_top`` as `phonolith.hw.verilog` emits it.
    config : MachineConfig
        The machine; only named in the result, what matters is the Verilog.
    trace : bool
        Make a model that can write VCD waveforms (slower).
    cache : Path, optional
        Folder of builds; the user's cache folder by default.
    compiler : str, optional
        C++ compiler; the best one on PATH by default.
    options : CompileOptions, optional
        Optimization flags.

    Raises
    ------
    PhonolithError
        ``missing-tool``, ``missing-compiler``, ``build-failed`` (with the log's path), ``disk-full``,
        ``read-only-cache``.
    """
    tools = find_toolchain(compiler)
    chosen = options or CompileOptions()
    folder = cache or default_folder()
    flags = (*VERILATOR_FLAGS, *(("--trace-vcd", "--trace-structs") if trace else ()))
    harness = [(SOURCES / name).read_bytes() for name in HARNESS_FILES]
    compile_code = (SOURCES / "compile.py").read_bytes()
    key = content_key(verilog_text, *flags, *tools.identity(), *chosen.identity(), *harness, compile_code)
    store = BuildCache(folder)
    cached = store.find(key) is not None
    entry = store.get(key, lambda part: make_entry(part, folder / f"{key}.log", verilog_text, flags, tools, chosen))
    facts = json.loads((entry / FACTS).read_text())
    return BuiltModel(entry / LIBRARY, config.array, facts["cpu_seconds"], facts["seconds"], cached, trace)


def make_entry(part: Path, log: Path, verilog_text: str, flags: tuple[str, ...], tools: Toolchain,
               options: CompileOptions) -> None:
    """Fill a cache entry: the library and what its build took; the log of a failed build stays at ``log``."""
    cpu, wall = children_cpu_seconds(), time.monotonic()
    work = part / "work"
    work.mkdir()
    log.unlink(missing_ok=True)
    (work / "design.v").write_text(verilog_text)
    for name in HARNESS_FILES:
        shutil.copyfile(SOURCES / name, work / name)
    job = Build(work, log)
    job.run([tools.verilator, *flags, "design.v"], tools.environment)
    compile_library(job, tools, options, Path("harness.cpp"), LIBRARY)
    (work / LIBRARY).rename(part / LIBRARY)
    shutil.rmtree(work)
    facts = {"cpu_seconds": children_cpu_seconds() - cpu, "seconds": time.monotonic() - wall,
             "options": asdict(options), "tools": tools.identity()}
    (part / FACTS).write_text(json.dumps(facts, default=str, indent=1))
    log.unlink(missing_ok=True)
