"""Corner-turn buffer: rows of bytes in, columns of bytes out."""

from amaranth.hdl import Array, Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.packer import unit_layout


class Transposer(wiring.Component):
    """Collect WB rows of up to ``dma_bytes``, then deliver their columns as words of WB bytes.

    Byte t of a delivered unit comes from the t-th row collected; rows missing in the last block are zeros. Its
    ``row_last`` marks a block's last column. A block of n columns takes WB + n cycles: rows are not accepted while
    columns leave. Rows shift towards their first byte as columns leave, so the buffer is zero again after a block.

    Latency: a block's first column appears the cycle after its last row.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    i : In(stream of unit_layout)
        One row per unit; bytes from ``columns`` on must be zero.
    columns : In
        Bytes per row, 1 .. ``dma_bytes``; constant while an instruction is in the buffer.
    o : Out(stream of unit_layout)
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        unit = stream.Signature(unit_layout(config))
        super().__init__({"i": In(unit), "columns": In(range(config.dma_bytes + 1)), "o": Out(unit)})

    def elaborate(self, platform):
        m = Module()
        step, word = self.config.dma_bytes, self.config.word_bytes
        rows = [Signal(8 * step, name=f"row_{t}") for t in range(word)]
        index = Signal(range(word))
        column = Signal(range(1, step + 1), init=1)
        last = Signal(reset_less=True)
        o = self.o.payload
        m.d.comb += [
            self.i.ready.eq(~self.o.valid),
            o.data.eq(Cat(row[:8] for row in rows)),
            o.row_last.eq(column == self.columns),
            o.last.eq(last & o.row_last),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [row.eq(row >> 8) for row in rows]
            m.d.sync += column.eq(column + 1)
            with m.If(o.row_last):
                m.d.sync += [column.eq(1), self.o.valid.eq(0)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [Array(rows)[index].eq(self.i.payload.data[:8 * step]), index.eq(index + 1)]
            with m.If(self.i.payload.last | (index == word - 1)):
                m.d.sync += [index.eq(0), last.eq(self.i.payload.last), self.o.valid.eq(1)]
        return m
