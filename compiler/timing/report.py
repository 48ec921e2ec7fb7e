"""What a program is predicted to cost, operator by operator: bounds of every unit, which binds, cycles."""

from collections.abc import Iterator

from phonolith.compiler.costs import drain_cycles, program_beats
from phonolith.compiler.footprint import block_count, sums_per_tile
from phonolith.compiler.listing import nodes_by_word
from phonolith.compiler.program import Program
from phonolith.compiler.timing.model import Timed, Timing, predict
from phonolith.compiler.timing.vector import counts, pipeline_cycles, rowop_cycles
from phonolith.hw.config import MachineConfig

UNITS = ("array", "bus", "drain", "vector", "store")


def explain_program(program: Program, config: MachineConfig) -> dict:
    """Return the predicted cost of a program.

    Returns
    -------
    dict
        ``predicted_cycles``, as the CYCLES register counts them, and ``operators``, see :func:`operators`.
    """
    timing = predict(program.words, config, program.arguments)
    return {"predicted_cycles": timing.cycles, "operators": operators(program, timing, config)}


def operators(program: Program, timing: Timing, config: MachineConfig) -> list[dict]:
    """Return one dict for every operator that takes instructions, in program order.

    Returns
    -------
    list of dict
        ``operator``, ``op``; ``roofline``: the cycles for which it needs each of :data:`UNITS` at least; ``bound``:
        which of them needs most; ``predicted_cycles``: by how much it ends later than all before it. These add up to
        the program's.
    """
    nodes = nodes_by_word(program)
    regions = [region for region in program.regions if region.parts]
    busy: dict[str, dict[str, int]] = {region.node: dict.fromkeys(UNITS, 0) for region in regions}
    ends = dict.fromkeys(busy, 0)
    for each in timing.instructions:
        node = nodes.get(each.instruction.position)
        if node is not None:
            ends[node] = max(ends[node], each.done)
            for unit, cycles in needs(each, config):
                busy[node][unit] += cycles
    for region in regions:
        busy[region.node]["bus"] += program_beats(sum(stop - start for start, stop in region.parts), config)
    if regions:
        ends[regions[-1].node] = timing.cycles
    spent = durations(list(ends.values()))
    return [{"operator": region.node, "op": region.op, "roofline": busy[region.node],
             "bound": max(UNITS, key=lambda unit: busy[region.node][unit]), "predicted_cycles": cycles}
            for region, cycles in zip(regions, spent, strict=True)]


def durations(ends: list[int]) -> Iterator[int]:
    """Yield by how much each end is later than all before it."""
    latest = 0
    for end in ends:
        yield max(end - latest, 0)
        latest = max(latest, end)


def needs(timed: Timed, config: MachineConfig) -> Iterator[tuple[str, int]]:
    """Yield the units that an instruction needs, and for how many cycles at least.

    The array takes a step per weight byte of a column; a tile's sums
    need :func:`phonolith.compiler.costs.drain_cycles` to leave. Bus and
    store: the cycles in which data move. Vector: rows and what an instruction costs besides.
    """
    instruction = timed.instruction
    operands = instruction.operands
    match instruction.instruction.mnemonic:
        case "LOAD":
            yield "bus", timed.steps
        case "STORE":
            yield "store", timed.steps
        case "MATMUL":
            tiles = config.tiles(operands["rows"], operands["columns"])
            yield "array", tiles * -(-operands["k"] // (1 << instruction.control["log2_lanes"]))
            yield "drain", tiles * sums_per_tile(instruction) * drain_cycles(config)
        case "VECTOR":
            rows, chunks = counts(instruction, config)
            yield "vector", rows * chunks * block_count(instruction) + pipeline_cycles(instruction)
        case "ROWOP":
            yield "vector", rowop_cycles(instruction, config)
