"""The one configuration object: RTL, simulators, compiler and cost models all read it."""

import hashlib
import json
import math
import re
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from phonolith.hw.errors import PhonolithError

ISA_VERSION = 3
# Timing environment: they do not change the hardware, so a program does not depend on them.
ENVIRONMENT_FIELDS = ("dram_latency", "dram_shared", "clock_mhz")
# Instructions address at most this many words of a memory.
MOST_WORDS = 1 << 16


@dataclass(frozen=True)
class MachineConfig:
    """Dimensions of one accelerator and of the memory it is simulated with.

    Parameters
    ----------
    rows, columns : int
        Array size R x C: R rows of A (M), C columns of the result (N).
    bus_bits : int
        AXI4 data width.
    activation_sram_bytes, weight_sram_bytes : int
        Operand memories, R and C banks, together.
    scratchpad_bytes : int
        Vector memory, two banks of 2*C-byte words.
    parameter_bytes : int
        Bias, multiplier and shift of output columns: 8 bytes per column.
    queue_words : int
        32-bit words per engine queue.
    row_units : int
        Serial dividers of the vector engine that work in parallel.
    reads_outstanding, writes_outstanding : int
        AXI transactions in flight.
    dram_latency : int
        Cycles from an accepted read address to its first beat, and from the last write beat to the response.
    dram_shared : bool
        Reads and writes share one beat per cycle.
    clock_mhz : float
        For figures in seconds and watts.

    Raises
    ------
    PhonolithError
        kind ``invalid-configuration``, when a machine like that cannot exist.
    """

    rows: int = 16
    columns: int = 16
    bus_bits: int = 128
    activation_sram_bytes: int = 112 * 1024
    weight_sram_bytes: int = 128 * 1024
    scratchpad_bytes: int = 64 * 1024
    parameter_bytes: int = 8 * 1024
    queue_words: int = 128
    row_units: int = 4
    reads_outstanding: int = 64
    writes_outstanding: int = 64
    dram_latency: int = 20
    dram_shared: bool = False
    clock_mhz: float = 500.0

    def __post_init__(self):
        check_dimensions(self)
        check_memories(self)

    @classmethod
    def load(cls, path: str | Path | None = None, **overrides) -> "MachineConfig":
        """Take a preset by name, or read a TOML file of field names (plus ``array = "RxC"``); then apply overrides.

        Overrides that are None count as absent.
        """
        preset = PRESETS.get(str(path))
        values = preset.as_dict() if preset else {} if path is None else read_toml(Path(path))
        values.update({key: value for key, value in overrides.items() if value is not None})
        if "array" in values:
            values["rows"], values["columns"] = parse_array(values.pop("array"))
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise invalid(f"unknown configuration field {sorted(unknown)[0]!r}.",
                          f"Known fields: array, {', '.join(f.name for f in fields(cls))}.")
        return cls(**values)

    def with_array(self, array: str) -> "MachineConfig":
        """Return this machine with another array, given as ``"RxC"``."""
        rows, columns = parse_array(array)
        return replace(self, rows=rows, columns=columns)

    def as_dict(self) -> dict:
        """Return all fields, in order."""
        return asdict(self)

    @property
    def hash(self) -> str:
        """Sixteen hex digits that name the hardware and its instruction set."""
        hardware = {k: v for k, v in self.as_dict().items() if k not in ENVIRONMENT_FIELDS}
        text = json.dumps({"isa": ISA_VERSION, **hardware}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def hash_word(self) -> int:
        """The hash's first 32 bits: the first word of every program."""
        return int(self.hash[:8], 16)

    @property
    def array(self) -> str:
        """``"RxC"``."""
        return f"{self.rows}x{self.columns}"

    @property
    def bus_bytes(self) -> int:
        """Bytes per AXI beat."""
        return self.bus_bits // 8

    @property
    def dma_bytes(self) -> int:
        """Bytes that LOAD and STORE move per cycle: a beat, or its largest power-of-two part that 2C bytes hold."""
        return min(self.bus_bytes, 1 << (2 * self.columns).bit_length() - 1)

    @property
    def word_bytes(self) -> int:
        """Bytes per operand bank word: C or 2C, at least ``dma_bytes``."""
        return self.columns * -(-self.dma_bytes // self.columns)

    @property
    def activation_depth(self) -> int:
        """Words per activation bank."""
        return self.activation_sram_bytes // (self.rows * self.word_bytes)

    @property
    def weight_depth(self) -> int:
        """Words per weight bank."""
        return self.weight_sram_bytes // (self.columns * self.word_bytes)

    @property
    def scratch_word_bytes(self) -> int:
        """Bytes per scratchpad word: C lanes of 16 bits."""
        return 2 * self.columns

    @property
    def scratch_depth(self) -> int:
        """Scratchpad words, both banks together; even."""
        return self.scratchpad_bytes // self.scratch_word_bytes // 2 * 2

    @property
    def scratch_bank_depth(self) -> int:
        """Words per scratchpad bank: bank 0 holds the addresses below it."""
        return self.scratch_depth // 2

    @property
    def parameter_word_bytes(self) -> int:
        """Bytes per parameter word: 8 for each of C columns."""
        return 8 * self.columns

    @property
    def parameter_depth(self) -> int:
        """Parameter words: one per C output columns."""
        return self.parameter_bytes // self.parameter_word_bytes

    @property
    def table_bytes(self) -> int:
        """One 256-entry byte table per lane."""
        return 256 * self.columns

    @property
    def partial_bytes(self) -> int:
        """Partial sums of one tile, 32 bits each: where a product is cut into blocks along K."""
        return 4 * self.rows * self.columns

    @property
    def queue_bytes(self) -> int:
        """Four instruction queues and the fetch buffer of 32 beats."""
        return 4 * 4 * self.queue_words + 32 * self.bus_bytes

    @property
    def undrained_matmuls(self) -> int:
        """MATMULs that may be in front of the VECTORs that drain them, at most: then these find room in their queue."""
        return self.queue_words // 16

    def tile_counts(self, rows: int, columns: int) -> tuple[int, int]:
        """Return how many row tiles and column tiles of the array cover a product."""
        return -(-rows // self.rows), -(-columns // self.columns)

    def tiles(self, rows: int, columns: int) -> int:
        """Return how many tiles of the array cover a product."""
        return math.prod(self.tile_counts(rows, columns))

    @property
    def sram_bytes(self) -> int:
        """All on-chip memory."""
        return (self.activation_sram_bytes + self.weight_sram_bytes + self.scratchpad_bytes
                + self.parameter_bytes + self.table_bytes + self.partial_bytes + self.queue_bytes)


def check_dimensions(config: MachineConfig) -> None:
    """Refuse an array or bus outside what the RTL supports."""
    for name in ("rows", "columns"):
        value = getattr(config, name)
        if not isinstance(value, int) or not 4 <= value <= 64:
            raise invalid(f"array {config.rows}x{config.columns}: {name} must be 4 to 64, not {value!r}.",
                          "Choose an array such as 8x8 or 16x16.")
    if config.bus_bits not in (64, 128, 256):
        raise invalid(f"bus_bits must be 64, 128 or 256, not {config.bus_bits!r}.", "Choose one of these widths.")
    if not isinstance(config.dram_latency, int) or config.dram_latency < 1 or not 0 < config.clock_mhz < math.inf:
        raise invalid(f"dram_latency {config.dram_latency!r} and clock_mhz {config.clock_mhz!r} must be positive.",
                      "Give a latency of at least 1 cycle and a clock in MHz.")


def check_memories(config: MachineConfig) -> None:
    """Refuse memories that cannot hold one tile, double-buffered where the schedule needs it."""
    least = {
        "activation_sram_bytes": 2 * config.rows * config.word_bytes,
        "weight_sram_bytes": 2 * config.columns * config.word_bytes,
        "scratchpad_bytes": 4 * config.rows * config.scratch_word_bytes,
        "parameter_bytes": 2 * config.parameter_word_bytes,
    }
    for name, needed in least.items():
        value = getattr(config, name)
        if not isinstance(value, int) or value < needed:
            raise invalid(f"{name} = {value!r} is smaller than a tile of a {config.array} array.",
                          f"At least {needed} bytes are needed.")
    for name in ("activation_depth", "weight_depth", "scratch_depth", "parameter_depth"):
        words = getattr(config, name)
        if words > MOST_WORDS:
            raise invalid(f"{name} would be {words} words; instructions address {MOST_WORDS}.",
                          "Make that memory smaller, or the array larger.")
    for name, needed in (("queue_words", 32), ("row_units", 1), ("reads_outstanding", 1), ("writes_outstanding", 1)):
        value = getattr(config, name)
        if not isinstance(value, int) or value < needed:
            raise invalid(f"{name} must be at least {needed}, not {value!r}.", "Raise it.")


def read_toml(path: Path) -> dict:
    """Read a configuration file; PhonolithError when it cannot be read or parsed."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise invalid(f"cannot read configuration {path}: {error}.",
                      f"Name a preset ({', '.join(PRESETS)}) or start from `phonolith config --print-default`."
                      ) from error


def parse_array(text: str) -> tuple[int, int]:
    """Turn ``"16x16"`` into (rows, columns)."""
    match = re.fullmatch(r"(\d+)x(\d+)", str(text))
    if not match:
        raise invalid(f"array must look like 16x16, not {text!r}.", "Write ROWSxCOLUMNS.")
    return int(match[1]), int(match[2])


def invalid(message: str, remedy: str) -> PhonolithError:
    """Build the error for an impossible configuration."""
    return PhonolithError("invalid-configuration", message, remedy)


# Machines by name, for ``--config NAME``.
PRESETS = {
    "tiny": MachineConfig(
        rows=4, columns=4, bus_bits=64, activation_sram_bytes=16 * 1024, weight_sram_bytes=16 * 1024,
        scratchpad_bytes=16 * 1024, parameter_bytes=2 * 1024, queue_words=64, row_units=1, reads_outstanding=8,
        writes_outstanding=8),
    "default": MachineConfig(),
    "large": MachineConfig(
        rows=32, columns=32, bus_bits=256, activation_sram_bytes=512 * 1024, weight_sram_bytes=512 * 1024,
        scratchpad_bytes=256 * 1024, parameter_bytes=32 * 1024, queue_words=256, row_units=8),
}
