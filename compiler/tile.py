"""Tiling of matrix products: which pieces of both operands are on chip when, and in which order tiles are computed.

One operand is stationary: its pieces stay on chip, in groups as large as fit, while the pieces of the other stream
through. Both begin small: a load unlocks as much work as the pieces already there, so the array starts after one
tile of each operand, and what is loaded next is what unlocks most work per cycle of the bus. The direction of the
stream alternates from group to group, so that the last piece of one is the first of the next. See docs/isa.md for what
a tile is, and :mod:`phonolith.compiler.plan` for how sizes and the stationary operand are chosen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from phonolith.compiler.pack import step_count
from phonolith.compiler.views import Block
from phonolith.hw.config import MachineConfig

# A smaller block is worth this fraction of the array's rows: the first results come earlier.
FILLED_ENOUGH = 0.98


@dataclass(frozen=True)
class ProductSize:
    """What the tiling depends on.

    Parameters
    ----------
    outer, inner : int
        Rows, in two loops.
    columns, k, tile_columns : int
        Columns, inner dimension, columns of a tile.
    row_beats, segments : int
        Cycles of the bus to load a row; contiguous pieces that it consists of.
    byte_results, has_parameters, has_residual : bool
    most_rows : int
        Rows of a step, at most.
    rows_ready : bool
        The rows are in DRAM from the start, not just being computed.
    follows : bool
        The array can follow the loading of columns word by word.
    sliceable : bool
        A tile of rows can be loaded word by word, at no more beats, so that the array can follow.
    lead : int
        Cycles in which the vector unit makes a row, when an operator in front is emitted piece by piece.
    bits : int
        Of an element of a column, as it is stored.
    block : int
        Inner steps that are summed before they are scaled; 0 for all of them.
    """

    outer: int
    inner: int
    columns: int
    k: int
    tile_columns: int
    row_beats: int
    segments: int
    byte_results: bool
    has_parameters: bool
    has_residual: bool
    most_rows: int
    rows_ready: bool
    follows: bool
    sliceable: bool
    lead: int = 0
    bits: int = 8
    block: int = 0

    @property
    def tiles(self) -> int:
        """Column tiles."""
        return -(-self.columns // self.tile_columns)

    @property
    def steps(self) -> int:
        """Steps that the array takes for a tile."""
        return step_count(self.k, self.bits)

    @property
    def sums(self) -> list[int]:
        """Steps of each sum of a tile, one sum per block."""
        block = self.block or self.k
        return [step_count(min(block, self.k - first), self.bits) for first in range(0, self.k, block)]

    def column_count(self, tiles: range) -> int:
        """Return the columns of some tiles."""
        return min(tiles.stop * self.tile_columns, self.columns) - tiles.start * self.tile_columns


Piece = Block | range


@dataclass(frozen=True)
class Load:
    """Bring a piece on chip: rows, or column tiles with their parameters."""

    piece: Piece


@dataclass(frozen=True)
class Drop:
    """Give a piece's place to others."""

    piece: Piece


@dataclass(frozen=True)
class Step:
    """One MATMUL: a row block times column tiles."""

    block: Block
    tiles: range


Action = Load | Drop | Step


@dataclass(frozen=True)
class Order:
    """What is on chip when.

    ``groups`` of stationary pieces, ``streamed`` pieces; ``rows_stay``: the stationary pieces are rows. ``all_stay``:
    the streamed pieces stay as well. ``stationary_first``: the first piece loaded is stationary. ``most_ahead``:
    work of the streamed pieces on chip, at most. ``weight``: a piece's work (in tiles) and its cost to load (in beats).
    """

    groups: tuple[tuple[Piece, ...], ...]
    streamed: tuple[Piece, ...]
    rows_stay: bool
    all_stay: bool
    stationary_first: bool
    most_ahead: int
    weight: Callable[[Piece], tuple[int, int]]

    def actions(self) -> Iterator[Action]:
        """Yield loads, steps and drops in program order."""
        return Traversal(self).run()

    def work(self, pieces: Sequence[Piece]) -> int:
        """Return the tiles of pieces of one operand."""
        return sum(self.weight(piece)[0] for piece in pieces)


