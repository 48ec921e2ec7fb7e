"""AXI4-Lite register file: control, status, arguments, counters."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.sequencer import ARGUMENTS

IDENTIFIER = 0x50484F4E
ENGINES = ("load", "array", "vector", "store")
CAUSES = ("busy", "idle", "token", "dram", "sram_port", "drain", "config")

ID, CONTROL, STATUS, PROGRAM, ERROR_ADDRESS, IRQ_ENABLE, CONFIG_HASH = range(0, 28, 4)
ARGUMENT_BASE = 0x20
CYCLES, CYCLES_HIGH, INSTRUCTIONS, READ_BEATS, WRITE_BEATS = range(0x40, 0x54, 4)
ENGINE_BASE, ENGINE_STRIDE = 0x80, 0x20
ADDRESS_BITS = 12


def counter_address(engine: str, cause: str) -> int:
    """Return the byte offset of one cycle counter."""
    return ENGINE_BASE + ENGINE_STRIDE * ENGINES.index(engine) + 4 * CAUSES.index(cause)


class AxiLiteSignature(wiring.Signature):
    """AXI4-Lite with 32-bit data, seen from the master."""

    def __init__(self):
        super().__init__({
            "awaddr": Out(ADDRESS_BITS), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "araddr": Out(ADDRESS_BITS), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
            "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
        })


class CycleCounters(wiring.Component):
    """Cycles of one engine by cause; each cycle of a run has one.

    Members
    -------
    begin, running : In(1)
        A run begins: all start from zero; or goes on.
    causes : In(7)
        One-hot, in the order of ``CAUSES``.
    index : In(3), value : Out(32)
        Combinational read; 7 reads as zero.
    """

    def __init__(self):
        super().__init__({"begin": In(1), "running": In(1), "causes": In(len(CAUSES)),
                          "index": In(range(len(CAUSES) + 1)), "value": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.counts = counts = Memory(shape=32, depth=len(CAUSES), init=[])
        counter, reader, writer = counts.read_port(domain="comb"), counts.read_port(domain="comb"), counts.write_port()
        counted = Signal(len(CAUSES))   # others are zero, whatever the memory holds
        m.d.comb += [
            counter.addr.eq(Cat(Cat(each for n, each in enumerate(self.causes) if n >> bit & 1).any()
                                for bit in range(3))),
            reader.addr.eq(self.index),
            self.value.eq(Mux((counted >> self.index)[0], reader.data, 0)),
            writer.addr.eq(counter.addr),
            writer.data.eq(Mux((counted & self.causes).any() & ~self.begin, counter.data, 0) + 1),
            writer.en.eq(self.begin | self.running),
        ]
        with m.If(writer.en):
            m.d.sync += counted.eq(Mux(self.begin, 0, counted) | self.causes)
        return m


class Registers(wiring.Component):
    """The host's view of the accelerator; ``docs/registers.md`` is the map.

    A write takes effect in the cycle in which address and data are both accepted; one access of each kind at a time.
    Byte strobes are honoured only as all or nothing: a write with ``wstrb`` zero changes nothing.

    Members
    -------
    axil : In(AxiLiteSignature)
    start : Out(1)
        The host asks for a start: a pulse, ignored while ``busy``.
    begin : In(1)
        The run begins.
    program, arguments : Out
        Address of word 0; initial values of registers 1 to 4.
    running, busy, finished, error : In
        From the supervisor.
    error_address : In(32)
    decoded : In(1)
        An instruction is decoded in this cycle.
    read_beat, write_beat : In(1)
        An AXI data beat is transferred in this cycle.
    causes : In(7).array(4)
        One-hot per engine: what it does in this cycle, in the order of ``CAUSES``.
    irq : Out(1)
        Done or error, if enabled, until cleared.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "axil": In(AxiLiteSignature()), "start": Out(1), "program": Out(32),
            "arguments": Out(32).array(ARGUMENTS),
            "begin": In(1), "running": In(1), "busy": In(1), "finished": In(1), "error": In(8),
            "error_address": In(32), "decoded": In(1), "read_beat": In(1), "write_beat": In(1),
            "causes": In(len(CAUSES)).array(len(ENGINES)), "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self.done = Signal()
        self.failed = Signal()
        self.irq_enable = Signal()
        self.counters = self.make_counters(m)
        self.handle_write(m)
        self.handle_read(m)
        m.d.comb += self.irq.eq(self.irq_enable & (self.done | self.failed))
        with m.If(self.finished):
            m.d.sync += [self.done.eq(self.error == 0), self.failed.eq(self.error != 0)]
        return m

    def make_counters(self, m) -> dict[int, Signal]:
        """Count from the start write to the end, both included; return the counters of the run by register address."""
        cycles = Signal(64)
        counters = {INSTRUCTIONS: (Signal(32, name="instructions"), self.decoded),
                    READ_BEATS: (Signal(32, name="read_beats"), self.read_beat),
                    WRITE_BEATS: (Signal(32, name="write_beats"), self.write_beat)}
        self.of_engines = [CycleCounters() for _ in ENGINES]
        for name, each, causes in zip(ENGINES, self.of_engines, self.causes, strict=True):
            m.submodules[name] = each
            m.d.comb += [each.begin.eq(self.begin), each.running.eq(self.running), each.causes.eq(causes),
                         each.index.eq(self.axil.araddr[2:])]
        with m.If(self.begin | self.running):
            m.d.sync += cycles.eq(Mux(self.begin, 0, cycles) + 1)
            for counter, event in counters.values():
                m.d.sync += counter.eq(Mux(self.begin, 0, counter) + event)
        return {CYCLES: cycles[:32], CYCLES_HIGH: cycles[32:],
                **{address: counter for address, (counter, _) in counters.items()}}

    def handle_write(self, m):
        """Accept an address and its data together, then respond."""
        axil = self.axil
        accept = Signal()
        m.d.comb += [
            accept.eq(axil.awvalid & axil.wvalid & ~axil.bvalid),
            axil.awready.eq(accept),
            axil.wready.eq(accept),
        ]
        with m.If(axil.bready):
            m.d.sync += axil.bvalid.eq(0)
        with m.If(accept):
            m.d.sync += axil.bvalid.eq(1)
        with m.If(accept & axil.wstrb.any()):
            self.write(m, axil.awaddr, axil.wdata)

    def write(self, m, address, value):
        """Write one register; others are read-only."""
        with m.Switch(address[2:]):
            with m.Case(CONTROL >> 2):
                m.d.comb += self.start.eq(value[0] & ~self.busy)
                with m.If(self.start | value[1]):
                    m.d.sync += [self.done.eq(0), self.failed.eq(0)]
            with m.Case(PROGRAM >> 2):
                m.d.sync += self.program.eq(value)
            with m.Case(IRQ_ENABLE >> 2):
                m.d.sync += self.irq_enable.eq(value[0])
            for n in range(ARGUMENTS):
                with m.Case((ARGUMENT_BASE >> 2) + n):
                    m.d.sync += self.arguments[n].eq(value)

    def handle_read(self, m):
        """Answer a read in the next cycle; unknown addresses read as zero."""
        axil = self.axil
        accept = Signal()
        m.d.comb += [accept.eq(axil.arvalid & ~axil.rvalid), axil.arready.eq(accept)]
        with m.If(axil.rready):
            m.d.sync += axil.rvalid.eq(0)
        with m.If(accept):
            m.d.sync += [axil.rvalid.eq(1), axil.rdata.eq(0)]
            with m.Switch(axil.araddr[2:]):
                for address, value in self.readable().items():
                    with m.Case(address >> 2):
                        m.d.sync += axil.rdata.eq(value)
                for index, engine in enumerate(self.of_engines):
                    with m.Case(f"{(ENGINE_BASE + ENGINE_STRIDE * index) >> 5:0{ADDRESS_BITS - 5}b}---"):
                        m.d.sync += axil.rdata.eq(engine.value)

    def readable(self) -> dict:
        """Return every readable register but the engines' counters by address."""
        status = self.busy | self.done << 1 | self.failed << 2 | self.error << 8
        return {ID: IDENTIFIER, STATUS: status, PROGRAM: self.program, ERROR_ADDRESS: self.error_address,
                IRQ_ENABLE: self.irq_enable, CONFIG_HASH: self.config.hash_word,
                **{ARGUMENT_BASE + 4 * n: self.arguments[n] for n in range(ARGUMENTS)}, **self.counters}
