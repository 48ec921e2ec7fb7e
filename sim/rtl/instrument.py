"""The accelerator's Verilog with faults that can be switched on while it is simulated: mutations, or register flips.

All of them are in one text, so one build serves any number of faults. The word of the memory ``instrument`` (see
:meth:`RtlMachine.memories`) says which one acts; 0: none. ``instrument_worker.py`` has the details.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from amaranth.back import rtlil

from phonolith.hw.accelerator import Accelerator
from phonolith.hw.array_verilog import row_rtlil
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.verilog import TOP
from phonolith.sim.rtl.cache import BuildCache, content_key, default_folder
from phonolith.sim.rtl.run import RtlMachine
from phonolith.sim.rtl.source import check_sources, source_key

WORKER = Path(__file__).parent / "instrument_worker.py"
MEMORY = "instrument"
VERILOG, TABLE, LOG = "design.v", "table.json", "log"
TIMEOUT_SECONDS = 600
# A control word of a register flip: its number, from 1 on, and above it the bit.
ID_BITS = 20


@dataclass(frozen=True)
class Instrumented:
    """A design with faults to choose from.

    Parameters
    ----------
    verilog : str
        What the simulator is built of.
    table : list of dict
        The faults. Mutations: ``number`` (of the control word), ``block``, ``module``, ``cell``, ``port``,
        ``portbit``, ``mode``, and ``wire``, ``src`` if known. Registers, number 1 first: ``register`` (path), ``bits``.
    """

    verilog: str
    table: list[dict]


def mutated(config: MachineConfig, blocks: dict[str, str], count: int, seed: int,
            cache: Path | None = None) -> Instrumented:
    """Return the design with ``count`` mutations drawn from each of ``blocks`` (name: patterns of modules)."""
    return instrument(config, {"kind": "mutate", "blocks": blocks, "count": count, "seed": seed}, cache)


def flippable(config: MachineConfig, cache: Path | None = None) -> Instrumented:
    """Return the design in which the control word inverts one bit of one register."""
    return instrument(config, {"kind": "flip"}, cache)


def instrument(config: MachineConfig, job: dict, cache: Path | None) -> Instrumented:
    """Do a job of the worker, or find its result in the cache.

    Raises
    ------
    PhonolithError
        ``instrument``: Yosys gave no result. ``sources``: see :func:`~phonolith.sim.rtl.source.check_sources`.
    """
    key = content_key("instrument", source_key(config), json.dumps(job), WORKER.read_bytes(),
                      Path(__file__).read_bytes(), metadata.version("pyosys"))
    entry = BuildCache(cache or default_folder()).get(key, lambda folder: run_worker(config, job, folder))
    return Instrumented((entry / VERILOG).read_text(), json.loads((entry / TABLE).read_text()))


def run_worker(config: MachineConfig, job: dict, folder: Path) -> None:
    """Fill a cache entry; Yosys may end without a word, so only the result counts."""
    whole_job = {**job, "sources": ["top.il", "row.il"], "top": TOP, "verilog": VERILOG, "table": TABLE}
    sources = {"top.il": rtlil.convert(Accelerator(config=config), name=TOP), "row.il": row_rtlil(config),
               "job.json": json.dumps(whole_job)}
    for name, text in sources.items():
        (folder / name).write_text(text)
    with (folder / LOG).open("wb") as log:
        subprocess.run([sys.executable, str(WORKER), "job.json"], cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
                       stderr=subprocess.STDOUT, timeout=TIMEOUT_SECONDS)
    if not (folder / TABLE).exists():
        said = (folder / LOG).read_text(errors="replace").strip().splitlines() or ["nothing"]
        raise PhonolithError("instrument", f"Yosys could not instrument the design: {said[-1].strip()}.",
                             "`phonolith doctor` tests the tools.")
    for name in (*sources, LOG):
        (folder / name).unlink()
    check_sources()


def select(machine: RtlMachine, word: int) -> None:
    """Choose a fault of an instrumented machine: it acts from the next cycle but one on (a flip: in that cycle)."""
    machine.memories()[MEMORY][0].view("<u4")[0] = word
