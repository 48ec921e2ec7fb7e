"""Timing of the array: tile after tile, following the LOAD that brings its operands, waiting for its drain."""

from dataclasses import dataclass

from phonolith.compiler.costs import launch_cycles
from phonolith.compiler.disassembler import Resolved
from phonolith.compiler.footprint import weight_words
from phonolith.compiler.timing.clock import Clock, Process, Times
from phonolith.compiler.timing.front import Engine
from phonolith.compiler.timing.vector import VectorEngine
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import BLOCKS, Queue, Target
from phonolith.hw.layouts import DRAIN_NOTICE


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
        shape = WalkShape(instruction, self.config)
        for row in range(rows):
            for column in range(columns):
                place = row * columns + column if instruction.control["band"] else column
                final = row == rows - 1 and column == columns - 1
                for step, word, ends in shape.events:
                    start = cycle + step
                    if word is not None:
                        start = yield from self.follow(instruction, row, place, word, start, followed)
                    if ends:
                        start = yield from self.launch(start)
                    if final and step == shape.last_read:
                        self.complete(instruction, start + reading)
                    cycle = start - step
                cycle += shape.steps
        return cycle - 1

    def followed(self, instruction: Resolved, cycle: int) -> list[Chain]:
        """Return the LOADs still at work on words that a MATMUL reads."""
        self.chains = [chain for chain in self.chains
                       if len(chain.words) < chain.high - chain.low or chain.words[-1] > cycle]
        return self.chains[:]

    def follow(self, instruction: Resolved, a_tile: int, w_tile: int, words: tuple[int | None, int | None], cycle: int,
               followed: list[Chain]) -> Process:
        """Return the earliest cycle of a step that begins a word of a tile in either memory."""
        operands = instruction.operands
        for target, word, start in zip(
                (Target.ACTIVATION, Target.WEIGHT), words,
                (operands["a_base"] + a_tile * operands["a_tile_words"],
                 operands["w_base"] + w_tile * operands["w_tile_words"]), strict=True):
            for chain in followed:
                if word is None:
                    continue
                place = start + word - chain.low
                if chain.target == target and 0 <= place < chain.high - chain.low:
                    while len(chain.words) <= place:
                        yield chain.words
                    cycle = max(cycle, chain.words[place])
        return cycle

    def launch(self, cycle: int) -> Process:
        """Issue a sum's last step when the tile before it is certain to be taken in time; return the cycle."""
        if self.launched:
            soon, before = self.vector.soon, self.launched - 1
            while len(soon) < self.launched:
                yield soon
            cycle = max(cycle, soon[before], self.vector.tiles[before] - DRAIN_NOTICE)
        self.launched += 1
        self.vector.tiles.post(cycle + launch_cycles(self.config))
        return cycle


class WalkShape:
    """The steps of one tile at which something can hold the array up.

    Attributes
    ----------
    steps : int
    events : list of (step, words, ends)
        ``words``: the activation word and the weight word that the step begins (or None), None if it begins neither;
        ``ends``: it is the last of a sum.
    last_read : int
        The step after which nothing is read any more.
    """

    def __init__(self, instruction: Resolved, config: MachineConfig):
        lanes = 1 << instruction.control["log2_lanes"]
        k = instruction.operands["k"]
        block = BLOCKS[instruction.control["block"]] or k
        weights = weight_words(instruction, config)
        self.steps = -(-k // lanes)
        activation_steps = config.word_bytes // lanes
        self.last_read = (self.steps - 1) // activation_steps * activation_steps
        ends = {-(-min(first + block, k) // lanes) - 1 for first in range(0, k, block)}
        reads = range(0, self.steps, activation_steps)
        self.events = []
        for step in sorted(ends | set(reads)):
            words = None
            if step in reads:
                word, rest = divmod(step, config.word_bytes)
                words = step // activation_steps, word if not rest and word < weights else None
            self.events.append((step, words, step in ends))
