"""add, rescale and table: one VECTOR per piece."""

from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import SATURATE, WIDTH, Lowering
from phonolith.compiler.lower.rowwise import Piece, pieces
from phonolith.compiler.views import View
from phonolith.hw.isa import Destination, Multiplier, Saturate, Source, Target


def lower_add(ctx: Lowering, node: Node) -> None:
    """Emit a saturating sum: one operand is the source, the other the residual."""
    a, b, y = (ctx.views[name] for name in (*node.inputs, node.name))
    for piece in pieces(ctx, a, b, y):
        words = ctx.scratch_words(piece.columns, 2)
        size = piece.count * words
        with ctx.take(ctx.operands, size) as source, ctx.take(ctx.results, size) as residual, \
                ctx.take(ctx.results, size) as result:
            ctx.load_rows(Target.SCRATCHPAD, piece.rows[0], source, words)
            ctx.load_rows(Target.SCRATCHPAD, piece.rows[1], residual, words)
            ctx.emitter.vector(
                rows=piece.count, columns=piece.columns, source=Source.SCRATCHPAD, source_base=source,
                source_pitch=words, residual=True, residual_base=residual, residual_pitch=words,
                saturate=Saturate.INT16, destination=Destination.SCRATCHPAD, destination_base=result,
                destination_pitch=words)
            ctx.store_rows(piece.rows[2], result, words)


def lower_rescale(ctx: Lowering, node: Node) -> None:
    """Emit a change of scale."""
    factor = (node.attributes["multiplier"], node.attributes["shift"])
    x, y = ctx.views[node.inputs[0]], ctx.views[node.name]
    for piece in pieces(ctx, x, y):
        unary(ctx, x, y, piece, multiplier=Multiplier.IMMEDIATE, factor=factor)


def lower_table(ctx: Lowering, node: Node) -> None:
    """Emit a table lookup."""
    ctx.load_table(node.constants["table"])
    x, y = ctx.views[node.inputs[0]], ctx.views[node.name]
    for piece in pieces(ctx, x, y):
        unary(ctx, x, y, piece, table=True)


def unary(ctx: Lowering, x: View, y: View, piece: Piece, table: bool = False,
          multiplier: Multiplier = Multiplier.ONE, factor: tuple[int, int] = (0, 0)) -> None:
    """Load, pass through the vector unit, and store one piece of x."""
    loaded = ctx.scratch_words(piece.columns, x.itemsize)
    stored = ctx.scratch_words(piece.columns, y.itemsize)
    with ctx.take(ctx.operands, piece.count * loaded) as source, \
            ctx.take(ctx.results, piece.count * stored) as result:
        ctx.load_rows(Target.SCRATCHPAD, piece.rows[0], source, loaded)
        ctx.emitter.vector(
            rows=piece.count, columns=piece.columns, source=Source.SCRATCHPAD, source_width=WIDTH[x.dtype],
            source_base=source, source_pitch=loaded, multiplier=multiplier, factor=factor,
            saturate=Saturate.NONE if table else SATURATE[y.dtype], table=table,
            table_signed=table and y.dtype == "int8", destination=Destination.SCRATCHPAD,
            destination_byte=y.itemsize == 1, destination_base=result, destination_pitch=stored)
        ctx.store_rows(piece.rows[1], result, stored)
