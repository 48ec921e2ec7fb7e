"""The strided loops of LOAD and STORE: segments, bursts and the steps that move ``dma_bytes`` each."""

from collections.abc import Iterator
from dataclasses import dataclass

from phonolith.compiler.disassembler import Resolved
from phonolith.hw.config import MachineConfig
from phonolith.hw.segments import BURST_BEATS


@dataclass(frozen=True)
class Segment:
    """Contiguous bytes in DRAM; ``row_last`` ends a row."""

    address: int
    size: int
    row_last: bool


def row_starts(operands: dict[str, int]) -> Iterator[int]:
    """Yield the DRAM address of each row of a LOAD or STORE."""
    for outer in range(operands["outer_count"]):
        start = operands["address"] + outer * operands["outer_stride"]
        for inner in range(operands["inner_count"]):
            yield (start + inner * operands["inner_stride"]) % (1 << 32)


def segments_of(instruction: Resolved) -> list[Segment]:
    """Return the segments of a LOAD, or the rows of a STORE; none if it moves nothing."""
    operands = instruction.operands
    size = operands.get("segment_bytes", operands.get("row_bytes", 0))
    count, stride = operands.get("segment_count", 1), operands.get("segment_stride", 0)
    return [Segment((row + n * stride) % (1 << 32), size, n == count - 1)
            for row in row_starts(operands) for n in range(count)] if size else []


class Cutter:
    """Cuts segments as one machine does."""

    def __init__(self, config: MachineConfig):
        self.bus, self.step = config.bus_bytes, config.dma_bytes
        self.known_steps: dict[tuple[int, int], list[tuple[int, int, bool]]] = {}

    def bursts(self, segment: Segment) -> list[int]:
        """Return the beats of each burst of a segment: bursts end at multiples of 64 beats."""
        first, end = segment.address // self.bus, (segment.address + segment.size - 1) // self.bus + 1
        most = BURST_BEATS - first % BURST_BEATS
        if end - first <= most:
            return [end - first]
        bounds = [first, *range(first + most, end, BURST_BEATS), end]
        return [high - low for low, high in zip(bounds, bounds[1:], strict=False)]

    def steps(self, segment: Segment) -> list[tuple[int, int, bool]]:
        """Return (bytes, unused bytes behind them, whether the step ends a beat) of each step of a segment."""
        place = segment.address % self.bus, segment.size
        if place not in self.known_steps:
            self.known_steps[place] = self.cut(*place)
        return self.known_steps[place]

    def cut(self, low: int, size: int) -> list[tuple[int, int, bool]]:
        """Return the steps of ``size`` bytes from byte ``low`` of a beat on."""
        high, parts = low + size, self.bus // self.step
        first, last = low // self.step, (high - 1) // self.step
        steps = []
        for step in range(first, last + 1):
            end = (step + 1) * self.step
            kept = min(end, high) - max(step * self.step, low)
            steps.append((kept, max(end - high, 0), step == last or (step + 1) % parts == 0))
        return steps
