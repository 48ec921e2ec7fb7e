"""Timing of what LOAD and STORE have in common: addresses that run ahead of data, and two queues between them."""

from phonolith.compiler.disassembler import Resolved
from phonolith.compiler.timing.clock import Clock, Process, Times
from phonolith.compiler.timing.front import Engine
from phonolith.compiler.timing.walks import Cutter, Segment, segments_of
from phonolith.hw.config import MachineConfig


class DmaEngine(Engine):
    """An engine that walks the same loops twice, for addresses and for data.

    ::

        taken -+-> segments -> bursts (asked)
               +-> queue -> (walked) segments (closing) -> beats -> data
               +-> queue -> (begun) ------------------------------^

    Attributes
    ----------
    asked, closing : Times
        Per instruction, the cycle in which its last segment is cut to bursts, and to beats.
    walked, begun : Times
        Per instruction, the cycles in which it leaves the two queues.
    segments : list of list of Segment
        Per instruction.
    steps : list of int
        Per instruction, the cycles for which it moves data.
    """

    queued: int

    def __init__(self, clock: Clock, instructions: list[Resolved], tokens: list[Times], config: MachineConfig):
        super().__init__(clock, instructions, tokens)
        self.config = config
        self.cutter = Cutter(config)
        self.asked, self.closing, self.walked, self.begun = (Times(clock) for _ in range(4))
        self.segments = [segments_of(each) for each in self.instructions]
        self.steps = [0] * len(self.instructions)
        for process in (self.addresses(), self.admit(), self.walks(), self.begins(), self.data()):
            clock.start(process)

    def admit(self) -> Process:
        """Say when each instruction can be accepted: no address is left over, both queues have room, no fence holds."""
        for number in range(len(self.instructions)):
            cycle = 0
            if number:
                while len(self.asked) < number:
                    yield self.asked
                cycle = self.asked[number - 1]
                if self.instructions[number - 1].control.get("fence"):
                    while len(self.done) < number:
                        yield self.done
                    cycle = max(cycle, self.done[number - 1] + 1)
            if number >= self.queued:
                for times in (self.walked, self.begun):
                    while len(times) <= number - self.queued:
                        yield times
                    cycle = max(cycle, times[number - self.queued] + 1)
            self.ready.post(cycle)

    def addresses(self) -> Process:
        """Ask for bursts, those of a segment when all of the one before are accepted."""
        free = 0
        for number, segments in enumerate(self.segments):
            while len(self.taken) <= number:
                yield self.taken
            accepted = self.taken[number]
            for index, segment in enumerate(segments):
                accepted = max(accepted + 1, free)
                if index == len(segments) - 1:
                    self.asked.post(accepted)
                free = accepted
                for beats in self.cutter.bursts(segment):
                    free = yield from self.ask(free + 1, beats)
            if not segments:
                self.asked.post(max(accepted + 1, free))

    def walks(self) -> Process:
        """Say when the data side begins to walk the loops of each instruction."""
        yield from self.leave(self.closing, self.walked)

    def begins(self) -> Process:
        """Say when each instruction is the one that data belong to."""
        yield from self.leave(self.done, self.begun)

    def leave(self, ends: Times, times: Times) -> Process:
        """Let instructions leave a queue, each when the one before ends."""
        for number in range(len(self.instructions)):
            while len(self.taken) <= number:
                yield self.taken
            while len(ends) < number:
                yield ends
            cycle = max(self.taken[number] + 1, ends[number - 1] if number else 0)
            if times is self.begun:
                self.begin(self.instructions[number], cycle)
            times.post(cycle)

    def data(self) -> Process:
        """Move the data of all segments."""
        final = 0
        for number, instruction in enumerate(self.instructions):
            for times in (self.walked, self.begun):
                while len(times) <= number:
                    yield times
            accepted = self.walked[number]
            segments = self.segments[number]
            for index, segment in enumerate(segments):
                accepted = max(accepted + 1, final)
                if index == len(segments) - 1:
                    self.closing.post(accepted)
                steps = self.cutter.steps(segment)
                self.steps[number] += len(steps)
                final = yield from self.move(number, index, segment, steps, accepted)
            if not segments:
                accepted = max(accepted + 1, final)
                self.closing.post(accepted)
                final = self.move_nothing(number, accepted + 1)
            self.complete(instruction, (yield from self.finish(instruction, final)))

    def ask(self, cycle: int, beats: int) -> Process:
        """Offer a burst's address from ``cycle`` on; return the cycle in which it is accepted."""
        raise NotImplementedError

    def begin(self, instruction: Resolved, cycle: int) -> None:
        """Begin an instruction, which leaves its queue in ``cycle``."""

    def move(self, number: int, index: int, segment: Segment, steps: list[tuple[int, int, bool]],
             cycle: int) -> Process:
        """Move a segment after ``cycle``; return the cycle of its last step."""
        raise NotImplementedError

    def move_nothing(self, number: int, cycle: int) -> int:
        """Pass on an instruction without segments, in ``cycle`` at the earliest; return the cycle."""
        raise NotImplementedError

    def finish(self, instruction: Resolved, final: int) -> Process:
        """Return the cycle in which an instruction completes whose last step is taken in cycle ``final``."""
        raise NotImplementedError
