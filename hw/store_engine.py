"""The STORE engine: scatters rows of the scratchpad into DRAM."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import BY_MNEMONIC
from phonolith.hw.layouts import AxiWriteSignature, BankReadSignature, EngineStatusSignature, instruction_stream
from phonolith.hw.quiesce import NUMBER_BITS
from phonolith.hw.segments import (
    BURST_BITS,
    BeatWalker,
    BurstSplitter,
    LoopWalker,
    Records,
    connect_stream,
    count_in_flight,
    log2_bytes,
    walk_layout,
)
from phonolith.hw.unpacker import ROW_LAYOUT, Unpacker

LOOPS = ("outer", "inner")
QUEUED = 2
STORE = BY_MNEMONIC["STORE"]


class StoreEngine(wiring.Component):
    """Execute STORE: one beat (or ``dma_bytes`` of it) per cycle, across rows and instructions.

    ::

        instruction -+-> LoopWalker -> BurstSplitter -> AW
                     +-> queue -> LoopWalker -> BeatWalker -> Unpacker -> W
                     +-> queue ---------------------------------^ | scratchpad

    Addresses run ahead of data by up to QUEUED instructions; data follow their address by a cycle at least. At
    most ``writes_outstanding`` bursts lack their response. No instruction is taken between a fence and its end.

    Latency: 2 cycles from an accepted instruction to ``awvalid``, 3 to its first read, 5 to ``wvalid``.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    instruction : In(stream of STORE operands)
    status : Out(EngineStatusSignature)
        ``done``: the last word of an instruction is read (with ``fence``: no response is missing any more).
    axi : Out(AxiWriteSignature)
    read : Out(BankReadSignature)
        Scratchpad; ``enable`` is a request, granted in cycles with ``read_ready``; data stay until the next grant.
    read_ready : In(1)
    idle : Out(1)
        Nothing in progress and no response missing.
    error : Out(1), error_number : Out(8)
        A response other than OKAY arrives in this cycle; the instruction whose response is next: how many were
        accepted before it (modulo 2^8).
    clock_enable : Out(1)
        See :mod:`phonolith.hw.clock_enable`.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "instruction": In(instruction_stream(STORE)),
            "status": Out(EngineStatusSignature()),
            "axi": Out(AxiWriteSignature(config)),
            "read": Out(BankReadSignature(8 * config.scratch_word_bytes)),
            "read_ready": In(1),
            "idle": Out(1),
            "error": Out(1), "error_number": Out(NUMBER_BITS), "clock_enable": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        low = log2_bytes(self.config.bus_bytes) + BURST_BITS
        m.submodules.requests = requests = LoopWalker(loops=LOOPS, address_bits=32)
        m.submodules.bursts = bursts = BurstSplitter(bus_bytes=self.config.bus_bytes)
        m.submodules.walks = walks = Records(shape=walk_layout(LOOPS, low), depth=QUEUED)
        m.submodules.segments = segments = LoopWalker(loops=LOOPS, address_bits=low)
        m.submodules.beats = beats = BeatWalker(
            dma_bytes=self.config.dma_bytes, bus_bytes=self.config.bus_bytes, address_bits=low)
        m.submodules.rows = rows = Records(shape=ROW_LAYOUT, depth=QUEUED)
        m.submodules.unpacker = unpacker = Unpacker(config=self.config)

        self.accept(m, (requests.i, walks.i, rows.i), unpacker.done_fence)
        self.fill_walk(m, requests.i.payload)
        self.fill_walk(m, walks.i.payload)
        self.fill_row(m, rows.i.payload)
        connect_stream(m, requests.o, bursts.i)
        connect_stream(m, walks.o, segments.i)
        connect_stream(m, segments.o, beats.i)
        connect_stream(m, beats.o, unpacker.i)
        connect_stream(m, rows.o, unpacker.i_row)
        self.connect_addresses(m, bursts.o, unpacker)
        self.connect_data(m, unpacker)
        self.number_bursts(m, requests.o)
        self.report(m, beats.o, unpacker, [
            requests.o.valid, bursts.o.valid, walks.busy, segments.o.valid, beats.o.valid, rows.busy, unpacker.busy])
        return m

    def accept(self, m: Module, targets: tuple, done_fence) -> None:
        """Give an instruction to all that need it, in the same cycle; none behind a fence."""
        fenced = Signal()
        ready = Cat(*(target.ready for target in targets), ~fenced).all()
        m.d.comb += self.instruction.ready.eq(ready)
        m.d.comb += [target.valid.eq(self.instruction.valid & ready) for target in targets]
        with m.If(self.instruction.valid & ready):
            m.d.sync += fenced.eq(self.instruction.payload.control[0])
        with m.Elif(done_fence):
            m.d.sync += fenced.eq(0)

    def fill_walk(self, m: Module, walk: data.View) -> None:
        """Copy the loops of the instruction, cut to the walker's address bits."""
        operands = self.instruction.payload
        m.d.comb += [walk.address.eq(operands.address), walk.bytes.eq(operands.row_bytes)]
        for loop in LOOPS:
            m.d.comb += [walk[f"{loop}_{part}"].eq(operands[f"{loop}_{part}"]) for part in ("count", "stride")]

    def fill_row(self, m: Module, row: data.View) -> None:
        """Copy what says where the data come from."""
        operands = self.instruction.payload
        m.d.comb += [
            row.base.eq(operands.base),
            row.pitch.eq(operands.pitch),
            row.fence.eq(operands.control[0]),
        ]

    def connect_addresses(self, m: Module, bursts, unpacker: Unpacker) -> None:
        """Issue bursts while fewer than ``writes_outstanding`` lack a response; let announced beats go."""
        axi = self.axi
        limit = self.config.writes_outstanding
        issued = axi.awvalid & axi.awready
        in_flight = count_in_flight(m, limit, issued, axi.bvalid & axi.bready, "writes_in_flight")
        announced = count_in_flight(m, limit, issued, unpacker.taken, "announced")
        allowed = in_flight != limit
        m.d.comb += [
            axi.awaddr.eq(bursts.payload.address),
            axi.awlen.eq(bursts.payload.length),
            axi.awvalid.eq(bursts.valid & allowed),
            bursts.ready.eq(axi.awready & allowed),
            unpacker.allowed.eq(announced != 0),
            unpacker.settled.eq(in_flight == 0),
        ]

    def number_bursts(self, m: Module, segments) -> None:
        """Remember for each burst without response which instruction it belongs to."""
        m.submodules.numbers = numbers = SyncFIFO(width=NUMBER_BITS, depth=self.config.writes_outstanding)
        requested, current = Signal(NUMBER_BITS), Signal(NUMBER_BITS)
        with m.If(segments.valid & segments.ready):
            m.d.sync += [current.eq(requested), requested.eq(requested + segments.payload.last)]
        m.d.comb += [
            numbers.w_data.eq(current),
            numbers.w_en.eq(self.axi.awvalid & self.axi.awready),
            numbers.r_en.eq(self.axi.bvalid & self.axi.bready),
            self.error_number.eq(Mux(numbers.r_rdy, numbers.r_data, current)),
        ]

    def connect_data(self, m: Module, unpacker: Unpacker) -> None:
        """Connect read port, W and B."""
        axi = self.axi
        m.d.comb += [
            self.read.enable.eq(unpacker.read.enable),
            self.read.address.eq(unpacker.read.address),
            unpacker.read.data.eq(self.read.data),
            unpacker.read_ready.eq(self.read_ready),
            axi.wdata.eq(unpacker.o.payload.data),
            axi.wstrb.eq(unpacker.o.payload.strobe),
            axi.wlast.eq(unpacker.o.payload.last),
            axi.wvalid.eq(unpacker.o.valid),
            unpacker.o.ready.eq(axi.wready),
            axi.bready.eq(1),
            self.error.eq(axi.bvalid & (axi.bresp != 0)),
        ]

    def report(self, m: Module, beats, unpacker: Unpacker, parts: list) -> None:
        """Derive the status of this cycle."""
        accepted = self.instruction.valid & self.instruction.ready
        in_progress = count_in_flight(m, QUEUED + 1, accepted, unpacker.done, "in_progress")
        blocked = self.read.enable & ~self.read_ready
        unannounced = beats.valid & ~beats.payload.null & ~unpacker.allowed
        held = self.axi.wvalid & ~self.axi.wready
        busy = in_progress != 0
        m.d.comb += [
            self.status.done.eq(unpacker.done),
            self.status.busy.eq(busy),
            self.status.stalled_port.eq(blocked),
            self.status.stalled_dram.eq(busy & ~blocked & (unannounced | held | unpacker.fencing)),
            self.idle.eq(~busy & unpacker.settled),
            self.clock_enable.eq(self.instruction.valid | self.axi.bvalid | Cat(parts).any()),
        ]
