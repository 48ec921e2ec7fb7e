"""add, add_rows, multiply, rescale and table: one VECTOR per piece."""

from typing import Any

import numpy as np

from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import SATURATE, WIDTH, Lowering, align
from phonolith.compiler.lower.rowwise import Piece, pieces
from phonolith.compiler.views import View
from phonolith.hw.isa import Destination, Multiplier, Saturate, Source, Target


def lower_add(ctx: Lowering, node: Node) -> None:
    """Emit a saturating sum: one operand is the source, the other the residual."""
    a, b, y = (ctx.views[name] for name in (*node.inputs, node.name))
    binary(ctx, a, b, y, residual=True)


def lower_add_rows(ctx: Lowering, node: Node) -> None:
    """Emit a saturating sum with constant rows."""
    x, y, rows = ctx.views[node.inputs[0]], ctx.views[node.name], node.constants["rows"]
    pitch = align(2 * rows.shape[1], ctx.config.bus_bytes)
    address = ctx.constant(np.pad(rows.astype("<i2").view(np.uint8), ((0, 0), (0, pitch - 2 * rows.shape[1]))))
    binary(ctx, x, View(address, x.shape, (pitch, 2), "int16"), y, residual=True)


def lower_multiply(ctx: Lowering, node: Node) -> None:
    """Emit a product element by element: the int16 operand is the multiplier."""
    a, b, y = (ctx.views[name] for name in (*node.inputs, node.name))
    binary(ctx, b, a, y, multiplier=Multiplier.ELEMENT, factor=(0, node.attributes["shift"]))


def binary(ctx: Lowering, x: View, other: View, y: View, **operation: Any) -> None:
    """Load two tensors, pass the first through VECTOR with the second, of int16, as residual operand; store."""
    for piece in pieces(ctx, x, other, y):
        words = [ctx.scratch_words(piece.columns, view.itemsize) for view in (x, other, y)]
        sizes = [piece.count * each for each in words]
        with ctx.take(ctx.operands, sizes[0]) as source, ctx.take(ctx.results, sizes[1]) as residual, \
                ctx.take(ctx.results, sizes[2]) as result:
            ctx.load_rows(Target.SCRATCHPAD, piece.rows[0], source, words[0])
            ctx.load_rows(Target.SCRATCHPAD, piece.rows[1], residual, words[1])
            ctx.emitter.vector(
                rows=piece.count, columns=piece.columns, source=Source.SCRATCHPAD, source_width=WIDTH[x.dtype],
                source_base=source, source_pitch=words[0], residual_base=residual, residual_pitch=words[1],
                saturate=SATURATE[y.dtype], destination=Destination.SCRATCHPAD, destination_byte=y.itemsize == 1,
                destination_base=result, destination_pitch=words[2], **operation)
            ctx.store_rows(piece.rows[2], result, words[2])


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
