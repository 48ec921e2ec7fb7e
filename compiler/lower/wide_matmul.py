"""matmul of exponentials of 16 bits that lie in DRAM: one product per plane of bytes, added in temporary tensors."""

from collections.abc import Callable
from dataclasses import replace

from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import WIDTH, Lowering
from phonolith.compiler.lower.elementwise import unary
from phonolith.compiler.lower.matmul import heads, most_rows, transposed
from phonolith.compiler.lower.product import Product
from phonolith.compiler.lower.product_schedule import ProductSchedule
from phonolith.compiler.lower.rowwise import pieces
from phonolith.compiler.lower.wide import FACTORS, FRACTION_BITS, ORDER, PASSES, add_sums, row_factor
from phonolith.compiler.views import Rows, View, common_rows
from phonolith.hw.isa import Multiplier, Reduce, Source, Target


def lower_wide_matmul(ctx: Lowering, node: Node) -> None:
    """Emit the products of the planes, the smallest first, then the pass that takes the fractional bits away."""
    a, b, y = (ctx.views[name] for name in (*node.inputs, node.name))
    total = None
    for plane in ORDER:
        added = ctx.temporary(replace(y, dtype="int16"))
        operands = heads(node, a.at(plane), b, added)
        before = heads(node, a.at(plane), b, total or added)
        for (x, columns, result), (_, _, residual) in zip(operands, before, strict=True):
            emit_plane(ctx, node, plane, (x, columns, result, residual if total else None), a.strides[0])
        total = added
    assert total is not None
    for piece in pieces(ctx, total, y):
        unary(ctx, total, y, piece, multiplier=Multiplier.IMMEDIATE, factor=(1, FRACTION_BITS))


def emit_plane(ctx: Lowering, node: Node, plane: int, operands: tuple[View, View, View, View | None],
               plane_bytes: int) -> None:
    """Emit the product of one plane and one head, added to a residual."""
    x, b, y, before = operands
    ((rows, results, residual),) = common_rows(x, y, before or y)
    tile_columns, load_columns = transposed(ctx, b)
    ProductSchedule(ctx, Product(
        a=rows, a_unsigned=True, k=rows.row_bytes, columns=b.shape[1], tile_columns=tile_columns,
        load_columns=load_columns, y=results, dtype="int16", residual=residual if before else None,
        prepare=normalizer(ctx, node, x, plane, plane_bytes), factor_register=FACTORS[plane],
        most_rows=most_rows(ctx, x), rows_ready=not ctx.made.intersection(node.inputs))).emit()


def normalizer(ctx: Lowering, node: Node, a: View, plane: int, plane_bytes: int) -> Callable[[Rows], None]:
    """Return what leaves the row factors of a plane in its register, given rows of that plane."""
    words = ctx.scratch_words(a.shape[-1], 1)

    def prepare(rows: Rows) -> None:
        for each in PASSES:
            with ctx.take(ctx.operands, rows.count * words) as source:
                moved = replace(rows, address=rows.address + (each.plane - plane) * plane_bytes)
                ctx.load_rows(Target.SCRATCHPAD, moved, source, words)
                ctx.emitter.vector(
                    rows=rows.count, columns=a.shape[-1], source=Source.SCRATCHPAD, source_width=WIDTH[a.dtype],
                    source_base=source, source_pitch=words, reduce=Reduce.SUM, reduce_register=each.sum)
        add_sums(ctx, rows.count)
        row_factor(ctx, node.attributes, rows.count, FACTORS[plane])

    return prepare
