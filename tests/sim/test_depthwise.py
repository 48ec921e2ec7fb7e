"""Depthwise convolutions: windows, kernels in one bank and bands, against numpy and on all rungs."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.timing.model import predict
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Queue
from phonolith.sim.ladder import machine
from phonolith.sim.program_case import find_illegal, initial_state, simulate
from phonolith.sim.program_check import compare, fill_rtl
from tests.sim.depthwise import Depthwise

# Words of C bytes, then of 2C bytes.
DEFAULT, NARROW = MachineConfig(), MachineConfig(rows=8, columns=8, bus_bits=64)
TINY = replace(MachineConfig.load("tiny"), columns=8)
SMALL, WIDE = MachineConfig(rows=8, columns=8), MachineConfig(rows=12, columns=20, bus_bits=256)
WORKS = [
    Depthwise(DEFAULT, 250, 20, 31), Depthwise(DEFAULT, 300, 5, 33, by_channel=True), Depthwise(DEFAULT, 1, 3, 3),
    Depthwise(SMALL, 140, 18, 9), Depthwise(SMALL, 129, 7, 32, by_channel=True), Depthwise(SMALL, 128, 1, 4),
]
OTHER_WORKS = [
    Depthwise(NARROW, 250, 20, 31), Depthwise(NARROW, 33, 9, 5, by_channel=True), Depthwise(WIDE, 500, 40, 31),
    Depthwise(WIDE, 300, 11, 16, by_channel=True), Depthwise(TINY, 70, 9, 15), Depthwise(TINY, 9, 5, 6),
]


def name(work: Depthwise) -> str:
    order = "by channel" if work.by_channel else "by frame"
    return f"{work.config.array}/{work.config.bus_bits} {work.frames}x{work.channels} k{work.taps} {order}"


@pytest.mark.parametrize("work", [*WORKS, *OTHER_WORKS], ids=name)
def test_simulator_gives_what_numpy_gives(work):
    case = work.case()
    assert find_illegal(case, work.config) is None
    np.testing.assert_array_equal(work.result(simulate(case, work.config).dram), work.expected())


def check_rtl(work: Depthwise) -> None:
    """All memories as on the simulator, in the cycles predicted."""
    case, rtl = work.case(), machine(work.config)
    rtl.reset()
    fill_rtl(initial_state(case, work.config), rtl)
    result = rtl.run(case.memory(), case.program_address)
    assert compare(case, simulate(case, work.config), rtl, result) is None
    assert predict(case.words, work.config, address=case.program_address).cycles == result.cycles


@pytest.mark.parametrize("work", WORKS, ids=name)
def test_rtl_gives_the_same_in_the_cycles_predicted(work):
    check_rtl(work)


@pytest.mark.slow
@pytest.mark.parametrize("work", OTHER_WORKS, ids=name)
def test_other_machines(work):
    check_rtl(work)


@pytest.mark.parametrize("frames, channels", [(250, 144), (500, 256)])
def test_the_array_hardly_waits(frames, channels):
    """Channels that lie by channel load faster than they are convolved: k + C - 1 cycles each and 256 frames."""
    work = Depthwise(DEFAULT, frames, channels, 31, by_channel=True)
    timing = predict(work.case().words, DEFAULT)
    products = [each for each in timing.instructions if each.instruction.queue is Queue.ARRAY]
    least = channels * work.groups * (31 + DEFAULT.columns - 1)
    assert products[-1].done - products[0].taken < 1.01 * least
    assert timing.cycles < least + 260
