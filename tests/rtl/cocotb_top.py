"""The accelerator at its pins, against the AXI models of cocotbext-axi."""

import cocotb
import numpy as np

from phonolith.hw import registers
from phonolith.hw.config import MachineConfig
from tests.rtl.axi_bench import MEMORY_BYTES, Bench
from tests.rtl.programs import tile_case

CONFIG = MachineConfig().with_array("8x8")
DONE, ERROR = 2, 4


async def check_case(bench: Bench, seed: int) -> None:
    """Run one tile and compare every byte of DRAM."""
    case = tile_case(CONFIG, seed)
    bench.ram.write(0, case.image.tobytes())
    assert await bench.run(case.program, case.arguments) == DONE
    result = np.frombuffer(bench.ram.read(0, MEMORY_BYTES), np.uint8)
    assert np.flatnonzero(result != case.expected).tolist() == []
    await bench.host.write_dword(registers.CONTROL, 2)
    assert not bench.dut.irq.value


@cocotb.test()
async def identifies_itself(dut):
    bench = Bench(dut)
    await bench.reset()
    assert await bench.host.read_dword(registers.ID) == registers.IDENTIFIER
    assert await bench.host.read_dword(registers.CONFIG_HASH) == CONFIG.hash_word


@cocotb.test()
async def computes_a_tile(dut):
    """Twice without a reset in between."""
    bench = Bench(dut)
    await bench.reset()
    for seed in range(2):
        await check_case(bench, seed)


@cocotb.test()
async def computes_a_tile_whatever_the_pauses(dut):
    bench = Bench(dut)
    await bench.reset()
    for seed in range(4):
        bench.pause(seed, 0.2 + 0.2 * seed)
        await check_case(bench, seed)


@cocotb.test()
async def refuses_a_program_for_another_machine(dut):
    bench = Bench(dut)
    await bench.reset()
    bench.ram.write_dword(0x400, CONFIG.hash_word ^ 1)
    status = await bench.run(0x400)
    assert status & ERROR and not status & DONE and status >> 8 & 0xFF
