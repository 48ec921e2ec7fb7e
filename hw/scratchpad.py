"""The vector memory: two banks, shared by the vector engine, LOAD and STORE."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.layouts import ADDRESS_BITS, BankReadSignature, WriteSignature
from phonolith.hw.sram import Sram

BANKS = 2
# Parts of a word that are written on their own: C lanes of 4 bits fill one.
QUARTERS = 4


def load_layout(config: MachineConfig) -> data.StructLayout:
    """One unit of WB bytes for part ``part`` of word ``address``."""
    return data.StructLayout({"address": ADDRESS_BITS, "part": 8, "data": 8 * config.word_bytes})


class Scratchpad(wiring.Component):
    """Words of 2C bytes at addresses 0 .. ``scratch_depth`` - 1; the upper half of the addresses is bank 1.

    Per bank and cycle one read and one write; the vector engine goes first. Read data arrive the cycle after the
    read; those of ``store_read`` then stay until its next one, those of the other two may change.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    source_read, residual_read : In(BankReadSignature(16 * C))
        Vector engine: always granted, so they must not meet in one bank (``source_read`` would win).
    store_read : In(BankReadSignature(16 * C)), store_ready : Out(1)
        A read happens in cycles with ``enable`` and ``store_ready``.
    vector_write : In(WriteSignature(16 * C, 4))
        Always accepted; a granule is a quarter of a word.
    load_write : In(stream(load_layout))
        Accepted when the vector engine does not write to the same bank.
    clock_enable : Out(1)
        See :mod:`phonolith.hw.clock_enable`.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        bits = 8 * config.scratch_word_bytes
        super().__init__({
            "source_read": In(BankReadSignature(bits)), "residual_read": In(BankReadSignature(bits)),
            "store_read": In(BankReadSignature(bits)), "store_ready": Out(1),
            "vector_write": In(WriteSignature(bits, QUARTERS)), "load_write": In(stream.Signature(load_layout(config))),
            "clock_enable": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        banks = []
        for index in range(BANKS):
            bank = Sram(data_bits=8 * self.config.scratch_word_bytes, depth=self.config.scratch_bank_depth,
                        granules=QUARTERS)
            m.submodules[f"bank_{index}"] = bank
            banks.append(bank)
        self.connect_reads(m, banks)
        self.connect_writes(m, banks)
        m.d.comb += self.clock_enable.eq(
            self.source_read.enable | self.residual_read.enable | self.store_read.enable | self.fresh
            | self.vector_write.enable.any() | self.load_write.valid)
        return m

    def locate(self, m, address, name: str) -> tuple[Signal, Signal]:
        """Return the bank of an address and the address within it."""
        bank, local = Signal(name=f"{name}_bank"), Signal(ADDRESS_BITS, name=f"{name}_local")
        depth = self.config.scratch_bank_depth
        m.d.comb += [bank.eq(address >= depth), local.eq(Mux(bank, address - depth, address))]
        return bank, local

    def connect_reads(self, m, banks):
        """Source before residual before STORE, in each bank."""
        taken = [Const(0, 1)] * BANKS
        for name in ("source", "residual", "store"):
            port = getattr(self, f"{name}_read")
            bank, local = self.locate(m, port.address, name)
            granted = port.enable if name != "store" else port.enable & self.store_ready
            if name == "store":
                m.d.comb += self.store_ready.eq(Mux(bank, ~taken[1], ~taken[0]))
            for index, memory in enumerate(banks):
                uses = Signal(name=f"{name}_uses_{index}")
                m.d.comb += uses.eq(granted & (bank == index) & ~taken[index])
                with m.If(uses):
                    m.d.comb += [memory.read.enable.eq(1), memory.read.address.eq(local)]
                taken[index] = taken[index] | uses
            self.return_data(m, banks, port, granted, bank, keep=name == "store")

    def return_data(self, m, banks, port, granted, bank, keep: bool):
        """Select the bank read last; with ``keep``, hold its word over other users' reads."""
        last_bank = Signal(reset_less=True)
        word = Mux(last_bank, banks[1].read.data, banks[0].read.data)
        with m.If(granted):
            m.d.sync += last_bank.eq(bank)
        if not keep:
            m.d.comb += port.data.eq(word)
            return
        self.fresh, held = Signal(), Signal(port.data.shape(), reset_less=True)
        m.d.sync += self.fresh.eq(granted)
        m.d.comb += port.data.eq(held)
        with m.If(self.fresh):
            m.d.sync += held.eq(word)
            m.d.comb += port.data.eq(word)

    def connect_writes(self, m, banks):
        """Vector engine before LOAD, in each bank."""
        vector, load = self.vector_write, self.load_write
        vector_bank, vector_local = self.locate(m, vector.address, "vector")
        load_bank, load_local = self.locate(m, load.payload.address, "load")
        whole = self.config.word_bytes == self.config.scratch_word_bytes
        enable = 0b1111 if whole else Mux(load.payload.part[0], 0b1100, 0b0011)
        unit = load.payload.data if whole else Cat(load.payload.data, load.payload.data)
        m.d.comb += load.ready.eq((vector.enable == 0) | (vector_bank != load_bank))
        for index, memory in enumerate(banks):
            with m.If((vector.enable != 0) & (vector_bank == index)):
                m.d.comb += [memory.write.enable.eq(vector.enable), memory.write.address.eq(vector_local),
                             memory.write.data.eq(vector.data)]
            with m.Elif(load.valid & (load_bank == index)):
                m.d.comb += [memory.write.enable.eq(enable), memory.write.address.eq(load_local),
                             memory.write.data.eq(unit)]
