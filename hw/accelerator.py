"""The accelerator: connects the components and holds the operand memories. No logic of its own but write routing."""

from amaranth.hdl import Cat, Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from phonolith.hw import isa, registers
from phonolith.hw.activation_writes import ActivationWrites
from phonolith.hw.array_engine import ArrayEngine
from phonolith.hw.config import MachineConfig
from phonolith.hw.dispatch import Dispatcher, Semaphores
from phonolith.hw.fetch import BUFFER_BEATS, Fetch
from phonolith.hw.history import History
from phonolith.hw.load_engine import LoadEngine
from phonolith.hw.quiesce import AddressGate, Faults, Supervisor, Watchdog
from phonolith.hw.read_arbiter import ReadArbiter
from phonolith.hw.registers import AxiLiteSignature, Registers
from phonolith.hw.scratchpad import Scratchpad
from phonolith.hw.sequencer import Sequencer
from phonolith.hw.sram import Sram
from phonolith.hw.store_engine import StoreEngine
from phonolith.hw.vector_engine import VectorEngine

ENGINE_INSTRUCTIONS = (("LOAD",), ("MATMUL",), ("VECTOR", "ROWOP"), ("STORE",))
BURST_INCR = 1
CACHE_MODIFIABLE = 0b0011


def axi_ports(config: MachineConfig) -> dict:
    """AXI4 master ports by channel signal, directions as the accelerator sees them."""
    address = {"id": Out(1), "addr": Out(32), "len": Out(8), "size": Out(3), "burst": Out(2), "lock": Out(1),
               "cache": Out(4), "prot": Out(3), "qos": Out(4), "valid": Out(1), "ready": In(1)}
    return {
        **{f"aw{name}": port for name, port in address.items()},
        "wdata": Out(config.bus_bits), "wstrb": Out(config.bus_bytes), "wlast": Out(1),
        "wvalid": Out(1), "wready": In(1),
        "bid": In(1), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        **{f"ar{name}": port for name, port in address.items()},
        "rid": In(1), "rdata": In(config.bus_bits), "rresp": In(2), "rlast": In(1),
        "rvalid": In(1), "rready": Out(1),
    }


