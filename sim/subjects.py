"""What a fault is injected into: a compiled graph or a random program, and how to run and to judge it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phonolith.compiler.ir import Graph
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.coverage import Coverage
from phonolith.sim.ladder import first_difference, make_case
from phonolith.sim.program_case import initial_state, simulate
from phonolith.sim.program_check import compare, describe_difference, fill_rtl
from phonolith.sim.random_programs import random_program
from phonolith.sim.rtl.run import RtlMachine, RunResult
from phonolith.sim.verify import Inputs, climb

Difference = dict


@dataclass(frozen=True)
class Subject:
    """One program with its data.

    Parameters
    ----------
    name : str
    prepare : callable
        Gives the on-chip memories of a machine their contents.
    run : callable
        Runs it on a machine; takes options of :meth:`RtlMachine.run`.
    compare : callable
        Returns where the result of a run on a machine first differs from what it must be: keys of the contract.
    """

    name: str
    prepare: Callable[[RtlMachine], None]
    run: Callable[..., RunResult]
    compare: Callable[[RtlMachine, RunResult], Difference | None]


def graph_subject(name: str, graph: Graph, inputs: Inputs, config: MachineConfig, rungs: Sequence[str],
                  coverage: Coverage, stalls_seed: int | None) -> Subject:
    """Return a graph's program; ``coverage`` counts what it exercises.

    PhonolithError ``differs`` when the instruction-set simulator, which no fault concerns, differs.
    """
    case = make_case(graph, inputs, config)
    without_rtl = [rung for rung in rungs if rung != "rtl"]
    if climb(case, config, without_rtl, coverage):
        raise differs(name)

    def run(rtl: RtlMachine, **options) -> RunResult:
        memory = case.program.with_program(case.image)
        return rtl.run(memory, case.program.program_address, case.program.arguments, stalls_seed=stalls_seed, **options)

    def find(_rtl: RtlMachine, result: RunResult) -> Difference | None:
        return first_difference(case, "rtl", result.image, result.writes)

    return Subject(name, zero_memories, run, find)


def program_subject(seed: int, config: MachineConfig, coverage: Coverage, stalls: bool) -> Subject:
    """Return the random program of a seed; odd seeds, with ``stalls`` all, meet random stalls on every AXI channel."""
    case, stalls_seed = random_program(seed, config), seed if stalls or seed % 2 else None
    expected = simulate(case, config, coverage.retire)

    def prepare(rtl: RtlMachine) -> None:
        fill_rtl(initial_state(case, config), rtl)

    def run(rtl: RtlMachine, **options) -> RunResult:
        return rtl.run(case.memory(), case.program_address, case.arguments, stalls_seed=stalls_seed, **options)

    def find(rtl: RtlMachine, result: RunResult) -> Difference | None:
        found = compare(case, expected, rtl, result)
        return found and describe_difference(case, config, found)

    return Subject(f"seed {seed}", prepare, run, find)


def zero_memories(rtl: RtlMachine) -> None:
    """Empty the on-chip memories."""
    for memory in rtl.memories().values():
        memory[:] = 0


def differs(name: str) -> PhonolithError:
    """Build the error for a case that is wrong without any fault."""
    return PhonolithError("differs", f"{name} differs before a fault is injected.",
                          "Run the same without --inject-fault to find the first difference.")
