"""Allocation of on-chip memories and of DRAM.

On-chip memories are rings: each buffer goes behind the last one, so that a LOAD can fill the next buffer while
the engines still use the previous ones. Lifetimes are in program order; semaphores follow from
:mod:`phonolith.compiler.synchronize`.
"""

from dataclasses import dataclass

from phonolith.hw.errors import PhonolithError


@dataclass(frozen=True)
class Region:
    """Words ``low .. high`` (exclusive) of a memory."""

    low: int
    high: int


class Ring:
    """Words ``low .. high`` of one memory, handed out round and round."""

    def __init__(self, name: str, low: int, high: int):
        self.name = name
        self.low = low
        self.high = high
        self.cursor = low
        self.live: list[Region] = []

    @property
    def words(self) -> int:
        """Capacity."""
        return self.high - self.low

    def take(self, words: int, user: str) -> Region:
        """Return the next free words; PhonolithError ``does-not-fit`` naming ``user`` when there are too few."""
        for start in (self.cursor, self.low):
            region = self._first_fit(start, words)
            if region:
                self.live.append(region)
                self.cursor = region.high
                return region
        raise does_not_fit(user, words, self)

    def _first_fit(self, start: int, words: int) -> Region | None:
        """Return the first free region of ``words`` at or behind ``start``."""
        for region in sorted(self.live, key=lambda r: r.low):
            if start < region.high and region.low < start + words:
                start = region.high
        return Region(start, start + words) if start + words <= self.high else None

    def release(self, region: Region) -> None:
        """Free a region: what comes later in the program may overwrite it."""
        self.live.remove(region)

    def rewind(self) -> None:
        """Start again from the low end, so that what follows is not cut by the high one."""
        self.cursor = self.low

    def prepare(self, *words: int) -> None:
        """Start again from the low end if that is what it takes to give some regions one after the other."""
        cursor, live = self.cursor, list(self.live)
        try:
            for each in words:
                self.take(each, "")
        except PhonolithError:
            cursor = self.low
        self.cursor, self.live = cursor, live

    @property
    def free(self) -> int:
        """Words of the largest region :meth:`take` can give."""
        edges = sorted((r.low, r.high) for r in self.live) + [(self.high, self.high)]
        best, start = 0, self.low
        for low, high in edges:
            best, start = max(best, low - start), max(start, high)
        return best


def does_not_fit(user: str, words: int, ring: Ring) -> PhonolithError:
    """Return the error for a buffer larger than its memory."""
    return PhonolithError(
        "does-not-fit",
        f"{user} needs {words} words of the {ring.name} memory at once; {ring.words} exist and {ring.free} are free.",
        f"Configure a larger {ring.name} memory, or split the operator.",
    )


class Dram:
    """Addresses handed out upwards; allocations keep ``gap`` bytes between them.

    ``zeros`` lists the intervals that must be zero when a program starts.
    """

    ALIGNMENT = 64

    def __init__(self, gap: int = 64):
        self.size = gap
        self.gap = gap
        self.zeros: list[tuple[int, int]] = []

    def take(self, size: int) -> int:
        """Return the address of ``size`` new bytes, aligned for every bus width."""
        address = -(-self.size // self.ALIGNMENT) * self.ALIGNMENT
        self.size = address + size + self.gap
        return address
