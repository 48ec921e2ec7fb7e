"""Semaphores: make engines that run at the same time give the result of program order.

The pass reads an assembled straight-line program without semaphores, finds for every instruction the latest
instruction of each other engine that touches the same words (one of the two writing), and adds a wait and a
signal on the semaphore of that pair of engines, unless earlier waits already imply the order. Tokens of one pair
are used in order, so the i-th wait on a semaphore is for its i-th signal. A MATMUL that reads words of a LOAD which it
can follow word by word waits for this LOAD's early signal only.
"""

from dataclasses import dataclass, field

import numpy as np

from phonolith.compiler.assembler import ENGINES, SEMAPHORES
from phonolith.compiler.disassembler import Resolved, trace
from phonolith.compiler.footprint import Access, Memory, accesses, can_be_followed
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Queue

# A signal may be this many tokens ahead of its semaphore's waits before it waits for them in turn.
TOKENS_AHEAD = 32
# As many tokens may lie between their signal and their wait in program order. Both together fit a semaphore.
TOKENS_OPEN = 24
NEVER = -1
# Components of a clock besides those of the engines, which use their Queue number: the latest STORE whose data are
# known to be in DRAM, and the latest LOAD known to have begun to write.
FENCED = 0
BEGUN = max(ENGINES) + 1
Clock = tuple[int, ...]
NOTHING: Clock = (NEVER,) * (BEGUN + 1)


@dataclass(frozen=True)
class Token:
    """A signal of one instruction and the wait of another, by index; ``early``: not that of completion."""

    signal: int
    wait: int
    early: bool = False


class History:
    """Accesses to one memory so far, as growing arrays."""

    def __init__(self):
        self.rows = np.zeros((64, 5), np.int64)
        self.count = 0

    def append(self, index: int, queue: Queue, access: Access) -> None:
        """Remember an access by instruction ``index``."""
        if self.count == len(self.rows):
            self.rows = np.concatenate([self.rows, np.zeros_like(self.rows)])
        self.rows[self.count] = (access.low, access.high, queue, access.write, index)
        self.count += 1

    def conflicts(self, access: Access) -> dict[int, int]:
        """Return per engine the latest instruction whose access must not overtake, or be overtaken by, this."""
        low, high, queue, write, index = self.rows[:self.count].T
        hit = (low < access.high) & (high > access.low) & ((write == 1) | access.write)
        return {engine: int(index[hit & (queue == engine)].max())
                for engine in set(queue[hit].tolist())}


@dataclass
class Pair:
    """Tokens from one engine to another; signals and waits ascend."""

    tokens: list[Token] = field(default_factory=list)

    def is_full(self, signal: int) -> bool:
        """Whether TOKENS_OPEN tokens are waited for behind ``signal``."""
        return len(self.tokens) >= TOKENS_OPEN and self.tokens[-TOKENS_OPEN].wait > signal


