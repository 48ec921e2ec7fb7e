"""Gives every loaded unit its target, bank and address."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import SEMAPHORES, WINDOW_BITS, Target
from phonolith.hw.layouts import ADDRESS_BITS, ChainSignature, write_layout
from phonolith.hw.packer import unit_layout
from phonolith.hw.segments import connect_stream
from phonolith.hw.transposer import Transposer

TABLE_ENTRIES = 256


def placement_layout(config: MachineConfig) -> data.StructLayout:
    """Where the rows of one LOAD go; ``columns`` counts bytes per row, for ``transpose``."""
    return data.StructLayout({
        "target": 3, "bank_per_word": 1, "transpose": 1, "one_bank": 1, "window": WINDOW_BITS, "early": SEMAPHORES,
        "base": ADDRESS_BITS, "row_words": ADDRESS_BITS, "columns": range(config.dma_bytes + 1),
    })


class Placer(wiring.Component):
    """Write units to the places that ``docs/isa.md`` gives for LOAD, turning corners where asked.

    Latency: a unit is offered to ``o`` in the cycle it is offered here (transposed ones: see :class:`Transposer`).
    Addresses wrap modulo 2^16.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    i_placement : In(stream of placement_layout)
        One record per instruction, not later than its first unit.
    i : In(stream of unit_layout)
    o : Out(stream of write_layout)
    done : Out(1)
        The last unit of an instruction is accepted by ``o`` (or it had none).
    early : Out(1), early_mask : Out(12)
        An instruction begins, all before it are done: raise these semaphores.
    chain : Out(ChainSignature)
        Of the instruction whose units come now; a word that ``o`` accepts can be read from the next cycle on.
    busy : Out(1)
        An instruction is in progress.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "i_placement": In(stream.Signature(placement_layout(config))),
            "i": In(stream.Signature(unit_layout(config))),
            "o": Out(stream.Signature(write_layout(config))),
            "done": Out(1),
            "early": Out(1), "early_mask": Out(SEMAPHORES), "chain": Out(ChainSignature()),
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self.active = Signal()
        self.placement = Signal(placement_layout(self.config), reset_less=True)
        self.address = Signal(ADDRESS_BITS, reset_less=True)
        self.row_address = Signal(ADDRESS_BITS, reset_less=True)
        self.bank = Signal(6, reset_less=True)
        self.reach = Signal(WINDOW_BITS, reset_less=True)
        self.part = Signal(8, reset_less=True)
        self.dropped = Signal(reset_less=True)
        unit = self.select_unit(m)
        o = self.o.payload
        accept = Signal()
        m.d.comb += [
            o.target.eq(self.placement.target),
            o.bank.eq(self.bank),
            o.reach.eq(self.reach),
            o.address.eq(self.address),
            o.part.eq(self.part),
            o.data.eq(unit.payload.data),
            unit.ready.eq(self.active & (self.o.ready | unit.payload.null | self.dropped)),
            self.o.valid.eq(self.active & unit.valid & ~unit.payload.null & ~self.dropped),
            accept.eq(unit.valid & unit.ready),
            self.done.eq(accept & unit.payload.last),
            self.i_placement.ready.eq(~self.active | self.done),
            self.busy.eq(self.active | self.early),
        ]
        self.report_chain(m)
        with m.If(accept):
            self.step(m, unit.payload.row_last)
        with m.If(self.i_placement.ready):
            m.d.sync += self.active.eq(self.i_placement.valid)
        with m.If(self.i_placement.ready & self.i_placement.valid):
            m.d.sync += self.load()
        return m

    def select_unit(self, m: Module):
        """Return the stream to place: units as they come, or columns of the transposer.

        A null unit goes past the transposer, but waits while columns of the instruction before leave.
        """
        m.submodules.transposer = transposer = Transposer(config=self.config)
        unit = stream.Signature(unit_layout(self.config)).create()
        m.d.comb += [transposer.i.payload.eq(self.i.payload), transposer.columns.eq(self.placement.columns)]
        with m.If(self.active & self.placement.transpose & (transposer.o.valid | ~self.i.payload.null)):
            connect_stream(m, transposer.o, unit)
            m.d.comb += [transposer.i.valid.eq(self.i.valid), self.i.ready.eq(transposer.i.ready)]
        with m.Else():
            connect_stream(m, self.i, unit)
        return unit

    def report_chain(self, m: Module) -> None:
        """Say what a LOAD that signals early has still to write: all banks at an address before the next address."""
        end = Signal(ADDRESS_BITS, reset_less=True)
        new = Signal()
        following = self.active & self.placement.early.any()
        placement = self.i_placement.payload
        with m.If(self.i_placement.ready & self.i_placement.valid):
            m.d.sync += end.eq(placement.base + placement.row_words)
        m.d.sync += new.eq(self.i_placement.ready & self.i_placement.valid)
        m.d.comb += [
            self.early.eq(new),
            self.early_mask.eq(self.placement.early),
            self.chain.activation.eq(following & (self.placement.target == Target.ACTIVATION)),
            self.chain.weight.eq(following & (self.placement.target == Target.WEIGHT)),
            self.chain.frontier.eq(self.address),
            self.chain.end.eq(end),
        ]

    def load(self) -> list:
        """Take over the next instruction's record."""
        placement = self.i_placement.payload
        return [
            self.placement.eq(placement),
            self.address.eq(placement.base),
            self.row_address.eq(placement.base),
            self.bank.eq(0),
            self.reach.eq(0),
            self.part.eq(0),
            self.dropped.eq(0),
        ]

    def step(self, m: Module, row_last) -> None:
        """Go to the place of the next unit."""
        is_weight = self.placement.target == Target.WEIGHT
        is_operand = is_weight | (self.placement.target == Target.ACTIVATION)
        banks = Mux(is_weight, self.config.columns, self.config.rows)
        wraps = Signal()
        next_row = Signal(ADDRESS_BITS)
        m.d.comb += [
            wraps.eq(self.placement.one_bank | (self.bank == banks - 1)),
            next_row.eq(self.row_address + self.placement.row_words),
        ]
        next_bank = self.bank.eq(Mux(wraps, 0, self.bank + 1))
        with m.If(self.placement.window.any()):
            self.step_window(m, row_last, wraps, next_bank)
        with m.Elif(is_operand & self.placement.transpose):
            self.step_column(m, row_last, wraps, next_bank)
        with m.Elif(is_operand & self.placement.bank_per_word):
            m.d.sync += [next_bank, self.address.eq(self.address + wraps)]
        with m.Elif(row_last & is_operand):
            following = Mux(wraps, next_row, self.row_address)
            m.d.sync += [next_bank, self.address.eq(following), self.row_address.eq(following)]
        with m.Elif(row_last):
            m.d.sync += [self.address.eq(next_row), self.row_address.eq(next_row), self.part.eq(0)]
            m.d.sync += self.dropped.eq(0)
        with m.Elif(is_operand):
            m.d.sync += self.address.eq(self.address + 1)
        with m.Else():
            self.step_part(m)

    def step_column(self, m: Module, block_last, wraps, next_bank) -> None:
        """Columns go from bank to bank; a block of WB rows is one word further."""
        m.d.sync += [next_bank, self.address.eq(self.address + Mux(wraps, self.placement.row_words, 0))]
        with m.If(block_last):
            following = self.row_address + 1
            m.d.sync += [self.bank.eq(0), self.address.eq(following), self.row_address.eq(following)]

    def step_window(self, m: Module, row_last, wraps, next_bank) -> None:
        """Words of one time go to the same banks, each column ``row_words`` behind the one before.

        Units come time by time (transposed: ``row_last`` ends a time), or column by column (``row_last`` ends it).
        """
        by_time, pitch = self.placement.transpose, self.placement.row_words
        later = Mux(wraps, self.placement.window, 0)
        following = self.row_address + Mux(by_time, later, pitch)
        m.d.sync += self.address.eq(self.address + Mux(by_time, pitch, later))
        with m.If(row_last):
            m.d.sync += [self.address.eq(following), self.row_address.eq(following)]
        with m.If(by_time == row_last):
            m.d.sync += [next_bank, self.reach.eq(self.reach + (self.reach + 1 != self.placement.window))]
        with m.Elif(row_last):
            m.d.sync += [self.bank.eq(0), self.reach.eq(0)]

    def step_part(self, m: Module) -> None:
        """Units fill scratchpad and parameter words one after the other, or the table from entry 0 on."""
        word = self.config.word_bytes
        is_scratch = self.placement.target == Target.SCRATCHPAD
        units = Mux(is_scratch, self.config.scratch_word_bytes // word, self.config.parameter_word_bytes // word)
        with m.If(self.placement.target == Target.TABLE):
            m.d.sync += self.part.eq(self.part + word)
            m.d.sync += self.dropped.eq(self.dropped | (self.part >= TABLE_ENTRIES - word))
        with m.Elif(self.part == units - 1):
            m.d.sync += [self.part.eq(0), self.address.eq(self.address + 1)]
        with m.Else():
            m.d.sync += self.part.eq(self.part + 1)
