"""cocotb tests of the array and its parts; see component_top.py."""

import random

import cocotb
import numpy as np

from tests.hw.axi_memory import Stalls
from tests.hw.cocotb_ports import CONFIG, begin

ROWS, COLUMNS = CONFIG.rows, CONFIG.columns
ACTIVATIONS, WEIGHTS = (-128, 127, 255, 0, 1), (-128, 127, -1, 0, 1)


def wrapped(number: int) -> int:
    """A sum as 32 signed bits."""
    return (number + 2**31) % 2**32 - 2**31


@cocotb.test(timeout_time=200, timeout_unit="us")
async def pe(dut):
    """Sums follow each other with random pauses; a result comes 3 cycles after its last operands, without pauses."""
    ctx = await begin(dut, "pe")
    source, held, done, accumulator, result = random.Random(1), (0, 0, 0, 0), 0, 0, None
    for cycle in range(6000):
        if not cycle % 1000:
            pauses, lengths = source.choice((0.0, 0.4)), (1, 2, 3, 30)
            left, first = 0, 1
        if not left:
            left, first = source.choice(lengths), 1
            ends = source.choice(ACTIVATIONS), source.choice(WEIGHTS), source.random() < 0.5
        enable, last = int(source.random() >= pauses), int(left == 1)
        a, w = ends[:2] if ends[2] else (source.randrange(-128, 256), source.randrange(-128, 128))
        offered = (a, w, first, last)
        garbage = (source.randrange(-256, 256), source.randrange(-128, 128), *source.choices((0, 1), k=2))
        now = offered if enable else garbage
        await ctx.drive(enable=enable, weight_in=now[1], activation_in=dict(zip(
            ("value", "first", "last"), (now[0], *now[2:]), strict=True)))
        leaving, weight, shown = ctx.read("activation_out", "weight_out", "result")
        assert cycle < 2 or (leaving.value, weight, leaving.first, leaving.last) == held
        assert result is None or shown == result
        await ctx.tick()
        result = accumulator if done else result
        if enable:
            accumulator = wrapped((0 if held[2] else accumulator) + held[0] * held[1])
            held, done = offered, held[3]
            left, first = left - 1, 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def pe_wraps(dut):
    """The accumulator counts modulo 2^32, at both ends."""
    ctx = await begin(dut, "pe")
    for a, w in ((255, 127), (255, -128)):
        steps = 2**31 // abs(a * w) + 2
        await ctx.drive(enable=1, weight_in=w, activation_in={"value": a, "first": 1, "last": 0})
        await ctx.tick()
        await ctx.drive(activation_in={"value": a, "first": 0, "last": 0})
        await ctx.pass_cycles(steps - 2)
        await ctx.drive(activation_in={"value": a, "first": 0, "last": 1})
        await ctx.tick().repeat(3)
        await ctx.settle()
        assert ctx.read("result") == (wrapped(steps * a * w),)


