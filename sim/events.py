"""What a program makes the hardware do: the counts that energy is computed from."""

from dataclasses import dataclass, fields

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Destination, Multiplier, Pre, Source, Target


@dataclass
class Events:
    """Totals of one run, in elements or bytes.

    Attributes
    ----------
    array_steps : int
        Cycles in which the array takes a pair of operand vectors: R*C multiplications each, useful or padding.
    activation_read, activation_written, weight_read, weight_written, scratchpad_read, scratchpad_written,
    parameter_read, parameter_written : int
        Bytes.
    table_lookups, lane_multiplications, lane_operations : int
        Elements that go through a table, through a lane's multiplier, through a lane at all.
    row_functions : int
        Reciprocals and inverse square roots.
    """

    array_steps: int = 0
    activation_read: int = 0
    activation_written: int = 0
    weight_read: int = 0
    weight_written: int = 0
    scratchpad_read: int = 0
    scratchpad_written: int = 0
    parameter_read: int = 0
    parameter_written: int = 0
    table_lookups: int = 0
    lane_multiplications: int = 0
    lane_operations: int = 0
    row_functions: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


class EventCounter:
    """Counts the events of retired instructions; :meth:`retire` is an ``on_retire`` of the simulator."""

    def __init__(self, config: MachineConfig):
        self.config = config
        self.events = Events()

    def retire(self, _position: int, mnemonic: str, operands: dict[str, int], _state) -> None:
        """Count one instruction."""
        handler = getattr(self, mnemonic.lower(), None)
        if handler:
            handler(operands)

    def matmul(self, operands: dict[str, int]) -> None:
        """Operand words read by all banks, and array steps."""
        control = isa.unpack(isa.MATMUL_CONTROL, operands["control"])
        tiles = self.config.tiles(operands["rows"], operands["columns"])
        steps = -(-operands["k"] // (1 << control["log2_lanes"]))
        self.events.array_steps += tiles * steps
        self.events.activation_read += tiles * self.word_bytes(operands["k"]) * self.config.rows
        if control["band"]:
            self.events.weight_read += tiles * self.word_bytes(max(steps - self.config.columns + 1, 0))
        else:
            self.events.weight_read += tiles * self.word_bytes(steps) * self.config.columns

    def word_bytes(self, size: int) -> int:
        """Return the bytes of the bank words that hold ``size`` bytes."""
        return -(-size // self.config.word_bytes) * self.config.word_bytes

    def load(self, operands: dict[str, int]) -> None:
        """Units written to the target."""
        control = isa.unpack(isa.LOAD_CONTROL, operands["control"])
        rows = operands["outer_count"] * operands["inner_count"]
        width = operands["segment_count"] * operands["segment_bytes"]
        if control["transpose"]:
            rows, width = width, rows
        written = rows * -(-width // self.config.word_bytes) * self.config.word_bytes
        name = {Target.ACTIVATION: "activation_written", Target.WEIGHT: "weight_written",
                Target.SCRATCHPAD: "scratchpad_written", Target.PARAMETER: "parameter_written",
                Target.TABLE: ""}[Target(control["target"])]
        if name:
            setattr(self.events, name, getattr(self.events, name) + written)

    def vector(self, operands: dict[str, int]) -> None:
        """Lane work and the words it reads and writes."""
        control = isa.unpack(isa.VECTOR_CONTROL, operands["control"])
        rows, chunks = operands["rows"], -(-operands["columns"] // self.config.columns)
        beats, word = rows * chunks, self.config.scratch_word_bytes
        blocks = 1 + isa.unpack(isa.FACTOR, operands["factor"])["blocks"] if control["partial"] else 1
        multiplications = (control["multiplier"] != Multiplier.ONE) + control["row_sum"]
        events = self.events
        events.lane_operations += beats * blocks * self.config.columns
        events.lane_multiplications += beats * blocks * self.config.columns * multiplications
        events.table_lookups += beats * self.config.columns * control["table"]
        operands_read = (control["source"] == Source.SCRATCHPAD) + isa.reads_residual(control)
        events.scratchpad_read += beats * word * operands_read
        if control["destination"] == Destination.SCRATCHPAD:
            events.scratchpad_written += beats * word // isa.chunks_per_word(control)
        if control["destination"] == Destination.ACTIVATION:
            events.activation_written += beats * self.config.columns
        if control["multiplier"] == Multiplier.COLUMN or control["pre"] == Pre.BIAS or control["post_bias"]:
            events.parameter_read += (-(-rows // self.config.rows) * chunks * blocks
                                      * self.config.parameter_word_bytes)

    def rowop(self, operands: dict[str, int]) -> None:
        """Row functions."""
        self.events.row_functions += min(operands["rows"], self.config.rows)

    def store(self, operands: dict[str, int]) -> None:
        """Scratchpad words read."""
        words = -(-operands["row_bytes"] // self.config.scratch_word_bytes)
        rows = operands["outer_count"] * operands["inner_count"]
        self.events.scratchpad_read += rows * words * self.config.scratch_word_bytes