class Accelerator(wiring.Component):
    """Top level, ``phonolith_top`` in Verilog.

    Members
    -------
    s_axil_* : AXI4-Lite slave for control, status and counters
    m_axi_* : AXI4 master for program and data
    irq : Out(1)
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        axil = {f"s_axil_{name}": Out(member.shape) if member.flow is In else In(member.shape)
                for name, member in AxiLiteSignature().members.items()}
        axi = {f"m_axi_{name}": port for name, port in axi_ports(config).items()}
        super().__init__({**axil, **axi, "irq": Out(1)})

    def elaborate(self, platform):
        m = Module()
        self.make_units(m)
        self.connect_control(m)
        self.connect_faults(m)
        self.connect_dispatch(m)
        self.connect_data(m)
        self.route_load_writes(m)
        self.connect_axi(m)
        self.classify_cycles(m)
        return m

    def make_units(self, m):
        """Instantiate everything."""
        config = self.config
        m.submodules.registers = self.registers = Registers(config=config)
        m.submodules.supervisor = self.supervisor = Supervisor()
        m.submodules.faults = self.faults = Faults()
        m.submodules.watchdog = self.watchdog = Watchdog()
        m.submodules.read_gate = self.read_gate = AddressGate(limit=config.reads_outstanding + BUFFER_BEATS)
        m.submodules.write_gate = self.write_gate = AddressGate(limit=config.writes_outstanding)
        clear = ResetInserter(self.supervisor.clear)
        self.fetch = Fetch(config=config)
        m.submodules.fetch = clear(self.fetch)
        self.history = History()
        m.submodules.history = clear(self.history)
        self.sequencer = Sequencer(config=config)
        m.submodules.sequencer = ResetInserter(self.supervisor.halt)(self.sequencer)
        m.submodules.semaphores = self.semaphores = Semaphores(ports=len(ENGINE_INSTRUCTIONS) + 1)
        self.dispatchers = []
        for name, mnemonics in zip(registers.ENGINES, ENGINE_INSTRUCTIONS, strict=True):
            dispatcher = Dispatcher(instructions=tuple(isa.BY_MNEMONIC[each] for each in mnemonics),
                                    queue_words=config.queue_words)
            m.submodules[f"{name}_dispatcher"] = clear(dispatcher)
            self.dispatchers.append(dispatcher)
        self.load, self.array = LoadEngine(config=config), ArrayEngine(config=config)
        self.vector, self.store = VectorEngine(config=config), StoreEngine(config=config)
        self.engines = (self.load, self.array, self.vector, self.store)
        for name, engine in zip(registers.ENGINES, self.engines, strict=True):
            m.submodules[name] = clear(engine)
        m.submodules.scratchpad = self.scratchpad = Scratchpad(config=config)
        m.submodules.arbiter = self.arbiter = ReadArbiter(config=config)
        self.activation = self.make_banks(m, "activation", config.rows, config.activation_depth)
        m.submodules.activation_writes = self.activation_writes = ActivationWrites(config=config)
        self.weight = self.make_banks(m, "weight", config.columns, config.weight_depth)
        m.submodules.parameters = self.parameters = Sram(
            data_bits=8 * config.parameter_word_bytes, depth=config.parameter_depth,
            granules=config.parameter_word_bytes // config.word_bytes)

    def make_banks(self, m, name: str, count: int, depth: int) -> list[Sram]:
        """Instantiate one operand memory; activation banks can be written C bytes at a time."""
        granules = self.config.word_bytes // self.config.columns if name == "activation" else 1
        banks = [Sram(data_bits=8 * self.config.word_bytes, depth=depth, granules=granules) for _ in range(count)]
        for index, bank in enumerate(banks):
            m.submodules[f"{name}_bank_{index}"] = bank
        return banks

    def connect_control(self, m):
        """Registers, fetch and sequencer."""
        sequencer, regs = self.sequencer, self.registers
        connect(m, self.fetch.words, sequencer.words)
        m.d.comb += [
            self.supervisor.request.eq(regs.start),
            regs.begin.eq(self.supervisor.begin),
            sequencer.start.eq(self.supervisor.begin),
            self.fetch.program.eq(regs.program),
            self.fetch.jump.eq(sequencer.jump),
            self.fetch.stop.eq(sequencer.stop | self.supervisor.halt),
            self.fetch.target.eq(sequencer.target),
            *(sequencer.arguments[n].eq(regs.arguments[n]) for n in range(len(regs.arguments))),
            self.supervisor.ended.eq(sequencer.ended),
            regs.running.eq(self.supervisor.running),
            regs.busy.eq(self.supervisor.busy),
            regs.finished.eq(self.supervisor.finished),
            regs.error.eq(self.supervisor.error),
            regs.error_address.eq(self.history.address),
            regs.decoded.eq(sequencer.decoded),
            self.irq.eq(regs.irq),
        ]

    def connect_faults(self, m):
        """What can go wrong, where it happened, and what follows."""
        sequencer, supervisor, faults, history = self.sequencer, self.supervisor, self.faults, self.history
        bus_timeout = self.read_gate.timeout | self.write_gate.timeout
        quiet = ~self.read_gate.pending & ~self.write_gate.pending
        moving = [engine.status.busy & ~(engine.status.stalled_dram | engine.status.stalled_port
                                         | engine.status.stalled_drain) for engine in self.engines]
        started = [dispatcher.take for dispatcher in self.dispatchers]
        m.d.comb += [
            faults.load_failed.eq(self.load.error),
            faults.load_number.eq(self.load.error_number),
            faults.store_failed.eq(self.store.error),
            faults.store_number.eq(self.store.error_number),
            faults.overflow.eq(self.semaphores.overflow[:-1] | self.semaphores.overflow[-1]),
            faults.underflow.eq(self.semaphores.underflow),
            faults.rejected.eq(sequencer.failed),
            faults.rejected_code.eq(sequencer.code),
            faults.deadlock.eq(self.watchdog.expired),
            faults.read_timeout.eq(self.read_gate.timeout),
            faults.write_timeout.eq(self.write_gate.timeout),
            faults.loading.eq(self.load.status.busy),
            *(faults.started[n].eq(each.started) for n, each in enumerate(self.dispatchers)),
            *(faults.completed[n].eq(each.completed) for n, each in enumerate(self.dispatchers)),
            supervisor.fault.eq(faults.fault),
            supervisor.code.eq(faults.code),
            supervisor.quiet.eq(quiet),
            supervisor.timeout.eq(bus_timeout),
            supervisor.located.eq(history.found),
            history.record.eq(sequencer.decoded & (sequencer.decoded_queue != isa.Queue.SEQUENCER)),
            history.queue.eq(sequencer.decoded_queue - isa.Queue.LOAD),
            history.position.eq(sequencer.position),
            history.search.eq(supervisor.fallen),
            history.mask.eq(faults.mask),
            *(mine.eq(theirs) for mine, theirs in zip(history.numbers, faults.numbers, strict=True)),
            history.fallback.eq(sequencer.address),
            self.watchdog.enable.eq(supervisor.running & ~supervisor.halt),
            self.watchdog.progress.eq(sequencer.moving | Cat(*moving, *started).any() | ~quiet),
        ]

    def connect_dispatch(self, m):
        """Queues, semaphores and engines."""
        for port, (dispatcher, engine) in enumerate(zip(self.dispatchers, self.engines, strict=True)):
            connect(m, self.sequencer.queues[port], dispatcher.words)
            m.d.comb += [
                self.semaphores.wait_mask[port].eq(dispatcher.wait_mask),
                self.semaphores.signal_mask[port].eq(dispatcher.signal_mask),
                self.semaphores.take[port].eq(dispatcher.take),
                self.semaphores.give[port].eq(dispatcher.give),
                dispatcher.above_zero.eq(self.semaphores.above_zero),
                dispatcher.halt.eq(self.supervisor.halt),
                dispatcher.done.eq(engine.status.done),
            ]
        connect(m, self.dispatchers[0].i0, self.load.instruction)
        connect(m, self.dispatchers[1].i0, self.array.instruction)
        connect(m, self.dispatchers[2].i0, self.vector.instruction_vector)
        connect(m, self.dispatchers[2].i1, self.vector.instruction_row)
        connect(m, self.dispatchers[3].i0, self.store.instruction)
        self.connect_chain(m)
        idle = Cat(*(each.idle for each in self.dispatchers))
        busy = Cat(*(engine.status.busy for engine in self.engines))
        m.d.comb += [
            self.semaphores.clear.eq(self.supervisor.begin | self.supervisor.clear),
            self.sequencer.drained.eq(idle.all() & ~busy.any() & self.store.idle),
            self.sequencer.tile_left.eq(self.array.drain.valid),
        ]

    def connect_chain(self, m):
        """The array may follow a LOAD into the weight memory: that is what early signals are for."""
        connect(m, self.load.chain, self.array.chain)
        m.d.comb += [
            self.semaphores.signal_mask[len(self.engines)].eq(self.load.early_mask),
            self.semaphores.give[len(self.engines)].eq(self.load.early),
        ]

    def connect_data(self, m):
        """Array, vector engine and memories."""
        for port, bank in zip(self.array.activation_read, self.activation, strict=True):
            connect(m, port, bank.read)
        for port, bank in zip(self.array.weight_read, self.weight, strict=True):
            connect(m, port, bank.read)
        connect(m, self.array.drain, self.vector.drain)
        connect(m, self.vector.source_read, self.scratchpad.source_read)
        connect(m, self.vector.residual_read, self.scratchpad.residual_read)
        connect(m, self.vector.scratch_write, self.scratchpad.vector_write)
        connect(m, self.vector.parameter_read, self.parameters.read)
        connect(m, self.store.read, self.scratchpad.store_read)
        m.d.comb += self.store.read_ready.eq(self.scratchpad.store_ready)

    def route_load_writes(self, m):
        """Send each word from LOAD to its memory; VECTOR goes first in an activation bank."""
        write = self.load.write.payload
        valid = self.load.write.valid
        ready = self.load.write.ready
        with m.Switch(write.target):
            with m.Case(isa.Target.ACTIVATION):
                m.d.comb += ready.eq(self.activation_writes.ready)
            with m.Case(isa.Target.WEIGHT):
                m.d.comb += ready.eq(1)
            with m.Case(isa.Target.SCRATCHPAD):
                m.d.comb += [self.scratchpad.load_write.valid.eq(valid), ready.eq(self.scratchpad.load_write.ready)]
            with m.Case(isa.Target.PARAMETER):
                m.d.comb += [ready.eq(1), self.parameters.write.enable.eq(valid << write.part)]
            with m.Case(isa.Target.TABLE):
                m.d.comb += [self.vector.table_write.valid.eq(valid), ready.eq(self.vector.table_write.ready)]
        m.d.comb += [
            self.scratchpad.load_write.payload.address.eq(write.address),
            self.scratchpad.load_write.payload.part.eq(write.part),
            self.scratchpad.load_write.payload.data.eq(write.data),
            self.vector.table_write.payload.entry.eq(write.part),
            self.vector.table_write.payload.data.eq(write.data),
            self.parameters.write.address.eq(write.address),
            self.parameters.write.data.eq(write.data.replicate(self.parameters.granules)),
        ]
        self.write_banks(m, valid, write)

    def write_banks(self, m, valid, write):
        """Drive the operand banks' write ports."""
        writes = self.activation_writes
        connect(m, self.vector.activation_write, writes.vector)
        m.d.comb += [
            writes.vector_bank.eq(self.vector.activation_bank),
            writes.valid.eq(valid & (write.target == isa.Target.ACTIVATION)),
            writes.write.eq(write),
        ]
        for port, bank in zip(writes.banks, self.activation, strict=True):
            connect(m, port, bank.write)
        for index, bank in enumerate(self.weight):
            m.d.comb += [
                bank.write.enable.eq(valid & (write.target == isa.Target.WEIGHT) & (write.bank == index)),
                bank.write.address.eq(write.address),
                bank.write.data.eq(write.data),
            ]

    def connect_axi(self, m):
        """AXI ports; every burst is INCR, full width, normal memory."""
        axil = self.registers.axil
        for name, member in AxiLiteSignature().members.items():
            inner, outer = getattr(axil, name), getattr(self, f"s_axil_{name}")
            m.d.comb += outer.eq(inner) if member.flow is In else inner.eq(outer)
        connect(m, self.fetch.axi, self.arbiter.fetch)
        connect(m, self.load.axi, self.arbiter.load)
        self.connect_channels(m, self.arbiter.axi)
        self.connect_channels(m, self.store.axi)
        self.connect_gates(m)
        m.d.comb += [self.m_axi_arid.eq(self.arbiter.arid), self.arbiter.rid.eq(self.m_axi_rid)]
        for prefix in ("m_axi_aw", "m_axi_ar"):
            m.d.comb += [
                getattr(self, f"{prefix}size").eq(self.config.bus_bytes.bit_length() - 1),
                getattr(self, f"{prefix}burst").eq(BURST_INCR),
                getattr(self, f"{prefix}cache").eq(CACHE_MODIFIABLE),
            ]
        m.d.comb += [
            self.registers.read_beat.eq(self.m_axi_rvalid & self.m_axi_rready),
            self.registers.write_beat.eq(self.m_axi_wvalid & self.m_axi_wready),
        ]

    def connect_gates(self, m):
        """Let addresses through the gates, and tell these what the other channels transfer."""
        read_beat, write_end = self.m_axi_rvalid & self.m_axi_rready, self.m_axi_bvalid & self.m_axi_bready
        beats = {"ar": (self.read_gate, self.arbiter.axi, read_beat, read_beat & self.m_axi_rlast),
                 "aw": (self.write_gate, self.store.axi, self.registers.write_beat | write_end, write_end)}
        for prefix, (gate, master, beat, end) in beats.items():
            m.d.comb += [
                gate.request.eq(getattr(master, f"{prefix}valid")),
                getattr(master, f"{prefix}ready").eq(gate.ready),
                getattr(self, f"m_axi_{prefix}valid").eq(gate.valid),
                gate.accept.eq(getattr(self, f"m_axi_{prefix}ready")),
                gate.beat.eq(beat),
                gate.end.eq(end),
                gate.block.eq(self.supervisor.halt),
            ]

    def connect_channels(self, m, master):
        """Join the members of an AXI signature to the ports of the same name, but for those that pass the gates."""
        for name, member in master.signature.members.items():
            if name in ("arvalid", "arready", "awvalid", "awready"):
                continue
            inner, outer = getattr(master, name), getattr(self, f"m_axi_{name}")
            m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)

    def classify_cycles(self, m):
        """Give each engine's cycle exactly one cause, in the order of ``registers.CAUSES``."""
        for port, (engine, dispatcher) in enumerate(zip(self.engines, self.dispatchers, strict=True)):
            status = engine.status
            cause = self.registers.causes[port]
            conditions = {"dram": status.stalled_dram, "sram_port": status.stalled_port,
                          "drain": status.stalled_drain, "busy": status.busy, "token": dispatcher.waiting,
                          "config": dispatcher.collecting}
            claimed = 0
            for name, condition in conditions.items():
                m.d.comb += cause[registers.CAUSES.index(name)].eq(condition & ~claimed)
                claimed = claimed | condition
            m.d.comb += cause[registers.CAUSES.index("idle")].eq(~claimed)
