"""Exponentials of 16 bits, in three planes of bytes (``docs/graph.md``): instructions that all their users share.

Four row registers are enough: the sum of one plane takes the place of a maximum that is read no more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from phonolith.compiler import pack
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.shapes import PLANES
from phonolith.hw.isa import Destination, Multiplier, Pre, Reduce, RowFunction, Saturate, Source, Target

MAXIMUM, TOTAL, FAR_SUM, FAR_MAXIMUM = range(4)
# After the total, two registers hold row factors: of the low and far planes, and of the high one.
SMALL_FACTOR, HIGH_FACTOR = 2, 3
# Sums and products are added with 7 fractional bits, in units that 8 more bits divide.
FRACTION_BITS, BYTE_BITS = 7, 8
HIGH, LOW, FAR = range(PLANES)
# The register of each product's row factors.
FACTORS = {FAR: SMALL_FACTOR, LOW: SMALL_FACTOR, HIGH: HIGH_FACTOR}


@dataclass(frozen=True)
class Pass:
    """The pass over the scores that makes a plane; row registers of the maximum that it reads and the sum it leaves."""

    plane: int
    maximum: int
    sum: int


# In the order in which the products are added, so that the array can begin with the first.
PASSES = (Pass(FAR, FAR_MAXIMUM, FAR_SUM), Pass(LOW, MAXIMUM, FAR_MAXIMUM), Pass(HIGH, MAXIMUM, TOTAL))
ORDER = tuple(each.plane for each in PASSES)


@contextmanager
def offset_parameter(ctx: Lowering, offset: int) -> Iterator[int]:
    """Give the parameter word that holds an offset as a bias."""
    zero = np.zeros(1, np.int32)
    address = ctx.constant(pack.parameters(zero - np.int32(offset), zero, zero))
    with ctx.take(ctx.parameter, 1) as base:
        ctx.load_block(Target.PARAMETER, address, 8, base)
        yield base


class Tables:
    """The tables of the planes, of which the vector unit holds one at a time."""

    def __init__(self, ctx: Lowering, tables: np.ndarray):
        self.ctx = ctx
        self.tables = tables
        self.addresses = [ctx.constant(table) for table in tables]

    def load(self, plane: int) -> None:
        """Make the vector unit hold the table of a plane."""
        self.ctx.load_table(self.tables[plane], self.addresses[plane])


def far_maximum(ctx: Lowering, rows: int, parameter: int) -> None:
    """Leave the row maximum less the offset in FAR_MAXIMUM."""
    ctx.emitter.vector(
        rows=rows, columns=1, source=Source.ZERO, pre=Pre.MINUS_ROW, row_register=MAXIMUM,
        multiplier=Multiplier.IMMEDIATE, factor=(-1, 0), post_bias=True, parameter_base=parameter,
        reduce=Reduce.MAX, reduce_register=FAR_MAXIMUM)


def look_up(attributes: dict, maximum: int) -> dict[str, Any]:
    """Return what VECTOR needs to turn scores into exponentials relative to a row register."""
    return {"source": Source.SCRATCHPAD, "pre": Pre.MINUS_ROW, "row_register": maximum,
            "multiplier": Multiplier.IMMEDIATE, "factor": (-attributes["multiplier"], attributes["shift"]),
            "saturate": Saturate.UINT8, "table": True}


def add_sums(ctx: Lowering, rows: int) -> None:
    """Leave twice the sum of the high plane and those of the others, less 7 bits, in TOTAL."""
    far, low = (each.sum for each in PASSES if each.plane != HIGH)
    one: dict[str, Any] = {"rows": rows, "columns": 1, "destination_pitch": 1}
    part: dict[str, Any] = {"source": Source.ZERO, "pre": Pre.MINUS_ROW, "multiplier": Multiplier.IMMEDIATE,
            "factor": (-1, FRACTION_BITS), "saturate": Saturate.INT16, "destination": Destination.SCRATCHPAD}
    emitter = ctx.emitter
    with ctx.take(ctx.results, rows) as one_sum, ctx.take(ctx.results, rows) as both:
        emitter.vector(**one, **part, row_register=low, destination_base=one_sum)
        emitter.vector(**one, **part, row_register=far, destination_base=both, residual=True,
                       residual_base=one_sum, residual_pitch=1)
        emitter.vector(**one, source=Source.ZERO, pre=Pre.MINUS_ROW, row_register=TOTAL,
                       multiplier=Multiplier.IMMEDIATE, factor=(2, 0), reduce=Reduce.MAX, reduce_register=FAR_SUM)
        emitter.vector(**one, source=Source.SCRATCHPAD, source_base=both, source_pitch=1, pre=Pre.MINUS_ROW,
                       row_register=FAR_SUM, reduce=Reduce.MAX, reduce_register=TOTAL)


def row_factor(ctx: Lowering, context: dict, rows: int, register: int) -> None:
    """Turn the total into the factor of the high plane's product or of the others'."""
    less = BYTE_BITS if register == HIGH_FACTOR else 0
    ctx.emitter.rowop(
        function=RowFunction.RECIPROCAL, source_register=TOTAL, destination_register=register, rows=rows,
        factor=(context["numerator"], context["shift"] - less))
