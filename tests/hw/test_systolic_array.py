"""The array with skewed operands at its edges: sums equal to numpy, latency, text that grows with R + C."""

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.sim import Simulator

from phonolith.hw.config import MachineConfig
from phonolith.hw.row_verilog import row_verilog
from phonolith.hw.systolic_array import ROW_MODULE, SystolicArray


def machine(rows: int, columns: int) -> MachineConfig:
    """Return a small machine."""
    return MachineConfig(rows=rows, columns=columns, bus_bits=64)


def simulate(array: SystolicArray, a: np.ndarray, b: np.ndarray, sums: int) -> np.ndarray:
    """Feed A (R, K) and B (C, K), K = ``sums`` equal parts, skewed; return the drain in every cycle, (cycles, R, C)."""
    rows, columns, k = len(a), len(b), a.shape[1]
    length, shown = k // sums, []

    async def run(ctx):
        ctx.set(array.enable, 1)
        for cycle in range(k + rows + columns + 3):
            for r in range(rows):
                step = cycle - r
                live = 0 <= step < k
                ctx.set(array.activations[r], {"value": int(a[r, step]) if live else 0,
                                               "first": live and step % length == 0,
                                               "last": live and step % length == length - 1})
            ctx.set(array.weights, [int(b[c, cycle - c]) if 0 <= cycle - c < k else -1 for c in range(columns)])
            shown.append(np.zeros((rows, columns), np.int32))
            for r in range(rows):
                ctx.set(array.row, r)
                shown[-1][r] = ctx.get(array.data)
            await ctx.tick()

    simulator = Simulator(array)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()
    return np.array(shown)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (5, 7), (8, 8)])
@pytest.mark.parametrize("length", [1, 6])
def test_every_result_appears_with_the_documented_latency(rows, columns, length):
    random = np.random.default_rng(rows + length)
    sums = 3
    a = random.integers(-128, 256, (rows, sums * length))
    b = random.integers(-128, 128, (columns, sums * length))
    shown = simulate(SystolicArray(config=machine(rows, columns), twin=True), a, b, sums)
    for index in range(sums):
        part = slice(index * length, (index + 1) * length)
        expected = a[:, part] @ b[:, part].T
        first = part.stop - 1 + 3 + np.add.outer(np.arange(rows), np.arange(columns))
        for r, c in np.ndindex(rows, columns):
            held = length if index + 1 < sums else 1
            np.testing.assert_array_equal(shown[first[r, c]:first[r, c] + held, r, c], expected[r, c])
            if index == 0:
                assert not shown[:first[r, c], r, c].any()


def test_disabled_array_stands_still():
    array = SystolicArray(config=machine(4, 4), twin=True)

    async def run(ctx):
        ctx.set(array.activations[0], {"value": 5, "first": 1, "last": 1})
        ctx.set(array.weights[0], 7)
        for enable, expected in ((0, 0), (0, 0), (1, 0), (0, 0), (0, 0), (1, 0), (0, 0), (0, 35)):
            ctx.set(array.enable, enable)
            assert ctx.get(array.data[0]) == expected
            await ctx.tick()

    simulator = Simulator(array)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()


def test_text_grows_with_rows_plus_columns():
    def size(rows: int, columns: int) -> int:
        config = machine(rows, columns)
        array = verilog.convert(SystolicArray(config=config), name="array", emit_src=False)
        assert array.count(f"{ROW_MODULE} ") == rows
        return len(array) + len(row_verilog(config))

    small, large = size(8, 8), size(24, 24)
    assert large < 4 * small
