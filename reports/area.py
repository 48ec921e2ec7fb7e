"""Silicon area of a configured machine: by synthesis, or from the built-in table of block figures."""

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path

from phonolith.hw.config import MachineConfig
from phonolith.hw.history import HISTORY, POSITION_BITS
from phonolith.reports import sram_area
from phonolith.reports.liberty import read_library
from phonolith.reports.synthesis import MAPPING, Instance, Memory, synthesize
from phonolith.sim.rtl.source import LOADED_SOURCES, verilog_text

TOP = "phonolith_top"
TABLE = "area_sky130hd.json"
PRELIMINARY = "standard cells and macros without routing, clock tree and utilisation of the core"
# The first pattern that matches an instance's path names its block.
BLOCKS = tuple((block, re.compile(pattern)) for block, pattern in (
    ("array_edge", r"phonolith_top\.array(\.|$)|phonolith_row\.sum"),
    ("processing_elements", r"phonolith_row"),
    ("vector_lanes", r"phonolith_top\.vector\.lane_"),
    ("vector_reduction", r"phonolith_top\.vector\.reduction"),
    ("row_registers", r"phonolith_top\.vector\.registers"),
    ("row_units", r"phonolith_top\.vector\.row_unit\.unit_"),
    ("table_control", r"phonolith_top\.vector\.table_"),
    ("vector_control", r"phonolith_top\.vector"),
    ("transposer", r"phonolith_top\.load\.placer\.transposer"),
    ("load", r"phonolith_top\.load(\.|$)"),
    ("store", r"phonolith_top\.store(\.|$)"),
    ("fetch", r"phonolith_top\.(fetch|arbiter)"),
    ("sequencer", r"phonolith_top\.sequencer"),
    ("dispatch", r"phonolith_top\.(\w+_dispatcher|semaphores|supervisor|faults|watchdog|history|(read|write)_gate)"),
    ("registers", r"phonolith_top\.registers"),
    ("scratchpad_control", r"phonolith_top\.scratchpad"),
    ("bank_control", r"phonolith_top\.(activation_bank|weight_bank|parameters)"),
    ("interconnect", r"phonolith_top$"),
))
MEMORIES = tuple((block, re.compile(pattern)) for block, pattern in (
    ("sram_activation", r"phonolith_top\.activation_bank"),
    ("sram_weight", r"phonolith_top\.weight_bank"),
    ("sram_scratchpad", r"phonolith_top\.scratchpad"),
    ("sram_parameters", r"phonolith_top\.parameters"),
    ("sram_tables", r"phonolith_top\.vector\.table_"),
    ("sram_partial_sums", r"phonolith_top\.vector\.partial_sums"),
    ("sram_queues", r"phonolith_top\.(\w+_dispatcher|fetch)"),
    ("sram_history", r"phonolith_top\.history"),
))


def area(config: MachineConfig, liberty: Iterable[Path] = ()) -> dict:
    """Return the area of a machine, in um2, with what it was made with.

    Parameters
    ----------
    liberty : paths
        Standard-cell library to synthesize to (minutes; cached); without it, :func:`builtin_area`.

    Returns
    -------
    dict
        area_um2 = logic_um2 + sram_um2, gate_equivalents (logic in NAND2), blocks (um2, sum to area_um2),
        library, sram_library, tool, mapping.
    """
    liberty = tuple(liberty)
    if not liberty:
        return builtin_area(config)
    library = read_library(liberty)
    netlist = synthesize(verilog_text(config), TOP, library)
    logic, memories = split(netlist.instances())
    sram = {block: sum(macro_area(memory) for memory in found) for block, found in memories.items()}
    return report(logic, sram, library.nand2, library.name, netlist.tool, MAPPING)


