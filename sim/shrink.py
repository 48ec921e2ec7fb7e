"""Reduce a program on which simulator and RTL differ to its smallest."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from phonolith.compiler.assembler import Issue, Label, Reg, assemble
from phonolith.compiler.disassembler import signed
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.sim.program_case import Items, ProgramCase, find_illegal, plain, synchronized, unrolled

# A MATMUL, what takes its tiles, and what they wait for.
LONGEST_GROUP = 6

Fails = Callable[[ProgramCase], bool]
Build = Callable[[Sequence[Issue | Label]], ProgramCase | None]


@dataclass
class Shrinker:
    """Tries smaller programs for as long as there is time.

    Parameters
    ----------
    config : MachineConfig
    fails : callable
        Tells whether a legal case still shows the fault.
    seconds : float
        After that long, what is smallest so far is the result.
    """

    config: MachineConfig
    fails: Fails
    seconds: float = 120.0
    tried: int = 0

    def shrink(self, case: ProgramCase) -> ProgramCase:
        """Return a smallest case that still fails.

        First its engine instructions alone, in a straight line and with the semaphores they need; if the fault needs
        the program's own semaphores, branches or registers, those are kept.
        """
        self.until = time.monotonic() + self.seconds
        plain = [replace(issue, wait=(), signal=()) for issue in unrolled(case)[:-1]]
        for items, build in ((plain, self.resynchronized(case)), (unrolled(case)[:-1], self.kept(case)),
                             (list(case.items[:-1]), self.kept(case))):
            if self.still_fails(items, build):
                return self.smallest(items, build) or case
        return case

    def smallest(self, items: Sequence[Issue | Label], build: Build) -> ProgramCase | None:
        """Drop instructions, then make operands smaller, until neither helps."""
        before = None
        while before != items:
            before = items
            items = self.drop(items, build)
            single = one_tile_each(items, self.config)
            items = single if single != items and self.still_fails(single, build) else items
            items = self.simplify(items, build)
        return build(items)

    def resynchronized(self, case: ProgramCase) -> Build:
        """Return how to make a case of plain engine instructions: with new semaphores."""
        def build(items: Sequence[Issue | Label]) -> ProgramCase | None:
            return self.rebuild(case, synchronized([i for i in items if isinstance(i, Issue)], self.config))

        return build

    def kept(self, case: ProgramCase) -> Build:
        """Return how to make a case of instructions as they are."""
        return lambda items: self.rebuild(case, items)

    def rebuild(self, case: ProgramCase, items: Sequence[Issue | Label]) -> ProgramCase | None:
        """Return the case with another program; None when that cannot be encoded."""
        whole: Items = (*items, Issue("END"))
        try:
            words, _ = assemble(whole, self.config)
        except ValueError:
            return None
        return replace(case, items=whole, words=words)

    def still_fails(self, items: Sequence[Issue | Label], build: Build) -> bool:
        """Tell whether these instructions make a legal program that shows the fault."""
        if time.monotonic() > self.until:
            return False
        self.tried += 1
        try:
            case = build(items)
            legal = case is not None and find_illegal(case, self.config) is None
        except (ValueError, IndexError):
            return False
        return case is not None and legal and self.fails(case)

    def drop(self, items: Sequence[Issue | Label], build: Build) -> Sequence[Issue | Label]:
        """Remove ever smaller runs of instructions."""
        for size, step in run_lengths(len(items)):
            start = len(items) - size
            while start >= 0:
                fewer = [*items[:start], *items[start + size:]]
                if self.still_fails(fewer, build):
                    items = fewer
                start = min(start - step, len(items) - size)
        return items

    def simplify(self, items: Sequence[Issue | Label], build: Build) -> Sequence[Issue | Label]:
        """Make the operands of each instruction smaller, and leave out semaphores."""
        for index, item in enumerate(items):
            if isinstance(item, Issue):
                for name in item.operands:
                    items = self.simplify_operand(items, index, name, build)
                items = self.simplify_tokens(items, index, build)
        return items

    def simplify_tokens(self, items: Sequence[Issue | Label], index: int, build: Build) -> Sequence[Issue | Label]:
        """Leave out what an instruction waits for, and what it signals."""
        for masks in ({"wait": ()}, {"signal": ()}):
            item = items[index]
            changed = [*items[:index], replace(item, **masks), *items[index + 1:]]
            if changed != items and self.still_fails(changed, build):
                items = changed
        return items

    def simplify_operand(self, items: Sequence[Issue | Label], index: int, name: str,
                         build: Build) -> Sequence[Issue | Label]:
        """Give one operand the first smaller value that keeps the fault."""
        item = items[index]
        if not isinstance(item, Issue):
            return items
        for value in smaller(item, name):
            changed = [*items[:index], replace(item, operands=item.operands | {name: value}), *items[index + 1:]]
            if self.still_fails(changed, build):
                return changed
        return items


def run_lengths(count: int) -> list[tuple[int, int]]:
    """Return the lengths of runs to drop from ``count`` items, and steps: halves, then all that may belong together."""
    halves = [count >> shift for shift in range(1, count.bit_length())]
    return [*((size, size) for size in halves), *((size, 1) for size in range(min(LONGEST_GROUP, count), 0, -1))]


def one_tile_each(items: Sequence[Issue | Label], config: MachineConfig) -> list[Issue | Label]:
    """Return the program with MATMULs of one tile, and for each one VECTOR that takes it."""
    result: list[Issue | Label] = []
    tiles = 0
    for item in items:
        if isinstance(item, Issue) and item.mnemonic == "MATMUL":
            tiles += 1
            item = replace(item, operands=item.operands | {"rows": 1, "columns": 1})
        elif isinstance(item, Issue) and drains(item):
            if not tiles:
                continue
            tiles -= 1
            most = {"rows": config.rows, "columns": config.columns}
            item = replace(item, operands=item.operands | {
                name: min(plain(item.operands[name]), limit) for name, limit in most.items()})
        result.append(item)
    return result


def drains(issue: Issue) -> bool:
    """Tell whether an instruction with plain operands is a VECTOR that takes tiles of the array."""
    if issue.mnemonic != "VECTOR" or any(isinstance(value, Reg) for value in issue.operands.values()):
        return False
    return isa.unpack(isa.VECTOR_CONTROL, plain(issue.operands["control"]))["source"] == isa.Source.DRAIN


def smaller(issue: Issue, name: str) -> Iterator[int]:
    """Yield simpler values of an operand, the simplest first."""
    value = issue.operands[name]
    operand = isa.BY_MNEMONIC[issue.mnemonic].operand(name)
    if isinstance(value, (str, Reg)) or operand.kind is isa.Kind.REGISTER:
        return
    if operand.fields:
        yield from fewer_parts(operand, value)
        return
    value = signed(value)
    tries = (0, 1, value // 2, value - 1) if value > 0 else (0, -(-value // 2), value + 1)
    yield from dict.fromkeys(each for each in tries if abs(each) < abs(value))


def fewer_parts(operand: isa.Operand, value: int) -> Iterator[int]:
    """Yield a packed operand with one of its nonzero parts set to zero, all of them first."""
    if value:
        yield 0
    for low, width in operand.fields.values():
        mask = (1 << width) - 1 << low
        if value & mask and value & ~mask:
            yield value & ~mask
