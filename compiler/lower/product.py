"""A matrix product: what linear, conv2d and matmul ask for."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from phonolith.compiler.lower.shelf import LoadColumns
from phonolith.compiler.pack import step_count
from phonolith.compiler.views import Block, Pairs, Rows
from phonolith.hw.isa import Multiplier


@dataclass(frozen=True)
class Table:
    """What results are looked up in: 256 bytes, which lie at ``address``; ``index``: the dtype before that."""

    entries: np.ndarray
    address: int
    index: str


@dataclass(frozen=True)
class Product:
    """``y = saturate(requantize(a b + bias) (+ residual))`` on rows in DRAM, looked up in ``table`` if there is one.

    ``load_columns(tiles, base)`` emits the LOADs of column tiles to weight word ``base``; a tile holds
    ``tile_columns`` columns. ``parameters`` is the DRAM address of 8 bytes per column, or None: then
    ``factor`` is (multiplier, shift), or ``prepare(rows)`` leaves row factors of a block of at most
    ``most_rows`` rows in ``factor_register``. ``rows_ready``: a is there from the start, not computed before. ``lead``:
    cycles in which VECTOR makes a row of a while the product runs. ``load_rows(block, base)``, if there is one, emits
    the LOADs of a row block to activation word ``base``, ``row_beats`` cycles of the bus per row; ``a`` then only
    counts rows.

    Results of 4 bits are two to a byte: ``pairs`` of columns or rows, which ``y`` then counts.

    Weights have ``bits`` bits as they are stored. With ``block`` sums of so many k are scaled each for itself;
    ``partial``: they are added up in the vector unit (even if there is but one). ``zero_shift``: sums count so many
    places higher, and the row's sum as often as the parameters say; None: the row's sum does not count.
    """

    a: Rows
    a_unsigned: bool
    k: int
    columns: int
    tile_columns: int
    load_columns: LoadColumns
    y: Rows
    dtype: str
    parameters: int | None = None
    factor: tuple[int, int] = (0, 0)
    residual: Rows | None = None
    table: Table | None = None
    prepare: Callable[[Rows], None] | None = None
    factor_register: int = 0
    most_rows: int | None = None
    rows_ready: bool = False
    pairs: Pairs | None = None
    lead: int = 0
    load_rows: Callable[[Block, int], None] | None = None
    row_beats: int = 0
    bits: int = 8
    block: int = 0
    partial: bool = False
    zero_shift: int | None = None

    @property
    def sums(self) -> list[int]:
        """Steps of the array for each sum of a tile: one per block along K."""
        k = int(self.k)
        block = self.block or k
        return [step_count(min(block, k - first), self.bits) for first in range(0, k, block)]

    @property
    def itemsize(self) -> int:
        """Bytes per result."""
        return 2 if self.dtype == "int16" else 1

    @property
    def chunks_per_word(self) -> int:
        """Tiles of columns that share a word of results."""
        return 4 if self.pairs is Pairs.COLUMNS else 2 if self.itemsize == 1 else 1

    def result_rows(self, rows: int) -> int:
        """Return the rows of words that some rows of results take."""
        return -(-rows // 2) if self.pairs is Pairs.ROWS else rows

    def stored(self, block: Block, columns: range) -> Rows:
        """Return where the results of a block's columns lie in DRAM."""
        first, size = columns.start * self.itemsize, len(columns) * self.itemsize
        if self.pairs is Pairs.COLUMNS:
            first, size = first // 2, -(-size // 2)
        if self.pairs is Pairs.ROWS:
            block = replace(block, inner=block.inner // 2, inner_count=-(-block.inner_count // 2))
        return self.y.columns(first, size).block(block)

    @property
    def multiplier(self) -> Multiplier:
        """Where the requantizer's factor comes from."""
        if self.parameters is not None:
            return Multiplier.COLUMN
        return Multiplier.ROW if self.prepare else Multiplier.IMMEDIATE

    def column_range(self, tiles: range) -> range:
        """Return the columns of some tiles."""
        return range(tiles.start * self.tile_columns, min(tiles.stop * self.tile_columns, self.columns))
