"""matmul: products of two run-time operands, head by head."""

from collections.abc import Callable, Iterator

from phonolith.compiler.counts import part
from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import WIDTH, Lowering
from phonolith.compiler.lower.product import Product
from phonolith.compiler.lower.product_schedule import ProductSchedule
from phonolith.compiler.lower.shelf import LoadColumns
from phonolith.compiler.pack import tile_words
from phonolith.compiler.views import Rows, View, common_rows
from phonolith.hw.isa import Reduce, RowFunction, Source, Target

ROW_SUM, ROW_FACTOR = 0, 1


def lower_matmul(ctx: Lowering, node: Node) -> None:
    """Emit one product per head."""
    a = node.attributes
    if a.get("normalize") and ctx.views[node.inputs[0]].dtype != "uint8":
        raise ctx.unsupported("normalize needs uint8 rows, whose sums cannot be negative")
    for x, b, y in heads(node, *(ctx.views[name] for name in (*node.inputs, node.name))):
        ((rows, results),) = common_rows(x, y)
        if a["transpose_b"]:
            columns, tile_columns, load_columns = b.shape[0], ctx.config.columns, by_rows(ctx, b)
        else:
            columns, tile_columns, load_columns = b.shape[1], *transposed(ctx, b)
        normalize = normalizer(ctx, node, x) if a.get("normalize") else None
        ProductSchedule(ctx, Product(
            a=rows, a_unsigned=x.dtype == "uint8", k=rows.row_bytes, bits=b.bits, columns=columns,
            tile_columns=tile_columns, load_columns=load_columns, y=results, dtype=node.dtype,
            factor=(0, 0) if normalize else (a["multiplier"], a["shift"]), prepare=normalize,
            factor_register=ROW_FACTOR, most_rows=most_rows(ctx, x) if normalize else None,
            rows_ready=not ctx.made.intersection(node.inputs))).emit()


def heads(node: Node, a: View, b: View, y: View) -> Iterator[tuple[View, View, View]]:
    """Yield both operands and the result of each head."""
    count = node.attributes.get("heads")
    if count is None:
        yield a, b, y
        return
    for head in range(count):
        if node.attributes["transpose_b"]:
            yield head_columns(a, head, count), head_columns(b, head, count), y.at(head)
        else:
            yield a.at(head), head_columns(b, head, count), head_columns(y, head, count)


def head_columns(view: View, head: int, heads: int) -> View:
    """Return one head's columns."""
    width = view.shape[-1] // heads
    return view.slice(head * width, (head + 1) * width)


def by_rows(ctx: Lowering, b: View) -> LoadColumns:
    """Return how to load tiles of ``b`` ``[N, K]``: each row is a column of the product."""
    stored = b.as_bytes()
    ((rows,),) = common_rows(stored)
    words = tile_words(rows.row_bytes, ctx.config)

    def load_columns(tiles: range, base: int) -> None:
        first = tiles.start * ctx.config.columns
        count = part(stored.shape[0], first, len(tiles) * ctx.config.columns)
        ctx.emitter.load(target=Target.WEIGHT, address=stored.address + first * stored.strides[0], base=base,
                         row_words=words, inner_count=count, inner_stride=stored.strides[0],
                         segment_bytes=rows.row_bytes)

    return load_columns


def transposed(ctx: Lowering, b: View, words: int = 0) -> tuple[int, LoadColumns]:
    """Return columns per tile and how to load tiles of ``b`` ``[K, N]``, turned by LOAD strip by strip.

    ``words``: from tile to tile, those of K without it.
    """
    config, b = ctx.config, b.as_bytes()
    tile_columns = min(config.columns, config.dma_bytes)
    strip_tiles = max(1, config.dma_bytes // config.columns)
    words = words or tile_words(b.shape[0], config)

    def load_columns(tiles: range, base: int) -> None:
        for tile in range(tiles.start, tiles.stop, strip_tiles):
            first = tile * tile_columns
            stop = min((min(tile + strip_tiles, tiles.stop)) * tile_columns, b.shape[1])
            ctx.emitter.load(target=Target.WEIGHT, transpose=True, address=b.address + first * b.strides[-1],
                             base=base + (tile - tiles.start) * words, row_words=words,
                             inner_count=b.shape[0], inner_stride=b.strides[0], segment_bytes=stop - first)

    return tile_columns, load_columns


def most_rows(ctx: Lowering, a: View) -> int:
    """Return how many rows of ``a`` fit half a scratchpad bank, at most the array's."""
    words = ctx.scratch_words(a.shape[-1], 1)
    return max(1, min(ctx.config.rows, ctx.operands.words // 2 // words))


def normalizer(ctx: Lowering, node: Node, a: View) -> Callable[[Rows], None]:
    """Return what leaves the reciprocals of row sums of ``a`` in ROW_FACTOR."""
    words = ctx.scratch_words(a.shape[-1], 1)

    def prepare(rows: Rows) -> None:
        with ctx.take(ctx.operands, rows.count * words) as source:
            ctx.load_rows(Target.SCRATCHPAD, rows, source, words)
            ctx.emitter.vector(
                rows=rows.count, columns=a.shape[-1], source=Source.SCRATCHPAD, source_width=WIDTH[a.dtype],
                source_base=source, source_pitch=words, reduce=Reduce.SUM, reduce_register=ROW_SUM)
            ctx.emitter.rowop(
                function=RowFunction.RECIPROCAL, source_register=ROW_SUM, destination_register=ROW_FACTOR,
                rows=rows.count, factor=(node.attributes["numerator"], node.attributes["shift"]))

    return prepare
