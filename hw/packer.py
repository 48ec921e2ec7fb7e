"""Packs ragged beats of a row into words of an operand bank."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.segments import beat_layout, ones


def unit_layout(config: MachineConfig) -> data.StructLayout:
    """WB bytes of a row.

    ``row_last`` ends a row and ``last`` an instruction; ``null``: no bytes, the instruction has none.
    """
    return data.StructLayout({"data": 8 * config.word_bytes, "row_last": 1, "last": 1, "null": 1})


class Packer(wiring.Component):
    """Concatenate the used bytes of a row's beats into units of WB bytes, the last one filled with zeros.

    Two stages: align (drop the bytes before ``offset`` and the unused ones behind), then merge into a window of
    the row's bytes that do not yet fill a unit. One beat per cycle goes in. A row whose last beat fills one unit
    and begins another needs a second cycle for the latter, in which the next row's first beat is taken, too,
    unless that completes a unit itself.

    Latency: a unit appears 2 cycles after the beat that completes it.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    i : In(stream)
        ``data`` (``dma_bytes``) and ``beat`` (beat_layout).
    o : Out(stream of unit_layout)
    busy : Out(1)
        A beat or a unit is on its way; not the start of a unit.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        beat = beat_layout(config.dma_bytes, config.bus_bytes)
        step = data.StructLayout({"data": 8 * config.dma_bytes, "beat": beat})
        super().__init__({"i": In(stream.Signature(step)), "o": Out(stream.Signature(unit_layout(config))),
                          "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        step, word = self.config.dma_bytes, self.config.word_bytes

        aligned_valid = Signal()
        aligned = Signal(8 * step, reset_less=True)
        aligned_count = Signal(range(step + 1), reset_less=True)
        aligned_beat = Signal(self.i.payload.beat.shape(), reset_less=True)
        take = Signal()
        beat = self.i.payload.beat
        kept = self.i.payload.data & (ones(8 * step) >> Cat(Const(0, 3), beat.unused))
        m.d.comb += self.i.ready.eq(~aligned_valid | take)
        with m.If(self.i.ready):
            m.d.sync += aligned_valid.eq(self.i.valid)
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += [
                aligned.eq(kept >> Cat(Const(0, 3), beat.offset)),
                aligned_count.eq(step - beat.offset - beat.unused),
                aligned_beat.eq(beat),
            ]

        window = Signal(8 * word, reset_less=True)
        room = Signal(range(word + 1), init=word)    # bytes that the window lacks to a unit
        flush = Signal()                             # the window is the rest of a row that has ended
        flush_last = Signal(reset_less=True)
        old = Mux(room == word, 0, window)
        merged = Signal(8 * (word + step))
        full = aligned_count >= room
        spill = aligned_count > room
        emits = aligned_beat.row_last | aligned_beat.null | full
        free = ~self.o.valid | self.o.ready
        m.d.comb += [
            merged.eq(old | (Cat(Const(0, 8 * word), aligned) >> Cat(Const(0, 3), room))),
            take.eq(aligned_valid & free & ~(flush & emits)),
            self.busy.eq(aligned_valid | flush | self.o.valid),
        ]
        o = self.o.payload
        with m.If(free):
            m.d.sync += [self.o.valid.eq(flush | (take & emits)), flush.eq(0)]
            with m.If(flush):
                m.d.sync += [o.data.eq(window), o.row_last.eq(1), o.last.eq(flush_last), o.null.eq(0)]
            with m.Elif(take & emits):
                m.d.sync += [
                    o.data.eq(merged[:8 * word]),
                    o.row_last.eq(aligned_beat.row_last & ~spill),
                    o.last.eq(aligned_beat.last & (~spill | aligned_beat.null)),
                    o.null.eq(aligned_beat.null),
                ]
        with m.If(take & ~aligned_beat.null):
            m.d.sync += [
                flush.eq(aligned_beat.row_last & spill),
                flush_last.eq(aligned_beat.last),
                window.eq(Mux(full, merged[8 * word:], merged[:8 * word])),
                room.eq(Mux(aligned_beat.row_last, word, room - aligned_count + Mux(full, word, 0))),
            ]
        return m
