"""Program fetch: reads the instruction stream ahead and hands it over word by word."""

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from phonolith.hw.config import MachineConfig
from phonolith.hw.layouts import AxiReadSignature

BURST_BEATS = 8
BUFFER_BEATS = 32


class Fetch(wiring.Component):
    """Prefetches program beats into a small buffer; a jump discards what was fetched or is under way.

    Bursts end at multiples of their size, so they never cross 4 KiB; at most ``BUFFER_BEATS`` beats are buffered or in
    flight, so the read channel never waits for the sequencer. The first word is available 2 cycles after its beat.

    Members
    -------
    jump : In(1)
        Continue at word ``target`` of the program (also starts fetching).
    stop : In(1)
        Fetch nothing more and discard everything.
    program : In(32)
        Byte address of word 0, a multiple of 4.
    target : In(32)
        Word index.
    words : Out(stream of {word, failed})
        ``failed``: the beat came with an error response.
    quiet : Out(1)
        No read in flight.
    axi : Out(AxiReadSignature)
    clock_enable : Out(1)
        See :mod:`phonolith.hw.clock_enable`.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "jump": In(1), "stop": In(1), "program": In(32), "target": In(32), "quiet": Out(1),
            "words": Out(stream.Signature(data.StructLayout({"word": 32, "failed": 1}))),
            "axi": Out(AxiReadSignature(config)), "clock_enable": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self.restart = Signal()
        self.flight = Signal(range(BUFFER_BEATS + 1))
        self.stale = Signal(range(BUFFER_BEATS + 1))
        fifo = SyncFIFOBuffered(width=self.config.bus_bits + 1, depth=BUFFER_BEATS)
        m.submodules.buffer = ResetInserter(self.restart)(fifo)
        self.buffer = fifo
        m.d.comb += self.restart.eq(self.jump | self.stop)
        self.request(m)
        self.receive(m)
        self.unpack(m)
        filling = fifo.level.bool() & ~fifo.r_rdy
        m.d.comb += self.clock_enable.eq(self.restart | self.axi.arvalid | self.axi.rvalid | self.words.ready | filling
                                         | (self.running & self.room))
        return m

    def request(self, m):
        """Issue bursts, up to the next aligned burst boundary, while the buffer can hold them."""
        beat_bits = exact_log2(self.config.bus_bytes)
        self.running = running = Signal()
        self.room = room = Signal()
        beat = Signal(32 - beat_bits)
        length = Signal(range(BURST_BEATS + 1))
        issue = Signal()
        received = Signal()
        in_flight = Signal.like(self.flight)
        m.d.comb += [
            length.eq(BURST_BEATS - beat % BURST_BEATS),
            room.eq(self.flight + self.buffer.level + length <= BUFFER_BEATS),
            issue.eq(running & ~self.restart & (~self.axi.arvalid | self.axi.arready) & room),
            received.eq(self.axi.rvalid & self.axi.rready),
            in_flight.eq(self.flight + Mux(issue, length, 0) - received),
            self.quiet.eq(self.flight == 0),
        ]
        m.d.sync += self.flight.eq(in_flight)
        with m.If(self.axi.arready):
            m.d.sync += self.axi.arvalid.eq(0)
        with m.If(issue):
            m.d.sync += [
                self.axi.arvalid.eq(1),
                self.axi.araddr.eq(beat << beat_bits),
                self.axi.arlen.eq(length - 1),
                beat.eq(beat + length),
            ]
        with m.If(self.stale.bool() & received):
            m.d.sync += self.stale.eq(self.stale - 1)
        with m.If(self.restart):
            m.d.sync += [
                running.eq(self.jump),
                self.stale.eq(in_flight),
                beat.eq((self.program + (self.target << 2)) >> beat_bits),
            ]

    def receive(self, m):
        """Buffer what was asked for since the last jump."""
        m.d.comb += [
            self.axi.rready.eq(1),
            self.buffer.w_data.eq(Cat(self.axi.rdata, self.axi.rresp != 0)),
            self.buffer.w_en.eq(self.axi.rvalid & (self.stale == 0)),
        ]

    def unpack(self, m):
        """Hand over the words of the buffer's first beat."""
        words = self.config.bus_bits // 32
        position = Signal(range(words))
        advance = Signal()
        beat = Signal(self.config.bus_bits)
        m.d.comb += [
            beat.eq(self.buffer.r_data[:-1]),
            self.words.valid.eq(self.buffer.r_rdy),
            self.words.payload.word.eq(beat.word_select(position, 32)),
            self.words.payload.failed.eq(self.buffer.r_data[-1]),
            advance.eq(self.words.valid & self.words.ready),
            self.buffer.r_en.eq(advance & (position == words - 1)),
        ]
        with m.If(self.restart):
            m.d.sync += position.eq((self.program >> 2) + self.target)
        with m.Elif(advance):
            m.d.sync += position.eq(position + 1)
