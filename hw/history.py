"""Where in the program the last instructions were, to name the one at fault."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from phonolith.hw.quiesce import NUMBER_BITS, QUEUES

HISTORY = 256
POSITION_BITS = 24


class History(wiring.Component):
    """Remembers where in the program the last instructions were, and finds the one at fault.

    The instructions of each queue are numbered from 0 on, modulo 2^NUMBER_BITS. A search goes back from the newest
    instruction, two cycles each, until it has passed all that are in question; the last of them,
    the oldest, is the answer. The position of an instruction more than ``HISTORY`` instructions ago is forgotten;
    the oldest known is then the answer.

    Members
    -------
    record : In(1), queue : In(2), position : In(32)
        An instruction goes to a queue.
    search : In(1), mask : In(4), numbers : In(8).array(4), fallback : In(32)
        Look for the oldest instruction among those in the queues of ``mask`` from ``numbers`` on; when there is none,
        ``fallback`` is the answer.
    found : Out(1), address : Out(32)
        The address outlives a reset.
    clock_enable : Out(1)
        See :mod:`phonolith.hw.clock_enable`.
    """

    def __init__(self):
        super().__init__({
            "record": In(1), "queue": In(2), "position": In(32), "search": In(1), "mask": In(QUEUES),
            "numbers": In(NUMBER_BITS).array(QUEUES), "fallback": In(32), "found": Out(1), "address": Out(32),
            "clock_enable": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        layout = data.StructLayout({"position": POSITION_BITS, "queue": 2})
        m.submodules.entries = entries = Memory(shape=layout, depth=HISTORY, init=[])
        writer, reader = entries.write_port(), entries.read_port()
        newest = Signal(range(HISTORY))
        m.d.comb += [
            writer.en.eq(self.record),
            writer.addr.eq(newest + 1),
            writer.data.position.eq(self.position),
            writer.data.queue.eq(self.queue),
        ]
        counts = [Signal(NUMBER_BITS, name=f"count_{queue}") for queue in range(QUEUES)]
        with m.If(self.record):
            m.d.sync += newest.eq(newest + 1)
            with m.Switch(self.queue):
                for queue, count in enumerate(counts):
                    with m.Case(queue):
                        m.d.sync += count.eq(count + 1)
        self.walk(m, newest, counts, reader)
        m.d.comb += self.clock_enable.eq(self.record | self.search | ~self.found)
        return m

    def walk(self, m, newest, counts, reader):
        """Read entries from the newest one back while instructions are missing."""
        left = [Signal(NUMBER_BITS, name=f"left_{queue}") for queue in range(QUEUES)]
        back = Signal(range(HISTORY))
        steps = Signal(range(HISTORY + 1))
        read = Signal()
        answer = Signal(32, reset_less=True)
        m.d.comb += [
            self.address.eq(answer),
            self.found.eq((steps == 0) | ~Cat(left).any()),
            reader.addr.eq(back),
            reader.en.eq(~self.found & ~read),
        ]
        with m.If(self.search):
            m.d.sync += [back.eq(newest), steps.eq(HISTORY), read.eq(0), answer.eq(self.fallback)]
            m.d.sync += [each.eq(Mux(chosen, count - number, 0)) for each, chosen, count, number
                         in zip(left, self.mask, counts, self.numbers, strict=True)]
        with m.Elif(~self.found):
            m.d.sync += read.eq(~read)
            with m.If(read):
                m.d.sync += [back.eq(back - 1), steps.eq(steps - 1)]
                with m.Switch(reader.data.queue):
                    for queue, each in enumerate(left):
                        with m.Case(queue), m.If(each != 0):
                            m.d.sync += [each.eq(each - 1), answer.eq(reader.data.position)]
