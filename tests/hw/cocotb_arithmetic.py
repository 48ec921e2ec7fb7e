"""cocotb tests of the requantizer and of reciprocals and roots; see component_top.py."""

import random
from math import isqrt

import cocotb

from phonolith.hw import isa
from phonolith.hw.row_unit import row_cycles, work_cycles
from tests.hw.cocotb_ports import CONFIG, Context, begin
from tests.hw.test_row_unit import CORNERS
from tests.hw.test_row_unit import expected as row_function

TIES = [(x, 1, s, 0) for s in (1, 2, 3, 31, 47) for base in (-3, -1, 0, 1, 3)
        for x in ((base << s) + (1 << s - 1) + d for d in (-1, 0, 1)) if -1 << 31 <= x < 1 << 31]
ENDS = [(x, m, s, a) for x in (-1 << 31, (1 << 31) - 1, -1, 0, 1) for m in (-1 << 16, (1 << 16) - 1, -1, 0, 1)
        for s in (0, 1, 16, 47, 48, 63) for a in (-1 << 31, 0, (1 << 31) - 1)]
EDGES = {32: (-1 << 31, (1 << 31) - 1, -1, 0, 1), 17: (-1 << 16, (1 << 16) - 1, -1, 0, 1)}


def operand(source: random.Random, bits: int) -> int:
    """A signed number, often at an end of its range."""
    if source.random() < 0.3:
        return source.choice(EDGES[bits])
    return source.randrange(-1 << bits - 1, 1 << bits - 1) >> source.randrange(bits)


def half_up(x: int, m: int, s: int, a: int) -> int:
    """``rshift_round(x * m, min(s, 47)) + a`` in Python's integers."""
    s = min(s, 47)
    return (x * m + ((1 << s) >> 1) >> s) + a


def half_down(x: int, m: int, s: int, a: int) -> int:
    """The wrong rule: ties go down."""
    s = min(s, 47)
    return (x * m + max(((1 << s) >> 1) - 1, 0) >> s) + a


async def compare(dut, rule) -> None:
    """Send operands with random idle cycles; results two cycles later, by a rule, until the next."""
    ctx = await begin(dut, "requantizer")
    source = random.Random(1)
    jobs = [*TIES, *ENDS, *((operand(source, 32), operand(source, 17), source.randrange(64), operand(source, 32))
                            for _ in range(2000))]
    before, shown = None, None
    while jobs or before:
        job = jobs.pop(0) if jobs and source.random() < 0.8 else None
        x, multiplier, shift, addend = job or (7, 7, 7, 7)
        await ctx.drive(x=x, multiplier=multiplier, shift=shift, addend=addend,
                        enable=(job is not None) | (before is not None) << 1)
        assert shown is None or ctx.read("y") == (shown,)
        await ctx.tick()
        shown = rule(*before) if before else shown
        before = job


@cocotb.test(timeout_time=200, timeout_unit="us")
async def requantizer(dut):
    """Ties, ends of all ranges and random operands; two cycles, with random idle cycles in between."""
    await compare(dut, half_up)


@cocotb.test(timeout_time=200, timeout_unit="us", expect_fail=True)
async def requantizer_rounds_up(dut):
    """The comparison finds a difference in ties alone."""
    await compare(dut, half_down)


@cocotb.test(timeout_time=200, timeout_unit="us")
async def serial_unit(dut):
    """Quotients of both functions, ends of their ranges; 9 or 21 cycles, the next in the very cycle of the last."""
    ctx = await begin(dut, "serial_unit")
    source, top = random.Random(2), isa.ROW_BITS
    for _ in range(150):
        function, numerator = source.choice(list(isa.RowFunction)), source.choice((1 << 15, (1 << 16) - 1, 45678))
        lowest = 1 << top - 1 - function
        value = source.choice((lowest, (1 << top) - 1, lowest + 1, source.randrange(lowest, 1 << top)))
        record = {"value": value, "shift": source.randrange(48), "row": source.randrange(CONFIG.rows)}
        await ctx.drive(load=1, operand=record, function=function, numerator=numerator)
        await ctx.tick()
        await ctx.drive(load=0, operand={**record, "value": source.randrange(1 << top), "row": 0})
        for _ in range(work_cycles(function)):
            assert ctx.read("done") == (0,)
            await ctx.tick()
            await ctx.settle()
        divisor = isqrt(value) << 8 if function == isa.RowFunction.INVERSE_SQRT else value >> top - 32
        assert ctx.read("done", "row", "result") == (
            1, record["row"], (numerator << 31) // divisor | record["shift"] << isa.MULTIPLIER_BITS)
        if source.random() < 0.5:
            await ctx.tick()
            await ctx.settle()
            assert ctx.read("done") == (0,)


async def run_rows(ctx: Context, count: int, values: list[int]) -> tuple[dict[int, int], int]:
    """Run one ROWOP whose other inputs are set; return what it writes and how many cycles it takes."""
    for ready in (0, 1):
        await ctx.drive(valid=1, ready=ready)
        await ctx.tick()
    await ctx.drive(valid=0, rows=count)
    written, cycles, done = {}, 0, 0
    while not done:
        row, = ctx.read("read_row")
        await ctx.drive(value=values[row] if row < len(values) else 0)
        write, write_row, result, done = ctx.read("write", "write_row", "result", "done")
        if write:
            assert write_row not in written
            written[write_row] = result
        cycles += 1
        if not done:
            await ctx.tick()
            await ctx.settle()
    return written, cycles


@cocotb.test(timeout_time=500, timeout_unit="us")
async def row_unit(dut):
    """Corners of both functions; no row, one, all, more than there are; the documented cycles."""
    ctx = await begin(dut, "row_unit")
    source, rows = random.Random(3), CONFIG.rows
    groups = [CORNERS[first:first + rows] for first in range(0, len(CORNERS), rows)]
    jobs = [(group, len(group), 0) for group in groups]
    jobs += [(source.sample(CORNERS, rows), count, source.choice((0, 1, 2**32 - 1, source.getrandbits(32))))
             for count in (0, 1, rows - 1, rows + 1, 65535) * 3]
    for function in isa.RowFunction:
        for values, count, epsilon in jobs:
            c, h = source.choice((1 << 15, (1 << 16) - 1)), source.choice((0, 31, 63))
            await ctx.drive(function=function, epsilon=epsilon, factor={"numerator": c, "shift": h})
            written, cycles = await run_rows(ctx, count, values)
            expected = [row_function(function, (value + epsilon) % (1 << 48), c, h) for value in values[:count]]
            assert written == {row: m | s << isa.MULTIPLIER_BITS for row, (m, s) in enumerate(expected)}
            assert cycles == (row_cycles(CONFIG, function, len(expected)) if expected else 1)
