"""Random legal instruction streams that no compiler made.

A program is a few sections of random engine instructions (``random_instructions.py``): straight lines, and bodies of
loops whose addresses run with the loop. Operands are immediates or registers that SET, ADD and SHIFT made before;
branches skip instructions or not. Semaphores come from ``compiler/synchronize.py`` within a straight line, from
barriers of empty instructions between sections and around each instruction of a loop, and some more tokens are strewn
in; which semaphore stands for which pair of engines is drawn, too. What comes out is legal if the instruction-set
simulator and ``compiler/races.py`` say so; otherwise the next is drawn.
"""

from dataclasses import replace

import numpy as np

from phonolith.compiler.assembler import ENGINES, SEMAPHORES, Emitter, Issue, Label, Reg, Value, assemble
from phonolith.compiler.disassembler import clamp, signed
from phonolith.compiler.disassembler import shift as shift_word
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Queue, Source, Target
from phonolith.sim.program_case import (
    IMAGE_BYTES,
    WORD,
    ProgramCase,
    find_illegal,
    plain,
    random_image,
    synchronized,
    unsafe,
)
from phonolith.sim.random_instructions import InstructionMaker

REGISTER_CHANCE = 0.15


def random_program(seed: int, config: MachineConfig) -> ProgramCase:
    """Return the legal random program of a seed for a machine."""
    attempt = 0
    while True:
        maker = ProgramMaker(np.random.default_rng((seed, 0, attempt)), config)
        case = maker.case(seed)
        if find_illegal(case, config) is None:
            return case
        attempt += 1


class RegisterFile:
    """What the sequencer's registers hold at this point of a program, as far as that is the same in every iteration."""

    def __init__(self, arguments: tuple[int, ...]):
        self.known: dict[int, int] = {number: 0 for number in range(isa.REGISTERS)}
        self.known |= {1 + index: value for index, value in enumerate(arguments)}
        self.reserved: set[int] = {0}
        self.temporaries: tuple[int, ...] = ()


