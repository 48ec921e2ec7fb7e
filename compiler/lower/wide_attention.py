"""attention with exponentials of 16 bits: each plane of bytes is multiplied by the values.

The products are added in the scratchpad as int16 with 7 fractional bits, one column tile after the other: each
drains with the one before as its residual, and a last pass takes the fractional bits away.
"""

from phonolith.compiler.allocate import Region
from phonolith.compiler.counts import at_least_one
from phonolith.compiler.lower.attention import Attention, Block
from phonolith.compiler.lower.context import SATURATE
from phonolith.compiler.lower.matmul import head_columns
from phonolith.compiler.lower.wide import (
    FACTORS,
    FRACTION_BITS,
    HIGH,
    HIGH_FACTOR,
    ORDER,
    PASSES,
    SMALL_FACTOR,
    Tables,
    add_sums,
    far_maximum,
    look_up,
    offset_parameter,
    row_factor,
)
from phonolith.compiler.shapes import PLANES
from phonolith.compiler.views import View
from phonolith.hw.isa import Destination, Multiplier, Reduce, Saturate, Source

# Buffers of one word per row that a drain may need at the same time.
SCRATCH_SHARE = 4


class WideAttention(Attention):
    """Emits one attention node with three planes of exponentials."""

    def choose_rows(self) -> int:
        """Return the rows per block: what is added up must fit a scratchpad bank as well."""
        return min(super().choose_rows(), max(1, self.ctx.results.words // SCRATCH_SHARE))

    def emit(self) -> None:
        """Emit the blocks one by one: the vector unit is busy longer than the array, which would wait for its drain."""
        with offset_parameter(self.ctx, self.node.attributes["exp"]["offset"]) as self.offset:
            self.load_tables()
            blocks = list(self.blocks())
            self.prepare_positions(blocks)
            self.begin(blocks[0])
            for block, following, later in self.turns(blocks):
                self.exponentiate(block)
                self.multiply_context(block)
                self.drain_context(block)
                self.ctx.bus_is_free()
                if following:
                    self.begin(following)
                    self.begin_positions(later)
            self.end_positions()

    def load_tables(self) -> None:
        """Put the tables into DRAM: each plane loads its own when it is its turn."""
        self.tables = Tables(self.ctx, self.node.constants["table"])

    def exponentiate(self, block: Block) -> None:
        """Write the planes to the activation memory; leave the total of their sums."""
        ctx, exp = self.ctx, self.node.attributes["exp"]
        exponentials = self.exponentials[block] = ctx.hold(ctx.activation, PLANES * self.exp_words)
        far_maximum(ctx, block.rows, self.offset)
        for each in PASSES:
            self.tables.load(each.plane)
            ctx.emitter.vector(
                rows=block.rows, columns=block.window.keys, source_base=self.scores.low, source_pitch=self.score_tiles,
                **look_up(exp, each.maximum), destination=Destination.ACTIVATION,
                destination_base=exponentials.low + each.plane * self.exp_words,
                destination_pitch=self.exp_words, reduce=Reduce.SUM, reduce_register=each.sum)
        ctx.operands.release(self.scores)
        add_sums(ctx, block.rows)

    def multiply_context(self, block: Block) -> None:
        """Begin to multiply the planes by the values."""
        self.multiplied = 0
        self.multiply_ahead(block, 0, 0)

    def multiply_ahead(self, block: Block, tile: int, drained: int) -> None:
        """Multiply the planes by the values up to a column tile, as far as queues let MATMULs be ahead of drains."""
        operands, planes = self.operands[block.window], len(ORDER)
        limit = drained + self.ctx.config.undrained_matmuls
        while self.multiplied < min(limit, planes * min(tile + 1, self.value_tiles)):
            each, plane = divmod(self.multiplied, planes)
            self.ctx.emitter.matmul(
                a_base=self.exponentials[block].low + ORDER[plane] * self.exp_words, a_unsigned=True,
                w_base=operands.low + self.key_words + each * self.step_words, rows=block.rows,
                k=at_least_one(block.window.keys))
            self.multiplied += 1
            if self.multiplied == planes * self.value_tiles:
                self.release_operands(block)

    def drain_context(self, block: Block) -> None:
        """Divide by the row sums and store, tile by tile, the array one tile ahead where the queues allow it."""
        row_factor(self.ctx, self.node.attributes["context"], block.rows, SMALL_FACTOR)
        y = head_columns(self.y, block.head, self.heads)
        for tile in range(self.value_tiles):
            start = tile * self.tile_columns
            self.drain_columns(block, y.slice(start, min(start + self.tile_columns, self.width)), tile)

    def drain_columns(self, block: Block, y: View, tile: int = 0) -> None:
        """Add the products of one column tile, round and store."""
        ctx, rows, columns = self.ctx, block.rows, y.shape[-1]
        context = self.drain_planes(block, columns, tile)
        with ctx.take(ctx.results, rows) as result:
            ctx.emitter.vector(
                rows=rows, columns=columns, source=Source.SCRATCHPAD, source_base=context.low, source_pitch=1,
                multiplier=Multiplier.IMMEDIATE, factor=(1, FRACTION_BITS), saturate=SATURATE[y.dtype],
                destination=Destination.SCRATCHPAD, destination_byte=True, destination_base=result,
                destination_pitch=1)
            ctx.results.release(context)
            ctx.emitter.store(
                address=y.address + block.start * y.strides[0], base=result, pitch=1,
                inner_count=rows, inner_stride=y.strides[0], row_bytes=columns)

    def drain_planes(self, block: Block, columns: int, tile: int) -> Region:
        """Take the products of a column tile from the array; return where their sum is.

        The high plane's row factor is computed when the array already has room for that plane's product.
        """
        ctx, rows, sums = self.ctx, block.rows, None
        for number, plane in enumerate(ORDER):
            self.multiply_ahead(block, tile + 1, tile * len(ORDER) + number)
            if tile == 0 and plane == HIGH:
                row_factor(ctx, self.node.attributes["context"], rows, HIGH_FACTOR)
            added = ctx.hold(ctx.results, rows)
            ctx.emitter.vector(
                rows=rows, columns=columns, source=Source.DRAIN, multiplier=Multiplier.ROW,
                factor_register=FACTORS[plane], saturate=Saturate.INT16, residual=sums is not None,
                residual_base=sums.low if sums else 0, residual_pitch=1, destination=Destination.SCRATCHPAD,
                destination_base=added.low, destination_pitch=1)
            if sums:
                ctx.results.release(sums)
            sums = added
        assert sums is not None
        return sums
