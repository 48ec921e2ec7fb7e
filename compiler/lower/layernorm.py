"""layernorm: mean, centred squares, inverse square root, affine; one row tile at a time."""

from collections.abc import Iterator

from phonolith.compiler import pack
from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import SATURATE, Lowering
from phonolith.compiler.lower.rowwise import Piece, row_tiles
from phonolith.hw.isa import (
    Destination,
    Multiplier,
    Pre,
    Reduce,
    RowFunction,
    Saturate,
    Source,
    Target,
)

SUM, MEAN, SQUARES, FACTOR = range(4)
PARAMETER_BYTES = 8


def lower_layernorm(ctx: Lowering, node: Node) -> Iterator[int]:
    """Emit the row tiles, yielding in front of each how many rows of x it needs; load gamma and beta once if they fit.
    """
    x, y = ctx.views[node.inputs[0]], ctx.views[node.name]
    c = node.constants
    address = ctx.constant(pack.parameters(c["beta"], c["gamma"], c["gamma_shift"]))
    words, stored = ctx.scratch_words(x.shape[-1], 2), ctx.scratch_words(x.shape[-1], y.itemsize)
    gamma = Affine(ctx, address, x.shape[-1])
    for piece in row_tiles(ctx, words + stored, x, y):
        yield piece.stop
        with ctx.take(ctx.operands, piece.count * words) as source, \
                ctx.take(ctx.results, piece.count * words) as normal, \
                ctx.take(ctx.results, piece.count * stored) as result:
            ctx.load_rows(Target.SCRATCHPAD, piece.rows[0], source, words)
            statistics(ctx, node, piece, source, words)
            normalise(ctx, piece, source, normal, words)
            gamma.apply(node, piece, normal, words, result, stored)
            ctx.store_rows(piece.rows[1], result, stored)
    gamma.release()


def statistics(ctx: Lowering, node: Node, piece: Piece, source: int, words: int) -> None:
    """Leave the mean and the inverse standard deviation of each row in row registers."""
    a = node.attributes
    row = {"rows": piece.count, "columns": piece.columns, "source": Source.SCRATCHPAD, "source_base": source,
           "source_pitch": words}
    ctx.emitter.vector(**row, reduce=Reduce.SUM, reduce_register=SUM)
    ctx.emitter.vector(
        rows=piece.count, columns=1, source=Source.ZERO, pre=Pre.MINUS_ROW, row_register=SUM,
        multiplier=Multiplier.IMMEDIATE, factor=(-a["mean_multiplier"], a["mean_shift"]),
        reduce=Reduce.MAX, reduce_register=MEAN)
    ctx.emitter.vector(**row, pre=Pre.MINUS_ROW, row_register=MEAN, multiplier=Multiplier.SQUARE,
                       reduce=Reduce.SUM, reduce_register=SQUARES)
    ctx.emitter.rowop(function=RowFunction.INVERSE_SQRT, source_register=SQUARES, destination_register=FACTOR,
                      rows=piece.count, factor=(a["numerator"], a["shift"]), epsilon=a["epsilon"])


def normalise(ctx: Lowering, piece: Piece, source: int, normal: int, words: int) -> None:
    """Write the rows with zero mean and unit variance, int16."""
    ctx.emitter.vector(
        rows=piece.count, columns=piece.columns, source=Source.SCRATCHPAD, source_base=source,
        source_pitch=words, pre=Pre.MINUS_ROW, row_register=MEAN, multiplier=Multiplier.ROW,
        factor_register=FACTOR, saturate=Saturate.INT16, destination=Destination.SCRATCHPAD,
        destination_base=normal, destination_pitch=words)


class Affine:
    """Gamma and beta: in the parameter memory throughout if all columns fit, else piece by piece."""

    def __init__(self, ctx: Lowering, address: int, columns: int):
        self.ctx = ctx
        self.address = address
        self.columns = columns
        self.chunks = min(-(-columns // ctx.config.columns), ctx.parameter.free)
        self.region = ctx.hold(ctx.parameter, self.chunks)
        self.step = self.chunks * ctx.config.columns
        self.loaded: int | None = None

    def release(self) -> None:
        """Give the parameter memory back."""
        self.ctx.parameter.release(self.region)

    def apply(self, node: Node, piece: Piece, normal: int, words: int, result: int, stored: int) -> None:
        """Emit ``gamma * t + beta`` for the columns of a row tile.

        A step holds an even number of chunks unless it is the only one: bytes share scratchpad words in pairs.
        """
        byte = self.ctx.views[node.name].itemsize == 1
        step = self.step if self.step >= self.columns else max(self.chunks & ~1, 1) * self.ctx.config.columns
        for start in range(0, self.columns, step):
            chunk = start // self.ctx.config.columns
            columns = min(step, self.columns - start)
            self.load(start, columns)
            self.ctx.emitter.vector(
                rows=piece.count, columns=columns, source=Source.SCRATCHPAD, source_base=normal + chunk,
                source_pitch=words, multiplier=Multiplier.COLUMN, post_bias=True,
                parameter_base=self.region.low, saturate=SATURATE[node.dtype],
                destination=Destination.SCRATCHPAD, destination_byte=byte,
                destination_base=result + (chunk // 2 if byte else chunk), destination_pitch=stored)

    def load(self, start: int, columns: int) -> None:
        """Load the parameters of some columns unless they are there."""
        if self.loaded != start:
            self.ctx.load_block(Target.PARAMETER, self.address + start * PARAMETER_BYTES,
                                columns * PARAMETER_BYTES, self.region.low)
        self.loaded = start
