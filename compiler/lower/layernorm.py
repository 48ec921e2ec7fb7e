"""layernorm: mean, centred squares, inverse square root, affine; one row tile at a time."""

from collections.abc import Iterator

from phonolith.compiler import pack
from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import SATURATE, Lowering
from phonolith.compiler.lower.rowwise import Rowwise
from phonolith.compiler.views import Rows
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


class LayerNorm(Rowwise):
    """Layer normalization; gamma and beta are loaded once where they fit."""

    passes = 5

    def __init__(self, ctx: Lowering, node: Node):
        super().__init__(ctx, node)
        self.operand_words = self.words
        c = node.constants
        address = ctx.constant(pack.parameters(c["beta"], c["gamma"], c["gamma_shift"]))
        self.affine = Affine(ctx, address, self.columns)

    def release(self) -> None:
        """Give the parameter memory back."""
        self.ctx.parameter.release(self.affine.region)

    def tile(self, rows: Rows, count: int, source: int, pitch: int) -> Iterator[None]:
        """Emit one tile: statistics, normal rows in int16, affine."""
        ctx, stored = self.ctx, self.result_words
        x = {"rows": count, "columns": self.columns, "source": Source.SCRATCHPAD, "source_base": source,
             "source_pitch": pitch}
        yield from self.statistics(x)
        with ctx.take(ctx.operands, count * self.words) as normal, \
                ctx.take(ctx.results, count * stored) as result:
            ctx.emitter.vector(
                **x, pre=Pre.MINUS_ROW, row_register=MEAN, multiplier=Multiplier.ROW, factor_register=FACTOR,
                saturate=Saturate.INT16, destination=Destination.SCRATCHPAD, destination_base=normal,
                destination_pitch=self.words)
            yield
            self.affine.apply(self.node, count, normal, self.words, result, stored)
            ctx.store_rows(rows, result, stored)
            if self.behind and self.part:
                yield from self.behind.follow(self.part, result, stored)

    def statistics(self, x: dict) -> Iterator[None]:
        """Leave the mean and the inverse standard deviation of each row in row registers."""
        a, emitter, count = self.node.attributes, self.ctx.emitter, x["rows"]
        emitter.vector(**x, reduce=Reduce.SUM, reduce_register=SUM)
        yield
        emitter.vector(
            rows=count, columns=1, source=Source.ZERO, pre=Pre.MINUS_ROW, row_register=SUM,
            multiplier=Multiplier.IMMEDIATE, factor=(-a["mean_multiplier"], a["mean_shift"]),
            reduce=Reduce.MAX, reduce_register=MEAN)
        yield
        emitter.vector(**x, pre=Pre.MINUS_ROW, row_register=MEAN, multiplier=Multiplier.SQUARE,
                       reduce=Reduce.SUM, reduce_register=SQUARES)
        yield
        emitter.rowop(function=RowFunction.INVERSE_SQRT, source_register=SQUARES, destination_register=FACTOR,
                      rows=count, factor=(a["numerator"], a["shift"]), epsilon=a["epsilon"])
        yield


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

    def apply(self, node: Node, rows: int, normal: int, words: int, result: int, stored: int) -> None:
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
                rows=rows, columns=columns, source=Source.SCRATCHPAD, source_base=normal + chunk,
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
