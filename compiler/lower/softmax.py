"""softmax_exp and argmax: reductions along whole rows."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from phonolith.compiler.ir import Node
from phonolith.compiler.lower import wide
from phonolith.compiler.lower.context import WIDTH, Lowering
from phonolith.compiler.lower.rowwise import Rowwise
from phonolith.compiler.views import Rows
from phonolith.hw.isa import Destination, Multiplier, Pre, Reduce, Saturate, Source

MAXIMUM = 0


class SoftmaxExp(Rowwise):
    """The table of the distance to the row maximum."""

    def tile(self, rows: Rows, count: int, source: int, pitch: int) -> Iterator[None]:
        """Emit one tile: maximum, then exponentials."""
        ctx, a = self.ctx, self.node.attributes
        ctx.load_table(self.node.constants["table"])
        x = {"rows": count, "columns": self.columns, "source": Source.SCRATCHPAD, "source_base": source,
             "source_pitch": pitch}
        ctx.emitter.vector(**x, reduce=Reduce.MAX, reduce_register=MAXIMUM)
        yield
        with ctx.take(ctx.results, count * self.result_words) as result:
            ctx.emitter.vector(
                **x, pre=Pre.MINUS_ROW, row_register=MAXIMUM, multiplier=Multiplier.IMMEDIATE,
                factor=(-a["multiplier"], a["shift"]), saturate=Saturate.UINT8, table=True,
                destination=Destination.SCRATCHPAD, destination_byte=True, destination_base=result,
                destination_pitch=self.result_words)
            ctx.store_rows(rows, result, self.result_words)


class WideSoftmaxExp(Rowwise):
    """Three planes of bytes, each with its table (``docs/graph.md``)."""

    def __init__(self, ctx: Lowering, node: Node):
        super().__init__(ctx, node)
        self.plane_bytes = self.y.strides[0]
        self.y = self.y.at(0)
        self.tables = wide.Tables(ctx, node.constants["table"])

    def tile(self, rows: Rows, count: int, source: int, pitch: int) -> Iterator[None]:
        """Emit one tile: maximum, then the planes."""
        ctx, a = self.ctx, self.node.attributes
        x: dict[str, Any] = {"rows": count, "columns": self.columns, "source_base": source, "source_pitch": pitch}
        ctx.emitter.vector(**x, source=Source.SCRATCHPAD, reduce=Reduce.MAX, reduce_register=wide.MAXIMUM)
        yield
        with wide.offset_parameter(ctx, a["offset"]) as offset:
            wide.far_maximum(ctx, count, offset)
        for each in wide.PASSES:
            self.tables.load(each.plane)
            with ctx.take(ctx.results, count * self.result_words) as result:
                ctx.emitter.vector(
                    **x, **wide.look_up(a, each.maximum), destination=Destination.SCRATCHPAD, destination_byte=True,
                    destination_base=result, destination_pitch=self.result_words)
                stored = replace(rows, address=rows.address + each.plane * self.plane_bytes)
                ctx.store_rows(stored, result, self.result_words)


def softmax_exp(ctx: Lowering, node: Node) -> Rowwise:
    """Return the emitter of exponentials of 8 or 16 bits."""
    return (WideSoftmaxExp if "offset" in node.attributes else SoftmaxExp)(ctx, node)


class ArgMax(Rowwise):
    """The smallest index of each row's maximum."""

    def __init__(self, ctx: Lowering, node: Node):
        super().__init__(ctx, node)
        self.y = replace(self.y, shape=(*self.y.shape, 1), strides=(*self.y.strides, self.y.itemsize))
        self.result_words = 1

    def tile(self, rows: Rows, count: int, source: int, pitch: int) -> Iterator[None]:
        """Emit one tile: reduction, then the index that it carries."""
        ctx = self.ctx
        ctx.emitter.vector(
            rows=count, columns=self.columns, source=Source.SCRATCHPAD, source_width=WIDTH[self.x.dtype],
            source_base=source, source_pitch=pitch, reduce=Reduce.ARGMAX, reduce_register=MAXIMUM)
        yield
        with ctx.take(ctx.results, count) as result:
            ctx.emitter.vector(
                rows=count, columns=1, source=Source.ZERO, pre=Pre.MINUS_INDEX, row_register=MAXIMUM,
                multiplier=Multiplier.IMMEDIATE, factor=(-1, 0), saturate=Saturate.INT16,
                destination=Destination.SCRATCHPAD, destination_base=result, destination_pitch=1)
            ctx.store_rows(rows, result, 1)
