"""Read the accelerator's counters over its control port."""

from collections.abc import Callable

from phonolith.hw import registers

STALLS = tuple(cause for cause in registers.CAUSES if cause not in ("busy", "idle"))

Reader = Callable[[int], int]


def read_counters(read: Reader) -> dict[str, int]:
    """Read the counters of the whole machine."""
    return {
        "cycles": read(registers.CYCLES) | read(registers.CYCLES_HIGH) << 32,
        "instructions": read(registers.INSTRUCTIONS),
        "read_beats": read(registers.READ_BEATS),
        "write_beats": read(registers.WRITE_BEATS),
    }


def read_engines(read: Reader) -> dict[str, dict]:
    """Read where each engine spent its cycles; one engine's entries sum to the machine's ``cycles``."""
    return {engine: read_engine(read, engine) for engine in registers.ENGINES}


def read_engine(read: Reader, engine: str) -> dict:
    """Read one engine's counters: ``{busy, idle, stalled: {cause: cycles}}``."""
    count = {cause: read(registers.counter_address(engine, cause)) for cause in registers.CAUSES}
    return {"busy": count["busy"], "idle": count["idle"], "stalled": {cause: count[cause] for cause in STALLS}}
