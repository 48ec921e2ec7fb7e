"""A run as a trace for Perfetto or Chrome: what every engine and the bus did, cycle by cycle (``docs/tracing.md``).

The RTL tells when an engine takes and completes an instruction; which one it is follows from the program, because every
engine takes its instructions in program order.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phonolith.compiler.disassembler import Resolved
from phonolith.compiler.disassembler import trace as issue_order
from phonolith.compiler.files import write_atomically
from phonolith.compiler.listing import nodes_by_word
from phonolith.compiler.program import Program
from phonolith.hw.config import MachineConfig
from phonolith.hw.registers import CAUSES, ENGINES
from phonolith.sim.rtl.run import RunResult
from phonolith.sim.rtl.signals import GIVE_BIT, READ_BIT, TAKE_BIT, WRITE_BIT

PROCESS = 1
BUS = {"AXI read beats": READ_BIT, "AXI write beats": WRITE_BIT}
SHOWN_CAUSES = tuple(cause for cause in CAUSES if cause not in ("busy", "idle"))


@dataclass(frozen=True)
class Span:
    """One instruction on its engine: in cycles from the start, ``taken`` and ``done`` included."""

    engine: str
    instruction: Resolved
    node: str
    taken: int
    done: int


def instruction_spans(program: Program, events: np.ndarray) -> list[Span]:
    """Return when each engine instruction of a run began and ended, engine by engine.

    Parameters
    ----------
    program : Program
    events : numpy.ndarray
        ``RunResult.events`` of its run.
    """
    issued, nodes = issue_order(program.words, program.arguments), nodes_by_word(program)
    spans = []
    for index, engine in enumerate(ENGINES):
        own = [each for each in issued if each.queue == index + 1]
        times = zip(own, pulses(events, TAKE_BIT + index), pulses(events, GIVE_BIT + index), strict=False)
        spans += [Span(engine, each, nodes.get(each.position, ""), taken, done) for each, taken, done in times]
    return spans


def pulses(events: np.ndarray, bit: int) -> list[int]:
    """Return the cycles in which one bit of the pulses is set."""
    return events["cycle"][events["pulses"] >> bit & 1 == 1].tolist()


def level_spans(events: np.ndarray, bit: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (first cycle, cycle behind the last) of each stretch in which one bit of the levels is set."""
    level = (events["levels"] >> bit & 1).astype(np.int8)
    edges = np.flatnonzero(np.diff(level, prepend=0, append=0))
    cycles = [*events["cycle"].tolist(), end]
    for rise, fall in zip(edges[::2], edges[1::2], strict=True):
        yield cycles[rise], cycles[fall]


def layer_times(spans: list[Span]) -> dict[str, tuple[int, int]]:
    """Return per node the cycle of its first instruction's start and of its last one's end."""
    times: dict[str, tuple[int, int]] = {}
    for span in spans:
        start, end = times.get(span.node, (span.taken, span.done))
        times[span.node] = min(start, span.taken), max(end, span.done)
    return times


def write_trace(path: Path, program: Program, result: RunResult, spans: list[Span], config: MachineConfig) -> None:
    """Write a run's trace, JSON of the Trace Event Format; PhonolithError ``cannot-write``.

    Parameters
    ----------
    path : Path
    program : Program
    result : RunResult
        With events.
    spans : list of Span
        Of this run.
    config : MachineConfig
    """
    events = [*track_names(config), *instruction_events(spans), *level_events(result.events, result.cycles)]
    document = {
        "displayTimeUnit": "ns", "traceEvents": events,
        "otherData": {"program": program.name, "configuration": config.hash, "cycles": result.cycles,
                      "time unit": "1 us stands for 1 cycle"}}
    write_atomically(path, json.dumps(document, separators=(",", ":")).encode())


def tracks() -> dict[str, int]:
    """Return the tracks and their numbers, in the order in which they are shown."""
    names = [name for engine in ENGINES for name in (engine, f"{engine} stalls")]
    return {name: number for number, name in enumerate([*names, *BUS], 1)}


def track_names(config: MachineConfig) -> list[dict]:
    """Return the events that name process and tracks."""
    named = {"process_name": {0: f"phonolith {config.array}"},
             "thread_name": {number: name for name, number in tracks().items()}}
    return [{"ph": "M", "pid": PROCESS, "tid": number, "name": kind, "args": {"name": name}}
            for kind, names in named.items() for number, name in names.items()]


def slice_event(track: str, name: str, start: int, end: int, **arguments: object) -> dict:
    """Return one slice of a track; ``end`` is not included."""
    return {"ph": "X", "pid": PROCESS, "tid": tracks()[track], "name": name, "ts": start, "dur": end - start,
            "args": arguments}


def instruction_events(spans: list[Span]) -> Iterator[dict]:
    """Yield one slice per instruction; one taken ahead begins where the one before it ends."""
    free = {str(engine): 0 for engine in ENGINES}
    for span in spans:
        start = min(max(span.taken, free[span.engine]), span.done)
        free[span.engine] = span.done + 1
        name = f"{span.instruction.instruction.mnemonic} {span.node}".rstrip()
        yield slice_event(span.engine, name, start, span.done + 1, taken=span.taken, done=span.done,
                          word=span.instruction.position, **span.instruction.operands)


def level_events(events: np.ndarray | None, end: int) -> Iterator[dict]:
    """Yield the stalls of every engine by cause, and the stretches of bus beats."""
    assert events is not None
    for index, engine in enumerate(ENGINES):
        for cause in SHOWN_CAUSES:
            bit = len(CAUSES) * index + CAUSES.index(cause)
            for start, stop in level_spans(events, bit, end):
                yield slice_event(f"{engine} stalls", cause, start, stop)
    for name, bit in BUS.items():
        for start, stop in level_spans(events, bit, end):
            yield slice_event(name, f"{stop - start} beats", start, stop)
