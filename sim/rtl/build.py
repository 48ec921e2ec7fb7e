"""Verilog in, shared library out, from the cache when the same build was made before."""

import json
from dataclasses import dataclass
from pathlib import Path

from phonolith.hw.array_verilog import SIMULATION
from phonolith.hw.config import MachineConfig
from phonolith.sim.rtl import signals
from phonolith.sim.rtl.cache import BuildCache, default_folder
from phonolith.sim.rtl.compile import SHARED_LIBRARY, CompileOptions
from phonolith.sim.rtl.memories import memory_table
from phonolith.sim.rtl.recipe import FACTS, Recipe
from phonolith.sim.rtl.toolchain import find_toolchain

SOURCES = Path(__file__).parent
WRAPPER = "harness_top.v"
HARNESS_FILES = (WRAPPER, "harness.cpp", "harness.h", "dram.h")
DESIGN = "design.v"
MEMORIES = "memories.inc"
MODEL_FLAGS = ("--top-module", "harness_top", "--output-split", "20000", "--output-split-cfuncs", "20000")
# Waveforms show processing elements one by one, as they are synthesized.
TRACE_FLAGS = ("--trace-vcd", "--trace-structs")
FAST_FLAGS = (f"+define+{SIMULATION}",)


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
    events : bool
        Whether it records what the engines do.
    """

    library: Path
    array: str
    cpu_seconds: float
    seconds: float
    cached: bool
    traced: bool
    events: bool = False


def build(verilog_text: str, config: MachineConfig, trace: bool = False, *, events: bool = False,
          cache: Path | None = None, compiler: str | None = None, options: CompileOptions | None = None) -> BuiltModel:
    """Make the simulator of one machine, or find it in the cache.

    Parameters
    ----------
    verilog_text : str
        Verilog with a module ``phonolith_top`` as `phonolith.hw.verilog` emits it.
    config : MachineConfig
        The machine: its bus width, and its array for the result.
    trace : bool
        Make a model that can write VCD waveforms (slower).
    events : bool
        Make a model that records what the engines do in each cycle (slower).
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
    inputs = {DESIGN: verilog_text, MEMORIES: memory_table(verilog_text),
              signals.TABLE: signals.table() if events else "",
              **({signals.VLT: signals.visible()} if events else {}),
              **{name: (SOURCES / name).read_text() for name in HARNESS_FILES}}
    flags = MODEL_FLAGS + (TRACE_FLAGS if trace else FAST_FLAGS)
    arguments = (*flags, f"-GBUS={config.bus_bits}", *([signals.VLT] if events else []), DESIGN, WRAPPER)
    recipe = Recipe(inputs, arguments, SHARED_LIBRARY, find_toolchain(compiler), options or CompileOptions())
    store = BuildCache(cache or default_folder())
    cached = store.find(recipe.key) is not None
    entry = recipe.build(store)
    facts = json.loads((entry / FACTS).read_text())
    return BuiltModel(entry / SHARED_LIBRARY.output, config.array, facts["cpu_seconds"], facts["seconds"], cached,
                      trace, events)
