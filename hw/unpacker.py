"""Reads rows from the scratchpad and cuts them into ragged beats."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.layouts import ADDRESS_BITS, BankReadSignature
from phonolith.hw.segments import beat_layout, ones

ROW_LAYOUT = data.StructLayout({"base": ADDRESS_BITS, "pitch": ADDRESS_BITS, "fence": 1})


def write_beat_layout(config: MachineConfig) -> data.StructLayout:
    """One W beat; ``strobe`` has a bit per byte, ``last`` ends a burst."""
    return data.StructLayout({"data": config.bus_bits, "strobe": config.bus_bytes, "last": 1})


class Unpacker(wiring.Component):
    """Read the words that the beats of each row need and shift their bytes into place.

    A step delivers D = ``dma_bytes`` (a beat, or a part of one) and asks for one word at most. Two stages: ask for a
    word, then take D bytes out of the last D of the word before and the word itself, which stays in the memory's
    output register until the next is asked for. Parts of a beat are collected in the register of ``o``::

          hold (D bytes)     read.data (2C bytes)
        |------------------|------------------------------------|
               |<- D bytes ->|
               position          1 .. 2C; the next step stands at position + D, less 2C if that needs the next word

    Latency: a beat appears 2 cycles after the word of its last part is granted.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    i_row : In(stream of ROW_LAYOUT)
        One record per instruction, not later than its first beat.
    i : In(stream of beat_layout)
    allowed : In(1)
        The next beat may be taken (its burst is announced).
    settled : In(1)
        No write response is missing; a fence waits for it.
    read, read_ready :
        See :class:`StoreEngine`.
    o : Out(stream of write_beat_layout)
    taken : Out(1)
        The last beat of a burst is taken from ``i``.
    done, done_fence : Out(1)
        An instruction (a fence) completes.
    fencing : Out(1)
        A fence waits for responses.
    busy : Out(1)
        An instruction or a beat is in progress.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "i_row": In(stream.Signature(ROW_LAYOUT)),
            "i": In(stream.Signature(beat_layout(config.dma_bytes, config.bus_bytes))),
            "allowed": In(1),
            "settled": In(1),
            "read": Out(BankReadSignature(8 * config.scratch_word_bytes)),
            "read_ready": In(1),
            "o": Out(stream.Signature(write_beat_layout(config))),
            "taken": Out(1),
            "done": Out(1),
            "done_fence": Out(1),
            "fencing": Out(1),
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        step, word = self.config.dma_bytes, self.config.scratch_word_bytes
        self.active = Signal()
        self.row = Signal(ROW_LAYOUT, reset_less=True)
        self.row_address = Signal(ADDRESS_BITS, reset_less=True)
        self.row_first = Signal(reset_less=True)
        parts = self.config.bus_bytes // step
        slot = Signal(data.StructLayout({"position": range(word + 1), "strobe": step, "part": range(parts),
                                         "beat_last": 1, "last": 1}), reset_less=True)
        slot_valid = Signal()
        slot_ready = ~slot_valid | ~self.o.valid | self.o.ready

        beat = self.i.payload
        ahead = slot.position + step
        crosses = ~self.row_first & (ahead > word)
        position = Signal.like(slot.position)
        needs_word = Signal()
        usable = Signal()
        fire = Signal()
        m.d.comb += [
            position.eq(Mux(self.row_first, step - beat.offset, Mux(crosses, ahead - word, ahead))),
            needs_word.eq(self.row_first | (crosses & (position > beat.unused))),
            usable.eq(self.i.valid & ~beat.null & self.active & ~self.fencing & self.allowed & slot_ready),
            self.read.enable.eq(usable & needs_word),
            fire.eq(usable & (self.read_ready | ~needs_word)),
            self.i.ready.eq(fire | (beat.null & self.active & ~self.fencing)),
            self.taken.eq(fire & beat.burst_last),
            self.busy.eq(self.active | slot_valid | self.o.valid | self.fencing),
        ]
        self.follow_rows(m, fire, fire & needs_word)
        self.follow_instructions(m)

        hold = Signal(8 * step, reset_less=True)
        with m.If(slot_ready):
            m.d.sync += slot_valid.eq(fire)
        with m.If(fire):
            strobe = (ones(step) >> beat.unused) & (ones(step) << beat.offset)
            m.d.sync += [slot.position.eq(position), slot.strobe.eq(strobe), slot.part.eq(beat.part),
                         slot.beat_last.eq(beat.beat_last), slot.last.eq(beat.burst_last)]
        with m.If(fire & crosses):
            m.d.sync += hold.eq(self.read.data[-8 * step:])

        taken = (Cat(hold, self.read.data) >> Cat(Const(0, 3), slot.position))[:8 * step]
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += self.o.valid.eq(slot_valid & slot.beat_last)
            with m.If(slot_valid):
                m.d.sync += self.o.payload.last.eq(slot.last)
                self.collect(m, slot, taken)
        return m

    def collect(self, m: Module, slot, taken) -> None:
        """Put a step's bytes at their place in the beat; the first step of a beat clears the other strobes."""
        o, parts = self.o.payload, self.config.bus_bytes // self.config.dma_bytes
        if parts == 1:
            m.d.sync += [o.data.eq(taken), o.strobe.eq(slot.strobe)]
            return
        fresh = Signal(init=1)
        m.d.sync += fresh.eq(slot.beat_last)
        for part in range(parts):
            strobe = o.strobe.word_select(part, self.config.dma_bytes)
            with m.If(slot.part == part):
                m.d.sync += [o.data.word_select(part, len(taken)).eq(taken), strobe.eq(slot.strobe)]
            with m.Elif(fresh):
                m.d.sync += strobe.eq(0)

    def follow_rows(self, m: Module, fire, reads) -> None:
        """Address the words of the instruction's rows."""
        next_row = self.row_address + self.row.pitch
        with m.If(fire):
            m.d.sync += self.row_first.eq(self.i.payload.row_last)
        with m.If(fire & self.i.payload.row_last):
            m.d.sync += [self.row_address.eq(next_row), self.read.address.eq(next_row)]
        with m.Elif(reads):
            m.d.sync += self.read.address.eq(self.read.address + 1)

    def follow_instructions(self, m: Module) -> None:
        """Complete instructions and take over the next one's rows."""
        ends = self.i.valid & self.i.ready & self.i.payload.last
        rows = self.i_row
        m.d.comb += [
            self.done_fence.eq(self.fencing & self.settled),
            self.done.eq((ends & ~self.row.fence) | self.done_fence),
            rows.ready.eq(~self.active | self.done),
        ]
        with m.If(ends & self.row.fence):
            m.d.sync += self.fencing.eq(1)
        with m.If(self.done_fence):
            m.d.sync += self.fencing.eq(0)
        with m.If(rows.ready):
            m.d.sync += self.active.eq(rows.valid)
        with m.If(rows.ready & rows.valid):
            m.d.sync += [self.row.eq(rows.payload), self.row_first.eq(1)]
            m.d.sync += [self.row_address.eq(rows.payload.base), self.read.address.eq(rows.payload.base)]
