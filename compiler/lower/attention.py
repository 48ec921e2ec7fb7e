"""attention: scores, exponentials and context of one row block after the other, nothing spilled to DRAM.

While the vector unit turns the scores of block i into exponentials, the array computes the context of block i-1 and
then the scores of block i+1. Blocks run across heads.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from phonolith.compiler.allocate import Region, does_not_fit
from phonolith.compiler.counts import part
from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import SATURATE, Lowering
from phonolith.compiler.lower.matmul import by_rows, head_columns, transposed
from phonolith.compiler.pack import tile_words
from phonolith.compiler.views import View
from phonolith.hw.isa import Destination, Multiplier, Pre, Reduce, RowFunction, Saturate, Source, Target

MAXIMUM, SUM, FACTOR = range(3)


@dataclass(frozen=True)
class Block:
    """Some rows of one head; ``first`` and ``last`` of its head."""

    head: int
    start: int
    rows: int
    first: bool
    last: bool


class Attention:
    """Emits one attention node."""

    def __init__(self, ctx: Lowering, node: Node):
        self.ctx = ctx
        self.node = node
        self.q, self.k, self.v, self.y = (ctx.views[name] for name in (*node.inputs, node.name))
        self.heads = node.attributes["scores"].get("heads", 1)
        self.steps = self.k.shape[0]
        self.depth = self.q.shape[1] // self.heads
        self.width = self.v.shape[1] // self.heads
        columns = ctx.config.columns
        self.score_tiles = -(-self.steps // columns)
        self.tile_columns, _ = transposed(ctx, self.v)
        self.value_tiles = -(-self.width // self.tile_columns)
        self.depth_words = tile_words(self.depth, ctx.config)
        self.step_words = tile_words(self.steps, ctx.config)
        self.exp_words = tile_words(self.score_tiles * columns, ctx.config)
        self.block_rows = self.choose_rows()
        self.key_words = self.score_tiles * self.depth_words
        self.operand_words = self.key_words + self.value_tiles * self.step_words
        self.operands: dict[int, Region] = {}
        self.with_values: set[int] = set()
        self.exponentials: dict[Block, Region] = {}

    def choose_rows(self) -> int:
        """Return the rows per block: their scores stay in the scratchpad."""
        rows = min(self.ctx.config.rows, self.ctx.operands.words // self.score_tiles)
        if rows == 0:
            raise does_not_fit(f"{self.ctx.user}: one row of scores", self.score_tiles, self.ctx.operands)
        return rows

    def blocks(self) -> Iterator[Block]:
        """Yield the row blocks, head by head."""
        rows = self.q.shape[0]
        for head in range(self.heads):
            for start in range(0, rows, self.block_rows):
                count = part(rows, start, self.block_rows)
                yield Block(head, start, count, start == 0, start + count == rows)

    def emit(self) -> None:
        """Emit the blocks: the array computes context i-1 and scores i+1 while VECTOR computes exponentials i.

        Where memory does not allow the scores of a next head, what is begun is finished first.
        """
        self.load_tables()
        blocks = list(self.blocks())
        self.begin(blocks[0])
        before: Block | None = None
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            if before:
                self.multiply_context(before)
                self.compute_factors(before)
            self.exponentiate(block)
            if before:
                self.drain_context(before)
            before = block
            if following is None or not self.has_room(following):
                self.finish(block)
                before = None
            if following:
                self.begin(following)
                self.prepare(following.head + 1)
            self.ctx.bus_is_free()

    def begin(self, block: Block) -> None:
        """Compute the scores of a block; load its head's values behind its keys if they are not there."""
        self.multiply_scores(block)
        self.load_values(block.head)
        self.drain_scores(block)

    def finish(self, block: Block) -> None:
        """Compute the context of a block."""
        self.multiply_context(block)
        self.compute_factors(block)
        self.drain_context(block)

    def prepare(self, head: int) -> None:
        """Load the keys and values of a head ahead of time if there is room."""
        if head < self.heads and head not in self.operands and self.ctx.weight.free >= self.operand_words:
            self.load_keys(head)
            self.load_values(head)

    def load_tables(self) -> None:
        """Load the table that all blocks use."""
        self.ctx.load_table(self.node.constants["table"])

    def has_room(self, block: Block) -> bool:
        """Tell whether a block's keys and values fit beside those in use."""
        return block.head in self.operands or self.ctx.weight.free >= self.operand_words

    def multiply_scores(self, block: Block) -> None:
        """Load the rows, and keys if they are not there; multiply."""
        ctx = self.ctx
        self.load_keys(block.head)
        rows = head_columns(self.q, block.head, self.heads)
        with ctx.take(ctx.activation, self.depth_words) as base:
            ctx.emitter.load(
                target=Target.ACTIVATION, address=rows.address + block.start * rows.strides[0], base=base,
                row_words=self.depth_words, inner_count=block.rows, inner_stride=rows.strides[0],
                segment_bytes=self.depth)
            ctx.emitter.matmul(a_base=base, w_base=self.operands[block.head].low,
                               w_tile_words=self.depth_words, rows=block.rows, columns=self.steps, k=self.depth)

    def load_keys(self, head: int) -> None:
        """Load a head's keys, one per column, unless they are there; leave room for its values behind them."""
        if head not in self.operands:
            region = self.operands[head] = self.ctx.hold(self.ctx.weight, self.operand_words)
            by_rows(self.ctx, head_columns(self.k, head, self.heads))(range(self.score_tiles), region.low)

    def load_values(self, head: int) -> None:
        """Load a head's values, turned so that steps are inner, unless they are there."""
        if head not in self.with_values:
            self.with_values.add(head)
            _, load_columns = transposed(self.ctx, head_columns(self.v, head, self.heads))
            load_columns(range(self.value_tiles), self.operands[head].low + self.key_words)

    def drain_scores(self, block: Block) -> None:
        """Requantize the scores to int16 and find each row's maximum."""
        ctx, a = self.ctx, self.node.attributes["scores"]
        self.scores = ctx.hold(ctx.operands, block.rows * self.score_tiles)
        ctx.emitter.vector(
            rows=block.rows, columns=self.steps, source=Source.DRAIN, multiplier=Multiplier.IMMEDIATE,
            factor=(a["multiplier"], a["shift"]), saturate=Saturate.INT16,
            destination=Destination.SCRATCHPAD, destination_base=self.scores.low,
            destination_pitch=self.score_tiles, reduce=Reduce.MAX, reduce_register=MAXIMUM)

    def exponentiate(self, block: Block) -> None:
        """Write the exponentials to the activation memory; leave their sums."""
        ctx, exp = self.ctx, self.node.attributes["exp"]
        exponentials = self.exponentials[block] = ctx.hold(ctx.activation, self.exp_words)
        ctx.emitter.vector(
            rows=block.rows, columns=self.steps, source=Source.SCRATCHPAD, source_base=self.scores.low,
            source_pitch=self.score_tiles, pre=Pre.MINUS_ROW, row_register=MAXIMUM,
            multiplier=Multiplier.IMMEDIATE, factor=(-exp["multiplier"], exp["shift"]),
            saturate=Saturate.UINT8, table=True, destination=Destination.ACTIVATION,
            destination_base=exponentials.low, destination_pitch=self.exp_words,
            reduce=Reduce.SUM, reduce_register=SUM)
        ctx.operands.release(self.scores)

    def multiply_context(self, block: Block) -> None:
        """Multiply the exponentials by the values."""
        operands = self.operands[block.head]
        self.ctx.emitter.matmul(
            a_base=self.exponentials[block].low, a_unsigned=True, w_base=operands.low + self.key_words,
            w_tile_words=self.step_words, rows=block.rows,
            columns=self.value_tiles * self.ctx.config.columns, k=self.steps)
        self.release_operands(block)

    def release_operands(self, block: Block) -> None:
        """Give back the exponentials, and keys and values with a head's last block."""
        self.ctx.activation.release(self.exponentials.pop(block))
        if block.last:
            self.ctx.weight.release(self.operands[block.head])

    def compute_factors(self, block: Block) -> None:
        """Compute the reciprocals of the row sums."""
        context = self.node.attributes["context"]
        self.ctx.emitter.rowop(
            function=RowFunction.RECIPROCAL, source_register=SUM, destination_register=FACTOR, rows=block.rows,
            factor=(context["numerator"], context["shift"]))

    def drain_context(self, block: Block) -> None:
        """Multiply by the factors and store, tile by tile where a strip is narrower than the array."""
        width = self.width if self.tile_columns == self.ctx.config.columns else self.tile_columns
        y = head_columns(self.y, block.head, self.heads)
        for start in range(0, self.width, width):
            columns = min(width, self.width - start)
            self.drain_columns(block, y.slice(start, start + columns))

    def drain_columns(self, block: Block, y: View) -> None:
        """Requantize and store some columns."""
        ctx = self.ctx
        pitch = ctx.scratch_words(y.shape[-1], y.itemsize)
        with ctx.take(ctx.results, block.rows * pitch) as result:
            ctx.emitter.vector(
                rows=block.rows, columns=y.shape[-1], source=Source.DRAIN, multiplier=Multiplier.ROW,
                factor_register=FACTOR, saturate=SATURATE[y.dtype], destination=Destination.SCRATCHPAD,
                destination_byte=y.itemsize == 1, destination_base=result, destination_pitch=pitch)
            ctx.emitter.store(
                address=y.address + block.start * y.strides[0], base=result, pitch=pitch,
                inner_count=block.rows, inner_stride=y.strides[0], row_bytes=y.shape[-1] * y.itemsize)