class Traversal:
    """State of a walk over all pairs of pieces.

    ``present`` stationary pieces and ``resident`` streamed ones are on chip, ``waiting`` and ``to_stream`` are to come
    in this group; of the next group ``upcoming`` ones are to come and ``early`` ones already on chip.
    """

    def __init__(self, order: Order):
        self.order = order
        self.waiting: list[Piece] = []
        self.to_stream: list[Piece] = []
        self.present: list[Piece] = []
        self.resident: list[Piece] = []
        self.upcoming: list[Piece] = []
        self.early: list[Piece] = []
        self.following: tuple[tuple[Piece, ...], ...] = ()

    def run(self) -> Iterator[Action]:
        """Yield all actions."""
        for index, group in enumerate(self.order.groups):
            early = self.early
            self.early, self.following = [], self.order.groups[index + 1:index + 2]
            self.present, self.waiting = [], [piece for piece in group if piece not in early]
            self.upcoming = [piece for following in self.following for piece in following]
            direction = self.order.streamed if index % 2 == 0 else self.order.streamed[::-1]
            self.to_stream = [piece for piece in direction if piece not in self.resident]
            for piece in early:
                yield from self.meet(piece)
            yield from self.forget()
            yield from self.group()
        for piece in self.resident:
            yield Drop(piece)

    def group(self) -> Iterator[Action]:
        """Yield what one group of stationary pieces needs; as these are given up, those of the next are loaded."""
        while self.waiting or self.to_stream:
            if self.next_is_stationary():
                piece = self.waiting.pop(0)
                yield Load(piece)
                yield from self.meet(piece)
            else:
                piece = self.to_stream.pop(0)
                yield Load(piece)
                for stationary in self.present if self.to_stream or self.following else self.largest_first():
                    yield self.step(stationary, piece)
                    yield from self.give_up(stationary)
                self.resident.append(piece)
            yield from self.forget()

    def largest_first(self) -> list[Piece]:
        """Return the stationary pieces for the last time: the smallest last, because its results end the product."""
        return sorted(self.present, key=lambda piece: -self.order.weight(piece)[1])

    def next_is_stationary(self) -> bool:
        """Choose the operand to load from next: the one whose piece unlocks more work per beat."""
        if not self.waiting or not self.to_stream:
            return bool(self.waiting)
        if not self.present and not self.resident:
            return self.order.stationary_first
        there, here = self.order.work(self.resident), self.order.work(self.present)
        if there + self.order.work(self.to_stream[:1]) > self.order.most_ahead and there:
            return True
        gains = []
        for piece, others in ((self.waiting[0], there), (self.to_stream[0], here)):
            work, beats = self.order.weight(piece)
            gains.append(work * others / beats)
        return gains[0] >= gains[1]

    def meet(self, piece: Piece) -> Iterator[Action]:
        """Compute a new stationary piece with all streamed ones on chip."""
        self.present.append(piece)
        for streamed in self.resident:
            yield self.step(piece, streamed)
        yield from self.give_up(piece)

    def step(self, stationary: Piece, streamed: Piece) -> Step:
        """Return the step of two pieces."""
        rows, columns = (stationary, streamed) if self.order.rows_stay else (streamed, stationary)
        assert isinstance(rows, Block) and isinstance(columns, range)
        return Step(rows, columns)

    def give_up(self, stationary: Piece) -> Iterator[Action]:
        """Drop a stationary piece when nothing is left to stream; load one of the next group instead."""
        if self.to_stream:
            return
        yield Drop(stationary)
        if self.upcoming:
            self.early.append(self.upcoming.pop(0))
            yield Load(self.early[-1])

    def forget(self) -> Iterator[Action]:
        """Drop streamed pieces that have met all of the group; the last one stays if there is another group."""
        if self.waiting or self.order.all_stay:
            return
        kept = 1 if self.following and not self.to_stream else 0
        while len(self.resident) > kept:
            yield Drop(self.resident.pop(0))


def growing(count: int, most: int, small: bool) -> Iterator[range]:
    """Cut ``range(count)`` into pieces of at most ``most``; ``small``: of 1, 1, 2, 4, ... so that work starts early."""
    start, size = 0, 1 if small else most
    while start < count:
        stop = min(start + min(size, most), count)
        yield range(start, stop)
        size = stop if small else most
        start = stop


def row_pieces(size: ProductSize, most: int, small: bool, config: MachineConfig) -> list[Block]:
    """Cut rows into blocks of at most ``most`` rows; ``small``: growing.

    What does not fill a tile comes first then, or last where rows are still being computed, in order.
    """
    rows = config.rows
    if size.outer > 1 or most < rows:
        return row_blocks(size.outer, size.inner, most, most, rows)
    ragged = size.inner % rows
    tiles = [Block(0, 1, piece.start * rows, len(piece) * rows)
             for piece in growing(size.inner // rows, most // rows, small)]
    tail = [Block(0, 1, size.inner - ragged, ragged)] if ragged else []
    return [*tail, *tiles] if small and size.rows_ready else [*tiles, *tail]


def row_blocks(outer: int, inner: int, target: int, most: int, rows: int) -> list[Block]:
    """Cut two row loops into blocks of about ``target`` and at most ``most`` rows.

    Blocks hold whole inner loops where these fit: the fewest that fill the array's ``rows`` nearly as well as any.
    """
    if outer == 1 or inner > most:
        size = min(target, most)
        return [Block(o, 1, i, min(size, inner - i)) for o in range(outer) for i in range(0, inner, size)]
    limit = max(1, min(most // inner, outer))
    sizes = range(min(-(-target // inner), limit), limit + 1)
    fullest = max(filled(g * inner, rows) for g in sizes)
    best = next(g for g in sizes if filled(g * inner, rows) >= FILLED_ENOUGH * fullest)
    return [Block(o, min(best, outer - o), 0, inner) for o in range(0, outer, best)]


def filled(count: int, rows: int) -> float:
    """Return the fraction of array rows that ``count`` rows use."""
    return count / (-(-count // rows) * rows)


def grouped(pieces: Sequence[Piece], room: int, tiles: Callable[[Piece], int]) -> list[tuple[Piece, ...]]:
    """Collect consecutive pieces into groups of at most ``room`` tiles."""
    groups: list[list[Piece]] = []
    used = 0
    for piece in pieces:
        if not groups or used + tiles(piece) > room:
            groups.append([])
            used = 0
        groups[-1].append(piece)
        used += tiles(piece)
    return [tuple(group) for group in groups]
