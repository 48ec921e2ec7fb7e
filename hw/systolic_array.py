"""The R x C systolic array: activations move right, weights move down, sums stay where they are."""

from amaranth.hdl import Array, ClockSignal, Instance, Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.pe import ACCUMULATOR_BITS, PE, WEIGHT_BITS, ActivationLayout

ROW_MODULE = "phonolith_row"


class RowSignature(wiring.Signature):
    """Ports of one row.

    Members
    -------
    enable : In(1)
        Operands and sums keep their value while it is 0.
    activation : In(ActivationLayout)
        Enters column 0; reaches column c in c cycles.
    weights_in : In(8 * C), weights_out : Out(8 * C)
        One weight per column, column 0 lowest, from the row above and, a cycle later, to the row below.
    results : Out(32 * C)
        The drain registers, column 0 lowest. (Plain bits: named elements would be R * C lines of Verilog.)
    """

    def __init__(self, config: MachineConfig):
        super().__init__({
            "enable": In(1),
            "activation": In(ActivationLayout()),
            "weights_in": In(WEIGHT_BITS * config.columns),
            "weights_out": Out(WEIGHT_BITS * config.columns),
            "results": Out(ACCUMULATOR_BITS * config.columns),
        })


class Row(wiring.Component):
    """One row of the array: C processing elements in a chain.

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
        activation = self.activation
        for c in range(self.columns):
            m.submodules[f"pe{c:02}"] = pe = PE()
            m.d.comb += [
                pe.enable.eq(self.enable),
                pe.activation_in.eq(activation),
                pe.weight_in.eq(self.weights_in.word_select(c, WEIGHT_BITS)),
                self.weights_out.word_select(c, WEIGHT_BITS).eq(pe.weight_out),
                self.results.word_select(c, ACCUMULATOR_BITS).eq(pe.result),
            ]
            activation = pe.activation_out
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
        ``phonolith_row``, whose text ``hw/row_verilog.py`` makes: text then grows with R + C instead of R * C.

    Members
    -------
    enable : In(1)
        Operands and sums keep their value while it is 0.
    activations : In(R x ActivationLayout), weights : In(C x signed(8))
        The edges.
    row : In(range(R))
        Which row ``data`` shows, combinationally.
    data : Out(C x signed(32))
        Finished sums.
    """

    def __init__(self, *, config: MachineConfig, twin: bool = False):
        self.config = config
        self.twin = twin
        super().__init__({
            "enable": In(1),
            "activations": In(ActivationLayout()).array(config.rows),
            "weights": In(data.ArrayLayout(signed(WEIGHT_BITS), config.columns)),
            "row": In(range(config.rows)),
            "data": Out(data.ArrayLayout(signed(ACCUMULATOR_BITS), config.columns)),
        })

    def elaborate(self, platform):
        m = Module()
        weights = self.weights.as_value()
        results = []
        for r in range(self.config.rows):
            m.submodules[f"row{r}"], row = self.make_row()
            m.d.comb += [
                row.enable.eq(self.enable),
                row.activation.eq(self.activations[r]),
                row.weights_in.eq(weights),
            ]
            weights = row.weights_out
            results.append(row.results)
        m.d.comb += self.data.eq(Array(results)[self.row])
        return m

    def make_row(self):
        """Return one row as (submodule, its ports)."""
        if self.twin:
            row = Row(config=self.config)
            return row, row
        ports = RowSignature(self.config).create()
        return row_instance(ports), ports


def row_instance(ports) -> Instance:
    """Return an instance of the Verilog row, connected to an interface of :class:`RowSignature`."""
    return Instance(
        ROW_MODULE, i_clk=ClockSignal(), i_enable=ports.enable, i_activation=ports.activation.as_value(),
        i_weights_in=ports.weights_in, o_weights_out=ports.weights_out, o_results=ports.results)
