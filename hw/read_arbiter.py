"""Program fetch and LOAD share the AXI read channels, told apart by read id."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.layouts import AxiReadSignature

FETCH_ID, LOAD_ID = 0, 1


class ReadArbiter(wiring.Component):
    """Fetch goes first; an address once offered stays until it is accepted. Adds no cycle.

    Members
    -------
    fetch, load : In(AxiReadSignature)
    axi : Out(AxiReadSignature)
    arid : Out(1), rid : In(1)
    """

    def __init__(self, *, config: MachineConfig):
        signature = AxiReadSignature(config)
        super().__init__({"fetch": In(signature), "load": In(signature), "axi": Out(signature),
                          "arid": Out(1), "rid": In(1)})

    def elaborate(self, platform):
        m = Module()
        held = Signal()
        held_id = Signal()
        m.d.comb += self.arid.eq(Mux(held, held_id, Mux(self.fetch.arvalid, FETCH_ID, LOAD_ID)))
        m.d.sync += [held.eq(self.axi.arvalid & ~self.axi.arready), held_id.eq(self.arid)]
        for port, identifier in ((self.fetch, FETCH_ID), (self.load, LOAD_ID)):
            with m.If(self.arid == identifier):
                m.d.comb += [
                    self.axi.arvalid.eq(port.arvalid),
                    self.axi.araddr.eq(port.araddr),
                    self.axi.arlen.eq(port.arlen),
                    port.arready.eq(self.axi.arready),
                ]
            with m.If(self.rid == identifier):
                m.d.comb += [port.rvalid.eq(self.axi.rvalid), self.axi.rready.eq(port.rready)]
            m.d.comb += [
                port.rdata.eq(self.axi.rdata),
                port.rresp.eq(self.axi.rresp),
                port.rlast.eq(self.axi.rlast),
            ]
        return m
