"""Timing of STORE: scratchpad reads, data, responses."""

from phonolith.compiler.disassembler import Resolved
from phonolith.compiler.timing.clock import Clock, Process, Times
from phonolith.compiler.timing.dma import DmaEngine
from phonolith.compiler.timing.read_channel import LAST_RANK, BeatSlots
from phonolith.compiler.timing.vector_ports import VectorPorts
from phonolith.compiler.timing.walks import Segment
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Queue
from phonolith.hw.store_engine import QUEUED

# Cycles from a step to the beat that it completes: it waits in a slot, then in the beat's register.
BEAT_CYCLES = 2


class StoreEngine(DmaEngine):
    """STORE, a beat (or ``dma_bytes`` of it) per cycle.

    Attributes
    ----------
    sent, responses : Times
        Per burst, the cycles of its address and of its response.
    filled : Times
        With shared beats, per beat: the cycle of its last step, its burst, and whether it is the burst's last.
    written : Times
        With shared beats, the cycle in which each goes.
    """

    queue = Queue.STORE
    queued = QUEUED

    def __init__(self, clock: Clock, instructions: list[Resolved], tokens: list[Times], ports: VectorPorts,
                 slots: BeatSlots, config: MachineConfig):
        super().__init__(clock, instructions, tokens, config)
        self.ports = ports
        self.slots = slots
        self.sent, self.responses = Times(clock), Times(clock)
        self.filled, self.written = Times(clock), Times(clock)
        self.bursts = self.ahead = 0
        if slots.shared:
            clock.start(self.write())

    def ask(self, cycle: int, beats: int) -> Process:
        """Send an address while fewer than ``writes_outstanding`` lack their response."""
        oldest = len(self.sent) - self.config.writes_outstanding
        while len(self.responses) <= oldest:
            yield self.responses
        if oldest >= 0:
            cycle = max(cycle, self.responses[oldest] + 1)
        self.sent.post(cycle)
        return cycle

    def move(self, number: int, index: int, segment: Segment, steps: list[tuple[int, int, bool]],
             cycle: int) -> Process:
        """Read a row and send its beats."""
        operands = self.instructions[number].operands
        address, cycle = operands["base"] + index * operands["pitch"], max(cycle, self.begun[number])
        place = position = 0
        for beats in self.cutter.bursts(segment):
            while len(self.sent) <= self.bursts:
                yield self.sent
            cycle = max(cycle, self.sent[self.bursts])
            while beats:
                kept, unused, ends_beat = steps[place]
                position, reads = self.walk_word(position, kept, unused, place == 0)
                place += 1
                cycle += 1
                if self.slots.shared:
                    cycle = max(cycle, (yield from self.slot()))
                if reads:
                    cycle = yield from self.read(address, cycle)
                    address += 1
                beats -= ends_beat
                if self.slots.shared:
                    self.fill(cycle, ends_beat, not beats)
            if not self.slots.shared:
                self.respond(self.bursts, cycle + BEAT_CYCLES)
            self.bursts += 1
        return cycle

    def slot(self) -> Process:
        """Return the first cycle in which the step before leaves its slot: when the beat before that has gone."""
        while len(self.written) < self.ahead:
            yield self.written
        return self.written[self.ahead - 1] if self.ahead else 0

    def fill(self, cycle: int, ends_beat: bool, last: bool) -> None:
        """Put a step into the slot; ``ahead`` counts the beats before it."""
        self.ahead = len(self.filled)
        if ends_beat:
            self.filled.post((cycle, self.bursts, last))

    def write(self) -> Process:
        """Send beats as the memory takes them, where it takes reads or writes."""
        cycle = 0
        while True:
            while len(self.filled) <= len(self.written):
                yield self.filled
            filled, burst, last = self.filled[len(self.written)]
            cycle = yield from self.slots.offer(max(filled + BEAT_CYCLES, cycle + 1))
            self.slots.move("write", cycle)
            self.written.post(cycle)
            if last:
                self.respond(burst, cycle)

    def walk_word(self, position: int, kept: int, unused: int, first: bool) -> tuple[int, bool]:
        """Return where in its scratchpad word a step ends, and whether it needs another word than the one before."""
        if first:
            return kept + unused, True
        ahead, word = position + self.config.dma_bytes, self.config.scratch_word_bytes
        return (ahead, False) if ahead <= word else (ahead - word, ahead - word > unused)

    def read(self, address: int, cycle: int) -> Process:
        """Read a scratchpad word when VECTOR leaves its bank free; return the cycle."""
        port = self.ports.reads[self.ports.bank(address)]
        while True:
            yield self.clock.at(cycle, LAST_RANK)
            free = port.free_from(cycle)
            if free == cycle:
                return cycle
            cycle = free

    def respond(self, burst: int, cycle: int) -> None:
        """Let the memory respond to a burst whose last beat goes in ``cycle``."""
        before = self.responses[-1] if self.responses else 0
        self.responses.post(max(max(cycle, self.sent[burst]) + self.config.dram_latency, before + 1))

    def move_nothing(self, number: int, cycle: int) -> int:
        """Pass on an instruction that moves nothing."""
        return max(cycle, self.begun[number] + 1)

    def finish(self, instruction: Resolved, final: int) -> Process:
        """Return the cycle of the last step; for a fence, when nothing lacks its response any more."""
        if not instruction.control["fence"]:
            return final
        while len(self.responses) < self.bursts:
            yield self.responses
        return max(final, self.responses[-1] if self.responses else 0) + 1
