"""The write ports of the activation banks: the vector engine's rows, LOAD's words and LOAD's windows."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.layouts import ADDRESS_BITS, WriteSignature, write_layout


class ActivationWrites(wiring.Component):
    """Each bank takes the vector engine's word or, if that goes elsewhere, LOAD's.

    A word of a window is written to ``reach`` + 1 banks at once: to bank ``bank`` at ``address``, to the bank before it
    one address further, and so on; before bank 0 comes bank R - 1 with the windows of the group before, ``reach`` + 1
    words lower::

        reach 2, bank 1, address a        bank     0      1      ..     R - 1
                                          address  a + 1  a             a + 2 - 3

    Combinational. LOAD's word is written in cycles with ``ready``; in others, some of its banks may hold it already.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    vector : In(WriteSignature(8 * WB, WB / C)), vector_bank : In(range(R))
        Always accepted.
    valid : In(1), write : In(write_layout), ready : Out(1)
        A word for this memory from LOAD; accepted when none of its banks takes the vector engine's.
    banks : Out(R x WriteSignature(8 * WB, WB / C))
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        port = WriteSignature(8 * config.word_bytes, config.word_bytes // config.columns)
        super().__init__({
            "vector": In(port), "vector_bank": In(range(config.rows)),
            "valid": In(1), "write": In(write_layout(config)), "ready": Out(1),
            "banks": Out(port).array(config.rows),
        })

    def elaborate(self, platform):
        m = Module()
        rows, write, vector = self.config.rows, self.write, self.vector
        near, far, lower = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        meets = Signal(rows)
        m.d.comb += [
            lower.eq(write.address - write.reach - 1),
            near.eq(write.address + write.bank),
            far.eq(lower + write.bank + rows),
            self.ready.eq(~meets.any()),
        ]
        for index, port in enumerate(self.banks):
            wrapped = write.bank < index if index else Const(0)
            distance = Mux(wrapped, write.bank + rows, write.bank) - index
            selected = Signal(name=f"selected_{index}")
            from_vector = Signal(name=f"from_vector_{index}")
            m.d.comb += [
                selected.eq(self.valid & (distance <= write.reach)),
                from_vector.eq(vector.enable.any() & (self.vector_bank == index)),
                meets[index].eq(selected & from_vector),
                port.enable.eq(Mux(from_vector, vector.enable, selected.replicate(len(port.enable)))),
                port.address.eq(Mux(from_vector, vector.address, Mux(wrapped, far, near) - index)),
                port.data.eq(Mux(from_vector, vector.data, write.data)),
            ]
        return m
