"""Multiply, shift right with the one rounding rule, add: the arithmetic core of every vector lane."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa

RESULT_BITS = 50


class Requantizer(wiring.Component):
    """``y = rshift_round(x * multiplier, min(shift, 47)) + addend``, rounding half up (``docs/graph.md``).

    Latency: 2 cycles, one result per cycle. Operands are taken at the end of a cycle with ``enable[0]``; ``enable[1]``
    in the next cycle produces their result, which stays until the next ``enable[1]``::

        enable[0]  _/~~~\\___________
        enable[1]  _____/~~~\\_______
        x, ...     _<___>___________
        y          _________<_______

    Members
    -------
    enable : In(2)
        Bit 0: take operands; bit 1: shift and round the product of the operands taken last.
    x, addend : In(signed(32))
    multiplier : In(signed(17))
    shift : In(6)
    y : Out(signed(50))
    """

    def __init__(self):
        super().__init__({
            "enable": In(2), "x": In(signed(32)), "multiplier": In(signed(isa.MULTIPLIER_BITS)),
            "shift": In(isa.SHIFT_BITS), "addend": In(signed(32)), "y": Out(signed(RESULT_BITS)),
        })

    def elaborate(self, platform):
        m = Module()
        product = Signal(signed(32 + isa.MULTIPLIER_BITS), reset_less=True)
        shift = Signal(isa.SHIFT_BITS, reset_less=True)
        addend = Signal(signed(32), reset_less=True)
        y = Signal(signed(RESULT_BITS), reset_less=True)
        m.d.comb += self.y.eq(y)
        with m.If(self.enable[0]):
            m.d.sync += [
                product.eq(self.x * self.multiplier),
                shift.eq(Mux(self.shift > isa.MAX_SHIFT, isa.MAX_SHIFT, self.shift)),
                addend.eq(self.addend),
            ]
        # With d = 2 * product >> shift, rounding half up is (d + 1) >> 1: one shifter and one adder, shift 0 included.
        doubled = Cat(Const(0, 1), product).as_signed()
        with m.If(self.enable[1]):
            m.d.sync += y.eq(((doubled >> shift) + Cat(Const(1, 1), addend).as_signed())[1:])
        return m
