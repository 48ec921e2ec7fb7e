"""The timing model: an event model of fetch, queues, semaphores, bus, memories and engines.

It walks the words of a program, engine by engine, and says in which cycle each instruction begins and ends on the RTL,
without simulating what it computes.
"""

from dataclasses import dataclass

import numpy as np

from phonolith.compiler.costs import PROGRAM_WORD_BYTES
from phonolith.compiler.disassembler import Resolved, branches, executed, trace
from phonolith.compiler.timing.array import ArrayEngine
from phonolith.compiler.timing.clock import Clock, Times
from phonolith.compiler.timing.dma import DmaEngine
from phonolith.compiler.timing.front import Dispatcher, Engine, Fetch, Item, QueueTimes, Sequencer
from phonolith.compiler.timing.load import LoadEngine
from phonolith.compiler.timing.read_channel import ReadChannel
from phonolith.compiler.timing.store import StoreEngine
from phonolith.compiler.timing.vector import VectorEngine
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import Queue


@dataclass(frozen=True)
class Timed:
    """One instruction on its engine: the cycles, counted from the start, in which it is accepted and completes.

    ``steps``: the cycles for which LOAD or STORE moves its data.
    """

    instruction: Resolved
    taken: int
    done: int
    steps: int = 0


@dataclass(frozen=True)
class Timing:
    """What is predicted of one run.

    Attributes
    ----------
    cycles : int
        As the CYCLES register counts them.
    instructions : tuple of Timed
        In program order.
    """

    cycles: int
    instructions: tuple[Timed, ...]


def predict(words: np.ndarray, config: MachineConfig, arguments: tuple[int, ...] = (), address: int = 0) -> Timing:
    """Return the timing of a program on a machine.

    Parameters
    ----------
    words : numpy.ndarray
        uint32.
    config : MachineConfig
    arguments : tuple of int
        With which it is run.
    address : int
        Where it lies in DRAM: how it is fetched depends on its place in bursts.

    Raises
    ------
    PhonolithError
        ``deadlock`` for a program that never ends.
    """
    instructions = trace(words, arguments)
    clock = Clock()
    tokens = [Times(clock) for _ in range(isa.SEMAPHORES)]
    channel = ReadChannel(clock, config)
    vector = VectorEngine(clock, instructions, tokens, config)
    array = ArrayEngine(clock, instructions, tokens, vector, config)
    load = LoadEngine(clock, instructions, tokens, channel, vector, array, config)
    store = StoreEngine(clock, instructions, tokens, vector.ports, channel.slots, config)
    engines: dict[Queue, Engine] = {each.queue: each for each in (load, array, vector, store)}
    queues = {queue: QueueTimes(clock, config.queue_words) for queue in engines}
    fetch = Fetch(clock, channel, address // config.bus_bytes)
    sequencer = Sequencer(clock, items(words, arguments), fetch, queues, address // PROGRAM_WORD_BYTES, config)
    for queue, engine in engines.items():
        Dispatcher(clock, queues[queue], engine)
    clock.run()
    check_end(list(engines.values()))
    ends = [engine.done[-1] + 1 for engine in engines.values() if engine.done]
    ends += [store.responses[-1] + 1] if store.responses else []
    return Timing(max(sequencer.end, array.idle, *ends) + 1, timed(instructions, engines))


def items(words: np.ndarray, arguments: tuple[int, ...]) -> list[Item]:
    """Return the instructions of a program as the sequencer sees them, behind the configuration's word."""
    found = [Item(0, 1, Queue.SEQUENCER)]
    for position, instruction, values in executed(words, arguments):
        target = values["target"] if branches(instruction.mnemonic, values) else None
        found.append(Item(position, 1 + len(instruction.operands), instruction.queue, target))
    return found


def check_end(engines: list[Engine]) -> None:
    """Refuse a program that never ends."""
    for engine in engines:
        if len(engine.done) < len(engine.instructions):
            stuck = engine.instructions[len(engine.done)]
            raise PhonolithError("deadlock", f"the {stuck.instruction.mnemonic} at word {stuck.position} never "
                                 "completes.", "Look for a semaphore that nobody signals.")


def timed(instructions: list[Resolved], engines: dict[Queue, Engine]) -> tuple[Timed, ...]:
    """Return the times of all instructions in program order."""
    counts = dict.fromkeys(engines, 0)
    result = []
    for each in instructions:
        engine, number = engines[each.queue], counts[each.queue]
        counts[each.queue] += 1
        steps = engine.steps[number] if isinstance(engine, DmaEngine) else 0
        result.append(Timed(each, engine.taken[number], engine.done[number], steps))
    return tuple(result)
