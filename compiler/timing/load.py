"""Timing of LOAD: beats of the bus are packed, perhaps transposed, and written."""

from phonolith.compiler.disassembler import Resolved
from phonolith.compiler.timing.array import ArrayEngine, Chain
from phonolith.compiler.timing.clock import Clock, Process, Times
from phonolith.compiler.timing.dma import DmaEngine
from phonolith.compiler.timing.packing import Packer, Placer
from phonolith.compiler.timing.read_channel import LAST_RANK, LOAD_RANK, ReadChannel
from phonolith.compiler.timing.vector import VectorEngine
from phonolith.compiler.timing.walks import Segment
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Queue
from phonolith.hw.load_engine import QUEUED
from phonolith.hw.segments import BURST_BEATS

# More cycles than a burst of 64 beats takes; LOAD goes step by step when VECTOR may write to its memory within these.
HORIZON = 4 * BURST_BEATS


class LoadEngine(DmaEngine):
    """LOAD, a beat (or ``dma_bytes`` of it) per cycle.

    Attributes
    ----------
    offers, ends : Times
        Per burst, the first cycle in which its first beat can be taken, and that in which its last one is.
    """

    queue = Queue.LOAD
    queued = QUEUED

    def __init__(self, clock: Clock, instructions: list[Resolved], tokens: list[Times], channel: ReadChannel,
                 vector: VectorEngine, array: ArrayEngine, config: MachineConfig):
        super().__init__(clock, instructions, tokens, config)
        self.channel = channel
        self.array = array
        self.vector = vector
        self.placer = Placer(config, vector.ports)
        self.packer = Packer(config, self.placer)
        self.offers, self.ends = Times(clock), Times(clock)
        self.bursts = 0

    def receive(self, start: int, beats: int) -> None:
        """Begin to take a burst whose first beat can come in cycle ``start``."""
        self.offers.post(start)

    def ask(self, cycle: int, beats: int) -> Process:
        """Ask for a burst while fewer than ``reads_outstanding`` are in flight."""
        oldest = self.bursts - self.config.reads_outstanding
        while len(self.ends) <= oldest:
            yield self.ends
        if oldest >= 0:
            cycle = max(cycle, self.ends[oldest] + 1)
        self.bursts += 1
        return (yield from self.channel.request(cycle, LOAD_RANK, beats, self))

    def begin(self, instruction: Resolved, cycle: int) -> None:
        """Let the placer take an instruction; raise its early semaphores and let the array follow it."""
        self.placer.begin(instruction, cycle + 1)
        early = instruction.control["early"]
        if early:
            base, words = instruction.operands["base"], instruction.operands["row_words"]
            self.placer.words = Times(self.clock)
            self.array.chains.append(Chain(instruction.control["target"], base, base + words, self.placer.words))
            self.give(early, cycle + 1)

    def move(self, number: int, index: int, segment: Segment, steps: list[tuple[int, int, bool]],
             cycle: int) -> Process:
        """Take the beats of a segment."""
        place, packer, shared = 0, self.packer, self.channel.slots.shared
        last = index == len(self.segments[number]) - 1
        for beats in self.cutter.bursts(segment):
            burst = len(self.ends)
            while len(self.offers) <= burst:
                yield self.offers
            arrival = self.offers[burst]
            careful = shared or self.vector.may_write(self.placer.target, HORIZON + HORIZON // BURST_BEATS * beats)
            begins_beat = True
            while beats:
                kept, _, ends_beat = steps[place]
                if shared and begins_beat:
                    arrival = yield from self.channel.slots.offer(arrival)
                begins_beat = ends_beat
                place += 1
                final = place == len(steps)
                cycle = max(cycle + 1, arrival, packer.ready)
                if careful:
                    yield self.clock.at(cycle, LAST_RANK)
                packer.take(cycle, kept, final and segment.row_last, final and last)
                if ends_beat:
                    beats -= 1
                    arrival = cycle + 1
                    self.channel.slots.move("read", cycle)
            self.ends.post(cycle)
            self.channel.ends.post(cycle)
        return cycle

    def move_nothing(self, number: int, cycle: int) -> int:
        """Pass on an instruction that moves nothing."""
        cycle = max(cycle, self.packer.ready)
        self.packer.null(cycle)
        return cycle

    def finish(self, instruction: Resolved, final: int) -> Process:
        """Return the cycle of the last write."""
        yield from ()
        self.placer.finish()
        return self.placer.last