class Synchronizer:
    """State of the pass over one program; ``clocks[i]`` is what is known to be complete when i starts."""

    def __init__(self, instructions: list[Resolved], config: MachineConfig):
        self.instructions = instructions
        self.config = config
        self.histories = {memory: History() for memory in Memory}
        self.pairs = {(p, c): Pair() for p in ENGINES for c in ENGINES if p != c}
        self.clocks: list[Clock] = []
        self.newest: dict[Queue, int] = {engine: NEVER for engine in ENGINES}
        self.latest: dict[Queue, Clock] = {engine: NOTHING for engine in ENGINES}
        self.fenced: set[int] = set()

    def run(self) -> None:
        """Visit every instruction in program order."""
        for index, instruction in enumerate(self.instructions):
            touched = accesses(instruction, self.config)
            clock = self.synchronize(index, instruction.queue, touched)
            self.clocks.append(clock)
            self.latest[instruction.queue] = clock
            self.newest[instruction.queue] = index
            for access in touched:
                self.histories[access.memory].append(index, instruction.queue, access)

    def synchronize(self, index: int, queue: Queue, touched: list[Access]) -> Clock:
        """Add the tokens instruction ``index`` needs; return what is then known to be complete."""
        clock = self.latest[queue]
        stored, begun, needs = self.needs(queue, touched)
        if stored > clock[FENCED]:
            at_least = max(stored, needs.get(Queue.STORE, NEVER))
            clock = self.join(clock, self.fence(stored, at_least, index, queue))
        if begun > max(clock[BEGUN], needs.get(Queue.LOAD, NEVER)):
            clock = self.join(clock, self.add_token(Queue.LOAD, queue, begun, index, early=True))
        for producer, needed in sorted(needs.items(), key=lambda item: -item[1]):
            if needed > clock[producer]:
                clock = self.join(clock, self.add_token(Queue(producer), queue, needed, index))
        return clock

    def needs(self, queue: Queue, touched: list[Access]) -> tuple[int, int, dict[int, int]]:
        """Return what must be over: the latest STORE whose DRAM data are read, and per engine the latest conflict.

        In the middle: the latest LOAD that must have begun, because its words can be waited for one by one.
        """
        stored, begun, needs = NEVER, NEVER, self.back_pressure(queue)
        for access in touched:
            for engine, index in self.histories[access.memory].conflicts(access).items():
                if engine == queue:
                    continue
                if access.memory is Memory.DRAM and engine == Queue.STORE:
                    stored = max(stored, index)
                elif queue is Queue.ARRAY and can_be_followed(self.instructions[index], self.config):
                    begun = max(begun, index)
                else:
                    needs[engine] = max(needs.get(engine, NEVER), index)
        return stored, begun, needs

    def back_pressure(self, queue: Queue) -> dict[int, int]:
        """Return per consumer the wait that keeps this engine's signals from running too far ahead."""
        waits = {consumer: pair.tokens for (producer, consumer), pair in self.pairs.items() if producer == queue}
        return {int(consumer): tokens[-TOKENS_AHEAD].wait
                for consumer, tokens in waits.items() if len(tokens) >= TOKENS_AHEAD}

    def add_token(self, producer: Queue, queue: Queue, needed: int, index: int, early: bool = False) -> Token:
        """Make instruction ``index`` wait for ``needed``, or for the newest where the semaphore would get too high.

        A product must not be waited for without need: it ends only when VECTOR instructions behind it take its tiles.
        """
        pair = self.pairs[producer, queue]
        if producer is not Queue.ARRAY and pair.is_full(needed):
            needed, early = self.newest[producer], False
        pair.tokens.append(Token(needed, index, early))
        return pair.tokens[-1]

    def fence(self, stored: int, at_least: int, index: int, queue: Queue) -> Token:
        """Make ``queue`` wait until STORE ``stored`` is in DRAM; return the token with which it has waited then.

        A new token is for STORE ``at_least``: instruction ``index`` can wait only once for the same engine.
        """
        tokens = self.pairs[Queue.STORE, queue].tokens
        token = next((token for token in tokens if token.signal >= stored), None)
        if token is None:
            token = self.add_token(Queue.STORE, queue, at_least, index)
        self.fenced.add(token.signal)
        return token

    def join(self, clock: Clock, token: Token) -> Clock:
        """Add to a clock what the signal of a token implies."""
        return join(clock, self.clocks[token.signal], token, self.instructions[token.signal].queue,
                    token.signal in self.fenced)


def join(clock: Clock, signalling: Clock, token: Token, queue: Queue, fenced: bool) -> Clock:
    """Return what is known after a wait: the instruction ``token.signal`` of ``queue`` is complete, or has begun.

    ``signalling`` is what was known when it started. All LOADs before one that has begun are complete.
    """
    known = [max(pair) for pair in zip(clock, signalling, strict=True)]
    known[queue] = max(known[queue], token.signal - token.early)
    if queue is Queue.LOAD:
        known[BEGUN] = max(known[BEGUN], token.signal)
    if fenced:
        known[FENCED] = max(known[FENCED], token.signal)
    return tuple(known)


def synchronize(words: np.ndarray, config: MachineConfig, arguments: tuple[int, ...] = ()) -> np.ndarray:
    """Return a straight-line program with the semaphores and fences it needs.

    ``arguments``: those for which every instruction touches most; a run with others touches parts of the same words.
    Raises ValueError when the program repeats instructions or already uses semaphores.
    """
    instructions = trace(words, arguments)
    positions = [instruction.position for instruction in instructions]
    if len(set(positions)) != len(positions) or any(i.wait or i.signal for i in instructions):
        raise ValueError("only straight-line programs without semaphores can be synchronized")
    state = Synchronizer(instructions, config)
    state.run()
    return patch(words.copy(), state)


def patch(words: np.ndarray, state: Synchronizer) -> np.ndarray:
    """Set wait and signal masks and fences in the program's words."""
    low = {name: isa.HEADER[name][0] for name in ("wait", "signal")}
    for (producer, consumer), pair in state.pairs.items():
        semaphore = SEMAPHORES.index(f"{producer.name}_{consumer.name}")
        for token in pair.tokens:
            signal = state.instructions[token.signal].position
            if token.early:
                words[signal + 1] |= np.uint32(1 << isa.LOAD_CONTROL["early"][0] + semaphore)
            else:
                words[signal] |= np.uint32(1 << low["signal"] + semaphore)
            words[state.instructions[token.wait].position] |= np.uint32(1 << low["wait"] + semaphore)
    for index in state.fenced:
        words[state.instructions[index].position + 1] |= np.uint32(1 << isa.STORE_CONTROL["fence"][0])
    return words
