"""Decodes the program: registers, branches, operand resolution, dispatch to the engine queues."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.layouts import QueueSignature, packed_layout
from phonolith.hw.quiesce import Error

ARGUMENTS = 4
LONGEST = max(len(each.operands) for each in isa.INSTRUCTIONS)
SEQUENCED = tuple(each for each in isa.INSTRUCTIONS if each.queue == isa.Queue.SEQUENCER)
# Largest sensible value of the control fields that could hold more.
LARGEST = {
    "LOAD": (isa.LOAD_CONTROL, {"target": max(isa.Target)}),
    "MATMUL": (isa.MATMUL_CONTROL, {"block": len(isa.BLOCKS) - 1}),
    "VECTOR": (isa.VECTOR_CONTROL, {
        "source": max(isa.Source), "source_width": max(isa.Width), "multiplier": max(isa.Multiplier),
        "destination": max(isa.Destination)}),
}


class Sequencer(wiring.Component):
    """One program word per cycle.

    An instruction of n operands takes n + 1 cycles plus one if the unit executes it itself; a taken branch costs a
    fetch. Engine instructions go to their queue as they are resolved: header first, then the operands.

    Members
    -------
    start : In(1)
        Run the program from its first word.
    arguments : In(32).array(4)
        Initial values of registers 1 to 4.
    words : In(stream)
        From the fetch unit.
    jump, stop, target : Out
        To the fetch unit.
    queues : Out(QueueSignature).array(4)
        LOAD, ARRAY, VECTOR, STORE.
    decoded : Out(1), position : Out(32)
        An instruction is accepted, and the word index of its header; it goes to queue ``decoded_queue`` - 1.
    drained, tile_left : In(1)
        All queues and engines are idle and all writes are acknowledged; the array's last tile was not taken.
    ended : Out(1)
        The program has ended well.
    failed : Out(1), code : Out(8), address : Out(32)
        The program cannot go on, why, and the word index of the instruction; until reset.
    moving : Out(1)
        Something is done in this cycle.
    clock_enable : Out(1)
        See :mod:`phonolith.hw.clock_enable`: low without a word, and while the word at hand waits for a full queue.

    The unit is stopped by a reset.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "start": In(1), "arguments": In(32).array(ARGUMENTS),
            "words": In(stream.Signature(data.StructLayout({"word": 32, "failed": 1}))),
            "jump": Out(1), "stop": Out(1), "target": Out(32),
            "queues": Out(QueueSignature()).array(4),
            "decoded": Out(1), "decoded_queue": Out(3), "position": Out(32),
            "drained": In(1), "tile_left": In(1), "ended": Out(1), "moving": Out(1),
            "clock_enable": Out(1),
            "failed": Out(1), "code": Out(8), "address": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        self.word = self.words.payload.word
        self.header = Signal(data.StructLayout({name: width for name, (_, width) in isa.HEADER.items()}))
        self.queue = Signal(3)
        self.remaining = Signal(range(LONGEST + 1))
        self.first = Signal()
        self.instruction_address = Signal(32, reset_less=True)
        self.index = Signal(2)
        self.argument = Signal(range(ARGUMENTS))
        self.sequenced = [Signal(32, name=f"sequenced_{n}", reset_less=True) for n in range(3)]
        m.d.comb += self.address.eq(self.instruction_address)
        self.wait_for_queues(m)
        self.make_registers(m)
        self.decode(m)
        self.check_operands(m)
        with m.FSM(name="state") as fsm:
            self.state_idle(m)
            self.state_configuration(m)
            self.state_header(m)
            self.state_operands(m)
            self.state_execute(m)
            self.state_end(m)
        reading = fsm.ongoing("CONFIGURATION") | fsm.ongoing("HEADER") | fsm.ongoing("OPERANDS")
        m.d.comb += self.clock_enable.eq(Mux(
            fsm.ongoing("IDLE"), self.start, ~reading | (~self.blocked & (self.words.valid | self.full.any()))))
        return m

    def wait_for_queues(self, m):
        """Look at the word at hand, but not while it waits for a full queue."""
        self.valid = Signal()
        self.full = Signal(len(self.queues))    # one-hot: that queue was, when the word at hand was for it
        self.blocked = Signal()
        ready = Cat(*(port.ready for port in self.queues))
        m.d.comb += [self.blocked.eq((self.full & ~ready).any()), self.valid.eq(self.words.valid & ~self.blocked)]

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
            m.d.sync += [self.position.eq(0), self.instruction_address.eq(0), self.written.eq(0),
                         self.argument.eq(0)]
            m.next = "ARGUMENTS"
        with m.State("ARGUMENTS"):
            with m.Switch(self.argument):
                for n in range(ARGUMENTS):
                    with m.Case(n):
                        self.write_register(m, n + 1, self.arguments[n])
            m.d.comb += self.moving.eq(1)
            m.d.sync += self.argument.eq(self.argument + 1)
            with m.If(self.argument == ARGUMENTS - 1):
                m.next = "CONFIGURATION"

    def write_register(self, m, index, value):
        """Write one register in this cycle."""
        m.d.comb += [self.writer.addr.eq(index), self.writer.data.eq(value), self.writer.en.eq(1)]

    def fail(self, m, code):
        """Stop with an error: stay here until reset."""
        m.d.comb += [self.stop.eq(1), self.failed.eq(1), self.code.eq(code)]

    def accept(self, m):
        """Take the word at hand."""
        m.d.comb += [self.words.ready.eq(1), self.moving.eq(1)]
        m.d.sync += self.position.eq(self.position + 1)

    def state_configuration(self, m):
        """Check the first word."""
        with m.State("CONFIGURATION"), m.If(self.valid):
            with m.If(self.words.payload.failed):
                self.fail(m, Error.READ_FAILED)
            with m.Elif(self.word != self.config.hash_word):
                self.fail(m, Error.WRONG_CONFIGURATION)
            with m.Else():
                self.accept(m)
                m.next = "HEADER"

    def decode(self, m):
        """Look up the opcode at hand, resolve the operand at hand, and offer one of them to its queue."""
        self.upcoming = header = data.View(self.header.shape(), self.word[:self.header.as_value().shape().width])
        self.known = Signal()
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
                m.d.comb += port.data.eq(self.offered)
                with m.Case(n + 1):
                    m.d.comb += [self.taken.eq(self.offer & port.ready), port.enable.eq(self.taken)]
                    with m.If(~self.blocked):
                        m.d.sync += self.full[n].eq(self.offer & ~port.ready)

    def state_header(self, m):
        """Take an opcode; send the header to the instruction's queue."""
        with m.State("HEADER"):
            m.d.comb += [
                self.offer.eq(self.valid & ~self.words.payload.failed & self.known),
                self.offer_queue.eq(self.decoded_queue),
                self.offered.eq(self.word),
            ]
            m.d.comb += self.address.eq(self.position)
            with m.If(self.valid & self.words.payload.failed):
                self.fail(m, Error.READ_FAILED)
            with m.Elif(self.valid & ~self.known):
                self.fail(m, Error.ILLEGAL_INSTRUCTION)
            with m.Elif(self.taken):
                self.accept(m)
                m.d.comb += self.decoded.eq(1)
                m.d.sync += [
                    self.instruction_address.eq(self.position), self.header.eq(self.upcoming),
                    self.queue.eq(self.decoded_queue), self.remaining.eq(self.decoded_count), self.index.eq(0),
                    self.first.eq(1),
                ]
                m.next = "OPERANDS"
                with m.If(self.upcoming.opcode == isa.BY_MNEMONIC["END"].opcode):
                    m.next = "END"

    def state_operands(self, m):
        """Resolve operands."""
        with m.State("OPERANDS"):
            m.d.comb += [
                self.offer.eq(self.valid & ~self.words.payload.failed),
                self.offer_queue.eq(self.queue),
                self.offered.eq(self.resolved),
            ]
            with m.If(self.valid & self.words.payload.failed):
                self.fail(m, Error.READ_FAILED)
            with m.Elif(self.taken & self.senseless):
                self.fail(m, Error.ILLEGAL_INSTRUCTION)
            with m.Elif(self.taken):
                self.accept(m)
                self.keep_operand(m, self.resolved)
                m.d.sync += [self.remaining.eq(self.remaining - 1), self.first.eq(0)]
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
        """Execute SET, ADD, SHIFT, CLAMP and branches."""
        first, second, third = self.sequenced
        less = first.as_signed() < second.as_signed()
        beyond = third.as_signed() < second.as_signed()
        with m.State("EXECUTE"):
            m.d.comb += self.moving.eq(1)
            m.next = "HEADER"
            with m.Switch(self.header.opcode):
                with m.Case(isa.BY_MNEMONIC["CLAMP"].opcode):
                    self.set_register(m, Mux(second[-1], 0, Mux(beyond, third, second)))
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
            m.next = "EXECUTE"

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
        """Wait until everything is done."""
        with m.State("END"):
            m.d.comb += self.stop.eq(1)
            with m.If(self.drained & self.tile_left):
                self.fail(m, Error.TILE_NOT_TAKEN)
            with m.Elif(self.drained):
                m.d.comb += self.ended.eq(1)
                m.next = "IDLE"

    def check_operands(self, m):
        """Recognise control words without a meaning, and a k that no bank holds."""
        self.senseless = Signal()
        control = self.resolved
        with m.Switch(Cat(self.first, self.header.opcode)):
            for mnemonic, (fields, largest) in LARGEST.items():
                view = data.View(packed_layout(fields), control[:packed_layout(fields).size])
                with m.Case(1 | isa.BY_MNEMONIC[mnemonic].opcode << 1):
                    m.d.comb += self.senseless.eq(Cat(view[name] > limit for name, limit in largest.items()).any())
            with m.Case(isa.BY_MNEMONIC["MATMUL"].opcode << 1), m.If(self.remaining == 1):
                m.d.comb += self.senseless.eq((control == 0) | (control > self.config.word_bytes * max(
                    self.config.activation_depth, self.config.weight_depth)))
