"""Cycles that follow from a machine's dimensions: one definition for plans, explanations and the timing model."""

from collections.abc import Iterable

from phonolith.hw.config import MachineConfig

PROGRAM_WORD_BYTES = 4


def launch_cycles(config: MachineConfig) -> int:
    """Return the cycles from a tile's last step to the first in which its sums can be taken."""
    return config.columns + 3


def drain_cycles(config: MachineConfig) -> int:
    """Return the cycles that a tile's sums need to leave: the least from one sum to the next."""
    return max(config.rows, config.columns)


def tile_cycles(sums: Iterable[int], config: MachineConfig) -> int:
    """Return the cycles from one tile to the next, whose ``sums`` take so many steps each."""
    return sum(max(steps, drain_cycles(config)) for steps in sums)


def program_beats(words: int, config: MachineConfig) -> int:
    """Return the beats of the bus that some words of a program take."""
    return -(-words * PROGRAM_WORD_BYTES // config.bus_bytes)
