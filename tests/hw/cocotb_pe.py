"""cocotb tests of the processing element's Verilog; started by test_pe.py."""

import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

SUMS = 300


def activation(value: int, first: bool, last: bool) -> int:
    """Return ``ActivationLayout`` as bits."""
    return value & 0x1FF | first << 9 | last << 10


async def feed(dut, a, w, bubbles: float = 0.0):
    """Feed one sum, with random bubbles in it."""
    for index, (x, y) in enumerate(zip(a, w, strict=True)):
        while random.random() < bubbles:
            await step(dut, activation(0, False, False), random.randrange(256))
        await step(dut, activation(int(x), index == 0, index == len(a) - 1), int(y) & 0xFF)


async def step(dut, activation_in: int, weight_in: int, enable: int = 1):
    """Hold one cycle's operands."""
    dut.activation_in.value, dut.weight_in.value, dut.enable.value = activation_in, weight_in, enable
    await FallingEdge(dut.clk)


async def start(dut):
    """Start the clock."""
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    await FallingEdge(dut.clk)


@cocotb.test()
async def random_sums_equal_numpy(dut):
    """Sums follow each other without a gap; each is read when the next but two operands have passed."""
    await start(dut)
    numpy_random = np.random.default_rng(random.randrange(2**32))
    for _ in range(SUMS):
        k = int(numpy_random.integers(1, 40))
        a = numpy_random.integers(*((-128, 128) if random.random() < 0.5 else (0, 256)), k)
        w = numpy_random.integers(-128, 128, k)
        await feed(dut, a, w, bubbles=0.3)
        await step(dut, activation(1, True, False), 1)
        await step(dut, activation(1, False, False), 1)
        assert dut.result.value.to_signed() == int(a @ w), (a, w)


@cocotb.test()
async def pauses_change_nothing(dut):
    """While enable is 0 the operands at the inputs do not count."""
    await start(dut)
    a, w = [random.randrange(-128, 256) for _ in range(50)], [random.randrange(-128, 128) for _ in range(50)]
    for index, (x, y) in enumerate(zip(a, w, strict=True)):
        while random.random() < 0.5:
            await step(dut, random.randrange(2048), random.randrange(256), enable=0)
        await step(dut, activation(x, index == 0, index == 49), y & 0xFF)
    for _ in range(2):
        await step(dut, 0, 0)
    assert dut.result.value.to_signed() == sum(x * y for x, y in zip(a, w, strict=True))


@cocotb.test()
async def sum_wraps_at_32_bits(dut):
    """The accumulator counts modulo 2^32."""
    await start(dut)
    k = 2**31 // (255 * 127) + 1
    await feed(dut, [255] * k, [127] * k)
    for _ in range(2):
        await step(dut, 0, 0)
    assert dut.result.value.to_signed() == k * 255 * 127 - 2**32
