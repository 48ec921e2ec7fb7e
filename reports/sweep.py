"""One utterance on several machines: cycles, area, energy, and which machines are worth having."""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from phonolith.compiler.files import write_folder
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.reports.plots import Caption, sweep_plot
from phonolith.reports.simulation import simulate

CLIP = "seven_three_one.wav"
OBJECTIVES = ("latency_ms", "area_um2", "energy_uj")
COLUMNS = ("cycles", "utilisation", "latency_ms", "area_um2", "energy_uj", "bit_exact")
TABLE, PLOT = "sweep.csv", "sweep.png"

logger = logging.getLogger(__name__)


def sweep(config: MachineConfig, arrays: Iterable[str], model: str, audio: Path | None = None,
          output: Path | None = None) -> dict:
    """Simulate one utterance on the RTL of several arrays.

    Parameters
    ----------
    config : MachineConfig
        Everything but the array.
    arrays : iterable of str
        ``"RxC"``; a repeated one counts once.
    model : str
        Name or file of a quantized model.
    audio : Path, optional
        Recording or features; a shipped clip by default.
    output : Path, optional
        Folder for ``sweep.csv`` and ``sweep.png``; nothing is written without it.

    Returns
    -------
    dict
        ``points`` (one dict per array: array, cycles, utilisation, latency_ms, area_um2, energy_uj, bit_exact, and
        ``pareto``: no other point is at least as good in latency, area and energy and better in one), ``files``,
        ``model``, ``utterance``
        (what was said, or else the file's name), ``frames`` and ``library``.

    Raises
    ------
    PhonolithError
        For an impossible array (before anything runs) and whatever ``simulate`` raises.
    """
    machines = [config.with_array(array) for array in dict.fromkeys(arrays)]
    if not machines:
        raise PhonolithError("invalid-configuration", "no array to sweep over.", "Give some, such as 8x8,16x16.")
    audio = audio or shipped_clip()
    results = [run(machine, model, audio) for machine in machines]
    points = mark_pareto([point(machine, result) for machine, result in zip(machines, results, strict=True)])
    first = results[0]
    facts = {"model": first["model"], "utterance": first["reference"] or audio.name, "frames": first["frames"],
             "library": first["area_library"]}
    files = [] if output is None else write(output, points, facts, config)
    return {"points": points, "files": files, **facts}


def shipped_clip() -> Path:
    """Return the recording that comes with the package."""
    return Path(str(resources.files("phonolith.models").joinpath("clips", CLIP)))


def run(machine: MachineConfig, model: str, audio: Path) -> dict:
    """Simulate one machine."""
    logger.info("simulating %s on %s", audio.name, machine.array)
    return simulate(audio, model, machine)


def point(machine: MachineConfig, result: dict) -> dict:
    """Return what a sweep keeps of a simulation."""
    return {"array": machine.array, **{column: result[column] for column in COLUMNS}}


def mark_pareto(points: Sequence[dict]) -> list[dict]:
    """Add ``pareto`` to every point: no other one dominates it."""
    return [{**each, "pareto": not any(dominates(other, each) for other in points)} for each in points]


def dominates(one: dict, other: dict) -> bool:
    """Tell whether ``one`` is nowhere worse than ``other``, and better somewhere."""
    pairs = [(one[name], other[name]) for name in OBJECTIVES]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def write(folder: Path, points: list[dict], facts: dict, config: MachineConfig) -> list[Path]:
    """Write table and plot, both or none; return their paths."""
    caption = Caption(**facts, clock_mhz=config.clock_mhz, bus_bits=config.bus_bits)
    contents = {TABLE: to_csv(points, {**facts, "bus_bits": config.bus_bits, "clock_mhz": config.clock_mhz}),
                PLOT: sweep_plot(points, caption)}
    return write_folder(folder, contents)


def to_csv(points: list[dict], constants: dict) -> bytes:
    """Return points as CSV, with what is the same for all in the last columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*points[0], *constants], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**each, **constants} for each in points)
    return text.getvalue().encode()
