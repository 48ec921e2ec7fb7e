"""The processing element against numpy, in Amaranth's simulator and as Verilog under cocotb."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from phonolith.hw.config import MachineConfig
from phonolith.hw.pe import PE
from phonolith.hw.row_verilog import row_verilog
from phonolith.sim.rtl.cocotb_runner import run_cocotb


def simulate(operands: list[tuple[int, int, int, int, int]]) -> list[int]:
    """Feed (enable, activation, weight, first, last) per cycle; return ``result`` in every cycle, and four more."""
    dut, results = PE(), []

    async def run(ctx):
        for enable, activation, weight, first, last in [*operands, *[(1, 0, 0, 0, 0)] * 4]:
            ctx.set(dut.enable, enable)
            ctx.set(dut.activation_in, {"value": activation, "first": first, "last": last})
            ctx.set(dut.weight_in, weight)
            results.append(ctx.get(dut.result))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()
    return results


def products(activations, weights) -> list[tuple[int, int, int, int, int]]:
    """Return the operands of one sum."""
    k = len(activations)
    return [(1, int(a), int(w), int(i == 0), int(i == k - 1))
            for i, (a, w) in enumerate(zip(activations, weights, strict=True))]


@pytest.mark.parametrize("k", [1, 2, 17])
def test_sum_appears_three_cycles_after_its_last_operands(k):
    random = np.random.default_rng(k)
    a, w = random.integers(-128, 256, (4, k)), random.integers(-128, 128, (4, k))
    results = simulate([step for sums in zip(a, w, strict=True) for step in products(*sums)])
    for index, expected in enumerate((a * w).sum(1)):
        last = (index + 1) * k - 1
        assert results[last + 3:last + 3 + k] == [expected] * len(results[last + 3:last + 3 + k])
        assert index or results[last + 2] == 0


def test_extremes():
    for a, w in ((255, -128), (255, 127), (-128, -128), (-128, 127)):
        assert simulate(products([a] * 100, [w] * 100))[-1] == 100 * a * w


def test_stands_still_while_disabled():
    steps = products([3, 5, 7], [11, 13, 17])
    paused = [steps[0], (0, 99, 99, 1, 1), (0, -99, 99, 1, 0), steps[1], (0, 1, 1, 0, 1), steps[2]]
    assert simulate(paused)[-1] == 3 * 11 + 5 * 13 + 7 * 17


def test_verilog_under_cocotb(tmp_path, monkeypatch, repository):
    monkeypatch.syspath_prepend(str(repository))
    verilog = row_verilog(MachineConfig(rows=4, columns=4, bus_bits=64)).replace(r"\phonolith_row.pe00 ", "first_pe ")
    assert len(run_cocotb(verilog, "first_pe", "tests.hw.cocotb_pe", tmp_path)) == 3
