"""Blocks of scratchpad rows for operators that the vector unit executes alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from phonolith.compiler.allocate import does_not_fit
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.tile import row_blocks
from phonolith.compiler.views import Block, Rows, View, common_rows, flat_tails

# A block of an elementwise operator takes this fraction of a scratchpad bank, so that several are in flight.
BANK_SHARE = 4


@dataclass(frozen=True)
class Piece:
    """Some columns of some rows, the same of each tensor: ``rows[i]`` selects tensor i's.

    ``stop`` counts the rows up to the last one of this piece, in the order of the tensor.
    """

    rows: tuple[Rows, ...]
    count: int
    columns: int
    stop: int = 0


def pieces(ctx: Lowering, *views: View) -> Iterator[Piece]:
    """Cut tensors of one shape into pieces of a bank's share, columns cut as well."""
    budget = max(1, ctx.config.scratch_bank_depth // BANK_SHARE)
    flat = flat_tails(*views)
    itemsize = max(view.itemsize for view in flat)
    for rows in common_rows(*flat):
        width = flat[0].shape[-1]
        step = min(width, budget * ctx.config.columns)
        for start in range(0, width, step):
            columns = min(step, width - start)
            most = budget // ctx.scratch_words(columns, itemsize)
            for block in row_blocks(rows[0].outer_count, rows[0].inner_count, most, most, ctx.config.rows):
                yield Piece(tuple(r.columns(start * v.itemsize, columns * v.itemsize).block(block)
                                  for r, v in zip(rows, flat, strict=True)), block.rows, columns)


def row_tiles(ctx: Lowering, words: int, *views: View) -> Iterator[Piece]:
    """Cut tensors of one number of rows into blocks of whole rows, at most the array's.

    ``words`` is the scratchpad words a row takes in the fuller bank; PhonolithError ``does-not-fit`` when not even
    one row fits.
    """
    most = min(ctx.config.rows, ctx.results.words // words)
    if most == 0:
        raise does_not_fit(f"{ctx.user}, whose rows stay whole,", words, ctx.results)
    stop = 0
    for rows in common_rows(*views):
        for block in tiles(rows[0], most):
            stop += block.rows
            yield Piece(tuple(r.block(block) for r in rows), block.rows, views[0].shape[-1], stop)


def tiles(rows: Rows, most: int) -> list[Block]:
    """Cut two row loops into blocks of at most ``most`` rows."""
    return row_blocks(rows.outer_count, rows.inner_count, most, most, most)
