"""``verify --inject-fault``: one bit of one register of the RTL flips in one cycle. Is that found?

Each case runs on the RTL as it should, then with the flip, then once more without. What can be seen of the second and
of the third run is compared with the first: the end and its status, every tensor, all of DRAM and on-chip memory,
the cycles and all counters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from phonolith.compiler.ir import Graph
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.coverage import Coverage
from phonolith.sim.rtl.instrument import ID_BITS, flippable, select
from phonolith.sim.rtl.run import RtlMachine, RunResult
from phonolith.sim.subjects import Difference, Subject, differs, graph_subject, program_subject
from phonolith.sim.verify import RUNGS, Inputs

# A word that is written takes effect so many cycles later; the start write takes so many to be answered.
SELECT_CYCLES, FIRST_CYCLE = 2, 8
# A run that takes this much longer than it should has hung; so has one without a transfer for as long as the
# accelerator itself waits for the bus, and some.
SLACK_CYCLES = 1_300_000
QUIET_CYCLES = 1_200_000
# What a run counts, as the accelerator and as the harness see it.
MEASURED = ("pin_cycles", "counters", "engines", "dram_read_beats", "dram_write_beats")
NO_EFFECT = "no effect on any output or status"


@dataclass(frozen=True)
class Flip:
    """One bit of one register, inverted in ``cycle`` of the run; ``word`` is what selects it in the RTL."""

    register: str
    bit: int
    cycle: int
    word: int


@dataclass(frozen=True)
class Seen:
    """All that can be seen of a run: its result or the complaint instead, and the on-chip memories after it."""

    outcome: RunResult | PhonolithError
    memories: dict[str, np.ndarray]


class Injector:
    """The machine whose registers can be flipped.

    Parameters
    ----------
    config : MachineConfig
    """

    def __init__(self, config: MachineConfig):
        design = flippable(config)
        self.registers = design.table
        self.last_bits = np.cumsum([register["bits"] for register in self.registers])
        self.rtl = RtlMachine(config, design.verilog)

    def draw(self, cycles: int, seed: tuple[int, ...]) -> Flip:
        """Draw a register bit, each alike, and a cycle of a run of ``cycles`` cycles."""
        rng = np.random.default_rng(seed)
        chosen = int(rng.integers(self.last_bits[-1]))
        index = int(np.searchsorted(self.last_bits, chosen, "right"))
        register = self.registers[index]
        bit = register["bits"] - int(self.last_bits[index]) + chosen
        return Flip(register["register"], bit, int(rng.integers(FIRST_CYCLE, cycles + 1)), bit << ID_BITS | index + 1)

    def look(self, subject: Subject, flip: Flip | None = None, right: RunResult | None = None) -> Seen:
        """Run a subject, with a flip or without; it has hung if it takes much longer than the ``right`` run."""
        subject.prepare(self.rtl)
        limits = {} if right is None else {"max_cycles": right.cycles + SLACK_CYCLES, "quiet_cycles": QUIET_CYCLES}
        pause = None if flip is None else (flip.cycle - SELECT_CYCLES, lambda: select(self.rtl, flip.word))
        try:
            outcome = subject.run(self.rtl, pause=pause, log_writes=True, **limits)
        except PhonolithError as error:
            outcome = error
        return Seen(outcome, {name: view.copy() for name, view in self.rtl.memories().items()})

    def inject(self, subject: Subject, seed: tuple[int, ...], coverage: Coverage) -> tuple[dict, Difference | None]:
        """Run a subject with one flip; return what was flipped and found, and the first difference if there is one.

        PhonolithError ``differs``, or that of the run, when the subject fails without a flip.
        """
        memories, right = self.right(subject)
        coverage.stall(right.engines)
        flip = self.draw(right.cycles, seed)
        effect, difference = self.judge(subject, memories, right, self.look(subject, flip, right))
        if difference is None:
            effect, difference = self.judge(subject, memories, right, self.look(subject, right=right))
            effect = effect and f"next run: {effect}"
        self.rtl.reset()
        return {"case": subject.name, "register": flip.register, "bit": flip.bit, "cycle": flip.cycle,
                "found": difference is not None, "effect": effect or NO_EFFECT}, difference

    def right(self, subject: Subject) -> tuple[dict[str, np.ndarray], RunResult]:
        """Run a subject without a flip; return the on-chip memories and the result."""
        seen = self.look(subject)
        if isinstance(seen.outcome, PhonolithError):
            raise seen.outcome
        if not seen.outcome.done or subject.compare(self.rtl, seen.outcome):
            raise differs(subject.name)
        return seen.memories, seen.outcome

    def judge(self, subject: Subject, memories: dict[str, np.ndarray], right: RunResult,
              seen: Seen) -> tuple[str, Difference | None]:
        """Compare a run with the right one; return what differs, in a word, and the first difference."""
        result = seen.outcome
        if isinstance(result, PhonolithError):
            return result.kind, other("run", "the program ends", result.message)
        if end_of(result) != end_of(right):
            return "status", other("status", end_of(right), end_of(result))
        difference = subject.compare(self.rtl, result)
        if difference is not None:
            return "output", difference
        for name, memory in memories.items():
            if not np.array_equal(memory, seen.memories[name]):
                return "memory", memory_difference(name, memory, seen.memories[name])
        for name in MEASURED:
            if getattr(result, name) != getattr(right, name):
                return "counters", other(name, getattr(right, name), getattr(result, name))
        return "", None


@lru_cache(maxsize=2)
def injector(config: MachineConfig) -> Injector:
    """Return the flippable machine of a configuration; built once per process, and from the cache if possible."""
    return Injector(config)


def inject_into_graphs(cases: Iterable[tuple[str, Graph, Inputs]], config: MachineConfig, fault_seed: int,
                       rungs: Sequence[str] = RUNGS, stalls: bool = False) -> dict:
    """Flip one register bit in the run of each named (graph, inputs); see :func:`verify_injected`."""
    coverage = Coverage()
    subjects = (graph_subject(*case, config, rungs, coverage, position if stalls else None)
                for position, case in enumerate(cases))
    return {**verify_injected(subjects, config, fault_seed, coverage), "rungs": list(rungs)}


def inject_into_programs(count: int, config: MachineConfig, fault_seed: int, seed: int = 0,
                         stalls: bool = False) -> dict:
    """Flip one register bit in the run of each of ``count`` random programs; see :func:`verify_injected`."""
    coverage = Coverage()
    subjects = (program_subject(each, config, coverage, stalls) for each in range(seed, seed + count))
    return {**verify_injected(subjects, config, fault_seed, coverage), "rungs": ["iss", "rtl"]}


def verify_injected(subjects: Iterable[Subject], config: MachineConfig, seed: int, coverage: Coverage) -> dict:
    """Flip one register bit in each subject, drawn from ``seed`` and the subject's position.

    Returns the contract's keys, and ``injected``: case, register, bit, cycle, whether it was found, and its effect, for
    each.
    """
    machine = injector(config)
    injected, differences = [], []
    for position, subject in enumerate(subjects):
        description, difference = machine.inject(subject, (seed, position), coverage)
        injected.append(description)
        if difference is not None:
            differences.append({"case": subject.name, **difference})
    return {"checked": len(injected), "failed": len(differences), "injected": injected,
            "coverage": coverage.as_dict(), "first_difference": next(iter(differences), None)}


def other(what: str, expected, actual) -> Difference:
    """Describe a difference that is no tensor's."""
    return {"rung": "rtl", "tensor": what, "index": [], "expected": expected, "actual": actual, "instruction": None,
            "cycle": None}


def memory_difference(name: str, expected: np.ndarray, actual: np.ndarray) -> Difference:
    """Describe the first byte in which two memories differ."""
    index = tuple(int(each) for each in np.argwhere(expected != actual)[0])
    return {**other(name, int(expected[index]), int(actual[index])), "index": list(index)}


def end_of(result: RunResult) -> str:
    """Say how a run ended; ERROR_ADDRESS means nothing without an error."""
    error = f", error code {result.error_code} at word {result.error_address}" if result.error_code else ""
    outside = f", access outside DRAM: {result.bus_error}" if result.bus_error else ""
    return f"status {result.status:#x}{error}{outside}"
