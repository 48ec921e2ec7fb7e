"""Debug checks of a program's semaphores: no race, no deadlock, no counter overflow.

Happens-before is derived from the program alone: each engine executes its instructions in order, and the i-th
wait on a semaphore follows the i-th signal. Every two conflicting accesses of different engines must be ordered.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from phonolith.compiler.assembler import ENGINES, SEMAPHORE_LIMIT, mask_names
from phonolith.compiler.disassembler import Resolved, trace
from phonolith.compiler.footprint import Memory, accesses, block_count, can_be_followed, sums_per_tile
from phonolith.compiler.synchronize import BEGUN, FENCED, NOTHING, Clock, History, Token, join
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Queue, Source


def find_races(words: np.ndarray, config: MachineConfig, arguments: tuple[int, ...] = ()) -> list[str]:
    """Return one line for each access that another engine could overtake; empty for a correct program."""
    instructions = trace(words, arguments)
    clocks = happens_before(instructions)
    histories = {memory: History() for memory in Memory}
    found = []
    for index, instruction in enumerate(instructions):
        touched = accesses(instruction, config)
        for access in touched:
            for engine, earlier in histories[access.memory].conflicts(access).items():
                known = clocks[index][engine]
                if access.memory is Memory.DRAM and engine == Queue.STORE:
                    known = clocks[index][FENCED]
                elif instruction.queue is Queue.ARRAY and can_be_followed(instructions[earlier], config):
                    known = clocks[index][BEGUN]
                if engine != instruction.queue and known < earlier:
                    found.append(f"{describe(instruction)} may overtake {describe(instructions[earlier])} "
                                 f"in {access.memory.name} {access.low}..{access.high - 1}")
        for access in touched:
            histories[access.memory].append(index, instruction.queue, access)
    return found + self_conflicts(instructions, config) + overflows(instructions, clocks)


def describe(instruction: Resolved) -> str:
    """Name an instruction by mnemonic and word index."""
    return f"{instruction.instruction.mnemonic} at word {instruction.position}"


def early_signals(instruction: Resolved) -> int:
    """Return the mask of semaphores that an instruction raises when it begins to write."""
    return instruction.control["early"] if instruction.queue is Queue.LOAD else 0


def pair_tokens(instructions: list[Resolved]) -> dict[int, list[Token]]:
    """Return the tokens of each semaphore in order.

    ValueError when a wait has no signal before it in program order.
    """
    signals: dict[int, list[tuple[int, bool]]] = {bit: [] for bit in range(isa.SEMAPHORES)}
    tokens: dict[int, list[Token]] = {bit: [] for bit in range(isa.SEMAPHORES)}
    for index, instruction in enumerate(instructions):
        for bit, used in tokens.items():
            if instruction.wait >> bit & 1:
                if len(signals[bit]) <= len(used):
                    name = mask_names(1 << bit)[0]
                    raise ValueError(f"{describe(instruction)} waits for {name}, which nothing signals")
                signal, early = signals[bit][len(used)]
                used.append(Token(signal, index, early))
            if early_signals(instruction) >> bit & 1:
                signals[bit].append((index, True))
            if instruction.signal >> bit & 1:
                signals[bit].append((index, False))
    return tokens


def happens_before(instructions: list[Resolved]) -> list[Clock]:
    """Return for every instruction, per engine, the latest instruction known complete when it starts."""
    waits: dict[int, list[Token]] = {}
    for tokens in pair_tokens(instructions).values():
        for token in tokens:
            waits.setdefault(token.wait, []).append(token)
    latest: dict[Queue, Clock] = {engine: NOTHING for engine in ENGINES}
    clocks: list[Clock] = []
    for index, instruction in enumerate(instructions):
        known = latest[instruction.queue]
        for token in waits.get(index, ()):
            producer = instructions[token.signal]
            fenced = producer.queue is Queue.STORE and bool(producer.control["fence"])
            known = join(known, clocks[token.signal], token, producer.queue, fenced)
        clocks.append(known)
        latest[instruction.queue] = clocks[-1]
    return clocks


def self_conflicts(instructions: list[Resolved], config: MachineConfig) -> list[str]:
    """Return one line for each VECTOR that reads what it writes."""
    found = []
    for instruction in instructions:
        touched = accesses(instruction, config)
        written = [a for a in touched if a.write]
        if any(a.memory == w.memory and a.low < w.high and w.low < a.high
               for w in written for a in touched if not a.write):
            found.append(f"{describe(instruction)} reads what it writes")
    return found


def overflows(instructions: list[Resolved], clocks: list[Clock]) -> list[str]:
    """Return one line for each signal that could lift its semaphore above its limit."""
    found = []
    for bit, tokens in pair_tokens(instructions).items():
        for late, early in zip(tokens[SEMAPHORE_LIMIT:], tokens, strict=False):
            consumer = instructions[early.wait].queue
            if clocks[late.signal][consumer] < early.wait:
                found.append(f"{describe(instructions[late.signal])} may overflow {mask_names(1 << bit)[0]}")
    return found


@dataclass
class Engine:
    """One engine of the liveness check: its queue and what it is doing."""

    queue: deque[Resolved] = field(default_factory=deque)
    tiles_left: int | None = None

    def words(self) -> int:
        """Queue words in use."""
        return sum(len(i.instruction.operands) + 1 for i in self.queue)


class Liveness:
    """Token-level execution with bounded queues; it gets stuck exactly when the hardware would.

    The machine is determinate (every semaphore has one producer and one consumer, every queue is in order), so one
    schedule decides for all. A tile's results must be taken before the array can finish the next but one.
    """

    def __init__(self, instructions: list[Resolved], config: MachineConfig):
        self.pending = deque(instructions)
        self.config = config
        self.engines = {engine: Engine() for engine in ENGINES}
        self.semaphores = [0] * isa.SEMAPHORES
        self.finished_tiles = 0

    def stuck(self) -> list[str]:
        """Run as far as possible; return what is left at the head of each queue."""
        while any([self.dispatch(), *(self.advance(engine) for engine in ENGINES)]):
            pass
        return [describe(e.queue[0]) for e in self.engines.values() if e.queue]

    def dispatch(self) -> bool:
        """Move the next instruction into its queue if it fits."""
        if not self.pending:
            return False
        engine = self.engines[self.pending[0].queue]
        if engine.words() + len(self.pending[0].instruction.operands) + 1 > self.config.queue_words:
            return False
        engine.queue.append(self.pending.popleft())
        return True

    def advance(self, queue: Queue) -> bool:
        """Do one step of an engine: start, handle one tile, or complete."""
        engine = self.engines[queue]
        if not engine.queue:
            return False
        head = engine.queue[0]
        if engine.tiles_left is None:
            return self.start(engine, head)
        if engine.tiles_left > 0:
            return self.handle_tile(engine, queue)
        self.give(head.signal)
        engine.queue.popleft()
        engine.tiles_left = None
        return True

    def start(self, engine: Engine, head: Resolved) -> bool:
        """Take the tokens of an instruction if all are there."""
        taken = [s - (head.wait >> bit & 1) for bit, s in enumerate(self.semaphores)]
        if min(taken) < 0:
            return False
        self.semaphores = taken
        self.give(early_signals(head))
        engine.tiles_left = self.tiles(head)
        return True

    def give(self, mask: int) -> None:
        """Raise semaphores."""
        self.semaphores = [s + (mask >> bit & 1) for bit, s in enumerate(self.semaphores)]

    def tiles(self, instruction: Resolved) -> int:
        """Return how many tiles an instruction makes or takes: one per block along K."""
        o = instruction.operands
        if instruction.queue is Queue.ARRAY:
            return self.config.tiles(o["rows"], o["columns"]) * sums_per_tile(instruction)
        if "columns" in o and instruction.control["source"] == Source.DRAIN:
            return self.config.tiles(o["rows"], o["columns"]) * block_count(instruction)
        return 0

    def handle_tile(self, engine: Engine, queue: Queue) -> bool:
        """Finish one tile in the array, or take one from the drain."""
        step = 1 if queue is Queue.ARRAY else -1
        if not 0 <= self.finished_tiles + step <= 1:
            return False
        self.finished_tiles += step
        engine.tiles_left = (engine.tiles_left or 0) - 1
        return True


def find_deadlock(words: np.ndarray, config: MachineConfig, arguments: tuple[int, ...] = ()) -> list[str]:
    """Return the instructions a program gets stuck at; empty when it always runs to its end."""
    return Liveness(trace(words, arguments), config).stuck()
