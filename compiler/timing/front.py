"""Timing of what comes before the engines: program fetch, sequencer, queues and semaphores."""

from dataclasses import dataclass

from phonolith.compiler.disassembler import Resolved
from phonolith.compiler.timing.clock import Clock, Process, Times
from phonolith.compiler.timing.read_channel import FETCH_RANK, ReadChannel
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.dispatch import IN_FLIGHT
from phonolith.hw.fetch import BUFFER_BEATS, BURST_BEATS
from phonolith.hw.isa import Queue

# Counted from the cycle in which the run begins: the first in which fetch may ask for a burst, and the first in which
# the sequencer may take a word.
FIRST_REQUEST = 1
FIRST_WORD = 5
# Cycles from a beat's arrival, or a word's entry into a queue, to the first cycle in which it can be taken.
BUFFER_CYCLES = 2


class Engine:
    """What a queue and its engine tell each other, one item per instruction.

    Attributes
    ----------
    instructions : list of Resolved
        Those of this engine, in order.
    ready, taken, done : Times
        The first cycle in which the engine accepts an instruction; the cycle in which it does; that in which the
        instruction completes.
    """

    queue: Queue

    def __init__(self, clock: Clock, instructions: list[Resolved], tokens: list[Times]):
        self.clock = clock
        self.instructions = [each for each in instructions if each.queue is self.queue]
        self.tokens = tokens
        self.ready, self.taken, self.done = Times(clock), Times(clock), Times(clock)

    def complete(self, instruction: Resolved, cycle: int) -> None:
        """Complete the next instruction and raise its semaphores."""
        self.done.post(cycle)
        self.give(instruction.signal, cycle)

    def give(self, mask: int, cycle: int) -> None:
        """Raise semaphores: they can be taken from the next cycle on."""
        for bit in bits(mask):
            self.tokens[bit].post(cycle + 1)


def bits(mask: int) -> list[int]:
    """Return the bits that are set."""
    return [bit for bit in range(isa.SEMAPHORES) if mask >> bit & 1]


class Fetch:
    """Reads the program ahead, a burst at a time, while the buffer has room.

    Attributes
    ----------
    beats, read : Times
        The cycles in which beats arrive, and in which the sequencer takes their last words.
    stopped : int or None
        The first cycle in which nothing is asked for any more.
    """

    def __init__(self, clock: Clock, channel: ReadChannel):
        self.clock = clock
        self.channel = channel
        self.beats, self.read = Times(clock), Times(clock)
        self.stopped: int | None = None
        clock.start(self.requests())

    def requests(self) -> Process:
        """Ask for bursts."""
        asked, cycle = 0, FIRST_REQUEST
        while True:
            freed = asked + BURST_BEATS - BUFFER_BEATS - 1
            while len(self.read) <= freed:
                yield self.read
            if freed >= 0:
                cycle = max(cycle, self.read[freed] + 1)
            yield self.clock.at(cycle)
            if self.stopped is not None and cycle >= self.stopped:
                return
            cycle = yield from self.channel.request(cycle + 1, FETCH_RANK, BURST_BEATS, self)
            asked += BURST_BEATS

    def receive(self, start: int, beats: int) -> None:
        """Buffer a burst whose first beat arrives in cycle ``start``."""
        for beat in range(beats):
            self.beats.post(start + beat)
        self.channel.ends.post(start + beats - 1)


@dataclass(frozen=True)
class Item:
    """One instruction as the sequencer sees it: its words, and the queue they go to (None: its own)."""

    words: int
    queue: Queue | None


class QueueTimes:
    """When words enter a queue and leave it; all but the word at its output lie in a memory of one word less."""

    def __init__(self, clock: Clock, words: int):
        self.memory_words = words - 1
        self.pushed, self.popped = Times(clock), Times(clock)

    def room(self, number: int) -> Process:
        """Return the first cycle in which word ``number`` may enter."""
        leaving = number - self.memory_words
        if leaving < 0:
            return 0
        while len(self.popped) < leaving:
            yield self.popped
        return max(self.pushed[leaving] + 1, self.popped[leaving - 1] if leaving else 0) + 1


class Sequencer:
    """Takes a word per cycle and passes those of engine instructions on."""

    def __init__(self, clock: Clock, items: list[Item], fetch: Fetch, queues: dict[Queue, QueueTimes],
                 config: MachineConfig):
        self.items = items
        self.fetch = fetch
        self.queues = queues
        self.beat_words = config.bus_bits // 32
        self.end = 0
        clock.start(self.run())

    def run(self) -> Process:
        """Go through the program; ``end`` is the first cycle in which it can end, and in which fetch stops."""
        cycle, word = FIRST_WORD, 0
        for item in self.items:
            queue = self.queues.get(item.queue) if item.queue else None
            for _ in range(item.words):
                if word % self.beat_words == 0:
                    cycle = max(cycle, (yield from self.beat(word // self.beat_words)))
                if queue:
                    cycle = max(cycle, (yield from queue.room(len(queue.pushed))))
                    queue.pushed.post(cycle)
                word += 1
                if word % self.beat_words == 0:
                    self.fetch.read.post(cycle)
                cycle += 1
            cycle += item.queue is None and item.words > 1
        self.end = self.fetch.stopped = cycle

    def beat(self, number: int) -> Process:
        """Return the first cycle in which a word of a beat is there."""
        beats = self.fetch.beats
        while len(beats) <= number:
            yield beats
        return beats[number] + BUFFER_CYCLES


class Dispatcher:
    """Collects instructions, holds them until their semaphores are up and gives them to the engine."""

    def __init__(self, clock: Clock, queue: QueueTimes, engine: Engine):
        self.queue = queue
        self.engine = engine
        self.waited = [0] * isa.SEMAPHORES
        clock.start(self.run())

    def run(self) -> Process:
        """Go through the engine's instructions."""
        free = 0
        for number, instruction in enumerate(self.engine.instructions):
            complete = (yield from self.collect(1 + len(instruction.operands), free)) + 1
            cycle = yield from self.take(instruction.wait, complete)
            engine = self.engine
            while len(engine.ready) <= number:
                yield engine.ready
            cycle = max(cycle, engine.ready[number])
            while len(engine.done) <= number - IN_FLIGHT:
                yield engine.done
            if number >= IN_FLIGHT:
                cycle = max(cycle, engine.done[number - IN_FLIGHT] + 1)
            engine.taken.post(cycle)
            free = cycle + 1

    def collect(self, words: int, free: int) -> Process:
        """Take an instruction's words from cycle ``free`` on; return the cycle of the last."""
        pushed, popped = self.queue.pushed, self.queue.popped
        cycle = popped[-1] if popped else 0
        for _ in range(words):
            number = len(popped)
            while len(pushed) <= number:
                yield pushed
            cycle = max(pushed[number] + BUFFER_CYCLES, cycle + 1, free)
            popped.post(cycle)
        return cycle

    def take(self, mask: int, cycle: int) -> Process:
        """Return the first cycle from ``cycle`` on in which all semaphores of a mask are up."""
        for bit in bits(mask):
            tokens, number = self.engine.tokens[bit], self.waited[bit]
            while len(tokens) <= number:
                yield tokens
            cycle = max(cycle, tokens[number])
            self.waited[bit] += 1
        return cycle
