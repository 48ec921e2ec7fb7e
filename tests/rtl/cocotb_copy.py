"""cocotb tests of the stand-in: they test the runner."""

import random
import time

import cocotb

from tests.rtl.axi_bench import Bench


@cocotb.test()
async def copies(dut):
    """One copy without and one with pauses."""
    bench = Bench(dut)
    await bench.reset()
    for seed in (None, 1):
        if seed is not None:
            bench.pause(seed)
        data = random.randbytes(16 * 16)
        bench.ram.write(0x1000, data)
        assert await bench.run(0, (0x1000, 0x2000, 16, 0)) == 2
        assert bench.ram.read(0x2000, len(data)) == data
        await bench.host.write_dword(0x004, 2)


@cocotb.test()
async def fails(dut):
    """Fails, to show that the runner says so."""
    bench = Bench(dut)
    await bench.reset()
    assert await bench.run(0, (0x1000, 0x2000, 16, 16)) == 2, "planted failure"


@cocotb.test()
async def hangs(dut):
    """Does not end, to show that the runner ends it."""
    time.sleep(600)
