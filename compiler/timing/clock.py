"""Processes that tell each other cycle numbers: the clockwork of the timing model.

A process is a generator. It yields a :class:`Times` to wait until something is appended to it, or what
:meth:`Clock.at` returns to wait for a cycle. It may run ahead: cycle numbers that it posts may lie in the future, and
whoever reads them takes the maximum of all that he waits for. Only where the order of two requests decides, a process
waits for its cycle. No process posts a cycle that has passed.
"""

from collections import deque
from collections.abc import Generator
from heapq import heappop, heappush
from typing import Any

RANK_BITS = 2


class Clock:
    """Runs processes in the order of the cycles that they wait for; in a cycle those of lower rank first."""

    def __init__(self):
        self.now = 0
        self.ready: deque[Process] = deque()
        self._waiting: list[tuple[int, int, Process]] = []
        self._serial = 0

    def start(self, process: "Process") -> None:
        """Begin a process in the current cycle."""
        self.ready.append(process)

    def at(self, cycle: int, rank: int = 0) -> int:
        """Return what a process yields to be continued in a cycle."""
        return cycle << RANK_BITS | rank

    def run(self) -> None:
        """Run until every process has ended or waits for what nobody will post."""
        while self.ready or self._waiting:
            while self.ready:
                self._step(self.ready.popleft())
            if self._waiting:
                key, _, process = heappop(self._waiting)
                self.now = key >> RANK_BITS
                self._step(process)

    def _step(self, process: "Process") -> None:
        request = next(process, None)
        if request is None:
            return
        if isinstance(request, Times):
            request.waiting.append(process)
            return
        self._serial += 1
        heappush(self._waiting, (request, self._serial, process))


class Times(list):
    """A list of cycle numbers (or what comes with them) that grows; processes wait for it to do so."""

    def __init__(self, clock: Clock):
        super().__init__()
        self.clock = clock
        self.waiting: list[Process] = []

    def post(self, item: Any) -> None:
        """Append an item and continue the processes that wait."""
        self.append(item)
        if self.waiting:
            self.clock.ready.extend(self.waiting)
            self.waiting.clear()


Process = Generator[Times | int, None, Any]
