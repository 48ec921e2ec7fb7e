"""Timing of the array and of the vector engine behind it."""

from bisect import bisect_left

from phonolith.compiler.disassembler import Resolved
from phonolith.compiler.footprint import block_count
from phonolith.compiler.timing.clock import Clock, Process, Times
from phonolith.compiler.timing.front import Engine
from phonolith.compiler.timing.vector_ports import VectorPorts
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Destination, Queue, Reduce, RowFunction, Source, Target, reads_residual
from phonolith.hw.layouts import DRAIN_NOTICE
from phonolith.hw.row_unit import row_cycles
from phonolith.hw.vector_engine import REDUCE_STAGE, WRITE_STAGE

# Memories that LOAD writes, too, as targets of LOAD and destinations of VECTOR.
SHARED = {Target.ACTIVATION: Destination.ACTIVATION, Target.SCRATCHPAD: Destination.SCRATCHPAD}
# Every instruction but the empty ones takes at least so long.
LEAST_CYCLES = 1 + WRITE_STAGE


class VectorEngine(Engine):
    """VECTOR: a row per cycle, and some to leave the pipeline; ROWOP.

    Attributes
    ----------
    tiles : Times
        From the array: the cycle from which each tile can be taken.
    started : Times
        The cycle in which its first row is.
    soon : Times
        The cycle from which it is certain to be taken within the drain's notice, if it is valid by then.
    """

    queue = Queue.VECTOR

    def __init__(self, clock: Clock, instructions: list[Resolved], tokens: list[Times], config: MachineConfig):
        super().__init__(clock, instructions, tokens)
        self.config = config
        self.ports = VectorPorts(config)
        self.tiles, self.started, self.soon = Times(clock), Times(clock), Times(clock)
        # The cycle of the last row, and that from which another tile behind it would be certain.
        self.last = self.soon_again = 0
        self.writers = {target: [number for number, each in enumerate(self.instructions)
                                 if each.control.get("destination") == destination]
                        for target, destination in SHARED.items()}
        clock.start(self.run())

    def may_write(self, target: Target, cycles: int) -> bool:
        """Tell whether a memory may be written in the next cycles by an instruction that is still to come."""
        writers = self.writers.get(target, [])
        following = bisect_left(writers, len(self.done))
        return following < len(writers) and (writers[following] - len(self.done)) * LEAST_CYCLES < cycles

    def run(self) -> Process:
        """Execute the instructions."""
        self.ready.post(0)
        for number, instruction in enumerate(self.instructions):
            while len(self.taken) <= number:
                yield self.taken
            taken = self.taken[number]
            if instruction.instruction.mnemonic == "ROWOP":
                done = taken + rowop_cycles(instruction, self.config)
            else:
                done = yield from self.rows(number, taken)
            self.complete(instruction, done)
            self.ready.post(done - WRITE_STAGE if self.follows(number + 1) else done)

    def follows(self, number: int) -> bool:
        """Tell whether a VECTOR may enter the pipeline behind the one before it (``VectorEngine.follows``)."""
        if not 0 < number < len(self.instructions):
            return False
        before, instruction = self.instructions[number - 1:number + 1]
        if {before.instruction.mnemonic, instruction.instruction.mnemonic} != {"VECTOR"}:
            return False
        control = instruction.control
        alone = control["source"] == Source.DRAIN and not reads_residual(control) and control["reduce"] == Reduce.NONE
        same = all(before.operands[name] == instruction.operands[name] for name in ("control", "factor", "columns"))
        return alone and same and all(counts(before, self.config)) and all(counts(instruction, self.config))

    def rows(self, number: int, taken: int) -> Process:
        """Take the rows of a VECTOR, chunk by chunk; return the cycle in which it is done."""
        instruction = self.instructions[number]
        operands, control = instruction.operands, instruction.control
        rows, chunks = counts(instruction, self.config)
        cycle = taken + 1
        if not rows or not chunks:
            return cycle
        blocks, from_drain = block_count(instruction), control["source"] == Source.DRAIN
        soon = cycle
        if self.follows(number) and self.offered[number] <= self.last:
            soon = max(self.offered[number], self.soon_again)
        for row in range(0, rows, self.config.rows):
            count = min(self.config.rows, rows - row)
            for chunk in range(chunks):
                for block in range(blocks):
                    if from_drain:
                        self.soon.post(soon)
                        while len(self.tiles) <= len(self.started):
                            yield self.tiles
                        cycle = max(cycle, self.tiles[len(self.started)])
                        self.started.post(cycle)
                    self.ports.use(operands, control, row, chunk, cycle, count, block == blocks - 1)
                    soon = max(cycle, cycle + count - DRAIN_NOTICE)
                    cycle += count
        self.last, self.soon_again = cycle - 1, soon
        return cycle - 1 + pipeline_cycles(instruction)


def counts(instruction: Resolved, config: MachineConfig) -> tuple[int, int]:
    """Return rows, and chunks of C columns, of a VECTOR."""
    rows, columns = (instruction.operands[name] % (1 << 16) for name in ("rows", "columns"))
    return rows, -(-columns // config.columns)


def pipeline_cycles(instruction: Resolved) -> int:
    """Return the cycles from a VECTOR's last row to its completion."""
    return WRITE_STAGE if instruction.control["reduce"] == Reduce.NONE else REDUCE_STAGE


def rowop_cycles(instruction: Resolved, config: MachineConfig) -> int:
    """Return the cycles of a ROWOP."""
    rows = min(instruction.operands["rows"] % (1 << 16), config.rows)
    return row_cycles(config, RowFunction(instruction.control["function"]), rows) if rows else 1