def builtin_area(config: MachineConfig) -> dict:
    """Return the same from committed figures per building block, composed by the configuration's counts; no synthesis.

    ``docs/area.md`` says how far it is from synthesis. ``table_is_current`` tells whether the figures were made from
    the present sources of ``phonolith.hw``.
    """
    built_in = table()
    amounts = counts(config)
    logic = {block: sum((figure * amounts[count] for count, figure in figures.items()), 0.0)
             for block, figures in built_in["blocks"].items()}
    sram = {block: number * macro_area(memory) for block, (number, memory) in builtin_memories(config).items()}
    result = report(logic, sram, built_in["nand2_um2"], built_in["library"], built_in["tool"], built_in["mapping"])
    return {**result, "table_is_current": built_in["sources"] == LOADED_SOURCES}


def report(logic: dict[str, float], sram: dict[str, float], nand2: float, library: str, tool: str,
           mapping: str) -> dict:
    """Return the contract's keys."""
    logic_um2, sram_um2 = sum(logic.values()), sum(sram.values())
    return {
        "area_um2": logic_um2 + sram_um2,
        "logic_um2": logic_um2,
        "sram_um2": sram_um2,
        "gate_equivalents": logic_um2 / nand2,
        "blocks": {**logic, **sram},
        "library": library,
        "sram_library": sram_area.LIBRARY,
        "tool": tool,
        "mapping": mapping,
        "note": PRELIMINARY,
    }


@cache
def table() -> dict:
    """Return the committed figures; ``benchmarks/area_table.py`` makes them."""
    return json.loads(resources.files("phonolith.reports").joinpath("data", TABLE).read_text())


def counts(config: MachineConfig) -> dict[str, float]:
    """Return how often each countable thing of the table exists in a machine."""
    return {
        "fixed": 1,
        "row": config.rows,
        "column": config.columns,
        "element": config.rows * config.columns,
        "register_sum": 0 if partial_memory(config).is_macro else config.rows * config.columns,
        "row_unit": config.row_units,
        "bus_byte": config.bus_bytes,
        "dma_byte": config.dma_bytes,
        "word_byte": config.word_bytes,
        "row_word_byte": config.rows * config.word_bytes,
        "edge_word_byte": (config.rows + config.columns) * config.word_bytes,
        "dma_byte_word_byte": config.dma_bytes * config.word_bytes,
    }


def split(instances: Iterable[Instance]) -> tuple[dict[str, float], dict[str, list[Memory]]]:
    """Return um2 of standard cells by block, and macros by memory."""
    logic = {block: 0.0 for block, _ in BLOCKS}
    memories: dict[str, list[Memory]] = {block: [] for block, _ in MEMORIES}
    for instance in instances:
        logic[block_of(instance.path, BLOCKS)] += instance.logic_um2
        if instance.memories:
            memories[block_of(instance.path, MEMORIES)] += instance.memories
    return logic, memories


def block_of(path: str, blocks: tuple[tuple[str, re.Pattern], ...]) -> str:
    """Return the block of an instance; an instance that no pattern knows counts as the last block."""
    return next((block for block, pattern in blocks if pattern.match(path)), blocks[-1][0])


def builtin_memories(config: MachineConfig) -> dict[str, tuple[int, Memory]]:
    """Return number and shape of the macros of each memory, as the RTL has them."""
    bits = 8 * config.word_bytes
    return {
        "sram_activation": (config.rows, Memory(config.activation_depth, bits)),
        "sram_weight": (config.columns, Memory(config.weight_depth, bits)),
        "sram_scratchpad": (2, Memory(config.scratch_bank_depth, 8 * config.scratch_word_bytes)),
        "sram_parameters": (1, Memory(config.parameter_depth, 8 * config.parameter_word_bytes)),
        "sram_tables": (config.columns, Memory(256, 8)),
        "sram_partial_sums": (int(partial_memory(config).is_macro), partial_memory(config)),
        "sram_queues": (4, Memory(config.queue_words - 1, 32)),
        "sram_history": (1, Memory(HISTORY, POSITION_BITS + 2)),
    }


def partial_memory(config: MachineConfig) -> Memory:
    """Return the shape of the memory of partial sums: a macro in large arrays, flip-flops in small ones."""
    return Memory(config.rows, 32 * config.columns)


def macro_area(memory: Memory) -> float:
    """Return the um2 of one memory with a read and a write port."""
    return sram_area.sram_area(memory.words, memory.bits, ports=2)
