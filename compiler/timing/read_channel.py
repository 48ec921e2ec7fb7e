"""Timing of the AXI read channels, which program fetch and LOAD share."""

from typing import Protocol

from phonolith.compiler.timing.clock import Clock, Process, Times
from phonolith.hw.config import MachineConfig

# Who goes first when both ask in the same cycle.
HELD_RANK, FETCH_RANK, LOAD_RANK, LAST_RANK = 0, 1, 2, 3


class BeatSlots:
    """Who moves a beat when, where reads and writes share one beat per cycle (``dram_shared``).

    They may still meet in a cycle; the memory then offers neither in the next.

    Attributes
    ----------
    shared : bool
    """

    def __init__(self, clock: Clock, config: MachineConfig):
        self.clock = clock
        self.shared = config.dram_shared
        self.moved = {"read": -1, "write": -1}
        self.closed = -1

    def offer(self, cycle: int) -> Process:
        """Return the first cycle from ``cycle`` on in which the memory offers a beat."""
        yield self.clock.at(cycle, LAST_RANK)
        return cycle + (self.closed == cycle)

    def move(self, kind: str, cycle: int) -> None:
        """Move a beat, ``"read"`` or ``"write"``."""
        self.moved[kind] = cycle
        if self.moved["read"] == self.moved["write"]:
            self.closed = cycle + 1


class Receiver(Protocol):
    """Who takes the beats of a burst."""

    def receive(self, start: int, beats: int) -> None:
        """Begin to take a burst whose first beat can come in cycle ``start``; post its last one's cycle to ``ends``."""
        ...


class ReadChannel:
    """One address per cycle; its first beat comes ``dram_latency`` cycles later or when those before have gone.

    Attributes
    ----------
    bursts : Times
        (first possible cycle, beats, receiver) in the order of addresses.
    ends : Times
        The cycles of their last beats.
    """

    def __init__(self, clock: Clock, config: MachineConfig):
        self.clock = clock
        self.latency = config.dram_latency
        self.limit = config.reads_outstanding
        self.slots = BeatSlots(clock, config)
        self.last_address = -1
        self.held: Receiver | None = None
        self.bursts, self.ends = Times(clock), Times(clock)
        clock.start(self.data())

    def request(self, cycle: int, rank: int, beats: int, receiver: Receiver) -> Process:
        """Offer an address from ``cycle`` on; return the cycle in which it is accepted."""
        cycle = max(cycle, self.last_address + 1)
        yield self.clock.at(cycle, rank)
        while self.last_address >= cycle or self.is_full(cycle):
            if self.last_address >= cycle:
                cycle += 1
            else:
                # An address that the memory does not accept stays: nobody overtakes it.
                self.held = self.held or receiver
                while len(self.ends) <= len(self.bursts) - self.limit:
                    yield self.ends
                cycle = self.ends[len(self.bursts) - self.limit] + 1
            yield self.clock.at(cycle, HELD_RANK if self.held is receiver else rank)
        self.held = None if self.held is receiver else self.held
        self.last_address = cycle
        self.bursts.post((cycle + self.latency, beats, receiver))
        return cycle

    def is_full(self, cycle: int) -> bool:
        """Whether the memory accepts no address in a cycle."""
        oldest = len(self.bursts) - self.limit
        return oldest >= 0 and (len(self.ends) <= oldest or self.ends[oldest] >= cycle)

    def data(self) -> Process:
        """Deliver bursts in order."""
        free, number = 0, 0
        while True:
            while len(self.bursts) <= number:
                yield self.bursts
            available, beats, receiver = self.bursts[number]
            start = max(available, free)
            yield self.clock.at(start, LAST_RANK)
            receiver.receive(start, beats)
            while len(self.ends) <= number:
                yield self.ends
            free, number = self.ends[number] + 1, number + 1
