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
    ready, offered, taken, done : Times
        The first cycle in which the engine accepts an instruction; that in which it is offered; the cycle in which it
        is accepted; that in which the instruction completes.
    """

    queue: Queue

    def __init__(self, clock: Clock, instructions: list[Resolved], tokens: list[Times]):
        self.clock = clock
        self.instructions = [each for each in instructions if each.queue is self.queue]
        self.tokens = tokens
        self.ready, self.offered, self.taken, self.done = (Times(clock) for _ in range(4))

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


class Stream:
    """What fetch reads from one place on, up to a jump.

    Attributes
    ----------
    first, asked : int
        The beat of the program with which it begins, and beats asked for.
    beats : Times
        The cycles in which beats arrive.
    read : int
        Beats that the sequencer has taken whole.
    stale : bool
        What still arrives is dropped.
    """

    def __init__(self, fetch: "Fetch", first: int):
        self.fetch = fetch
        self.first = first
        self.asked = self.read = 0
        self.beats = Times(fetch.clock)
        self.stale = False

    def receive(self, start: int, beats: int) -> None:
        """Buffer or drop a burst whose first beat arrives in cycle ``start``."""
        if self.fetch.channel.slots.shared:
            self.fetch.clock.start(self.share(start, beats))
            return
        for cycle in range(start, start + beats):
            self.arrive(cycle)
        self.fetch.channel.ends.post(start + beats - 1)

    def share(self, cycle: int, beats: int) -> Process:
        """Receive a burst beat by beat, as the memory offers them from ``cycle`` on."""
        slots = self.fetch.channel.slots
        for _ in range(beats):
            cycle = yield from slots.offer(cycle)
            slots.move("read", cycle)
            self.arrive(cycle)
            cycle += 1
        self.fetch.channel.ends.post(cycle - 1)

    def arrive(self, cycle: int) -> None:
        """Buffer or drop a beat."""
        (self.fetch.freed if self.stale else self.beats).post(cycle)


class Fetch:
    """Reads the program ahead, a burst at a time, while the buffer has room.

    Attributes
    ----------
    stream : Stream
        What is read now.
    freed : Times
        The cycles in which the room of a beat becomes free, for beats in the order of their request.
    accepted : Times
        The cycles in which bursts go out.
    asked, offered : int
        Beats and bursts asked for.
    stopped : int or None
        The first cycle in which nothing is asked for any more.
    """

    def __init__(self, clock: Clock, channel: ReadChannel, first: int):
        self.clock = clock
        self.channel = channel
        self.freed, self.accepted = Times(clock), Times(clock)
        self.stopped: int | None = None
        self.asked = self.offered = 0
        self.stream = Stream(self, first)
        clock.start(self.requests(self.stream, FIRST_REQUEST))

    def requests(self, stream: Stream, cycle: int) -> Process:
        """Ask for the bursts of a stream, which end at multiples of their size, from ``cycle`` on."""
        while True:
            length = BURST_BEATS - (stream.first + stream.asked) % BURST_BEATS
            leaving = self.asked + length - BUFFER_BEATS
            for times, number in ((self.freed, leaving), (self.accepted, self.offered)):
                while len(times) < number:
                    yield times
                cycle = max(cycle, times[number - 1] + (times is self.freed) if number > 0 else 0)
            yield self.clock.at(cycle, FETCH_RANK)
            if stream.stale or self.stopped is not None and cycle >= self.stopped:
                return
            self.asked += length
            stream.asked += length
            self.offered += 1
            cycle = yield from self.channel.request(cycle + 1, FETCH_RANK, length, stream)
            self.accepted.post(cycle)

    def take(self, cycle: int) -> None:
        """Let the sequencer take the last word of a beat."""
        self.stream.read += 1
        self.freed.post(cycle)

    def jump(self, cycle: int, beat: int) -> None:
        """Go on elsewhere; ``cycle`` is the current one."""
        old = self.stream
        old.stale = True
        self.stream = Stream(self, beat)
        self.clock.start(self.requests(self.stream, cycle + 1))
        for arrival in old.beats[old.read:]:
            self.freed.post(max(arrival, cycle))


@dataclass(frozen=True)
class Item:
    """One instruction as the sequencer sees it.

    Attributes
    ----------
    position, words : int
        Its first word in the program, and their number.
    queue : Queue
    target : int or None
        Where a branch that is taken leads.
    """

    position: int
    words: int
    queue: Queue
    target: int | None = None


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
    """Takes a word per cycle and passes those of engine instructions on.

    ``address``: of the program's first word, in words.
    """

    def __init__(self, clock: Clock, items: list[Item], fetch: Fetch, queues: dict[Queue, QueueTimes], address: int,
                 config: MachineConfig):
        self.clock = clock
        self.items = items
        self.fetch = fetch
        self.queues = queues
        self.address = address
        self.beat_words = config.bus_bits // 32
        self.end = 0
        clock.start(self.run())

    def run(self) -> Process:
        """Go through the program; ``end`` is the first cycle in which it can end, and in which fetch stops."""
        cycle = FIRST_WORD
        for item in self.items:
            cycle = yield from self.words(item, cycle)
            if item.target is not None:
                yield self.clock.at(cycle)
                self.fetch.jump(cycle, (self.address + item.target) // self.beat_words)
            cycle += item.queue is Queue.SEQUENCER and item.words > 1
        self.end = self.fetch.stopped = cycle

    def words(self, item: Item, cycle: int) -> Process:
        """Take an instruction's words; return the cycle behind the last."""
        queue = self.queues.get(item.queue)
        for word in range(self.address + item.position, self.address + item.position + item.words):
            cycle = max(cycle, (yield from self.word(word)))
            if queue:
                cycle = max(cycle, (yield from queue.room(len(queue.pushed))))
                queue.pushed.post(cycle)
            if (word + 1) % self.beat_words == 0:
                self.fetch.take(cycle)
            cycle += 1
        return cycle

    def word(self, number: int) -> Process:
        """Return the first cycle in which a word is there."""
        stream = self.fetch.stream
        beat = number // self.beat_words - stream.first
        while len(stream.beats) <= beat:
            yield stream.beats
        return stream.beats[beat] + BUFFER_CYCLES


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
            while len(engine.done) <= number - IN_FLIGHT:
                yield engine.done
            if number >= IN_FLIGHT:
                cycle = max(cycle, engine.done[number - IN_FLIGHT] + 1)
            engine.offered.post(cycle)
            while len(engine.ready) <= number:
                yield engine.ready
            cycle = max(cycle, engine.ready[number])
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
