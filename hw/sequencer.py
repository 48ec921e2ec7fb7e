"""Decodes the program: registers, branches, operand resolution, dispatch to the engine queues."""

from enum import IntEnum

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig

ARGUMENTS = 4
LONGEST = max(len(each.operands) for each in isa.INSTRUCTIONS)
SEQUENCED = tuple(each for each in isa.INSTRUCTIONS if each.queue == isa.Queue.SEQUENCER)


class Error(IntEnum):
    """Error codes in the status register."""

    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    WRONG_CONFIGURATION = 2
    READ_FAILED = 3
    WRITE_FAILED = 4


class Sequencer(wiring.Component):
    """One program word per cycle.

    An instruction of n operands takes n + 1 cycles plus one for SET, ADD, SHIFT and branches; a taken branch costs
    a fetch. Engine instructions go to their queue as they are resolved: header first, then the operands.

    Members
    -------
    start : In(1)
        Run the program from its first word.
    abort : In(1), abort_code : In(8)
        An engine failed: stop with this error.
    arguments : In(32).array(4)
        Initial values of registers 1 to 4.
    words : In(stream)
        From the fetch unit.
    jump, stop, target : Out
        To the fetch unit.
    queues : Out(stream of 32 bits).array(4)
        LOAD, ARRAY, VECTOR, STORE.
    drained : In(1)
        All queues and engines are idle and all writes are acknowledged.
    running, finished, error, instruction_address, instructions : Out
        ``finished`` pulses when the program has ended, well or not; ``error`` and the word index of the current
        instruction are valid from then on; ``instructions`` counts those decoded.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "start": In(1), "abort": In(1), "abort_code": In(8), "arguments": In(32).array(ARGUMENTS),
            "words": In(stream.Signature(data.StructLayout({"word": 32, "failed": 1}))),
            "jump": Out(1), "stop": Out(1), "target": Out(32),
            "queues": Out(stream.Signature(32)).array(4), "drained": In(1),
            "running": Out(1), "finished": Out(1), "error": Out(8), "instruction_address": Out(32),
            "instructions": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        self.word = self.words.payload.word
        self.header = Signal(data.StructLayout({name: width for name, (_, width) in isa.HEADER.items()}))
        self.queue = Signal(3)
        self.remaining = Signal(range(LONGEST + 1))
        self.position = Signal(32)
        self.index = Signal(2)
        self.argument = Signal(range(ARGUMENTS))
        self.sequenced = [Signal(32, name=f"sequenced_{n}", reset_less=True) for n in range(3)]
        self.make_registers(m)
        self.decode(m)
        with m.FSM(name="state"):
            self.state_idle(m)
            self.state_configuration(m)
            self.state_header(m)
            self.state_operands(m)
            self.state_execute(m)
            self.state_end(m)
        return m

    def make_registers(self, m):
        """Register file: one combinational read for operands; unwritten registers read as zero."""
        m.submodules.registers = registers = Memory(shape=32, depth=isa.REGISTERS, init=[])
        self.reader = registers.read_port(domain="comb")
        self.writer = registers.write_port()
        self.written = Signal(isa.REGISTERS)
        index = self.word[isa.IMMEDIATE_BITS:]
        self.value = Signal(32)
        present = (self.written >> index)[0]
        m.d.comb += [
            self.reader.addr.eq(index),
            self.value.eq(Mux(present, self.reader.data, 0) + self.word[:isa.IMMEDIATE_BITS].as_signed()),
        ]
        with m.If(self.writer.en):
            m.d.sync += self.written.eq(self.written | (1 << self.writer.addr))

    def state_idle(self, m):
        """Wait for start; load the arguments while the first words are fetched."""
        with m.State("IDLE"), m.If(self.start):
            m.d.comb += self.jump.eq(1)
            m.d.sync += [self.running.eq(1), self.error.eq(Error.NONE), self.position.eq(0), self.written.eq(0),
                         self.instructions.eq(0), self.instruction_address.eq(0), self.argument.eq(0)]
            m.next = "ARGUMENTS"
        with m.State("ARGUMENTS"):
            with m.Switch(self.argument):
                for n in range(ARGUMENTS):
                    with m.Case(n):
                        self.write_register(m, n + 1, self.arguments[n])
            m.d.sync += self.argument.eq(self.argument + 1)
            with m.If(self.argument == ARGUMENTS - 1):
                m.next = "CONFIGURATION"

    def write_register(self, m, index, value):
        """Write one register in this cycle."""
        m.d.comb += [self.writer.addr.eq(index), self.writer.data.eq(value), self.writer.en.eq(1)]

    def fail(self, m, code):
        """Stop with an error."""
        m.d.sync += self.error.eq(code)
        m.d.comb += self.stop.eq(1)
        m.next = "FAILED"

    def accept(self, m):
        """Take the word at hand."""
        m.d.comb += self.words.ready.eq(1)
        m.d.sync += self.position.eq(self.position + 1)

    def state_configuration(self, m):
        """Check the first word."""
        with m.State("CONFIGURATION"), m.If(self.words.valid):
            self.accept(m)
            m.next = "HEADER"
            with m.If(self.words.payload.failed):
                self.fail(m, Error.READ_FAILED)
            with m.Elif(self.word != self.config.hash_word):
                self.fail(m, Error.WRONG_CONFIGURATION)

    def decode(self, m):
        """Look up the opcode at hand, resolve the operand at hand, and offer one of them to its queue."""
        self.decoded = header = data.View(self.header.shape(), self.word[:self.header.as_value().shape().width])
        self.known = Signal()
        self.decoded_queue = Signal(3)
        self.decoded_count = Signal(range(LONGEST + 1))
        with m.Switch(header.opcode):
            for each in isa.INSTRUCTIONS:
                with m.Case(each.opcode):
                    m.d.comb += [self.known.eq(1), self.decoded_queue.eq(each.queue),
                                 self.decoded_count.eq(len(each.operands))]
        raw = Signal()
        with m.Switch(Cat(self.header.opcode, self.index)):
            for each in SEQUENCED:
                for n, operand in enumerate(each.operands):
                    if operand.kind is not isa.Kind.VALUE:
                        with m.Case(each.opcode | n << isa.OPCODE_BITS):
                            m.d.comb += raw.eq(1)
        self.resolved = Signal(32)
        m.d.comb += self.resolved.eq(Mux(raw, self.word, self.value))
        self.offer = Signal()
        self.offer_queue = Signal(3)
        self.offered = Signal(32)
        self.taken = Signal()
        with m.Switch(self.offer_queue):
            with m.Case(isa.Queue.SEQUENCER):
                m.d.comb += self.taken.eq(self.offer)
            for n, port in enumerate(self.queues):
                m.d.comb += port.payload.eq(self.offered)
                with m.Case(n + 1):
                    m.d.comb += [port.valid.eq(self.offer), self.taken.eq(self.offer & port.ready)]

    def state_header(self, m):
        """Take an opcode; send the header to the instruction's queue."""
        with m.State("HEADER"):
            m.d.comb += [
                self.offer.eq(self.words.valid & ~self.words.payload.failed & self.known & ~self.abort),
                self.offer_queue.eq(self.decoded_queue),
                self.offered.eq(self.word),
            ]
            m.d.sync += [self.header.eq(self.decoded), self.queue.eq(self.decoded_queue),
                         self.remaining.eq(self.decoded_count), self.index.eq(0)]
            with m.If(self.words.valid):
                m.d.sync += self.instruction_address.eq(self.position)
            with m.If(self.abort):
                self.fail(m, self.abort_code)
            with m.Elif(self.words.valid & self.words.payload.failed):
                self.fail(m, Error.READ_FAILED)
            with m.Elif(self.words.valid & ~self.known):
                self.fail(m, Error.ILLEGAL_INSTRUCTION)
            with m.Elif(self.taken):
                self.accept(m)
                m.d.sync += self.instructions.eq(self.instructions + 1)
                m.next = "OPERANDS"
                with m.If(self.decoded.opcode == isa.BY_MNEMONIC["END"].opcode):
                    m.next = "END"

    def state_operands(self, m):
        """Resolve operands."""
        with m.State("OPERANDS"):
            m.d.comb += [
                self.offer.eq(self.words.valid & ~self.words.payload.failed & ~self.abort),
                self.offer_queue.eq(self.queue),
                self.offered.eq(self.resolved),
            ]
            with m.If(self.abort):
                self.fail(m, self.abort_code)
            with m.Elif(self.words.valid & self.words.payload.failed):
                self.fail(m, Error.READ_FAILED)
            with m.Elif(self.taken):
                self.accept(m)
                self.keep_operand(m, self.resolved)
                m.d.sync += self.remaining.eq(self.remaining - 1)
                with m.If(self.remaining == 1):
                    m.next = "HEADER"
                    with m.If(self.queue == isa.Queue.SEQUENCER):
                        m.next = "EXECUTE"

    def keep_operand(self, m, value):
        """Remember the operands of the sequencer's own instructions."""
        with m.If(self.queue == isa.Queue.SEQUENCER):
            m.d.sync += self.index.eq(self.index + 1)
            with m.Switch(self.index):
                for n, operand in enumerate(self.sequenced):
                    with m.Case(n):
                        m.d.sync += operand.eq(value)

    def state_execute(self, m):
        """Execute SET, ADD, SHIFT and branches."""
        first, second, third = self.sequenced
        less = first.as_signed() < second.as_signed()
        with m.State("EXECUTE"):
            m.next = "HEADER"
            with m.Switch(self.header.opcode):
                with m.Case(isa.BY_MNEMONIC["SET"].opcode):
                    self.set_register(m, second)
                with m.Case(isa.BY_MNEMONIC["ADD"].opcode):
                    self.set_register(m, second + third)
                with m.Case(isa.BY_MNEMONIC["SHIFT"].opcode):
                    self.execute_shift(m)
                with m.Case(isa.BY_MNEMONIC["BRANCH_LESS"].opcode):
                    self.branch(m, less)
                with m.Case(isa.BY_MNEMONIC["BRANCH_EQUAL"].opcode):
                    self.branch(m, first == second)

    def execute_shift(self, m):
        """Left by 0..31 or arithmetic right by 1..31; other amounts are illegal."""
        _, value, amount = self.sequenced
        right = (-amount)[:5]
        with m.If(amount < 32):
            self.set_register(m, value << amount[:5])
        with m.Elif(amount[-1] & (amount.as_signed() >= -31)):
            self.set_register(m, value.as_signed() >> right)
        with m.Else():
            self.fail(m, Error.ILLEGAL_INSTRUCTION)

    def set_register(self, m, value):
        """Write the register that the first operand word names."""
        index = self.sequenced[0][isa.IMMEDIATE_BITS:]
        with m.If(index != 0):
            self.write_register(m, index, value)

    def branch(self, m, taken):
        """Continue elsewhere."""
        with m.If(taken):
            m.d.comb += [self.jump.eq(1), self.target.eq(self.sequenced[2])]
            m.d.sync += self.position.eq(self.sequenced[2])

    def state_end(self, m):
        """Wait until everything is done, or stop at once after an error."""
        with m.State("END"):
            m.d.comb += self.stop.eq(1)
            with m.If(self.abort):
                self.fail(m, self.abort_code)
            with m.Elif(self.drained):
                m.d.comb += self.finished.eq(1)
                m.d.sync += self.running.eq(0)
                m.next = "IDLE"
        with m.State("FAILED"):
            m.d.comb += [self.stop.eq(1), self.finished.eq(1)]
            m.d.sync += self.running.eq(0)
            m.next = "IDLE"
