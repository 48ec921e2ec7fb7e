"""Between the sequencer and an engine: instruction queue, token check, completion."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa
from phonolith.hw.layouts import instruction_stream
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
    words : In(stream)
        Header and operand words.
    i0, i1, ... : Out(stream)
        One stream of resolved operands per instruction, in the order given.
    wait_mask, signal_mask : Out(12)
        Semaphores of the instruction at hand; of the one that completes.
    available : In(1)
        All semaphores of ``wait_mask`` are above zero.
    take, give : Out(1)
        The instruction starts now; the instruction completes now.
    done : In(1)
        From the engine.
    waiting, collecting, idle : Out(1)
        Complete but held by a semaphore; operands are arriving; nothing queued and nothing in flight.
    started, completed : Out(8)
        Instructions so far, modulo 2^8.
    """

    def __init__(self, *, instructions: tuple[isa.Instruction, ...], queue_words: int):
        self.instructions = instructions
        self.queue_words = queue_words
        super().__init__({
            "words": In(stream.Signature(32)),
            **{f"i{n}": Out(instruction_stream(each)) for n, each in enumerate(instructions)},
            "wait_mask": Out(isa.SEMAPHORES), "signal_mask": Out(isa.SEMAPHORES), "available": In(1),
            "take": Out(1), "give": Out(1), "done": In(1),
            "waiting": Out(1), "collecting": Out(1), "idle": Out(1),
            "started": Out(NUMBER_BITS), "completed": Out(NUMBER_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = SyncFIFOBuffered(width=32, depth=self.queue_words)
        m.d.comb += [
            queue.w_data.eq(self.words.payload),
            queue.w_en.eq(self.words.valid),
            self.words.ready.eq(queue.w_rdy),
        ]
        m.submodules.signals = signals = SyncFIFO(width=isa.SEMAPHORES, depth=IN_FLIGHT)
        complete = Signal()
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
        return m

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
    check never races with another engine's take. ``clear`` sets all to zero.

    ``overflow`` and ``underflow`` say that what a port gives (takes) in this cycle leads out of a semaphore's range.

    Parameters
    ----------
    ports : int
        Number of engines.
    """

    def __init__(self, *, ports: int):
        self.ports = ports
        super().__init__({
            "clear": In(1),
            "wait_mask": In(isa.SEMAPHORES).array(ports), "signal_mask": In(isa.SEMAPHORES).array(ports),
            "take": In(1).array(ports), "give": In(1).array(ports), "available": Out(1).array(ports),
            "overflow": Out(ports), "underflow": Out(ports),
        })

    def elaborate(self, platform):
        m = Module()
        above_zero, too_high, too_low = Signal(isa.SEMAPHORES), Signal(isa.SEMAPHORES), Signal(isa.SEMAPHORES)
        moving = Cat(*self.take, *self.give).any()
        for index in range(isa.SEMAPHORES):
            count = Signal(isa.SEMAPHORE_BITS, name=f"count_{index}")
            raised = sum(self.give[p] & self.signal_mask[p][index] for p in range(self.ports))
            lowered = sum(self.take[p] & self.wait_mask[p][index] for p in range(self.ports))
            following = Signal(signed(isa.SEMAPHORE_BITS + 2), name=f"following_{index}")
            m.d.comb += [
                following.eq(Mux(moving, count + raised - lowered, count)),     # none moves in most cycles
                above_zero[index].eq(count != 0),
                too_low[index].eq(following[-1]),
                too_high[index].eq(~following[-1] & following[-2]),
            ]
            m.d.sync += count.eq(Mux(self.clear, 0, following))
        for port in range(self.ports):
            m.d.comb += [
                self.available[port].eq(~(self.wait_mask[port] & ~above_zero).any()),
                self.overflow[port].eq(self.give[port] & (self.signal_mask[port] & too_high).any()),
                self.underflow[port].eq(self.take[port] & (self.wait_mask[port] & too_low).any()),
            ]
        return m
