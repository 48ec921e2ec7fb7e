"""Blocks of scratchpad rows for operators that the vector unit executes alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from phonolith.compiler.allocate import does_not_fit
from phonolith.compiler.counts import part
from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.tile import row_blocks
from phonolith.compiler.views import Block, Rows, View, common_rows, flat_tails
from phonolith.hw.isa import Target

# A block of an elementwise operator takes this fraction of a scratchpad bank, so that several are in flight.
BANK_SHARE = 4


@dataclass(frozen=True)
class Piece:
    """Some columns of some rows, the same of each tensor: ``rows[i]`` selects tensor i's."""

    rows: tuple[Rows, ...]
    count: int
    columns: int


def pieces(ctx: Lowering, *views: View) -> Iterator[Piece]:
    """Cut tensors of one shape into pieces of a bank's share, columns cut as well."""
    budget = max(1, ctx.config.scratch_bank_depth // BANK_SHARE)
    flat = flat_tails(*views)
    itemsize = max(view.itemsize for view in flat)
    for rows in common_rows(*flat):
        width = flat[0].shape[-1]
        step = min(int(width), budget * ctx.config.columns)
        for start in range(0, width, step):
            columns = part(width, start, step)
            most = budget // ctx.scratch_words(columns, itemsize)
            for block in row_blocks(*loops(rows[0]), most, most, ctx.config.rows):
                yield Piece(tuple(r.columns(start * v.itemsize, columns * v.itemsize).block(block)
                                  for r, v in zip(rows, flat, strict=True)), rows[0].block(block).count, columns)


def loops(rows: Rows) -> tuple[int, int]:
    """Return the counts of the two row loops for the longest input."""
    return int(rows.outer_count), int(rows.inner_count)


class Follower(Protocol):
    """An operator on rows that another one has just left in the scratchpad."""

    def follow(self, part: Block, base: int, pitch: int) -> Iterator[None]:
        """Emit a row tile, which begins at word ``base``; yields between its instructions."""
        ...


class Rowwise:
    """An operator on whole rows, one row tile at a time; subclasses emit :meth:`tile`.

    Attributes
    ----------
    x, y : View
        Input and output; both have one column dimension.
    words, operand_words, result_words : int
        Scratchpad words per row: of x, and what a tile needs besides in the two banks.
    passes : int
        How often VECTOR goes over a row.
    behind : Follower or None
        What takes the results from the scratchpad, tile by tile; ``part``: the rows of the present tile.
    """

    passes = 2

    def __init__(self, ctx: Lowering, node: Node):
        self.ctx = ctx
        self.node = node
        self.x = ctx.views[node.inputs[0]]
        self.y = ctx.views[node.name]
        self.columns = self.x.shape[-1]
        self.words = ctx.scratch_words(self.columns, self.x.itemsize)
        self.operand_words = 0
        self.result_words = ctx.scratch_words(self.columns, self.y.itemsize)
        self.behind: Follower | None = None
        self.part: Block | None = None

    def tile(self, rows: Rows, count: int, source: int, pitch: int) -> Iterator[None]:
        """Emit one tile: x is in the scratchpad at ``source``, the results go to ``rows`` of DRAM.

        Yields between its instructions, where VECTORs that use no row registers may be emitted.
        """
        raise NotImplementedError

    def follow(self, part: Block, base: int, pitch: int) -> Iterator[None]:
        """Emit a row tile of a product's results, which begins at scratchpad word ``base``; yields as :meth:`tile`."""
        ((rows,),) = common_rows(self.y)
        self.part, stored = part, rows.block(part)
        return self.ctx.emitting(self.node, self.tile(stored, stored.count, base, pitch))

    def release(self) -> None:
        """Give back what the operator keeps between tiles."""

    @property
    def cycles(self) -> int:
        """Return about how many cycles of VECTOR a row takes."""
        return self.passes * -(-self.columns // self.ctx.config.columns)

    def most_rows(self) -> int:
        """Return the rows of a tile; PhonolithError ``does-not-fit`` if there is no room for one."""
        words = max(self.words + self.operand_words, self.result_words)
        most = min(self.ctx.config.rows, self.ctx.results.words // words)
        if most == 0:
            raise does_not_fit(f"{self.ctx.user}, whose rows stay whole,", words, self.ctx.results)
        return most

    def emit(self) -> None:
        """Emit all tiles, loading x."""
        most = self.most_rows()
        for x, y in common_rows(self.x, self.y):
            for block in row_blocks(*loops(x), most, most, most):
                for _ in self.block(x.block(block), y.block(block)):
                    pass
        self.release()

    def block(self, x: Rows, y: Rows) -> Iterator[None]:
        """Emit one tile, loading x; yields as :meth:`tile` does."""
        ctx = self.ctx
        words = max(self.words + self.operand_words, self.result_words)
        if x.count * words * 2 > ctx.results.words:
            ctx.operands.rewind()
        with ctx.take(ctx.operands, x.count * self.words) as source:
            ctx.load_rows(Target.SCRATCHPAD, x, source, self.words)
            yield from self.tile(y, x.count, source, self.words)
