"""Timing of what LOAD does with its beats: pack them into words, turn corners, write."""

from phonolith.compiler.disassembler import Resolved
from phonolith.compiler.footprint import load_banks
from phonolith.compiler.timing.clock import Times
from phonolith.compiler.timing.vector_ports import VectorPorts
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Target


class Placer:
    """Writes units, one instruction after the other; waits where VECTOR writes.

    Attributes
    ----------
    last : int
        The cycle of the last write.
    words : Times or None
        For a LOAD that is followed, the first cycle in which each of its words can be read.
    """

    def __init__(self, config: MachineConfig, ports: VectorPorts):
        self.config = config
        self.ports = ports
        self.words: Times | None = None
        self.last = 0

    def begin(self, load: Resolved, cycle: int) -> None:
        """Take an instruction, whose units can be written from ``cycle`` on."""
        operands, control = load.operands, load.control
        self.target = Target(control["target"])
        self.transposes = bool(control["transpose"])
        self.bank_per_word = bool(control["bank_per_word"])
        self.columns, self.row_words = operands["segment_bytes"], operands["row_words"]
        self.banks = load_banks(load, self.config)
        self.start, self.row_address, self.address = cycle, operands["base"], operands["base"]
        self.window = control["window"]
        self.bank = self.part = self.rows = self.entry = self.reach = 0
        self.open = cycle

    def place(self, cycle: int, row_last: bool, last: bool) -> int:
        """Accept a unit that is offered from ``cycle`` on; return the cycle in which that happens."""
        cycle = max(cycle, self.start)
        if self.transposes:
            return self.turn(cycle, last)
        cycle = self.write(cycle)
        self.step(cycle, row_last)
        return cycle

    def write(self, cycle: int) -> int:
        """Return when a unit that is offered from ``cycle`` on is written."""
        if self.target == Target.ACTIVATION:
            while self.meets_vector(cycle):
                cycle += 1
        elif self.target == Target.SCRATCHPAD:
            cycle = self.ports.writes[self.ports.bank(self.address)].free_from(cycle)
        elif self.target == Target.TABLE and self.entry < 256:
            cycle += self.config.word_bytes - 1
        self.last = cycle
        return cycle

    def meets_vector(self, cycle: int) -> bool:
        """Tell whether VECTOR writes to one of the unit's activation banks in a cycle."""
        since = self.ports.activation.at(cycle)
        return since is not None and (self.bank - (cycle - since)) % self.config.rows <= self.reach

    def step(self, cycle: int, row_last: bool) -> None:
        """Go to the place of the next unit."""
        if self.window:
            self.step_window()
            if row_last:
                self.bank = self.reach = 0
        elif self.bank_per_word and self.target in (Target.ACTIVATION, Target.WEIGHT):
            self.bank += 1
            if self.bank == self.banks:
                self.bank = 0
                if self.words is not None:
                    self.words.post(cycle + 1)
        elif self.target in (Target.ACTIVATION, Target.WEIGHT):
            self.bank = (self.bank + row_last) % self.banks
        elif self.target == Target.SCRATCHPAD:
            self.step_part(row_last)
        elif self.target == Target.TABLE:
            self.entry = 0 if row_last else self.entry + self.config.word_bytes

    def step_window(self) -> None:
        """Go to the banks of the next time."""
        self.bank = (self.bank + 1) % self.config.rows
        self.reach = min(self.reach + 1, self.window - 1)

    def step_part(self, row_last: bool) -> None:
        """Units fill scratchpad words one after the other."""
        self.part += 1
        if row_last:
            self.row_address += self.row_words
            self.part, self.address = 0, self.row_address
        elif self.part == self.config.scratch_word_bytes // self.config.word_bytes:
            self.part, self.address = 0, self.address + 1

    def turn(self, cycle: int, last: bool) -> int:
        """Accept a row; with the last of a block, let its columns leave. Return when the row is accepted."""
        cycle = max(cycle, self.open)
        self.rows += 1
        if last or self.rows == self.config.word_bytes:
            self.rows = 0
            written = cycle
            for column in range(self.columns):
                self.bank = self.bank if self.window else column % self.banks
                written = self.write(written + 1)
            if self.window:
                self.step_window()
            self.open = written + 1
        return cycle

    def finish(self) -> None:
        """End an instruction: all its words can be read."""
        if self.words is not None:
            missing = self.row_words - len(self.words)
            for _ in range(missing):
                self.words.post(self.last + 1)
            self.words = None


class Packer:
    """Joins the bytes of a row's steps into units.

    Attributes
    ----------
    ready : int
        The first cycle in which the next step can be taken.
    """

    def __init__(self, config: MachineConfig, placer: Placer):
        self.word = config.word_bytes
        self.placer = placer
        self.room = self.word
        self.ready = 0
        # The cycles from which the unit's register is free, also for a step that completes a unit.
        self.free = self.emits = 0

    def take(self, cycle: int, kept: int, row_last: bool, last: bool) -> None:
        """Take a step of ``kept`` bytes in ``cycle``."""
        full = kept >= self.room
        if not (row_last or full):
            self.ready = self.merged(cycle, self.free)
            self.room -= kept
            return
        spills = row_last and kept > self.room
        self.ready = self.merged(cycle, self.emits)
        self.free = self.emits = self.placer.place(self.ready + 1, row_last and not spills, last and not spills)
        if spills:
            self.emits = self.placer.place(self.free + 1, True, last)
        self.room = self.word if row_last else self.room - kept + self.word

    def merged(self, cycle: int, free: int) -> int:
        """Return the cycle in which a step leaves the first stage, the unit's register being free from ``free`` on."""
        merged = max(cycle + 1, free)
        if merged > self.free:
            merged = max(merged, self.emits)
        return merged

    def null(self, cycle: int) -> None:
        """Pass on an instruction that moves nothing."""
        self.ready = max(cycle + 1, self.emits)
        self.free = self.emits = self.placer.last = max(self.ready + 1, self.placer.start, self.placer.open)
