"""ROWOP against Python's integers, and its cycles."""

from math import isqrt

import numpy as np
import pytest
from amaranth.sim import Simulator

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.row_unit import RowUnit, row_cycles

RECIPROCAL, INVERSE_SQRT = isa.RowFunction
CORNERS = [0, 1, 2, 3, 4, 5, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 47) - 1,
           1 << 47, (1 << 48) - 1, *(1 << k for k in range(48)), *((1 << k) ** 2 - 1 for k in range(1, 24)),
           *((1 << 23) + k for k in range(3)), *(((1 << 23) + k) ** 2 for k in range(3)), ((1 << 24) - 1) ** 2]


def expected(function, v: int, c: int, h: int) -> tuple[int, int]:
    """(m, s) of docs/graph.md."""
    if function == RECIPROCAL:
        x = max(v % (1 << 32), 1)
        e = 32 - x.bit_length()
        return (c << 31) // (x << e), min(max(h - e, 0), 47)
    x = max(v, 1)
    e = (48 - x.bit_length()) // 2
    return (c << 31) // (isqrt(x << 2 * e) << 8), min(max(h - e, 0), 47)


def compute(config: MachineConfig, jobs: list) -> list:
    """Run jobs (function, register values, epsilon, numerator, shift); return their results and cycles.

    Jobs follow each other: one starts in the cycle in which the one before it is done.
    """
    dut, results = RowUnit(config=config), []

    async def run(ctx):
        for function, values, epsilon, numerator, shift in jobs:
            ctx.set(dut.valid, 1)
            ctx.set(dut.ready, 1)
            await ctx.tick()
            ctx.set(dut.valid, 0)
            ctx.set(dut.function, function)
            ctx.set(dut.rows, len(values))
            ctx.set(dut.epsilon, epsilon)
            ctx.set(dut.factor, {"numerator": numerator, "shift": shift})
            cycles, written = 0, {}
            while True:
                cycles += 1
                row = ctx.get(dut.read_row)
                ctx.set(dut.value, values[row] if row < len(values) else 0)
                if ctx.get(dut.write):
                    assert ctx.get(dut.write_row) not in written
                    written[ctx.get(dut.write_row)] = ctx.get(dut.result)
                if ctx.get(dut.done):
                    break
                await ctx.tick()
            results.append((written, cycles))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()
    return results


def check(config: MachineConfig, jobs: list):
    """Compare every row of every job, and the documented cycles."""
    for (function, values, epsilon, numerator, shift), (written, cycles) in zip(
            jobs, compute(config, jobs), strict=True):
        want = {}
        for row, value in enumerate(values[:config.rows]):
            m, s = expected(function, (value + epsilon) % (1 << 48), numerator, shift)
            want[row] = m | s << isa.MULTIPLIER_BITS
        assert written == want
        assert cycles == (row_cycles(config, function, len(want)) if want else 1)


@pytest.mark.parametrize("function", isa.RowFunction)
@pytest.mark.parametrize("numerator", [1 << 15, (1 << 16) - 1])
def test_corners(function, numerator):
    config = MachineConfig()
    groups = [CORNERS[k:k + 16] for k in range(0, len(CORNERS), 16)]
    check(config, [(function, group, 0, numerator, shift) for group in groups for shift in (0, 31, 63)])


@pytest.mark.parametrize("rows, units", [(16, 4), (4, 1), (12, 5), (8, 64), (32, 32)])
def test_random(rows, units):
    random = np.random.default_rng(rows)
    config = MachineConfig(rows=rows, row_units=units)
    jobs = []
    for _ in range(30):
        count = int(random.integers(0, rows + 1))
        values = [int(v) >> int(random.integers(48)) for v in random.integers(0, 1 << 48, count)]
        jobs.append((int(random.integers(2)), values, int(random.integers(1 << 32)) >> int(random.integers(32)),
                     int(random.integers(1 << 15, 1 << 16)), int(random.integers(64))))
    check(config, jobs)


def test_more_rows_than_the_array_has():
    check(MachineConfig(rows=4, columns=16), [(RECIPROCAL, [3, 5, 7, 11, 13, 17], 0, 40000, 31)])


def test_documented_cycles():
    assert row_cycles(MachineConfig(), RECIPROCAL, 16) == 41
    assert row_cycles(MachineConfig(), INVERSE_SQRT, 16) == 89
