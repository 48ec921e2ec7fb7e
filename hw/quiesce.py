"""Stopping after a fault: no new bursts, wait until the bus is quiet, one reset of the units, then the report."""

from enum import IntEnum

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

DEADLOCK_CYCLES = 128
BUS_TIMEOUT_CYCLES = 1 << 20
QUEUES = 4
NUMBER_BITS = 8


class Error(IntEnum):
    """Error codes in the status register."""

    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    WRONG_CONFIGURATION = 2
    READ_FAILED = 3
    WRITE_FAILED = 4
    DEADLOCK = 5
    BUS_TIMEOUT = 6
    SEMAPHORE_RANGE = 7
    TILE_NOT_TAKEN = 8


class AddressGate(wiring.Component):
    """Between a master's address channel and the bus: blocks new bursts and knows which are under way. Adds no cycle.

    Parameters
    ----------
    limit : int
        Most bursts in flight.
    timeout_cycles : int
        A power of two.

    Members
    -------
    request : In(1), ready : Out(1)
        The master's ``valid`` and ``ready``.
    valid : Out(1), accept : In(1)
        The bus's. An address once offered stays until it is accepted, blocked or not.
    beat, end : In(1)
        Something (the end of a burst) is transferred on the channels that follow the address.
    block : In(1)
    pending : Out(1)
        An address is offered or a burst is in flight.
    timeout : Out(1)
        Pending, and nothing was transferred for ``timeout_cycles``; until something is.
    """

    def __init__(self, *, limit: int, timeout_cycles: int = BUS_TIMEOUT_CYCLES):
        self.limit = limit
        self.timeout_cycles = timeout_cycles
        super().__init__({
            "request": In(1), "ready": Out(1), "valid": Out(1), "accept": In(1), "beat": In(1), "end": In(1),
            "block": In(1), "pending": Out(1), "timeout": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        held = Signal()
        open_ = Signal()
        flight = Signal(range(self.limit + 1))
        waited = Signal(range(self.timeout_cycles + 1))
        issued = self.valid & self.accept
        ended = self.end & (flight != 0)
        m.d.comb += [
            open_.eq(~self.block | held),
            self.valid.eq(self.request & open_),
            self.ready.eq(self.accept & open_),
            self.pending.eq(self.valid | (flight != 0)),
            self.timeout.eq(waited[-1]),
        ]
        m.d.sync += held.eq(self.valid & ~self.accept)
        with m.If(issued & ~ended):
            m.d.sync += flight.eq(flight + 1)
        with m.Elif(ended & ~issued):
            m.d.sync += flight.eq(flight - 1)
        with m.If(issued | self.beat | ~self.pending):
            m.d.sync += waited.eq(0)
        with m.Elif(~self.timeout):
            m.d.sync += waited.eq(waited + 1)
        return m


class Watchdog(wiring.Component):
    """Says that a run has come to a standstill that nothing can end.

    Members
    -------
    enable : In(1)
        A program runs.
    progress : In(1)
        Something moves: the sequencer, a dispatcher, an engine, or the bus.
    expired : Out(1)
        Enabled without progress for ``DEADLOCK_CYCLES``: longer than any unit pauses by itself.
    """

    def __init__(self):
        super().__init__({"enable": In(1), "progress": In(1), "expired": Out(1)})

    def elaborate(self, platform):
        m = Module()
        still = Signal(range(DEADLOCK_CYCLES + 1))
        m.d.comb += self.expired.eq(still[-1])
        with m.If(self.progress | ~self.enable):
            m.d.sync += still.eq(0)
        with m.Elif(~self.expired):
            m.d.sync += still.eq(still + 1)
        return m


class Supervisor(wiring.Component):
    """Begins and ends runs. The first fault of a run wins.

    A good run ends in the cycle of ``ended``. After a fault the sequencer and the fetch unit stand still and no new
    burst goes out; when all bursts under way have completed and the fault's address is found, all units are reset for
    one cycle, and the run ends with the fault's code. A bus that never completes them (``timeout``) ends the run all
    the same; the units then stay as they are until it does. A start before that fails at once, or waits when the bus
    has begun to answer.

    Members
    -------
    request : In(1)
        The host wants to start; ignored while ``busy``.
    begin : Out(1)
        The run begins: in the cycle of the request, or when the last run's reads ahead have all arrived.
    ended : In(1)
        The program has ended well.
    fault : In(1), code : In(8)
    quiet, timeout : In(1)
        Of the bus.
    located : In(1)
        The fault's address is found.
    fallen : Out(1)
        The fault counts: look for its address.
    halt : Out(1)
        Sequencer and fetch stand still, no engine starts an instruction, no new bursts.
    clear : Out(1)
        Reset all units.
    running, busy, finished, error : Out
        ``running`` from the cycle after ``begin`` to that of ``finished``; ``busy`` also before, while waiting.
    """

    def __init__(self):
        super().__init__({
            "request": In(1), "begin": Out(1), "ended": In(1), "fault": In(1), "code": In(8), "quiet": In(1),
            "timeout": In(1), "located": In(1), "fallen": Out(1), "halt": Out(1), "clear": Out(1),
            "running": Out(1), "busy": Out(1), "finished": Out(1), "error": Out(8),
        })

    def elaborate(self, platform):
        m = Module()
        self.asked = Signal()   # a start waits for the bus
        m.d.comb += self.busy.eq(self.running | self.asked)
        with m.FSM(name="state"):
            self.state_idle(m)
            self.state_run(m)
            self.state_stop(m)
            self.state_stuck(m)
        return m

    def state_idle(self, m):
        """Begin when asked and the bus is quiet."""
        wanted = self.request | self.asked
        with m.State("IDLE"):
            m.d.sync += self.asked.eq(wanted & ~self.quiet & ~self.timeout)
            with m.If(wanted & self.quiet):
                m.d.comb += self.begin.eq(1)
                m.d.sync += [self.running.eq(1), self.error.eq(Error.NONE)]
                m.next = "RUN"
            with m.Elif(wanted & self.timeout):
                self.refuse(m)

    def refuse(self, m):
        """Fail at once."""
        m.d.comb += self.begin.eq(1)
        m.d.sync += [self.running.eq(1), self.error.eq(Error.BUS_TIMEOUT)]
        m.next = "REFUSED"

    def state_run(self, m):
        """Run until the program ends or a fault ends it."""
        with m.State("RUN"):
            with m.If(self.fault):
                m.d.comb += self.fallen.eq(1)
                m.d.sync += self.error.eq(self.code)
                m.next = "STOP"
            with m.Elif(self.ended):
                m.d.comb += self.finished.eq(1)
                m.d.sync += self.running.eq(0)
                m.next = "IDLE"

    def state_stop(self, m):
        """Wait for the bus, reset, report."""
        with m.State("STOP"):
            m.d.comb += self.halt.eq(1)
            with m.If(self.located & (self.quiet | self.timeout)):
                m.d.comb += [self.finished.eq(1), self.clear.eq(self.quiet)]
                m.d.sync += self.running.eq(0)
                m.next = "STUCK"
                with m.If(self.quiet):
                    m.next = "IDLE"

    def state_stuck(self, m):
        """The bus owes responses: refuse to start while it gives none."""
        wanted = self.request | self.asked
        with m.State("STUCK"):
            m.d.comb += self.halt.eq(1)
            m.d.sync += self.asked.eq(wanted & ~self.timeout)
            with m.If(wanted & self.timeout):
                self.refuse(m)
            with m.Elif(self.quiet):
                m.d.comb += self.clear.eq(1)
                m.next = "IDLE"
        with m.State("REFUSED"):
            m.d.comb += [self.halt.eq(1), self.finished.eq(1)]
            m.d.sync += self.running.eq(0)
            m.next = "STUCK"


class Faults(wiring.Component):
    """Chooses the fault to report of those that happen in one cycle, and says which instructions are in question.

    Members
    -------
    load_failed, store_failed : In(1), load_number, store_number : In(8)
        A response with an error; the instruction of the queue to which the next response belongs.
    overflow, underflow : In(4)
        By queue: the instruction that completes (starts) takes a semaphore out of its range.
    rejected : In(1), rejected_code : In(8)
        The sequencer cannot go on.
    deadlock, read_timeout, write_timeout : In(1)
    loading : In(1)
        LOAD is in progress: it, not the fetch unit, is taken to wait for the bus.
    completed, started : In(8).array(4)
        Instructions of each queue so far.
    fault, code : Out
    mask : Out(4), numbers : Out(8).array(4)
        The oldest instruction is at fault of those in the queues of ``mask`` from these numbers on.
    """

    def __init__(self):
        number = In(NUMBER_BITS)
        super().__init__({
            "load_failed": In(1), "load_number": number, "store_failed": In(1), "store_number": number,
            "overflow": In(QUEUES), "underflow": In(QUEUES), "rejected": In(1), "rejected_code": In(8),
            "deadlock": In(1), "read_timeout": In(1), "write_timeout": In(1), "loading": In(1),
            "completed": number.array(QUEUES), "started": number.array(QUEUES),
            "fault": Out(1), "code": Out(8), "mask": Out(QUEUES), "numbers": Out(NUMBER_BITS).array(QUEUES),
        })

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [number.eq(each) for number, each in zip(self.numbers, self.completed, strict=True)]
        with m.If(self.load_failed):
            self.report(m, Error.READ_FAILED, 0b0001)
            m.d.comb += self.numbers[0].eq(self.load_number)
        with m.Elif(self.store_failed):
            self.report(m, Error.WRITE_FAILED, 0b1000)
            m.d.comb += self.numbers[QUEUES - 1].eq(self.store_number)
        with m.Elif(self.overflow.any()):
            self.report(m, Error.SEMAPHORE_RANGE, self.overflow)
        with m.Elif(self.underflow.any()):
            self.report(m, Error.SEMAPHORE_RANGE, self.underflow)
            m.d.comb += [number.eq(each) for number, each in zip(self.numbers, self.started, strict=True)]
        with m.Elif(self.rejected):
            self.report(m, self.rejected_code, 0)
        with m.Elif(self.read_timeout):
            self.report(m, Error.BUS_TIMEOUT, self.loading)
            m.d.comb += self.numbers[0].eq(self.load_number)
        with m.Elif(self.write_timeout):
            self.report(m, Error.BUS_TIMEOUT, 0b1000)
            m.d.comb += self.numbers[QUEUES - 1].eq(self.store_number)
        with m.Elif(self.deadlock):
            self.report(m, Error.DEADLOCK, ~0)
        return m

    def report(self, m, code, mask):
        """Report one."""
        m.d.comb += [self.fault.eq(1), self.code.eq(code), self.mask.eq(mask)]
