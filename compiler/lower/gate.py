"""multiply behind the product that makes its second operand: element by element on what the product leaves."""

from collections.abc import Iterator

from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import SATURATE, WIDTH, Lowering
from phonolith.compiler.views import Block, common_rows
from phonolith.hw.isa import Destination, Multiplier, Source, Target


class Gate:
    """Multiplies rows in the scratchpad by rows of int16 in DRAM."""

    def __init__(self, ctx: Lowering, node: Node):
        self.ctx, self.node = ctx, node
        value, self.x, self.y = (ctx.views[name] for name in (*node.inputs, node.name))
        ((self.values, self.stored),) = common_rows(value, self.y)

    def follow(self, part: Block, base: int, pitch: int) -> Iterator[None]:
        """Emit a row tile, which begins at scratchpad word ``base``; yields between its instructions."""
        return self.ctx.emitting(self.node, self.tile(part, base, pitch))

    def tile(self, part: Block, base: int, pitch: int) -> Iterator[None]:
        """Emit LOAD, VECTOR and STORE of a row tile."""
        ctx, y, rows, columns = self.ctx, self.y, self.stored.block(part), self.y.shape[-1]
        words, result_words = ctx.scratch_words(columns, 2), ctx.scratch_words(columns, y.itemsize)
        with ctx.take(ctx.operands, rows.count * words) as values, \
                ctx.take(ctx.results, rows.count * result_words) as result:
            ctx.load_rows(Target.SCRATCHPAD, self.values.block(part), values, words)
            yield
            ctx.emitter.vector(
                rows=rows.count, columns=columns, source=Source.SCRATCHPAD, source_width=WIDTH[self.x.dtype],
                source_base=base, source_pitch=pitch, residual_base=values, residual_pitch=words,
                multiplier=Multiplier.ELEMENT, factor=(0, self.node.attributes["shift"]), saturate=SATURATE[y.dtype],
                destination=Destination.SCRATCHPAD, destination_byte=y.itemsize == 1, destination_base=result,
                destination_pitch=result_words)
            ctx.store_rows(rows, result, result_words)

    def release(self) -> None:
        """Give back what is kept between tiles: nothing."""
