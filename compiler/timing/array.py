"""Timing of the array: tile after tile, following the LOAD that brings its operands, waiting for its drain."""

from dataclasses import dataclass

from phonolith.compiler.costs import launch_cycles
from phonolith.compiler.disassembler import Resolved
from phonolith.compiler.footprint import weight_words
from phonolith.compiler.timing.clock import Clock, Process, Times
from phonolith.compiler.timing.front import Engine
from phonolith.compiler.timing.vector import VectorEngine
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Queue, Target


@dataclass(frozen=True)
class Chain:
    """A LOAD that the array may follow.

    Attributes
    ----------
    target : int
    low, high : int
        The words that it writes, in all banks.
    words : Times
        For each of them the first cycle in which it can be read.
    """

    target: int
    low: int
    high: int
    words: Times


class ArrayEngine(Engine):
    """MATMUL: a step per k. ``chains``: LOADs that have begun and that it may follow."""

    queue = Queue.ARRAY

    def __init__(self, clock: Clock, instructions: list[Resolved], tokens: list[Times], vector: VectorEngine,
                 config: MachineConfig):
        super().__init__(clock, instructions, tokens)
        self.config = config
        self.vector = vector
        self.chains: list[Chain] = []
        self.launched = 0
        self.idle = 0
        clock.start(self.run())

    def run(self) -> Process:
        """Execute the instructions."""
        self.ready.post(0)
        for number, instruction in enumerate(self.instructions):
            while len(self.taken) <= number:
                yield self.taken
            last = yield from self.tiles(instruction, self.taken[number] + 1)
            self.ready.post(last)
            self.idle = last + self.config.rows + self.config.columns + 1

    def tiles(self, instruction: Resolved, cycle: int) -> Process:
        """Make the tiles of a MATMUL from ``cycle`` on; return the cycle of its last step."""
        operands = instruction.operands
        rows, columns = self.config.tile_counts(*(operands[axis] % (1 << 16) for axis in ("rows", "columns")))
        reading = max(self.config.rows, self.config.columns) - 1
        if not rows or not columns:
            self.complete(instruction, cycle + reading)
            return cycle
        followed = self.followed(instruction, cycle)
        for row in range(rows):
            for column in range(columns):
                place = row * columns + column if instruction.control["band"] else column
                word, cycle = yield from self.steps(instruction, row, place, cycle, followed)
                final = row == rows - 1 and column == columns - 1
                alone = word == cycle
                if final and not alone:
                    self.complete(instruction, word + reading)
                cycle = yield from self.launch(cycle)
                if final and alone:
                    self.complete(instruction, cycle + reading)
                cycle += 1
        return cycle - 1

    def followed(self, instruction: Resolved, cycle: int) -> list[Chain]:
        """Return the LOADs still at work on words that a MATMUL reads."""
        self.chains = [chain for chain in self.chains
                       if len(chain.words) < chain.high - chain.low or chain.words[-1] > cycle]
        return self.chains[:]

    def steps(self, instruction: Resolved, a_tile: int, w_tile: int, cycle: int, followed: list[Chain]) -> Process:
        """Go through a tile's k; return the earliest cycles of its last word's first step and of its last step."""
        operands = instruction.operands
        size, k = self.config.word_bytes, operands["k"]
        words = -(-k // size)
        if followed:
            starts = {Target.ACTIVATION: operands["a_base"] + a_tile * operands["a_tile_words"],
                      Target.WEIGHT: operands["w_base"] + w_tile * operands["w_tile_words"]}
            read = {Target.ACTIVATION: words, Target.WEIGHT: weight_words(instruction, self.config)}
            for word in range(words):
                for chain in followed:
                    place = starts[Target(chain.target)] + word - chain.low
                    if 0 <= place < chain.high - chain.low and word < read[Target(chain.target)]:
                        while len(chain.words) <= place:
                            yield chain.words
                        cycle = max(cycle, chain.words[place])
                cycle += size
            cycle -= size
        else:
            cycle += (words - 1) * size
        return cycle, cycle + k - (words - 1) * size - 1

    def launch(self, cycle: int) -> Process:
        """Issue a tile's last step when the tile before it is being taken; return the cycle."""
        started = self.vector.started
        if self.launched:
            while len(started) < self.launched:
                yield started
            cycle = max(cycle, started[self.launched - 1])
        self.launched += 1
        self.vector.tiles.post(cycle + launch_cycles(self.config))
        return cycle
