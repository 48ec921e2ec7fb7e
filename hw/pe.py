"""One processing element: eight lanes of an activation times a bit of a weight, an accumulator and a drain register."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

LANES = 8
ACTIVATION_BITS = 8
WEIGHT_BITS = 8
ACCUMULATOR_BITS = 32
PRODUCT_BITS = 18
WIDTH_BITS = 2


def lanes_used(log2_lanes: int) -> tuple[int, ...]:
    """Return the lanes that carry the 1, 2, 4 or 8 activations of a step, in the order of k."""
    return tuple(range(0, LANES, LANES >> log2_lanes))


class ActivationLayout(data.StructLayout):
    """What travels along a row of the array, one per cycle.

    lanes
        Activations of a step, a byte each. A weight of 8 >> ``log2_lanes`` bits leaves room for 1 << ``log2_lanes`` of
        them; they lie in the lanes of :func:`lanes_used`, and what is in the others does not matter. 0 in a bubble.
    unsigned
        They are uint8, not int8.
    log2_lanes
        Width of the weights that they meet.
    first, last
        The first and the last step of a sum.
    """

    def __init__(self):
        super().__init__({"lanes": ACTIVATION_BITS * LANES, "unsigned": 1,
                          "log2_lanes": WIDTH_BITS, "first": 1, "last": 1})


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
    sum is complete.

    The product is a tree over eight lanes, each an activation times a bit of the weight byte; the byte holds one weight
    of 8 bits, two of 4, four of 2 (two's complement, the first lowest) or eight of 1 bit, which count 0 or 1::

        bit        0   1   2   3   4   5   6   7
        8 bits     a0 * w                             all lanes take lane 0
        4 bits     a0 * w[3:0]    a4 * w[7:4]
        2 bits     a0 * ..  a2 * ..  a4 * ..  a6 * ..
        1 bit      a0  a1  a2  a3  a4  a5  a6  a7     no lane is shifted

    The registers of lanes 1 to 7 stand still while weights have 8 bits.

    Members
    -------
    activation_in : In(ActivationLayout), activation_out : Out(ActivationLayout)
        Activations and marks, from the column before and to the next.
    weight_in : In(8), weight_out : Out(8)
        Weights, from the row above and to the row below.
    result : Out(signed(32))
        Last finished sum, modulo 2^32.
    """

    activation_in: In(ActivationLayout())
    activation_out: Out(ActivationLayout())
    weight_in: In(WEIGHT_BITS)
    weight_out: Out(WEIGHT_BITS)
    result: Out(signed(ACCUMULATOR_BITS))

    def elaborate(self, platform):
        m = Module()
        activation = Signal(ActivationLayout(), reset_less=True)
        weight = Signal(WEIGHT_BITS, reset_less=True)
        accumulator = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
        result = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
        finished = Signal(reset_less=True)
        product = Signal(signed(PRODUCT_BITS))
        m.d.comb += [
            self.activation_out.eq(activation),
            self.weight_out.eq(weight),
            self.result.eq(result),
            product.eq(multiply(m, activation, weight)),
        ]
        self.take(m, activation)
        m.d.sync += [
            weight.eq(self.weight_in),
            accumulator.eq(Mux(activation.first, 0, accumulator) + product),
            finished.eq(activation.last),
        ]
        with m.If(finished):
            m.d.sync += result.eq(accumulator)
        return m

    def take(self, m: Module, activation) -> None:
        """Take what comes from the column before; the upper lanes only where the weights are narrow."""
        new = self.activation_in
        m.d.sync += [activation[name].eq(new[name]) for name in ("unsigned", "log2_lanes", "first", "last")]
        m.d.sync += activation.lanes[:ACTIVATION_BITS].eq(new.lanes[:ACTIVATION_BITS])
        with m.If(new.log2_lanes != 0):
            m.d.sync += activation.lanes[ACTIVATION_BITS:].eq(new.lanes[ACTIVATION_BITS:])


def multiply(m: Module, activation, weight) -> Signal:
    """Return the product of the activations of a step (a view of :class:`ActivationLayout`) and a weight byte.

    The top bit of a weight counts negative: -(p << n) is (~p << n) + (1 << n), whose last term a free bit takes.
    """
    log2_lanes = activation.log2_lanes
    single, halves, wide = Signal(), Signal(), Signal()
    m.d.comb += [single.eq(log2_lanes == 3), halves.eq(log2_lanes == 2), wide.eq(log2_lanes == 0)]
    tops = {1: halves, 3: halves | (log2_lanes == 1), 5: halves, 7: ~single}
    selected = [named(m, Mux(weight[lane], value, 0), f"selected_{lane}", ACTIVATION_BITS + 1)
                for lane, value in enumerate(lane_values(m, activation, single))]
    sums = []
    for lane in range(0, LANES, 2):
        top = named(m, tops[lane + 1], f"top_{lane + 1}", 1)
        flipped = named(m, selected[lane + 1] ^ top.replicate(ACTIVATION_BITS + 1), f"flipped_{lane + 1}",
                        ACTIVATION_BITS + 1)
        doubled = Mux(single, flipped.as_signed(), Cat(top, flipped).as_signed())
        total = selected[lane].as_signed() + doubled + Cat(top, Const(0, 1)).as_signed()
        sums.append(named(m, total, f"pair_{lane}", signed(ACTIVATION_BITS + 3)))
    for step, unshifted in ((2, log2_lanes[1]), (4, ~wide)):
        sums = [named(m, low + Mux(unshifted, high, high << step), f"sum_{step}_{index}", signed(PRODUCT_BITS))
                for index, (low, high) in enumerate(zip(sums[::2], sums[1::2], strict=True))]
    return sums[0]


def lane_values(m: Module, activation, single) -> list[Signal]:
    """Return what each lane multiplies, nine bits of two's complement: its own register or that of a lane before it."""
    log2_lanes = activation.log2_lanes
    lanes = [activation.lanes.word_select(lane, ACTIVATION_BITS) for lane in range(LANES)]
    own = {1: log2_lanes != 0, 2: log2_lanes[1], 3: single}     # by the narrowest width that leaves a lane free
    chosen = [lanes[0]]
    for lane in range(1, LANES):
        narrowest = next(width for width in range(4) if lane in lanes_used(width))
        before = lane - (LANES >> narrowest)     # the lane that it repeats for wider weights
        chosen.append(named(m, Mux(own[narrowest], lanes[lane], chosen[before]), f"lane_{lane}", ACTIVATION_BITS))
    return [named(m, Cat(value, value[-1] & ~activation.unsigned), f"value_{lane}", ACTIVATION_BITS + 1)
            for lane, value in enumerate(chosen)]


def named(m: Module, value, name: str, shape) -> Signal:
    """Return a signal for a value, so that the text computes it once."""
    signal = Signal(shape, name=name)
    m.d.comb += signal.eq(value)
    return signal
