"""Which memory ports the vector engine uses when: it goes first, LOAD and STORE wait."""

from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Destination, Source, Width, chunks_per_word, reads_residual, rows_per_word
from phonolith.hw.layouts import ADDRESS_BITS
from phonolith.hw.scratchpad import BANKS
from phonolith.hw.vector_engine import ELEMENT_STAGE, RESIDUAL_STAGE, WRITE_STAGE


class Taken:
    """The cycles in which a port is taken, as ascending ranges; asked by one unit, in ascending order."""

    def __init__(self):
        self.ranges: list[tuple[int, int]] = []
        self.index = 0

    def free_from(self, cycle: int) -> int:
        """Return the first cycle from ``cycle`` on in which the port is free, for all that is known."""
        ranges = self.ranges
        while self.index < len(ranges) and ranges[self.index][1] <= cycle:
            self.index += 1
        while self.index < len(ranges) and ranges[self.index][0] <= cycle:
            cycle = ranges[self.index][1]
            self.index += 1
        return cycle

    def at(self, cycle: int) -> int | None:
        """Return since when the port has been taken in ``cycle``; None if it is free."""
        ranges = self.ranges
        while self.index < len(ranges) and ranges[self.index][1] <= cycle:
            self.index += 1
        if self.index < len(ranges) and ranges[self.index][0] <= cycle:
            return ranges[self.index][0]
        return None


class VectorPorts:
    """Ports of the scratchpad's banks and of the activation memory.

    Attributes
    ----------
    reads, writes : list of Taken
        By scratchpad bank.
    activation : Taken
        Bank r is written in cycle r of a range.
    """

    def __init__(self, config: MachineConfig):
        self.config = config
        self.reads, self.writes = ([Taken() for _ in range(BANKS)] for _ in range(2))
        self.activation = Taken()

    def bank(self, address: int) -> int:
        """Return the scratchpad bank of a word."""
        return int(address % (1 << ADDRESS_BITS) >= self.config.scratch_bank_depth)

    def use(self, operands: dict[str, int], control: dict[str, int], row: int, chunk: int, start: int,
            count: int, ends: bool) -> None:
        """Enter ``count`` rows of a chunk, the first of which is ``row`` and comes in cycle ``start``.

        ``ends``: they belong to its last block, of which alone results are written.
        """
        half = chunk // 2
        if control["source"] == Source.SCRATCHPAD:
            offset = chunk if control["source_width"] == Width.INT16 else half
            self.enter(self.reads, operands, "source", row, offset, start, count)
        if reads_residual(control) and (ends or not control["residual"]):
            stage = RESIDUAL_STAGE if control["residual"] else ELEMENT_STAGE
            self.enter(self.reads, operands, "residual", row, chunk, start + stage, count)
        if control["destination"] == Destination.SCRATCHPAD and ends:
            offset = chunk // chunks_per_word(control)
            self.enter(self.writes, operands, "destination", row, offset, start + WRITE_STAGE, count,
                       rows_per_word(control))
        if control["destination"] == Destination.ACTIVATION and ends:
            self.activation.ranges.append((start + WRITE_STAGE, start + WRITE_STAGE + count))

    def enter(self, ports: list[Taken], operands: dict[str, int], name: str, row: int, offset: int, start: int,
              count: int, together: int = 1) -> None:
        """Enter the use of one port, bank by bank; ``together``: so many rows share a word."""
        pitch = operands[f"{name}_pitch"]
        address = operands[f"{name}_base"] + row // together * pitch + offset
        banks = [self.bank(address), self.bank(address + (count - 1) // together * pitch)]
        if banks[0] == banks[1] and (count - 1) * pitch < self.config.scratch_bank_depth:
            ports[banks[0]].ranges.append((start, start + count))
            return
        for index in range(count):
            ports[self.bank(address + index // together * pitch)].ranges.append((start + index, start + index + 1))
