"""cocotb test of the requantizer's Verilog; started by test_requantize.py."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

COUNT = 3000
EDGES = {32: (-1 << 31, (1 << 31) - 1, -1, 0, 1), 17: (-1 << 16, (1 << 16) - 1, -1, 0, 1)}


def expected(x: int, m: int, s: int, a: int) -> int:
    """``rshift_round(x * m, min(s, 47)) + a`` in Python's integers."""
    s = min(s, 47)
    return (x * m + ((1 << s) >> 1) >> s) + a


def operand(bits: int) -> int:
    """A signed number, often at an end of its range."""
    if random.random() < 0.3:
        return random.choice(EDGES[bits])
    return random.randrange(-1 << bits - 1, 1 << bits - 1) >> random.randrange(bits)


def half_down(x: int, m: int, s: int, a: int) -> int:
    """The wrong rule: ties go down."""
    s = min(s, 47)
    return (x * m + max(((1 << s) >> 1) - 1, 0) >> s) + a


@cocotb.test()
async def random_stream(dut):
    """Results come two cycles after their operands, with random idle cycles in between."""
    await compare(dut, expected)


@cocotb.test(expect_fail=True)
async def wrong_rounding_is_noticed(dut):
    """The comparison finds a difference in ties alone."""
    await compare(dut, half_down)


async def compare(dut, rule):
    """Stream COUNT operands through and compare the results with a rule."""
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    dut.rst.value = 0
    dut.enable.value = 0
    before, checked = [None, None], 0
    while checked < COUNT:
        await FallingEdge(dut.clk)
        if before[1] is not None:
            assert dut.y.value.to_signed() == rule(*before[1]), before[1]
            checked += 1
        job = None
        if random.random() < 0.8:
            job = (operand(32), operand(17), random.randrange(64), operand(32))
        for port, value in zip((dut.x, dut.multiplier, dut.shift, dut.addend), job or (7, 7, 7, 7), strict=True):
            port.value = value
        dut.enable.value = (job is not None) | (before[0] is not None) << 1
        before = [job, before[0]]
