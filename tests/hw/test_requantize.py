"""The requantizer against exact integers, in Amaranth's simulator and as Verilog under cocotb."""

from pathlib import Path

import numpy as np
from amaranth.back import verilog
from amaranth.sim import Simulator

from phonolith.hw.requantize import Requantizer
from phonolith.sim.rtl.cocotb_runner import run_cocotb

TIES = [(x, 1, s, 0) for s in (1, 2, 3, 31, 47) for base in (-3, -1, 0, 1, 3)
        for x in ((base << s) + (1 << s - 1) + d for d in (-1, 0, 1)) if -1 << 31 <= x < 1 << 31]
ENDS = [(x, m, s, a) for x in (-1 << 31, (1 << 31) - 1, -1, 0, 1) for m in (-1 << 16, (1 << 16) - 1, -1, 0, 1)
        for s in (0, 1, 16, 47, 48, 63) for a in (-1 << 31, 0, (1 << 31) - 1)]


def expected(x: int, m: int, s: int, a: int) -> int:
    """``rshift_round(x * m, min(s, 47)) + a`` in Python's integers."""
    s = min(s, 47)
    return (x * m + ((1 << s) >> 1) >> s) + a


def random_operands(count: int) -> list[tuple[int, int, int, int]]:
    """Operands over their whole ranges."""
    random = np.random.default_rng(1)
    limits = ((-1 << 31, 1 << 31), (-1 << 16, 1 << 16), (0, 64), (-1 << 31, 1 << 31))
    return list(zip(*(random.integers(low, high, count).tolist() for low, high in limits), strict=True))


def simulate(operands: list, gaps) -> list[int]:
    """Feed operands, with ``gaps(k)`` idle cycles before operand k; results exactly two cycles later."""
    dut, results = Requantizer(), []
    schedule = [operand for k, o in enumerate(operands) for operand in [*[None] * gaps(k), o]]

    async def run(ctx):
        before = [None, None]
        for operand in [*schedule, None, None]:
            if before[1] is not None:
                results.append(ctx.get(dut.y))
            ctx.set(dut.enable, (operand is not None) | (before[0] is not None) << 1)
            for port, value in zip((dut.x, dut.multiplier, dut.shift, dut.addend), operand or (-1, -1, 63, -1),
                                   strict=True):
                ctx.set(port, value)
            before = [operand, before[0]]
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()
    return results


def test_rounding_of_ties():
    assert simulate(TIES, lambda k: 0) == [expected(*o) for o in TIES]
    assert simulate([(1, 1, 1, 0), (-1, 1, 1, 0), (3, 1, 1, 0), (-3, 1, 1, 0)], lambda k: 0) == [1, 0, 2, -1]


def test_ends_of_ranges():
    assert simulate(ENDS, lambda k: 0) == [expected(*o) for o in ENDS]


def test_random_with_idle_cycles():
    operands = random_operands(400)
    assert simulate(operands, lambda k: k * 7 % 4) == [expected(*o) for o in operands]


def test_result_stays_until_the_next():
    dut = Requantizer()

    async def run(ctx):
        ctx.set(dut.enable, 1)
        ctx.set(dut.x, 1000)
        ctx.set(dut.multiplier, 3)
        await ctx.tick()
        ctx.set(dut.enable, 2)
        await ctx.tick()
        ctx.set(dut.enable, 0)
        ctx.set(dut.x, 5)
        for _ in range(5):
            assert ctx.get(dut.y) == 3000
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()


def test_verilog_under_cocotb(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    text = verilog.convert(Requantizer(), name="requantizer", emit_src=False)
    outcomes = run_cocotb(text, "requantizer", "cocotb_requantize", tmp_path)
    assert outcomes == {"random_stream": True, "wrong_rounding_is_noticed": True}
