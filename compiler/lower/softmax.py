"""softmax_exp and argmax: reductions along whole rows."""

from collections.abc import Iterator
from dataclasses import replace

from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import WIDTH, Lowering
from phonolith.compiler.lower.rowwise import row_tiles
from phonolith.compiler.views import View
from phonolith.hw.isa import Destination, Multiplier, Pre, Reduce, Saturate, Source, Target

MAXIMUM = 0


def lower_softmax_exp(ctx: Lowering, node: Node) -> Iterator[int]:
    """Emit the row maximum, then the table of the distance to it; yield in front of each piece the rows it needs."""
    x, y = ctx.views[node.inputs[0]], ctx.views[node.name]
    ctx.load_table(node.constants["table"])
    words, stored = ctx.scratch_words(x.shape[-1], 2), ctx.scratch_words(x.shape[-1], 1)
    for piece in row_tiles(ctx, words, x, y):
        yield piece.stop
        with ctx.take(ctx.operands, piece.count * words) as source, \
                ctx.take(ctx.results, piece.count * stored) as result:
            ctx.load_rows(Target.SCRATCHPAD, piece.rows[0], source, words)
            row = {"rows": piece.count, "columns": piece.columns, "source": Source.SCRATCHPAD,
                   "source_base": source, "source_pitch": words}
            ctx.emitter.vector(**row, reduce=Reduce.MAX, reduce_register=MAXIMUM)
            ctx.emitter.vector(
                **row, pre=Pre.MINUS_ROW, row_register=MAXIMUM, multiplier=Multiplier.IMMEDIATE,
                factor=(-node.attributes["multiplier"], node.attributes["shift"]), saturate=Saturate.UINT8,
                table=True, destination=Destination.SCRATCHPAD, destination_byte=True,
                destination_base=result, destination_pitch=stored)
            ctx.store_rows(piece.rows[1], result, stored)


def lower_argmax(ctx: Lowering, node: Node) -> Iterator[int]:
    """Emit the index of each row's maximum; yield in front of each piece the rows it needs."""
    x, y = ctx.views[node.inputs[0]], ctx.views[node.name]
    indices = expanded(y)
    words = ctx.scratch_words(x.shape[-1], x.itemsize)
    for piece in row_tiles(ctx, words, x, indices):
        yield piece.stop
        with ctx.take(ctx.operands, piece.count * words) as source, \
                ctx.take(ctx.results, piece.count) as result:
            ctx.load_rows(Target.SCRATCHPAD, piece.rows[0], source, words)
            ctx.emitter.vector(
                rows=piece.count, columns=piece.columns, source=Source.SCRATCHPAD,
                source_width=WIDTH[x.dtype], source_base=source, source_pitch=words,
                reduce=Reduce.ARGMAX, reduce_register=MAXIMUM)
            ctx.emitter.vector(
                rows=piece.count, columns=1, source=Source.ZERO, pre=Pre.MINUS_INDEX, row_register=MAXIMUM,
                multiplier=Multiplier.IMMEDIATE, factor=(-1, 0), saturate=Saturate.INT16,
                destination=Destination.SCRATCHPAD, destination_base=result, destination_pitch=1)
            ctx.store_rows(piece.rows[1], result, 1)


def expanded(view: View) -> View:
    """Return a view with a last dimension of one element."""
    return replace(view, shape=(*view.shape, 1), strides=(*view.strides, view.itemsize))
