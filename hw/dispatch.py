"""Between the sequencer and an engine: instruction queue, token check, completion."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa
from phonolith.hw.layouts import QueueSignature, instruction_stream
from phonolith.hw.quiesce import NUMBER_BITS

IN_FLIGHT = 8


class Dispatcher(wiring.Component):
    """Queue of one engine.

    Takes a header word and resolved operand words, collects one instruction, holds it until the semaphores it waits
    for are available, and hands it to the engine. An engine may take further instructions before it completes earlier
    ones (at most ``IN_FLIGHT``); ``done`` pulses are in order. An instruction is offered at the earliest 3 + (number of
    operands) cycles after its header was written to an empty queue.

    Parameters
    ----------
    instructions : tuple of isa.Instruction
        What this engine executes.
    queue_words : int
        Queue capacity.

    Members
    -------
    words : In(QueueSignature)
        Header and operand words.
    i0, i1, ... : Out(stream)
        One stream of resolved operands per instruction, in the order given.
    wait_mask, signal_mask : Out(12)
        Semaphores of the instruction at hand; of the one that completes.
    above_zero : In(12)
        Which semaphores are; those of ``wait_mask`` must be.
    halt : In(1)
        Start no instruction.
    take, give : Out(1)
        The instruction starts now; the instruction completes now.
    done : In(1)
        From the engine.
    waiting, collecting, idle : Out(1)
        Complete but held by a semaphore; operands are arriving; nothing queued and nothing in flight.
    started, completed : Out(8)
        Instructions so far, modulo 2^8.
    clock_enable : Out(1)
        See :mod:`phonolith.hw.clock_enable`.
    """

    def __init__(self, *, instructions: tuple[isa.Instruction, ...], queue_words: int):
        self.instructions = instructions
        self.queue_words = queue_words
        super().__init__({
            "words": In(QueueSignature()),
            **{f"i{n}": Out(instruction_stream(each)) for n, each in enumerate(instructions)},
            "wait_mask": Out(isa.SEMAPHORES), "signal_mask": Out(isa.SEMAPHORES),
            "above_zero": In(isa.SEMAPHORES), "halt": In(1),
            "take": Out(1), "give": Out(1), "done": In(1),
            "waiting": Out(1), "collecting": Out(1), "idle": Out(1),
            "started": Out(NUMBER_BITS), "completed": Out(NUMBER_BITS), "clock_enable": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = SyncFIFOBuffered(width=32, depth=self.queue_words)
        m.d.comb += [
            queue.w_data.eq(self.words.data),
            queue.w_en.eq(self.words.enable),
            self.words.ready.eq(queue.w_rdy),
        ]
        m.submodules.signals = signals = SyncFIFO(width=isa.SEMAPHORES, depth=IN_FLIGHT)
        complete = Signal()
        self.available = Signal()
        header = Signal(data.StructLayout({name: width for name, (_, width) in isa.HEADER.items()}))
        self.collect(m, queue, complete, header)
        self.present(m, complete, header, signals)
        with m.If(self.take):
            m.d.sync += self.started.eq(self.started + 1)
        with m.If(self.done):
            m.d.sync += self.completed.eq(self.completed + 1)
        m.d.comb += [
            self.signal_mask.eq(signals.r_data),
            self.give.eq(self.done),
            signals.r_en.eq(self.done),
            self.idle.eq((queue.level == 0) & (signals.level == 0) & ~complete & ~self.collecting),
        ]
        self.sleep(m, queue, complete)
        return m

    def sleep(self, m, queue, complete):
        """Be idle while the instruction at hand waits for the same as in the cycle before, and nothing else moves."""
        allowed, before = Signal(), Signal()
        ready = Cat(getattr(self, f"i{n}").ready for n in range(len(self.instructions))).any()
        m.d.comb += [
            allowed.eq(complete & self.available),
            self.clock_enable.eq(self.words.enable | self.done | (queue.level.bool() & ~(queue.r_rdy & complete))
                                 | (allowed ^ before) | (allowed & ready)),
        ]
        m.d.sync += before.eq(allowed)

    def collect(self, m, queue, complete, header):
        """Fill the operand registers, one word per cycle."""
        longest = max(len(each.operands) for each in self.instructions)
        self.operands = operands = [Signal(32, name=f"operand_{n}", reset_less=True) for n in range(longest)]
        position = Signal(range(longest + 1))
        count = Signal(range(longest + 1))
        for each in self.instructions:
            with m.If(header.opcode == each.opcode):
                m.d.comb += count.eq(len(each.operands))
        m.d.comb += queue.r_en.eq(queue.r_rdy & ~complete)
        with m.If(queue.r_en):
            with m.If(~self.collecting):
                m.d.sync += [header.eq(queue.r_data), self.collecting.eq(1), position.eq(0)]
            with m.Else():
                with m.Switch(position):
                    for n, operand in enumerate(operands):
                        with m.Case(n):
                            m.d.sync += operand.eq(queue.r_data)
                m.d.sync += position.eq(position + 1)
                with m.If(position + 1 == count):
                    m.d.sync += [self.collecting.eq(0), complete.eq(1)]

    def present(self, m, complete, header, signals):
        """Offer the complete instruction while its semaphores are available."""
        allowed = Signal()
        taken = Signal()
        m.d.comb += [
            self.available.eq(~self.halt & ~(header.wait & ~self.above_zero).any()),
            self.wait_mask.eq(Mux(complete, header.wait, 0)),
            allowed.eq(complete & self.available & signals.w_rdy),
            self.waiting.eq(complete & ~self.available),
            self.take.eq(taken),
            signals.w_data.eq(header.signal),
            signals.w_en.eq(taken),
        ]
        transfers = []
        for n, each in enumerate(self.instructions):
            port = getattr(self, f"i{n}")
            m.d.comb += port.valid.eq(allowed & (header.opcode == each.opcode))
            m.d.comb += port.payload.as_value().eq(Cat(*self.operands[:len(each.operands)]))
            transfers.append(port.valid & port.ready)
        m.d.comb += taken.eq(Cat(*transfers).any())
        with m.If(taken):
            m.d.sync += complete.eq(0)


class Semaphores(wiring.Component):
    """Twelve counters that order the engines.

    Each cycle every engine may take (lower) the semaphores of its ``wait_mask`` and give (raise) those of its
    ``signal_mask``. A semaphore is waited for by one engine only (the instruction-set simulator enforces it), so a
    check never races with another engine's take.

    Parameters
    ----------
    ports : int
        Number of engines.

    Members
    -------
    clear : In(1)
        Set all to zero.
    wait_mask, signal_mask : In(12).array(ports), take, give : In(1).array(ports)
    above_zero : Out(12)
    overflow, underflow : Out(ports)
        What a port gives (takes) in this cycle leads out of a semaphore's range.
    clock_enable : Out(1)
        See :mod:`phonolith.hw.clock_enable`.
    """

    def __init__(self, *, ports: int):
        self.ports = ports
        super().__init__({
            "clear": In(1),
            "wait_mask": In(isa.SEMAPHORES).array(ports), "signal_mask": In(isa.SEMAPHORES).array(ports),
            "take": In(1).array(ports), "give": In(1).array(ports),
            "above_zero": Out(isa.SEMAPHORES), "overflow": Out(ports), "underflow": Out(ports), "clock_enable": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        too_high, too_low = Signal(isa.SEMAPHORES), Signal(isa.SEMAPHORES)
        m.d.comb += self.clock_enable.eq(Cat(self.clear, *self.take, *self.give).any())
        for index in range(isa.SEMAPHORES):
            count = Signal(isa.SEMAPHORE_BITS, name=f"count_{index}")
            raised = sum(self.give[p] & self.signal_mask[p][index] for p in range(self.ports))
            lowered = sum(self.take[p] & self.wait_mask[p][index] for p in range(self.ports))
            following = Signal(signed(isa.SEMAPHORE_BITS + 2), name=f"following_{index}")
            kept = Signal(isa.SEMAPHORE_BITS, name=f"kept_{index}")
            m.d.comb += [
                following.eq(count + raised - lowered),
                kept.eq(Mux(self.clear, 0, following)),
                too_low[index].eq(following[-1]),
                too_high[index].eq(~following[-1] & following[-2]),
            ]
            with m.If(self.clock_enable):
                m.d.sync += [count.eq(kept), self.above_zero[index].eq(kept.any())]
        for port in range(self.ports):
            m.d.comb += [
                self.overflow[port].eq(self.give[port] & (self.signal_mask[port] & too_high).any()),
                self.underflow[port].eq(self.take[port] & (self.wait_mask[port] & too_low).any()),
            ]
        return m
