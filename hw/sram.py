"""On-chip memory with one read and one write port: the module that a memory macro replaces."""

from amaranth.hdl import Const, Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from phonolith.hw.layouts import BankReadSignature, WriteSignature


class Sram(wiring.Component):
    """Synchronous memory, one read and one write port.

    Read data appears the cycle after ``read.enable`` and stays until the next read; reading and writing the same
    address in one cycle returns the old word. Writes at or beyond ``depth`` are dropped.

    Parameters
    ----------
    data_bits, depth : int
        Word width and number of words.
    granules : int
        Separately writable parts of a word; divides ``data_bits``.

    Members
    -------
    read : In(BankReadSignature)
    write : In(WriteSignature)
    """

    def __init__(self, *, data_bits: int, depth: int, granules: int = 1):
        if data_bits % granules:
            raise ValueError(f"granules must divide data_bits {data_bits}, not {granules!r}")
        self.depth = depth
        self.granules = granules
        self.data_bits = data_bits
        super().__init__({"read": In(BankReadSignature(data_bits)), "write": In(WriteSignature(data_bits, granules))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=self.data_bits, depth=self.depth, init=[])
        reader = memory.read_port()
        writer = memory.write_port(granularity=self.data_bits // self.granules)
        m.d.comb += [
            reader.en.eq(self.read.enable),
            reader.addr.eq(self.read.address),
            self.read.data.eq(reader.data),
            writer.addr.eq(self.write.address),
            writer.data.eq(self.write.data),
        ]
        with m.If(self.write.address < Const(self.depth, 17)):
            m.d.comb += writer.en.eq(self.write.enable)
        return m
