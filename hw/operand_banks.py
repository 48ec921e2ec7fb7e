"""From operand banks to the array's edges: skewed reads, the bytes of each step, and the kernel of a band."""

from collections.abc import Iterator

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data

from phonolith.hw.config import MachineConfig
from phonolith.hw.pe import ACTIVATION_BITS, LANES, WEIGHT_BITS, WIDTH_BITS, lanes_used


class EdgeLayout(data.StructLayout):
    """How a bank's word becomes the activations of a step: from which byte on, which of them exist (bit n: the n-th of
    the step, the first excepted, which always does), and what marks go with them (see :class:`StepLayout`)."""

    def __init__(self, config: MachineConfig):
        super().__init__({"byte": range(config.word_bytes), "product": 1, "first": 1, "last": 1, "unsigned": 1,
                          "log2_lanes": WIDTH_BITS, "exists": LANES})


class WeightEdgeLayout(data.StructLayout):
    """The same for weights; ``band``: the weight of this step is that of the column before, one step later."""

    def __init__(self, config: MachineConfig):
        super().__init__({"byte": range(config.word_bytes), "weight": 1, "band": 1})


def read_banks(m: Module, ports, enable, address, edge) -> list:
    """Read bank 0 now and each further bank one cycle after the one before it.

    Returns ``edge`` once per bank, in step with the bank's data.
    """
    edges = []
    for index, port in enumerate(ports):
        if index:
            enable, address = delayed(m, enable, "enable"), delayed(m, address, "address", reset_less=True)
        m.d.comb += [port.enable.eq(enable), port.address.eq(address)]
        edges.append(edge := delayed(m, edge, "edge"))
    return edges


def read_weights(m: Module, config: MachineConfig, ports, step, issue) -> list:
    """Return the weight of each column for a step (a view of ``StepLayout``) that is taken if ``issue``.

    A band is read from bank 0 alone: the other columns take its bytes from their neighbours.
    """
    first, *others = ports
    edge = Signal(WeightEdgeLayout(config))
    m.d.comb += [edge.byte.eq(step.weight_byte), edge.weight.eq(step.weight), edge.band.eq(issue & step.band)]
    enable, address = issue & step.read_weight & step.weight, step.weight_address
    edges = read_banks(m, [first], enable, address, edge)
    edges += read_banks(m, others, delayed(m, enable & ~step.band, "enable"),
                        delayed(m, address, "address", reset_less=True), edges[0])
    kernel = Mux(edges[0].weight, select_byte(first.data, edges[0].byte), 0)
    shifted = delay_kernel(m, kernel, edges)
    return [kernel, *(Mux(edge.band, byte, select_byte(port.data, edge.byte))
                      for port, edge, byte in zip(others, edges[1:], shifted, strict=True))]


def delay_kernel(m: Module, kernel, edges) -> Iterator:
    """Yield what columns 1, 2, ... take of a band, ``kernel`` being what column 0 takes.

    Two registers lead from column to column. They move with the band's steps at the column before and stay in bubbles,
    so a byte arrives one cycle later, as every operand does, and one step later besides::

        column 0: step   0   1   2   -   3            - is a bubble
                  byte   b0  b1  b2  ..  b3
        first            0   b0  b1  b2  b2
        column 1: step       0   1   2   -   3
                  byte       0   b0  b1  b1  b2       (second)

    A kernel ends C - 1 steps before its tile does, so all registers are zero again behind a tile.
    """
    for edge in edges[:-1]:
        first = Signal(WEIGHT_BITS, name="kernel_first")
        second = Signal(WEIGHT_BITS, name="kernel", reset_less=True)
        with m.If(edge.band):
            m.d.sync += [first.eq(kernel), second.eq(first)]
        yield second
        kernel = second


def activation_lanes(m: Module, word, edge, activation) -> None:
    """Drive what enters a row of the array from a bank's ``word`` and its ``edge`` (:class:`EdgeLayout`).

    A step takes 1 << log2_lanes bytes from a place that is a multiple of as many.
    """
    with m.If(edge.product):
        m.d.comb += activation.lanes[:ACTIVATION_BITS].eq(select_byte(word, edge.byte))
        with m.If(edge.log2_lanes != 0):
            padded = Cat(word, Const(0, -len(word) % (ACTIVATION_BITS * LANES)))
            group = Signal(ACTIVATION_BITS * LANES, name="group")
            m.d.comb += group.eq(padded.word_select(edge.byte >> 3, ACTIVATION_BITS * LANES))
            with m.Switch(edge.log2_lanes):
                for width in range(1, 1 << WIDTH_BITS):
                    with m.Case(width):
                        place_bytes(m, group, edge, activation, width)
    m.d.comb += [activation[name].eq(edge[name]) for name in ("unsigned", "log2_lanes", "first", "last")]


def place_bytes(m: Module, group, edge, activation, width: int) -> None:
    """Put the second and further bytes of a step into their lanes, zero where there are none."""
    count = 1 << width
    step = Signal(ACTIVATION_BITS * count, name=f"step_{count}")
    place = edge.byte[width:3]
    m.d.comb += step.eq(group.word_select(place, ACTIVATION_BITS * count) if width < 3 else group)
    for index, lane in enumerate(lanes_used(width)):
        if index:
            byte = step.word_select(index, ACTIVATION_BITS)
            m.d.comb += activation.lanes.word_select(lane, ACTIVATION_BITS).eq(Mux(edge.exists[index], byte, 0))


def delayed(m: Module, source, name: str, reset_less: bool = False):
    """Return ``source`` one cycle later."""
    register = Signal(source.shape(), name=name, reset_less=reset_less)
    m.d.sync += register.eq(source)
    return register


def select_byte(word, index):
    """Return byte ``index`` of ``word``.

    In two steps, because a simulator does not see that a byte lies within one of its own words of 32 bits.
    """
    padded = Cat(word, Const(0, -len(word) % 32))
    return padded.word_select(index[2:], 32).word_select(index[:2], WEIGHT_BITS)