class ProgramMaker:
    """Builds one program."""

    def __init__(self, rng: np.random.Generator, config: MachineConfig):
        self.config = config
        self.make = InstructionMaker(rng, config)
        self.arguments = tuple(int(each) for each in rng.integers(0, 1 << 32, 4) >> rng.integers(0, 32, 4))
        self.registers = RegisterFile(self.arguments)
        self.items: list[Issue | Label] = []
        self.held: set[int] = set()
        self.labels = 0
        names = list(SEMAPHORES)
        shuffled = list(rng.permutation(names)) if self.make.chance(0.5) else names
        self.semaphores = {name: str(other) for name, other in zip(names, shuffled, strict=True)}

    def case(self, seed: int) -> ProgramCase:
        """Return the program with its surroundings, legal or not."""
        sections = self.make.choose(1, 1, 2, 3)
        for index in range(sections):
            if index:
                self.barrier()
            if self.make.chance(0.35):
                self.loop()
            else:
                self.straight_line(last=index == sections - 1)
        self.items.append(Issue("END"))
        words, _ = assemble(self.items, self.config)
        address = IMAGE_BYTES + 4 * self.make.integer(0, 1100)
        return ProgramCase(seed, tuple(self.items), words, random_image(seed), address, self.arguments)

    # Semaphores

    def straight_line(self, last: bool) -> None:
        """Emit instructions with the semaphores they need, and some they do not."""
        count = self.make.integer(25, 60) if self.make.chance(0.06) else self.make.integer(3, 14)
        drawn = [issue for _ in range(count) for issue in self.make.draw()]
        issues = self.strew(synchronized([*drawn, *self.make.finish()], self.config), last)
        for issue in issues:
            self.noise()
            self.emit(issue)

    def strew(self, issues: list[Issue], last: bool) -> list[Issue]:
        """Add tokens that are not needed, where they break nothing."""
        for _ in range(self.make.choose(0, 1, 2, 4)):
            first, second = sorted(self.make.rng.integers(0, len(issues), 2).tolist())
            producer, consumer = queue_of(issues[first]), queue_of(issues[second])
            name = f"{producer.name}_{consumer.name}"
            if producer == consumer or name in issues[first].signal or name in issues[second].wait:
                continue
            changed = list(issues)
            changed[first] = replace(issues[first], signal=(*issues[first].signal, name))
            if not last or self.make.chance(0.7):
                changed[second] = replace(issues[second], wait=(*issues[second].wait, name))
            if not unsafe(changed, self.config):
                issues = changed
        return issues

    def barrier(self) -> None:
        """Let no engine go on before all have come here, STOREs in DRAM included."""
        for queue in ENGINES:
            names = tuple(f"{queue.name}_{other.name}" for other in ENGINES if other != queue)
            self.emit(replace(empty(queue, fence=True), signal=names))
        for queue in ENGINES:
            names = tuple(f"{other.name}_{queue.name}" for other in ENGINES if other != queue)
            self.emit(replace(empty(queue), wait=names))

    # Control flow

    def loop(self) -> None:
        """Emit a loop; each group of its body is between barriers."""
        make = self.make
        free = sorted(set(range(5, isa.REGISTERS)) - self.registers.reserved)
        counter, mover, *temporaries = (int(each) for each in make.rng.permutation(free)[:5])
        step, turns, start = make.choose(1, 1, -1, 7, -100), make.integer(1, 3), make.integer(-1000, 1000)
        stride = make.choose(0, 1, 2, make.integer(-8, 8), 64)
        self.assign(counter, start)
        self.assign(mover, make.integer(0, 4000))
        reserved = {counter, mover, *temporaries}
        self.registers.reserved |= reserved
        self.registers.temporaries = tuple(temporaries)
        base = self.registers.known[mover]
        self.forget(reserved)
        top = self.label()
        for _ in range(make.integer(1, 3)):
            self.body_group(mover, base)
            self.barrier()
        self.append("ADD", destination=mover, a=Reg(mover), b=stride)
        self.append("ADD", destination=counter, a=Reg(counter, step), b=0)
        self.repeat(counter, start + step * turns, step, top)
        self.registers.known |= {counter: (start + step * turns) & WORD, mover: (base + stride * turns) & WORD}
        self.registers.reserved -= reserved
        self.registers.temporaries = ()

    def body_group(self, mover: int, base: int) -> None:
        """Emit one instruction, or a MATMUL with what drains it; an address of it may move with the loop."""
        group = self.make.draw()
        group += self.make.finish()
        for issue in synchronized(group, self.config):
            names = [name for name in ("address", "base", "a_base", "source_base") if name in issue.operands]
            moving = self.make.choose(*names) if names and self.make.chance(0.7) else None
            self.emit(issue, {moving: Reg(mover, plain(issue.operands[moving]) - base)} if moving else {})

    def repeat(self, counter: int, limit: int, step: int, top: str) -> None:
        """Go back to ``top`` unless the counter has reached its limit."""
        if self.make.chance(0.5):
            a, b = (Reg(counter), limit) if step > 0 else (limit, Reg(counter))
            self.append("BRANCH_LESS", a=a, b=b, target=top)
            return
        out = self.new_label()
        self.append("BRANCH_EQUAL", a=Reg(counter), b=limit, target=out)
        self.append("BRANCH_EQUAL", a=7, b=7, target=top)
        self.items.append(Label(out))

    def noise(self) -> None:
        """Emit instructions of the sequencer now and then."""
        if self.make.chance(0.25):
            self.compute()
        if self.make.chance(0.08):
            self.skip()

    def skip(self) -> None:
        """Branch over an instruction, or not; what is skipped would do harm."""
        less = self.make.chance(0.5)
        a, b = self.small_value(), self.small_value()
        taken = signed(a) < signed(b) if less else a == b
        label = self.new_label()
        self.append("BRANCH_LESS" if less else "BRANCH_EQUAL", a=self.encode(a), b=self.encode(b), target=label)
        if taken:
            self.append("SHIFT", destination=3, a=1, amount=77)
            self.emit_plain(replace(empty(self.make.choose(*ENGINES)), wait=SEMAPHORES))
        else:
            self.compute()
        self.items.append(Label(label))

    def small_value(self) -> int:
        """Return a number that often equals another such number."""
        return self.make.choose(0, 1, -1, self.make.integer(-5, 5), self.make.integer(-(1 << 31), (1 << 31) - 1)) & WORD

    def compute(self) -> None:
        """Change a register."""
        target = self.make.choose(*(set(range(isa.REGISTERS)) - self.registers.reserved | {0}))
        kind = self.make.choose("SET", "ADD", "SHIFT", "CLAMP")
        if kind == "SET":
            self.assign(target, self.small_value())
            return
        a, amount = self.small_value(), self.make.integer(-31, 31)
        b = amount if kind == "SHIFT" else self.small_value()
        other, result = {"SHIFT": ("amount", shift_word(a, amount)), "CLAMP": ("limit", clamp(a, b)),
                         "ADD": ("b", a + b & WORD)}[kind]
        self.append(kind, destination=target, a=self.encode(a), **{other: self.encode(b & WORD)})
        self.know(target, result)

    # Encoding

    def emit(self, issue: Issue, encoded: dict[str, Value] | None = None) -> None:
        """Append an instruction, its operands encoded at random unless ``encoded`` gives them."""
        definition = isa.BY_MNEMONIC[issue.mnemonic]
        given = encoded or {}
        operands = {o.name: given[o.name] if o.name in given else self.encode(plain(issue.operands[o.name]) & WORD)
                    for o in definition.operands}
        self.emit_plain(replace(issue, operands=operands))
        self.held.clear()
        self.forget(set(self.registers.temporaries))

    def emit_plain(self, issue: Issue) -> None:
        """Append an instruction as it is, but for the names of its semaphores."""
        self.items.append(replace(issue, wait=tuple(self.semaphores[name] for name in issue.wait),
                                  signal=tuple(self.semaphores[name] for name in issue.signal)))

    def encode(self, value: int) -> Value:
        """Return an operand that resolves to ``value``; may append a SET for it."""
        immediate = signed(value)
        fits = -(1 << 26) <= immediate < 1 << 26
        free = self.free()
        if fits and (len(free) < 2 or not self.make.chance(REGISTER_CHANCE)):
            return immediate
        reach = [number for number, content in self.registers.known.items()
                 if -(1 << 26) <= signed(value - content) < 1 << 26]
        if reach and (fits or self.make.chance(0.3)):
            return self.refer(self.make.choose(*reach), value)
        number = self.make.choose(*free)
        self.assign(number, value - self.make.choose(0, self.make.integer(-1000, 1000)) & WORD)
        return self.refer(number, value)

    def refer(self, number: int, value: int) -> Reg:
        """Return ``value`` as a register plus an immediate; the register keeps its value for this instruction."""
        self.held.add(number)
        return Reg(number, signed(value - self.registers.known[number]))

    def free(self) -> list[int]:
        """Return the registers that may be overwritten, though an instruction is being encoded."""
        candidates = set(self.registers.temporaries or range(24, isa.REGISTERS))
        return sorted(candidates - self.held - (self.registers.reserved - set(self.registers.temporaries)))

    def assign(self, number: int, value: int) -> None:
        """Append SET."""
        self.append("SET", destination=number, literal=value & WORD)
        self.know(number, value & WORD)

    def know(self, number: int, value: int) -> None:
        """Remember what a register holds."""
        if number:
            self.registers.known[number] = value

    def forget(self, numbers: set[int]) -> None:
        """Use these registers no more."""
        for number in numbers:
            self.registers.known.pop(number, None)

    def append(self, mnemonic: str, **operands: Value | str) -> None:
        """Append an instruction of the sequencer."""
        self.items.append(Issue(mnemonic, operands))
        if mnemonic != "SET":
            self.held.clear()

    def new_label(self) -> str:
        """Return a new name."""
        self.labels += 1
        return f"L{self.labels}"

    def label(self) -> str:
        """Append a new label and return its name."""
        name = self.new_label()
        self.items.append(Label(name))
        return name


def queue_of(issue: Issue) -> Queue:
    """Return the engine of an instruction."""
    return isa.BY_MNEMONIC[issue.mnemonic].queue


def empty(queue: Queue, fence: bool = False) -> Issue:
    """Return an instruction of an engine that moves nothing and completes at once."""
    emit = Emitter()
    if queue == Queue.LOAD:
        emit.load(target=Target.TABLE, address=0, segment_bytes=0)
    elif queue == Queue.ARRAY:
        emit.matmul(a_base=0, w_base=0, k=1, rows=0)
    elif queue == Queue.VECTOR:
        emit.vector(rows=0, columns=0, source=Source.ZERO)
    else:
        emit.store(address=0, base=0, pitch=0, row_bytes=0, fence=fence)
    (issue,) = emit.items
    assert isinstance(issue, Issue)
    return issue