def random_sums(seed: int, rows: int, lengths: tuple[int, ...]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Lengths of sums, and A (rows, K) and B (C, K) with some sums at the ends of the range only."""
    source = np.random.default_rng(seed)
    a, b = source.integers(-128, 256, (rows, sum(lengths))), source.integers(-128, 128, (COLUMNS, sum(lengths)))
    for low, high in ((0, lengths[0]), (sum(lengths[:-1]), sum(lengths))):
        a[:, low:high] = source.choice(ACTIVATIONS[:3], a[:, low:high].shape)
        b[:, low:high] = source.choice(WEIGHTS[:2], b[:, low:high].shape)
    return list(lengths), a, b


def marks(lengths: list[int], step: int) -> dict[str, int]:
    """First and last of a step of sums that follow each other."""
    ends = np.cumsum(lengths)
    return {"first": int(step == 0 or step in ends), "last": int(step + 1 in ends)}


def activation_at(a: np.ndarray, lengths: list[int], step: int) -> dict[str, int]:
    """What enters a row of the array; beyond the sums nothing does."""
    if not 0 <= step < len(a):
        return {"value": 0, "first": 0, "last": 0}
    return {"value": int(a[step]), **marks(lengths, step)}


def weights_at(b: np.ndarray, step: int) -> int:
    """What enters the columns, column c a step later than column c - 1; garbage where there is nothing."""
    octets = [int(b[c, step - c]) if 0 <= step - c < b.shape[1] else 85 for c in range(COLUMNS)]
    return sum((octet & 255) << 8 * c for c, octet in enumerate(octets))


def expected_sums(lengths: list[int], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums in order, (sums, rows of A, C)."""
    parts = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    return np.array([a[:, part] @ b[:, part].T for part in parts])


LENGTHS = (1, 1, 2, 7, 1, 12)


class Taken:
    """Which sum each element shows: the last one whose last operands it added two cycles ago or earlier."""

    def __init__(self, lengths: list[int]):
        self.ends, self.cycles, self.cycle = np.cumsum(lengths) - 1, [], 0

    def step(self, enable: bool) -> None:
        """A cycle has passed, in which a step was taken or not."""
        if enable:
            self.cycles.append(self.cycle)
        self.cycle += 1

    def shown(self, distance: int) -> int | None:
        """Index of the sum, for the element that many steps from the corner; None before the first."""
        ready = [s for s, end in enumerate(self.ends) if len(self.cycles) > end + distance + 1
                 and self.cycles[end + distance + 1] + 2 <= self.cycle]
        return ready[-1] if ready else None


@cocotb.test(timeout_time=200, timeout_unit="us")
async def row(dut):
    """C elements in a chain: results 3 + c cycles after column 0 takes the last operands; weights leave after one."""
    ctx = await begin(dut, "row")
    for seed, pauses in enumerate((0.0, 0.5)):
        stalls, (lengths, a, b) = Stalls(seed, pauses), random_sums(seed, 1, LENGTHS)
        expected, taken, before = expected_sums(lengths, a, b)[:, 0], Taken(lengths), None
        while (step := len(taken.cycles)) < sum(lengths) + COLUMNS + 3:
            enable = stalls.go()
            await ctx.drive(enable=enable, weights_in=weights_at(b, step) if enable else 0,
                            activation=activation_at(a[0], lengths, step) if enable else 2047)
            leaving, results = ctx.read("weights_out", "results")
            assert before is None or leaving == before
            for c in range(COLUMNS):
                index = taken.shown(c)
                assert index is None or wrapped(results >> 32 * c & 2**32 - 1) == expected[index, c]
            await ctx.tick()
            before = weights_at(b, step) if enable else before
            taken.step(enable)


@cocotb.test(timeout_time=500, timeout_unit="us")
async def systolic_array(dut):
    """Results 3 + r + c cycles after the corner takes the last operands, until the next sum's; random pauses."""
    ctx = await begin(dut, "systolic_array")
    for seed, pauses in enumerate((0.0, 0.3)):
        stalls, (lengths, a, b) = Stalls(seed, pauses), random_sums(seed + 3, ROWS, LENGTHS)
        expected, taken = expected_sums(lengths, a, b), Taken(lengths)
        while (step := len(taken.cycles)) < sum(lengths) + ROWS + COLUMNS + 3:
            enable = stalls.go()
            for r, port in enumerate(ctx.ports.activations):
                ctx.set(port, activation_at(a[r], lengths, step - r) if enable else 2047)
            ctx.set(ctx.ports.weights, weights_at(b, step) if enable else 0)
            for r in range(ROWS):
                await ctx.drive(enable=enable, row=r)
                shown, = ctx.read("data")
                for c in range(COLUMNS):
                    index = taken.shown(r + c)
                    assert index is None or shown[c] == expected[index, r, c]
            await ctx.tick()
            taken.step(enable)
