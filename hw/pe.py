"""One processing element: a multiplier, an accumulator and a drain register."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

ACTIVATION_BITS = 9
WEIGHT_BITS = 8
ACCUMULATOR_BITS = 32


class ActivationLayout(data.StructLayout):
    """What travels along a row of the array, one per cycle.

    ``value`` is the activation (int8 or uint8, as nine signed bits), 0 in a bubble; ``first`` and ``last`` mark the
    first and the last product of a sum.
    """

    def __init__(self):
        super().__init__({"value": signed(ACTIVATION_BITS), "first": 1, "last": 1})


class PE(wiring.Component):
    """Multiply, accumulate, and keep the finished sum for the drain.

    ::

                      weight_in
                         |
                      [weight]-----> weight_out (to the row below)
                         |
        activation_in -[activation]-(x)-(+)-[accumulator]-+-[result]--> result
                         |               |                |
                         |               +-- 0 if first <-+
                         +--> activation_out (to the next column)

    Boxes are registers. With operands at the inputs in cycle t, both leave for the neighbours in t + 1, in which
    their product is added. ``result`` shows a sum whose last operands came in t from cycle t + 3 on, until the next
    sum is complete. While ``enable`` is 0 operands and accumulator keep their value.

    Members
    -------
    enable : In(1)
        The array has work in it.
    activation_in : In(ActivationLayout), activation_out : Out(ActivationLayout)
        Activation and marks, from the column before and to the next.
    weight_in : In(signed(8)), weight_out : Out(signed(8))
        Weight, from the row above and to the row below.
    result : Out(signed(32))
        Last finished sum, modulo 2^32.
    """

    enable: In(1)
    activation_in: In(ActivationLayout())
    activation_out: Out(ActivationLayout())
    weight_in: In(signed(WEIGHT_BITS))
    weight_out: Out(signed(WEIGHT_BITS))
    result: Out(signed(ACCUMULATOR_BITS))

    def elaborate(self, platform):
        m = Module()
        activation = Signal(ActivationLayout(), reset_less=True)
        weight = Signal(signed(WEIGHT_BITS), reset_less=True)
        accumulator = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
        result = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
        finished = Signal(reset_less=True)
        operand = Signal(signed(ACCUMULATOR_BITS - WEIGHT_BITS))  # so that the product has the accumulator's width
        m.d.comb += [
            operand.eq(activation.value),
            self.activation_out.eq(activation),
            self.weight_out.eq(weight),
            self.result.eq(result),
        ]
        with m.If(self.enable):
            m.d.sync += [
                activation.eq(self.activation_in),
                weight.eq(self.weight_in),
                accumulator.eq(Mux(activation.first, 0, accumulator) + operand * weight),
                finished.eq(activation.last),
            ]
        with m.If(finished):  # needs no enable: accumulator and mark stand still together
            m.d.sync += result.eq(accumulator)
        return m
