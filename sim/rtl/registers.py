"""The register map as a host sees it."""

from collections.abc import Callable
from enum import IntEnum

ENGINES = ("load", "array", "vector", "store")
STALLS = ("token", "dram", "sram_port", "drain", "config")
ENGINE_STRIDE = 0x20


class Register(IntEnum):
    """Byte addresses of 32-bit registers."""

    ID = 0x000
    CONTROL = 0x004
    STATUS = 0x008
    PROGRAM = 0x00C
    ERROR_ADDRESS = 0x010
    IRQ_ENABLE = 0x014
    CONFIG_HASH = 0x018
    ARGUMENT = 0x020
    CYCLES = 0x040
    CYCLES_HIGH = 0x044
    INSTRUCTIONS = 0x048
    READ_BEATS = 0x04C
    WRITE_BEATS = 0x050
    ENGINE = 0x080


Reader = Callable[[int], int]


def read_counters(read: Reader) -> dict[str, int]:
    """Read the counters of the whole machine."""
    return {
        "cycles": read(Register.CYCLES) | read(Register.CYCLES_HIGH) << 32,
        "instructions": read(Register.INSTRUCTIONS),
        "read_beats": read(Register.READ_BEATS),
        "write_beats": read(Register.WRITE_BEATS),
    }


def read_engines(read: Reader) -> dict[str, dict]:
    """Read the counters of each engine; the entries of one engine sum to its machine's ``cycles``."""
    return {name: read_engine(read, Register.ENGINE + ENGINE_STRIDE * index) for index, name in enumerate(ENGINES)}


def read_engine(read: Reader, base: int) -> dict:
    """Read the counters of the engine whose registers start at ``base``."""
    busy, idle, *stalled = (read(base + 4 * index) for index in range(2 + len(STALLS)))
    return {"busy": busy, "idle": idle, "stalled": dict(zip(STALLS, stalled, strict=True))}
