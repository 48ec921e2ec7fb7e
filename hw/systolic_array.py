"""The R x C systolic array: activations move right, weights move down, sums stay where they are."""

from amaranth.hdl import Array, Cat, ClockSignal, Instance, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.pe import (
    ACCUMULATOR_BITS,
    ACTIVATION_BITS,
    LANES,
    PE,
    WEIGHT_BITS,
    ActivationLayout,
    named,
)

ROW_MODULE = "phonolith_row"


class RowSignature(wiring.Signature):
    """Ports of one row.

    Members
    -------
    activation : In(ActivationLayout)
        Enters column 0; reaches column c in c cycles.
    weights_in : In(8 * C), weights_out : Out(8 * C)
        One weight per column, column 0 lowest, from the row above and, a cycle later, to the row below.
    results : Out(32 * C)
        The drain registers, column 0 lowest. (Plain bits: named elements would be R * C lines of Verilog.)
    row_sum : Out(signed(32))
        See :class:`RowSum`.
    """

    def __init__(self, config: MachineConfig):
        super().__init__({
            "activation": In(ActivationLayout()),
            "weights_in": In(WEIGHT_BITS * config.columns),
            "weights_out": Out(WEIGHT_BITS * config.columns),
            "results": Out(ACCUMULATOR_BITS * config.columns),
            "row_sum": Out(signed(ACCUMULATOR_BITS)),
        })


class Row(wiring.Component):
    """One row of the array: C processing elements in a chain, and the sum of what enters it.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    See :class:`RowSignature`.
    """

    def __init__(self, *, config: MachineConfig):
        self.columns = config.columns
        super().__init__(RowSignature(config))

    def elaborate(self, platform):
        m = Module()
        m.submodules.sum = row_sum = RowSum()
        m.d.comb += [row_sum.activation.eq(self.activation), self.row_sum.eq(row_sum.result)]
        activation = self.activation
        for c in range(self.columns):
            m.submodules[f"pe{c:02}"] = pe = PE()
            m.d.comb += [
                pe.activation_in.eq(activation),
                pe.weight_in.eq(self.weights_in.word_select(c, WEIGHT_BITS)),
                self.weights_out.word_select(c, WEIGHT_BITS).eq(pe.weight_out),
                self.results.word_select(c, ACCUMULATOR_BITS).eq(pe.result),
            ]
            activation = pe.activation_out
        return m


class RowSum(wiring.Component):
    """Sum of a row's activations, for weights whose zero is not at 0 (``zero`` of ``docs/isa.md``).

    In step with the row's first PE: with the last operands at the edge in cycle t, ``result`` shows their sum from
    cycle t + 3 on, until the next sum is complete.

    Members
    -------
    activation : In(ActivationLayout)
        What enters the row.
    result : Out(signed(32))
        Last finished sum.
    """

    activation: In(ActivationLayout())
    result: Out(signed(ACCUMULATOR_BITS))

    def elaborate(self, platform):
        m = Module()
        step = Signal(signed(ACTIVATION_BITS + 4), reset_less=True)
        first, last, finished = (Signal(name=name, reset_less=True) for name in ("first", "last", "finished"))
        accumulator = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
        result = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
        m.d.comb += self.result.eq(result)
        lanes = [self.activation.lanes.word_select(lane, ACTIVATION_BITS) for lane in range(LANES)]
        sums = [Cat(lane, lane[-1] & ~self.activation.unsigned).as_signed() for lane in lanes]
        entered = [sums[0]]     # by log2_lanes
        while len(sums) > 1:
            half = len(sums) // 2   # lanes n and n + 4, then n and n + 2, then n and n + 1: see lanes_used
            sums = [named(m, sums[lane] + sums[lane + half], f"sum_{half}_{lane}", signed(len(sums[0]) + 1))
                    for lane in range(half)]
            entered.append(sums[0])
        low, high = self.activation.log2_lanes
        m.d.sync += step.eq(Mux(high, Mux(low, entered[3], entered[2]), Mux(low, entered[1], entered[0])))
        m.d.sync += [
            first.eq(self.activation.first), last.eq(self.activation.last), finished.eq(last),
            accumulator.eq(Mux(first, 0, accumulator) + step),
        ]
        with m.If(finished):
            m.d.sync += result.eq(accumulator)
        return m


class SystolicArray(wiring.Component):
    """R rows below one another, and the selection of the row to drain.

    ::

                           weights[0]  weights[1]  ..  weights[C-1]
                               |           |               |         enter c cycles after column 0
        activations[0]   --> PE 0,0 --> PE 0,1 --> .. --> PE 0,C-1
                               |           |               |
        activations[1]   --> PE 1,0 --> PE 1,1 --> .. --> PE 1,C-1
            ..                 |           |               |
        activations[R-1] --> PE .. ---> PE .. ---> .. --> PE R-1,C-1
                                                                      row --> data: C results of one row
        enter r cycles after row 0

    The operands of one product arrive skewed: ``A[r, k]`` at row r and ``B[c, k]`` at column c, r and c cycles after
    ``A[0, k]`` and ``B[0, k]``. They meet in PE r,c, which adds ``A[r, k] * B[c, k]`` to its own sum.

    Latency: with the last operands of PE 0,0 at the edge in cycle t, the result of PE r,c is in its drain register from
    cycle ``t + 3 + r + c`` on, so all of row r from ``t + C + 2 + r`` on, until the next tile's last operands have
    been at the edge for as long.

    Parameters
    ----------
    config : MachineConfig
    twin : bool
        Elaborate the rows in place, for Amaranth's simulator. Otherwise each row is an instance of the Verilog module
        ``phonolith_row``, whose text ``hw/array_verilog.py`` makes: text then grows with R + C instead of R * C.

    Members
    -------
    activations : In(R x ActivationLayout), weights : In(C x 8)
        The edges.
    row : In(range(R))
        Which row ``data`` and ``row_sum`` show, combinationally.
    data : Out(C x signed(32))
        Finished sums of products.
    row_sum : Out(signed(32))
        Sum of the activations that were multiplied for them.
    """

    def __init__(self, *, config: MachineConfig, twin: bool = False):
        self.config = config
        self.twin = twin
        super().__init__({
            "activations": In(ActivationLayout()).array(config.rows),
            "weights": In(WEIGHT_BITS).array(config.columns),
            "row": In(range(config.rows)),
            "data": Out(data.ArrayLayout(signed(ACCUMULATOR_BITS), config.columns)),
            "row_sum": Out(signed(ACCUMULATOR_BITS)),
        })

    def elaborate(self, platform):
        m = Module()
        weights = Cat(*self.weights)
        results, row_sums = [], []
        for r in range(self.config.rows):
            m.submodules[f"row{r}"], row = self.make_row(m, self.activations[r], weights)
            weights = row.weights_out
            results.append(row.results)
            row_sums.append(row.row_sum)
        m.d.comb += [self.data.eq(Array(results)[self.row]), self.row_sum.eq(Array(row_sums)[self.row])]
        return m

    def make_row(self, m, activation, weights):
        """Return one row as (submodule, its ports)."""
        if self.twin:
            row = Row(config=self.config)
            m.d.comb += [row.activation.eq(activation), row.weights_in.eq(weights)]
            return row, row
        ports = RowSignature(self.config).create()
        return Instance(
            ROW_MODULE, i_clk=ClockSignal(), i_activation=activation.as_value(), i_weights_in=weights,
            o_weights_out=ports.weights_out, o_results=ports.results, o_row_sum=ports.row_sum), ports
