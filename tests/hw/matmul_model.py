"""A numpy reading of what docs/isa.md says of MATMUL, random instructions, and readers of the drain."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import MATMUL_CONTROL, pack

DEPTH = 40      # words of each bank; as much memory as the tests use
BLOCKS = (0, 32, 64, 128, 256)
NOTICE = 3      # cycles ahead that a reader of the drain says what it will do


@dataclass(frozen=True)
class Matmul:
    """One instruction with literal operands; ``missing``: rows and columns that its last tiles lack, if they can."""

    k: int
    row_tiles: int = 1
    column_tiles: int = 1
    a_base: int = 0
    a_tile_words: int = 0
    w_base: int = 0
    w_tile_words: int = 0
    a_unsigned: int = 0
    band: int = 0
    missing: int = 0
    log2_lanes: int = 0
    block: int = 0

    @property
    def lanes(self) -> int:
        """Activations of a step."""
        return 1 << self.log2_lanes

    @property
    def parts(self) -> list[slice]:
        """The k of each sum of a tile."""
        size = BLOCKS[self.block] or self.k
        return [slice(first, min(first + size, self.k)) for first in range(0, self.k, size)]

    @property
    def steps(self) -> list[int]:
        """Steps of each sum of a tile."""
        return [-(-(part.stop - part.start) // self.lanes) for part in self.parts]

    def operands(self, config: MachineConfig) -> dict[str, int]:
        """Return the resolved operands."""
        values = {name: getattr(self, name) for name in ("a_base", "a_tile_words", "w_base", "w_tile_words", "k")}
        values |= {name: max(0, tiles * size - self.missing % size) for name, tiles, size in (
            ("rows", self.row_tiles, config.rows), ("columns", self.column_tiles, config.columns))}
        control = {name: getattr(self, name) for name in ("a_unsigned", "band", "log2_lanes", "block")}
        return {"control": pack(MATMUL_CONTROL, **control), **values}

    def sums(self, activations: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
        """Return what the drain gets, in order, for bank contents of shape (banks, depth, WB), int8.

        Each int32 (R, C + 1): sums of products, and beside them those of the row's activations.
        """
        return [each for i in range(self.row_tiles) for j in range(self.column_tiles)
                for each in self.tile(activations, weights, i, j)]

    def tile(self, activations: np.ndarray, weights: np.ndarray, i: int, j: int) -> list[np.ndarray]:
        """Return the sums of tile (i, j)."""
        a = streamed(activations, self.a_base + i * self.a_tile_words, self.k)
        tile = i * self.column_tiles + j if self.band else j
        w = streamed(weights, self.w_base + tile * self.w_tile_words, -(-self.k // self.lanes))
        w = banded(w[0], len(weights)) if self.band else unpacked(w, self.log2_lanes)[:, :self.k]
        a, w = (a.view(np.uint8) if self.a_unsigned else a).astype(np.int32), w.astype(np.int32)
        return [np.column_stack([a[:, part] @ w[:, part].T, a[:, part].sum(1)]) for part in self.parts]


def streamed(banks: np.ndarray, address: int, size: int) -> np.ndarray:
    """Return the bytes that all banks give for a tile."""
    flat = banks.reshape(len(banks), -1)[:, address * banks.shape[2]:][:, :size]
    assert flat.shape[1] == size
    return flat


def unpacked(packed: np.ndarray, log2_lanes: int) -> np.ndarray:
    """Return the weights in bytes by their definition: the first in the lowest bits; single bits are 0 or 1."""
    bits = 8 >> log2_lanes
    codes = np.stack([packed.view(np.uint8).astype(int) >> low & (1 << bits) - 1 for low in range(0, 8, bits)], -1)
    codes = codes.reshape(*packed.shape[:-1], -1)
    return codes if bits == 1 else np.where(codes >> bits - 1, codes - (1 << bits), codes)


def banded(kernel: np.ndarray, columns: int) -> np.ndarray:
    """Return the operand of a band by its definition: element (c, k) is byte k - c of the kernel, or 0."""
    length = len(kernel) - columns + 1
    return np.array([[kernel[k - c] if 0 <= k - c < length else 0 for k in range(len(kernel))] for c in range(columns)])


def random_matmul(random: np.random.Generator, word_bytes: int, most_tiles: int = 3) -> Matmul:
    """Return an instruction that stays within the banks."""
    number = lambda low, high: int(random.integers(low, high + 1))  # noqa: E731
    log2_lanes = int(random.choice([width for width in range(4) if word_bytes % (1 << width) == 0]))
    block = int(random.choice([0, 0, 0, 1, 1, 2, 3, 4]))
    size = BLOCKS[block] or word_bytes << log2_lanes * number(0, 1)
    k = int(random.choice([1, 2, size - 1, size, size + 1, 2 * size, 3 * size - 2 - number(0, 7)]))
    k = min(k, DEPTH * word_bytes)
    row_tiles, column_tiles = (number(0, most_tiles if k < 100 else 2) for _ in range(2))
    tiles, words = row_tiles * column_tiles, -(-k // word_bytes)
    band = number(0, 1) if not block and not log2_lanes and max(tiles, 1) * words <= DEPTH else 0
    w_words = -(-k // (word_bytes << log2_lanes))
    a_tile_words = min(words + number(0, 1), (DEPTH - words) // max(row_tiles - 1, 1))
    w_tiles = max(tiles if band else column_tiles, 1)
    w_tile_words = min(w_words, (DEPTH - w_words) // max(w_tiles - 1, 1))
    return Matmul(
        k=k, row_tiles=row_tiles, column_tiles=column_tiles, a_unsigned=number(0, 1), band=band,
        missing=number(0, 11), log2_lanes=log2_lanes, block=block, a_tile_words=a_tile_words,
        w_tile_words=w_tile_words, a_base=number(0, DEPTH - words - max(row_tiles - 1, 0) * a_tile_words),
        w_base=number(0, DEPTH - w_words - (w_tiles - 1) * w_tile_words))


def count(instructions: list[Matmul]) -> int:
    """Return how many sums the instructions give to the drain."""
    return sum(i.row_tiles * i.column_tiles * len(i.parts) for i in instructions)


class Pace:
    """When a reader of the drain takes what is there, and what it says of that ahead.

    Parameters
    ----------
    rows : int
        Cycles that it reads.
    delay : callable
        For so long it does not start again then.
    notice : int or None
        It says that it will start this many cycles ahead, at most ``NOTICE``; None: never.
    """

    def __init__(self, rows: int, delay: Callable[[], int] = lambda: 0, notice: int | None = NOTICE):
        self.rows, self.delay, self.notice = rows, delay, notice
        self.free = delay()

    def start(self, cycle: int, valid: bool) -> bool:
        """Return whether it starts in this cycle."""
        starts = valid and cycle >= self.free
        if starts:
            self.free = cycle + self.rows + self.delay()
        return starts

    def soon(self, cycle: int) -> bool:
        """Return whether it says ``soon``; call it after :meth:`start`."""
        return self.notice is not None and cycle >= self.free - self.notice


class Fickle:
    """A reader that says ``soon`` at random, and starts at random unless it has promised to.

    Parameters
    ----------
    rows : int
        Cycles that it reads.
    probability : float
        Of either in a cycle.
    """

    def __init__(self, rows: int, random: np.random.Generator, probability: float):
        self.rows, self.random, self.probability = rows, random, probability
        self.free, self.since, self.promises = 0, None, []

    def start(self, cycle: int, valid: bool) -> bool:
        """Return whether it starts in this cycle."""
        self.since = (cycle if self.since is None else self.since) if valid else None
        due = valid and any(self.since <= promised + NOTICE <= cycle for promised in self.promises)
        assert not due or cycle >= self.free
        starts = valid and cycle >= self.free and (due or self.random.random() < self.probability)
        if starts:
            self.free, self.since, self.promises = cycle + self.rows, None, []
        return starts

    def soon(self, cycle: int) -> bool:
        """Return whether it says ``soon``; call it after :meth:`start`."""
        says = cycle + NOTICE >= self.free and self.random.random() < self.probability
        self.promises += [cycle] * says
        return bool(says)
