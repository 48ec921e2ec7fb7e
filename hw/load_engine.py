"""The LOAD engine: gathers strided rows from DRAM into the on-chip memories."""

from amaranth.hdl import Cat, Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import BY_MNEMONIC, LOAD_CONTROL, SEMAPHORES
from phonolith.hw.layouts import (
    AxiReadSignature,
    ChainSignature,
    EngineStatusSignature,
    instruction_stream,
    packed_layout,
    write_layout,
)
from phonolith.hw.packer import Packer
from phonolith.hw.placer import Placer, placement_layout
from phonolith.hw.quiesce import NUMBER_BITS
from phonolith.hw.segments import (
    BeatWalker,
    BurstSplitter,
    LoopWalker,
    Records,
    connect_stream,
    count_in_flight,
    log2_bytes,
    walk_layout,
)

LOOPS = ("outer", "inner", "segment")
QUEUED = 4
LOAD = BY_MNEMONIC["LOAD"]


class LoadEngine(wiring.Component):
    """Execute LOAD: one beat (or ``dma_bytes`` of it) per cycle, across segments, rows and instructions.

    ::

        instruction -+-> LoopWalker -> BurstSplitter -> AR
                     +-> queue -> LoopWalker -> BeatWalker --+
                     |                            R beats ---+-> Packer --+
                     +-> queue -----------------------------------------> Placer -> write

    Addresses run ahead of data by up to ``reads_outstanding`` bursts and up to QUEUED instructions. Data are taken only
    as fast as ``write`` accepts them; nothing is dropped.

    Latency: 2 cycles from an accepted instruction to ``arvalid``, 2 from the beat that completes a unit to its write;
    transposed blocks of WB rows take 1 more and leave one column per cycle.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    instruction : In(stream of LOAD operands)
    status : Out(EngineStatusSignature)
        ``done``: the last unit of an instruction is accepted by ``write``.
    axi : Out(AxiReadSignature)
    write : Out(stream of write_layout)
    early : Out(1), early_mask : Out(12), chain : Out(ChainSignature)
        See :class:`Placer`.
    error : Out(1), error_number : Out(8)
        A beat with a response other than OKAY is accepted in this cycle; the instruction whose beat is next: how many
        were accepted before it (modulo 2^8).
    clock_enable : Out(1)
        See :mod:`phonolith.hw.clock_enable`.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "instruction": In(instruction_stream(LOAD)),
            "status": Out(EngineStatusSignature()),
            "axi": Out(AxiReadSignature(config)),
            "write": Out(stream.Signature(write_layout(config))),
            "early": Out(1), "early_mask": Out(SEMAPHORES), "chain": Out(ChainSignature()),
            "error": Out(1), "error_number": Out(NUMBER_BITS), "clock_enable": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        low = log2_bytes(self.config.bus_bytes)
        m.submodules.requests = requests = LoopWalker(loops=LOOPS, address_bits=32)
        m.submodules.bursts = bursts = BurstSplitter(bus_bytes=self.config.bus_bytes)
        m.submodules.walks = walks = Records(shape=walk_layout(LOOPS, low), depth=QUEUED)
        m.submodules.segments = segments = LoopWalker(loops=LOOPS, address_bits=low)
        m.submodules.beats = beats = BeatWalker(
            dma_bytes=self.config.dma_bytes, bus_bytes=self.config.bus_bytes, address_bits=low)
        m.submodules.packer = packer = Packer(config=self.config)
        m.submodules.placements = placements = Records(shape=placement_layout(self.config), depth=QUEUED)
        m.submodules.placer = placer = Placer(config=self.config)

        self.accept(m, (requests.i, walks.i, placements.i))
        self.fill_walk(m, requests.i.payload)
        self.fill_walk(m, walks.i.payload)
        self.fill_placement(m, placements.i.payload)
        connect_stream(m, requests.o, bursts.i)
        connect_stream(m, walks.o, segments.i)
        connect_stream(m, segments.o, beats.i)
        connect_stream(m, packer.o, placer.i)
        connect_stream(m, placements.o, placer.i_placement)
        connect_stream(m, placer.o, self.write)
        wiring.connect(m, placer.chain, wiring.flipped(self.chain))
        m.d.comb += [self.early.eq(placer.early), self.early_mask.eq(placer.early_mask)]
        self.connect_addresses(m, bursts.o)
        self.connect_data(m, beats.o, packer.i)
        self.report(m, beats.o, placer.done, [
            requests.o.valid, bursts.o.valid, walks.busy, segments.o.valid, beats.o.valid, packer.busy, placements.busy,
            placer.busy])
        return m

    def accept(self, m: Module, targets: tuple) -> None:
        """Give an instruction to all that need it, in the same cycle."""
        ready = Cat(target.ready for target in targets).all()
        m.d.comb += self.instruction.ready.eq(ready)
        m.d.comb += [target.valid.eq(self.instruction.valid & ready) for target in targets]

    def fill_walk(self, m: Module, walk: data.View) -> None:
        """Copy the loops of the instruction, cut to the walker's address bits."""
        operands = self.instruction.payload
        m.d.comb += [walk.address.eq(operands.address), walk.bytes.eq(operands.segment_bytes)]
        for loop in LOOPS:
            m.d.comb += [walk[f"{loop}_{part}"].eq(operands[f"{loop}_{part}"]) for part in ("count", "stride")]

    def fill_placement(self, m: Module, placement: data.View) -> None:
        """Copy what says where the data go."""
        operands = self.instruction.payload
        control = data.View(packed_layout(LOAD_CONTROL), operands.control[:packed_layout(LOAD_CONTROL).size])
        m.d.comb += [
            placement.target.eq(control.target),
            placement.bank_per_word.eq(control.bank_per_word),
            placement.transpose.eq(control.transpose),
            placement.one_bank.eq(control.one_bank),
            placement.window.eq(control.window),
            placement.early.eq(control.early),
            placement.base.eq(operands.base),
            placement.row_words.eq(operands.row_words),
            placement.columns.eq(operands.segment_bytes),
        ]

    def connect_addresses(self, m: Module, bursts) -> None:
        """Issue bursts while fewer than ``reads_outstanding`` are in flight."""
        axi = self.axi
        limit = self.config.reads_outstanding
        in_flight = count_in_flight(m, limit, axi.arvalid & axi.arready, axi.rvalid & axi.rready & axi.rlast,
                                    "reads_in_flight")
        allowed = in_flight != limit
        m.d.comb += [
            axi.araddr.eq(bursts.payload.address),
            axi.arlen.eq(bursts.payload.length),
            axi.arvalid.eq(bursts.valid & allowed),
            bursts.ready.eq(axi.arready & allowed),
        ]

    def connect_data(self, m: Module, beats, packed) -> None:
        """Join every arriving beat, part by part, with what is known of it; null beats need no arrival."""
        axi, beat = self.axi, beats.payload
        arrived = axi.rvalid | beat.null
        m.d.comb += [
            packed.payload.data.eq(axi.rdata.word_select(beat.part, 8 * self.config.dma_bytes)),
            packed.payload.beat.eq(beat),
            packed.valid.eq(beats.valid & arrived),
            beats.ready.eq(packed.ready & arrived),
            axi.rready.eq(packed.ready & beats.valid & beat.beat_last & ~beat.null),
            self.error.eq(axi.rvalid & axi.rready & (axi.rresp != 0)),
        ]
        with m.If(beats.valid & beats.ready & beats.payload.last):
            m.d.sync += self.error_number.eq(self.error_number + 1)

    def report(self, m: Module, beats, done, busy: list) -> None:
        """Derive the status of this cycle."""
        accepted = self.instruction.valid & self.instruction.ready
        in_progress = count_in_flight(m, QUEUED + 1, accepted, done, "in_progress")
        m.d.comb += self.clock_enable.eq(self.instruction.valid | Cat(busy).any())
        waiting = beats.valid & ~beats.payload.null & ~self.axi.rvalid
        blocked = self.write.valid & ~self.write.ready
        m.d.comb += [
            self.status.done.eq(done),
            self.status.busy.eq(in_progress != 0),
            self.status.stalled_port.eq(blocked),
            self.status.stalled_dram.eq(waiting & ~blocked),
        ]
