"""Make the built-in table of area figures: synthesize several machines and fit each block to what it grows with.

    nice python benchmarks/area_table.py [LIBERTY] [--arrays 8x8,16x16,...] [--check 20x12,...]

LIBERTY: by default ``../shared/data/liberty/sky130hd_tt.lib.gz`` (SkyWater 130 nm high density, typical, Apache-2.0).
Writes ``reports/data/area_sky130hd.json`` and prints how far the composition is from each synthesis, also from
machines that were not fitted (``--check``). About two CPU minutes per machine; what was synthesized before comes from
the cache. A machine may name its bus: ``8x8/64``.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from phonolith.hw.config import MachineConfig
from phonolith.reports.area import BLOCKS, TABLE, TOP, counts, split
from phonolith.reports.liberty import Library, read_library
from phonolith.reports.synthesis import MAPPING, synthesize, tool
from phonolith.sim.rtl.source import LOADED_SOURCES, verilog_text

ROOT = Path(__file__).resolve().parents[1]
LIBERTY = ROOT.parent / "shared/data/liberty/sky130hd_tt.lib.gz"
# What each block grows with.
GROWTH = {
    "processing_elements": ("element",),
    "array_edge": ("fixed", "row", "column", "element", "edge_word_byte"),
    "vector_lanes": ("column",),
    "vector_reduction": ("fixed", "column"),
    "row_registers": ("fixed", "row"),
    "row_units": ("row_unit",),
    "table_control": ("column",),
    "vector_control": ("fixed", "row", "column", "register_sum"),
    "transposer": ("fixed", "dma_byte_word_byte"),
    "load": ("fixed", "dma_byte", "word_byte"),
    "store": ("fixed", "dma_byte", "column"),
    "fetch": ("fixed", "bus_byte"),
    "scratchpad_control": ("fixed", "column", "word_byte"),
    "bank_control": ("row", "column"),
    "interconnect": ("fixed", "row", "column", "row_word_byte"),
}


def machine(text: str) -> MachineConfig:
    """Turn ``8x8`` or ``8x8/64`` (bus bits) into a configuration."""
    array, _, bus = text.partition("/")
    config = MachineConfig().with_array(array)
    return replace(config, bus_bits=int(bus)) if bus else config


def measure(config: MachineConfig, library: Library) -> dict[str, float]:
    """Return um2 of standard cells by block."""
    return split(synthesize(verilog_text(config), TOP, library).instances())[0]


def fit(block: str, machines: list[MachineConfig], measured: list[dict[str, float]]) -> dict[str, float]:
    """Return um2 per thing that a block grows with, by least relative squares."""
    names = GROWTH.get(block, ("fixed",))
    areas = np.array([figures[block] for figures in measured])
    terms = np.array([[counts(config)[name] for name in names] for config in machines], dtype=float)
    scale = terms.max(axis=0)
    figures = np.linalg.lstsq(terms / scale / areas[:, None], np.ones_like(areas), rcond=None)[0] / scale
    return {name: round(float(figure), 4) for name, figure in zip(names, figures, strict=True)}


def compose(blocks: dict[str, dict[str, float]], config: MachineConfig) -> dict[str, float]:
    """Return what a table says of a machine."""
    return {block: sum(figure * counts(config)[name] for name, figure in figures.items())
            for block, figures in blocks.items()}


def show(name: str, composed: dict[str, float], measured: dict[str, float]) -> None:
    """Print the error of the total and of the worst block."""
    total, real = sum(composed.values()), sum(measured.values())
    worst = max(measured, key=lambda block: abs(composed[block] - measured[block]))
    print(f"{name:10s} logic {real:12.0f} um2, composed {total:12.0f} ({total / real - 1:+.2%}); largest difference: "
          f"{worst} {composed[worst] - measured[worst]:+.0f} um2 of {measured[worst]:.0f}", flush=True)


def write(path: Path, content: dict) -> None:
    """Write JSON in one step."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, path)


def main() -> None:
    """Synthesize, fit, write, compare."""
    parser = argparse.ArgumentParser(description="Make the built-in table of area figures.")
    parser.add_argument("liberty", type=Path, nargs="?", default=LIBERTY)
    parser.add_argument("--arrays", default="8x8,16x16,8x16,16x8,12x12,8x8/64,16x16/256")
    parser.add_argument("--check", default="20x12")
    arguments = parser.parse_args()
    library, names = read_library([arguments.liberty]), arguments.arrays.split(",")
    machines = [machine(name) for name in names]
    measured = [measure(config, library) for config in machines]
    blocks = {block: fit(block, machines, measured) for block, _ in BLOCKS}
    write(ROOT / "reports" / "data" / TABLE, {
        "library": library.name, "nand2_um2": library.nand2, "tool": tool(), "mapping": MAPPING,
        "sources": LOADED_SOURCES, "machines": names, "made_by": "benchmarks/area_table.py", "blocks": blocks})
    for name, config, figures in zip(names, machines, measured, strict=True):
        show(name, compose(blocks, config), figures)
    for name in filter(None, arguments.check.split(",")):
        show(f"{name} *", compose(blocks, machine(name)), measure(machine(name), library))
    print("* not fitted")


if __name__ == "__main__":
    main()
