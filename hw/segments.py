"""Walkers of strided loops, AXI bursts and beats, shared by the LOAD and the STORE engine.

A walk is cut in three steps, each a small stage that delivers one item per cycle::

    LoopWalker --segments--> BurstSplitter --bursts--> address channel
    LoopWalker --segments--> BeatWalker    --beats---> data channel

The data channel has walkers of its own, so that addresses may run ahead of data; these need only the low address
bits.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

COUNT_BITS = 32
BURST_BITS = 6
BURST_BEATS = 1 << BURST_BITS


def log2_bytes(bus_bytes: int) -> int:
    """Address bits within one beat of ``bus_bytes`` (a power of two)."""
    return bus_bytes.bit_length() - 1


def ones(bits: int) -> Const:
    """The unsigned constant of ``bits`` ones."""
    return Const((1 << bits) - 1, bits)


def walk_layout(loops: tuple[str, ...], address_bits: int) -> data.StructLayout:
    """Nested loops over segments, outermost first.

    ``address`` of the first segment, ``bytes`` of each segment; per loop ``<loop>_count`` and ``<loop>_stride``
    (bytes, modulo 2^address_bits).
    """
    layout = {"address": address_bits, "bytes": COUNT_BITS}
    for loop in loops:
        layout |= {f"{loop}_count": COUNT_BITS, f"{loop}_stride": address_bits}
    return data.StructLayout(layout)


def segment_layout(address_bits: int) -> data.StructLayout:
    """Contiguous bytes.

    ``row_last`` ends a row, ``last`` an instruction; ``null``: no bytes, only ``last`` counts.
    """
    return data.StructLayout({"address": address_bits, "bytes": COUNT_BITS, "row_last": 1, "last": 1, "null": 1})


def beat_layout(dma_bytes: int, bus_bytes: int) -> data.StructLayout:
    """One step of a segment: a beat, or the ``dma_bytes`` at place ``part`` of one.

    ``offset``: bytes before the segment's; ``unused``: bytes behind them (each 0 .. dma_bytes - 1); ``beat_last`` ends
    a beat, ``burst_last`` a burst; ``row_last``, ``last``, ``null`` as in :func:`segment_layout`.
    """
    low = log2_bytes(dma_bytes)
    return data.StructLayout({"offset": low, "unused": low, "part": range(bus_bytes // dma_bytes), "beat_last": 1,
                              "burst_last": 1, "row_last": 1, "last": 1, "null": 1})


class LoopWalker(wiring.Component):
    """Turn nested loops into segments, one per cycle, also across consecutive instructions.

    Latency: a segment appears the cycle after its walk is accepted. A walk with a count or a size of zero yields one
    ``null`` segment.

    Parameters
    ----------
    loops : tuple of str
        Names of the loops, outermost first. The first two make rows; what lies inside belongs to one row.
    address_bits : int

    Members
    -------
    i : In(stream of walk_layout)
    o : Out(stream of segment_layout)
    """

    def __init__(self, *, loops: tuple[str, ...], address_bits: int):
        self.loops = loops
        self.address_bits = address_bits
        super().__init__({
            "i": In(stream.Signature(walk_layout(loops, address_bits))),
            "o": Out(stream.Signature(segment_layout(address_bits))),
        })

    def elaborate(self, platform):
        m = Module()
        self.walk = Signal(walk_layout(self.loops, self.address_bits), reset_less=True)
        self.starts = [Signal(self.address_bits, name=f"{loop}_start", reset_less=True) for loop in self.loops]
        self.left = [Signal(COUNT_BITS, name=f"{loop}_left", reset_less=True) for loop in self.loops]
        ends = Cat(left == 1 for left in self.left)
        null = Signal(reset_less=True)
        o = self.o.payload
        m.d.comb += [
            o.address.eq(self.starts[-1]),
            o.bytes.eq(self.walk.bytes),
            o.null.eq(null),
            o.row_last.eq(Cat(Const(1), ends[2:]).all()),
            o.last.eq(null | ends.all()),
            self.i.ready.eq(~self.o.valid | (self.o.ready & o.last)),
        ]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid)
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += self.load() + [null.eq(self.is_empty())]
        with m.Elif(self.o.ready & self.o.valid):
            self.step(m, ends)
        return m

    def load(self) -> list:
        """Take over a walk and stand on its first segment."""
        walk = self.i.payload
        starts = [start.eq(walk.address) for start in self.starts]
        return [self.walk.eq(walk), *starts, *self.reload(walk, 0)]

    def reload(self, walk: data.View, level: int) -> list:
        """Start the loops from ``level`` inwards afresh."""
        return [self.left[i].eq(walk[f"{self.loops[i]}_count"]) for i in range(level, len(self.loops))]

    def is_empty(self):
        """Whether the offered walk moves nothing."""
        walk = self.i.payload
        return Cat(walk[f"{loop}_count"] == 0 for loop in self.loops).any() | (walk.bytes == 0)

    def step(self, m: Module, ends) -> None:
        """Advance the innermost loop that has not ended."""
        for level in reversed(range(len(self.loops))):
            following = self.starts[level] + self.walk[f"{self.loops[level]}_stride"]
            with (m.If if level == len(self.loops) - 1 else m.Elif)(~ends[level]):
                m.d.sync += [start.eq(following) for start in self.starts[level:]]
                m.d.sync += self.left[level].eq(self.left[level] - 1)
                m.d.sync += self.reload(self.walk, level + 1)


class BurstSplitter(wiring.Component):
    """Split segments into bursts, one per cycle.

    A burst ends at every multiple of 64 beats, so it has at most 64 and (a beat being at most 32 bytes) never crosses
    4 KiB. Null segments are dropped. Latency: a burst appears the cycle after its segment is accepted.

    Parameters
    ----------
    bus_bytes : int

    Members
    -------
    i : In(stream of segment_layout(32))
    o : Out(stream)
        ``address`` (aligned to a beat) and ``length`` (beats - 1).
    """

    def __init__(self, *, bus_bytes: int):
        self.bus_bytes = bus_bytes
        super().__init__({
            "i": In(stream.Signature(segment_layout(32))),
            "o": Out(stream.Signature(data.StructLayout({"address": 32, "length": 8}))),
        })

    def elaborate(self, platform):
        m = Module()
        low = log2_bytes(self.bus_bytes)
        beat = Signal(32 - low, reset_less=True)
        more = Signal(COUNT_BITS + 1 - low, reset_less=True)
        room = ~beat[:BURST_BITS]
        final = more <= room
        m.d.comb += [
            self.o.payload.address.eq(Cat(Const(0, low), beat)),
            self.o.payload.length.eq(Mux(final, more, room)),
            self.i.ready.eq(~self.o.valid | (self.o.ready & final)),
        ]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid & ~self.i.payload.null)
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += [
                beat.eq(self.i.payload.address[low:]),
                more.eq(last_byte(self.i.payload, low) >> low),
            ]
        with m.Elif(self.o.ready & self.o.valid):
            m.d.sync += [
                beat.eq(Cat(Const(0, BURST_BITS), beat[BURST_BITS:] + 1)),
                more.eq(more - room - 1),
            ]
        return m


class BeatWalker(wiring.Component):
    """Cut segments into beats, or equal parts of beats, one per cycle, also across segments.

    Latency: a beat appears the cycle after its segment is accepted. A null segment yields one null beat.

    Parameters
    ----------
    dma_bytes, bus_bytes : int
        Bytes per step and per beat, powers of two.
    address_bits : int
        Low address bits of the segments: those within a beat, and 6 more where ``burst_last`` is used.

    Members
    -------
    i : In(stream of segment_layout(address_bits))
    o : Out(stream of beat_layout)
    """

    def __init__(self, *, dma_bytes: int, bus_bytes: int, address_bits: int):
        self.dma_bytes = dma_bytes
        self.bus_bytes = bus_bytes
        self.address_bits = address_bits
        super().__init__({
            "i": In(stream.Signature(segment_layout(address_bits))),
            "o": Out(stream.Signature(beat_layout(dma_bytes, bus_bytes))),
        })

    def elaborate(self, platform):
        m = Module()
        low, beat = log2_bytes(self.dma_bytes), log2_bytes(self.bus_bytes)
        segment = Signal(segment_layout(self.address_bits), reset_less=True)
        last = Signal(COUNT_BITS + 1, reset_less=True)   # the segment's last byte, from the beat's first byte on
        more = Signal(COUNT_BITS + 1 - low)
        final = more == 0
        o = self.o.payload
        m.d.comb += [
            more.eq(last[low:]),
            o.offset.eq(segment.address[:low]),
            o.unused.eq(Mux(final, ~last[:low], 0)),
            o.part.eq(segment.address[low:beat]),
            o.beat_last.eq(final | Cat(Const(1), segment.address[low:beat]).all()),
            o.burst_last.eq(final | Cat(Const(1), segment.address[low:]).all()),
            o.row_last.eq(final & segment.row_last),
            o.last.eq(final & segment.last),
            o.null.eq(segment.null),
            self.i.ready.eq(~self.o.valid | (self.o.ready & final)),
        ]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid)
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += segment.eq(self.i.payload)
            m.d.sync += last.eq(Mux(self.i.payload.null, 0, last_byte(self.i.payload, low)))
        with m.Elif(self.o.ready & self.o.valid):
            m.d.sync += [
                segment.address.eq(Cat(Const(0, low), segment.address[low:] + 1)),
                last[low:].eq(more - 1),
            ]
        return m


class Records(wiring.Component):
    """Queue of records; one accepted in a cycle is offered in the next.

    Parameters
    ----------
    shape : data.Layout
    depth : int

    Members
    -------
    i : In(stream of shape)
    o : Out(stream of shape)
    busy : Out(1)
        Not empty.
    """

    def __init__(self, *, shape: data.Layout, depth: int):
        self.shape = shape
        self.depth = depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=Shape.cast(self.shape).width, depth=self.depth)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
            self.busy.eq(fifo.r_level != 0),
        ]
        return m


def last_byte(segment: data.View, low: int):
    """Index of a segment's last byte, counted from the start of its first beat."""
    return (segment.address[:low] + segment.bytes - 1)[:COUNT_BITS + 1]


def connect_stream(m: Module, source, target) -> None:
    """Join two streams whose payloads have the same shape."""
    m.d.comb += [
        target.payload.eq(source.payload),
        target.valid.eq(source.valid),
        source.ready.eq(target.ready),
    ]


def count_in_flight(m: Module, limit: int, start, end, name: str) -> Signal:
    """Count events between ``start`` and ``end`` (one each per cycle at most), 0 .. limit."""
    count = Signal(range(limit + 1), name=name)
    with m.If(start & ~end):
        m.d.sync += count.eq(count + 1)
    with m.If(end & ~start):
        m.d.sync += count.eq(count - 1)
    return count
