"""One program on each rung, and where two rungs first differ."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from phonolith.compiler.ir import Graph
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.pipeline import compile_graph, for_frames
from phonolith.compiler.program import Program
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.sequencer import Error
from phonolith.sim.golden.compare import compare_tensors
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.iss import run as run_iss
from phonolith.sim.rtl.run import RtlMachine, RunResult
from phonolith.sim.rtl.source import verilog_text

CANARY_SEED = 20_000


@dataclass(frozen=True)
class Case:
    """One model on one input: the program, its DRAM image, and what every tensor must be."""

    program: Program
    image: np.ndarray
    expected: dict[str, np.ndarray]


def make_case(graph: Graph, inputs: dict[str, np.ndarray], config: MachineConfig,
              program: Program | None = None) -> Case:
    """Compile ``graph`` for ``inputs`` (integer arrays by name) and interpret it with the golden model.

    A ``program`` compiled before takes the place of compiling: see :func:`phonolith.compiler.pipeline.for_frames`.

    The image holds random bytes wherever the program should neither read nor write. The golden model interprets the
    graph as it stands in the file, before any pass.
    """
    frames = len(next(iter(inputs.values())))
    program = compile_graph(graph, config, frames) if program is None else for_frames(program, graph, frames)
    values = interpret(graph, inputs)
    expected = {name: values[name] for name in program.tensors}
    return Case(program, program.image(inputs, CANARY_SEED), expected)


@lru_cache(maxsize=4)
def machine(config: MachineConfig) -> RtlMachine:
    """Return the simulated accelerator of a configuration; built once per process, and from the cache if possible."""
    return RtlMachine(config, verilog_text(config))


def execute_iss(case: Case, config: MachineConfig) -> np.ndarray:
    """Return the DRAM image after the instruction-set simulator ran the program."""
    return run_iss(case.program.words, case.image, config, case.program.arguments)


def execute_rtl(program: Program, image: np.ndarray, rtl: RtlMachine, **options) -> RunResult:
    """Run a program on RTL, ``options`` going to :meth:`RtlMachine.run`.

    PhonolithError ``hardware-error`` when it stops with an error status or leaves its memory.
    """
    program.check_machine(rtl.config)
    result = rtl.run(program.with_program(image), program.program_address, program.arguments, **options)
    if result.bus_error:
        raise PhonolithError(
            "hardware-error", f"the accelerator accessed DRAM address {result.bus_error['address']:#x}, outside the "
            f"program's memory, in cycle {result.bus_error['cycle']}.", "Report the program: its addresses are wrong.")
    if not result.done:
        raise PhonolithError(
            "hardware-error", f"the accelerator stopped with error {result.error_code} "
            f"({Error(result.error_code).name.lower().replace('_', ' ')}) at program word {result.error_address}.",
            "Compile the model again; if it persists, report the program.")
    return result


def first_difference(case: Case, rung: str, image: np.ndarray, writes: np.ndarray | None = None) -> dict | None:
    """Compare every tensor in program order, then all other bytes of DRAM, with what they must be.

    Returns None, or a dict with rung, tensor, index, expected, actual, the instruction that stored the element
    (disassembled), the (start, stop) words of the node's instructions, and the cycle in which the element was written
    (with a log of writes, else None).
    """
    for region in case.program.regions:
        if region.node not in case.program.tensors:
            continue
        actual = case.program.read(image, region.node)
        difference = compare_tensors(region.node, case.expected[region.node], actual)
        if difference:
            address = case.program.tensors[region.node].address_of(difference.index)
            return {"rung": rung, "tensor": difference.tensor, "index": list(difference.index),
                    "expected": difference.expected, "actual": difference.actual,
                    "instruction": case.program.writer(address), "words": [region.start, region.stop],
                    "cycle": last_write(address, writes)}
    stray = case.program.stray_writes(case.image, image[:case.image.size])
    if not len(stray):
        return None
    address = int(stray[0])
    return {"rung": rung, "tensor": "DRAM outside the tensors", "index": [address],
            "expected": int(case.image[address]), "actual": int(image[address]),
            "instruction": case.program.writer(address), "cycle": last_write(address, writes)}


def last_write(address: int, writes: np.ndarray | None) -> int | None:
    """Return the cycle of the last write beat that covers a byte."""
    if writes is None:
        return None
    offset = address - writes["address"].astype(np.int64)
    covered = (offset >= 0) & (offset < 64)
    strobed = (writes["strobe"] >> np.where(covered, offset, 0).astype(np.uint64)) & np.uint64(1)
    cycles = writes["cycle"][covered & (strobed != 0)]
    return int(cycles[-1]) if len(cycles) else None


def compare_lowered(graph: Graph, inputs: dict[str, np.ndarray]) -> None:
    """Check that the passes kept the bits; AssertionError otherwise."""
    before, after = interpret(graph, inputs), interpret(lower_graph(graph), inputs)
    for name, tensor in after.items():
        assert compare_tensors(name, before[name], tensor) is None, name
