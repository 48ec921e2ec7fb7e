"""Host and DRAM for cocotb tests of the top's pins, from cocotbext-axi: nothing shared with the C++ harness."""

import logging
import random
from collections.abc import Iterator

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from phonolith.hw import registers

MEMORY_BYTES = 1 << 16


def pauses(seed: int, probability: float) -> Iterator[bool]:
    """Yield for ever whether a channel pauses in a cycle."""
    generator = random.Random(seed)
    while True:
        yield generator.random() < probability


class Bench:
    """Clock, reset, AXI4-Lite master and AXI4 memory around the top."""

    def __init__(self, dut):
        self.dut = dut
        logging.getLogger("cocotb").setLevel(logging.WARNING)
        cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        self.ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=MEMORY_BYTES)

    async def reset(self) -> None:
        """Hold reset for a few cycles."""
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)

    def pause(self, seed: int, probability: float = 0.4) -> None:
        """Pause each channel at random."""
        read, write, host = self.ram.read_if, self.ram.write_if, self.host
        channels = (read.ar_channel, read.r_channel, write.aw_channel, write.w_channel, write.b_channel,
                    host.write_if.aw_channel, host.write_if.w_channel, host.write_if.b_channel,
                    host.read_if.ar_channel, host.read_if.r_channel)
        for index, channel in enumerate(channels):
            channel.set_pause_generator(pauses(seed * len(channels) + index, probability))

    async def run(self, program: int, arguments: tuple[int, ...] = ()) -> int:
        """Start a program, wait for irq and return STATUS."""
        for index, value in enumerate(arguments):
            await self.host.write_dword(registers.ARGUMENT_BASE + 4 * index, value)
        await self.host.write_dword(registers.PROGRAM, program)
        await self.host.write_dword(registers.IRQ_ENABLE, 1)
        await self.host.write_dword(registers.CONTROL, 1)
        if not self.dut.irq.value:
            await with_timeout(RisingEdge(self.dut.irq), 1, "ms")
        return await self.host.read_dword(registers.STATUS)
