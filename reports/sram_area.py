"""Area of on-chip memories: a model of SRAM macros, fitted to those of one published library.

Source: Liberty ``area`` of the ten two-port macros RM_IHPSG13_2P_* of IHP SG13G2 (130 nm, IHP-Open-PDK revision
5cccb16, Apache-2.0), 64 to 1024 words of 8 to 32 bits. ``benchmarks/sram_area.py`` makes the constants. Largest
relative error over those macros: 1.6 %, mean 0.9 %.

Our banks have one read and one write port. The library's two-port macros can read and write at both ports, so they
are the nearest that exists, and an upper bound. One-port macros of the same size (``ONE_PORT``, 18 macros, error
9.2 % at most, 2.0 % on average) take 0.5 to 0.6 of the area; a design with them stalls when it reads and writes.
"""

from dataclasses import dataclass
from math import ceil

LIBRARY = "IHP SG13G2 SRAM macros (130 nm), fitted"


@dataclass(frozen=True)
class Coefficients:
    """um2 of one macro, ``fixed + word*words + bit*bits + cell*words*bits``, and the sizes that exist."""

    fixed: float
    word: float
    bit: float
    cell: float
    most_words: int
    most_bits: int
    least_words: int = 64
    least_bits: int = 8

    def macro(self, words: int, bits: int) -> float:
        """Return the area of one macro; sizes below the smallest cost as much as the smallest."""
        words, bits = max(words, self.least_words), max(bits, self.least_bits)
        return self.fixed + self.word * words + self.bit * bits + self.cell * words * bits


TWO_PORT = Coefficients(10919, 30.69, 849.56, 5.9813, most_words=1024, most_bits=32)
ONE_PORT = Coefficients(4844.6, 8.6623, 492.04, 3.3207, most_words=8192, most_bits=64)
MODELS = {1: ONE_PORT, 2: TWO_PORT}


def sram_area(words: int, bits: int, ports: int = 2) -> float:
    """Return the area in um2 of a memory of ``words`` words of ``bits`` bits.

    A memory larger than the largest macro is built of equal macros side by side.

    Parameters
    ----------
    ports : int
        2: reads and writes in the same cycle; 1: either.

    Raises
    ------
    ValueError
        For a memory without contents or a number of ports other than these.
    """
    if words < 1 or bits < 1 or ports not in MODELS:
        raise ValueError(f"words {words!r} and bits {bits!r} must be positive and ports 1 or 2, not {ports!r}")
    model = MODELS[ports]
    deep, wide = ceil(words / model.most_words), ceil(bits / model.most_bits)
    return deep * wide * model.macro(ceil(words / deep), ceil(bits / wide))
