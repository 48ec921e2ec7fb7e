"""Counts as operands: what the sequencer computes in front of the instructions that need them.

Register 1 holds the frames of the run. Sizes and counts are kept in the other registers as long as there is room; what
has not been used for longest makes room and is computed again when it is needed.
"""

from collections.abc import Iterator

from phonolith.compiler.assembler import LITERAL_REGISTERS, Issue, Item, Reg, fits_immediate
from phonolith.compiler.counts import Count, Size, Stride

FRAMES = 1
FIRST, BEHIND = 5, min(LITERAL_REGISTERS)
# Quotients are exact for dividends below this power of two.
DIVIDEND_BITS = 15
Key = Size | tuple[Size, int, int] | tuple[Stride, ...] | str


class CountRegisters:
    """Which register holds what, along a program without branches; ``issues`` collects what computes it."""

    def __init__(self):
        self.held: dict[Key, int] = {}
        self.free = list(range(FIRST, BEHIND))
        self.issues: list[Issue] = []

    def expand(self, item: Item) -> list[Item]:
        """Return an instruction with registers in place of its counts, behind what computes these."""
        if not isinstance(item, Issue) or not any(isinstance(value, Count) for value in item.operands.values()):
            return [item]
        self.issues = []
        operands = {name: self.operand(value) if isinstance(value, Count) else value
                    for name, value in item.operands.items()}
        return [*self.issues, Issue(item.mnemonic, operands, item.wait, item.signal)]

    def operand(self, count: Count) -> Reg:
        """Return a count as an operand."""
        register = self.count(count)
        if fits_immediate(count.offset):
            return Reg(register, count.offset)
        offset = self.scratch("offset")
        self.issues.append(Issue("SET", {"destination": offset, "literal": count.offset}))
        self.issue("ADD", offset, a=Reg(offset), b=Reg(register))
        return Reg(offset)

    def skip_if_empty(self, counts: list[Count], label: str) -> list[Issue]:
        """Return what branches to ``label`` when no frame is left of any of some counts."""
        self.issues = []
        for strides in sorted({count.size.strides for count in counts}, key=len):
            self.issues.append(Issue("BRANCH_LESS", {"a": Reg(self.frames(strides)), "b": 1, "target": label}))
        return self.issues

    def count(self, count: Count) -> int:
        """Return the register of a count, less its offset."""
        size = self.size(count.size)
        if count.first == 0 and count.limit >= count.size.maximum:
            return size
        key = (count.size, count.first, count.limit)
        if self.is_new(key):
            self.issue("CLAMP", self.held[key], a=Reg(size, -count.first), limit=count.limit)
        return self.held[key]

    def size(self, size: Size) -> int:
        """Return the register of a size: never below 0, never above its maximum."""
        frames = self.frames(size.strides)
        if self.is_new(size):
            register = self.held[size]
            self.multiply(register, frames, size.scale)
            self.issue("CLAMP", register, a=Reg(register), limit=size.maximum)
        return self.held[size]

    def frames(self, strides: tuple[Stride, ...]) -> int:
        """Return the register of the frames that convolutions leave, negative if there are too few."""
        if not strides:
            return FRAMES
        before, stride = self.frames(strides[:-1]), strides[-1]
        if self.is_new(strides):
            register = self.held[strides]
            self.issue("ADD", register, a=Reg(before), b=stride.padding - stride.kernel)
            self.divide(register, stride.step)
            self.issue("ADD", register, a=Reg(register), b=1)
        return self.held[strides]

    def divide(self, register: int, divisor: int) -> None:
        """Divide a register, rounding down, by multiplying with the reciprocal; see Granlund and Montgomery 1994."""
        shift = (divisor - 1).bit_length()
        if divisor != 1 << shift:
            multiplier = -(-(1 << DIVIDEND_BITS + shift) // divisor)
            product = self.scratch("product")
            self.multiply(product, register, multiplier)
            self.issue("SHIFT", register, a=Reg(product), amount=-(DIVIDEND_BITS + shift))
        elif shift:
            self.issue("SHIFT", register, a=Reg(register), amount=-shift)

    def multiply(self, register: int, source: int, factor: int) -> None:
        """Multiply a register by a positive constant: shifts and sums."""
        first, *others = [bit for bit in range(factor.bit_length()) if factor >> bit & 1]
        self.issue("SHIFT", register, a=Reg(source), amount=first)
        for bit in others:
            term = self.scratch("term")
            self.issue("SHIFT", term, a=Reg(source), amount=bit)
            self.issue("ADD", register, a=Reg(register), b=Reg(term))

    def scratch(self, name: str) -> int:
        """Return a register for a value that is needed at once."""
        self.is_new(name)
        return self.held[name]

    def is_new(self, key: Key) -> bool:
        """Give a value a register unless it has one; tell whether it had none."""
        known = key in self.held
        if not known and not self.free:
            self.free.append(self.held.pop(next(iter(self.held))))
        self.held[key] = self.held.pop(key) if known else self.free.pop(0)  # the latest used is the last
        return not known

    def issue(self, mnemonic: str, destination: int, **operands: int | Reg) -> None:
        """Append an instruction of the sequencer."""
        self.issues.append(Issue(mnemonic, {"destination": destination, **operands}))


def with_registers(items: list[Item], end: str) -> Iterator[list[Item]]:
    """Yield, per item, the items that take its place; the first one's branch to label ``end`` without any frame."""
    registers = CountRegisters()
    counts = [value for item in items if isinstance(item, Issue) for value in item.operands.values()
              if isinstance(value, Count)]
    guard: list[Item] = [*registers.skip_if_empty(counts, end)]
    for item in items:
        yield [*guard, *registers.expand(item)]
        guard = []
