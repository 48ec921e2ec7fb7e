"""cocotb tests of the array and its parts; see component_top.py."""

import random
from itertools import pairwise

import cocotb
import numpy as np

from tests.hw.cocotb_ports import CONFIG, begin
from tests.hw.matmul_model import unpacked

ROWS, COLUMNS = CONFIG.rows, CONFIG.columns
LANES = 8
ACTIVATIONS, WEIGHTS = (-128, 127, 255, 0, 1), (-128, 127, -1, 0, 1, 0x55)
BUBBLE = {"lanes": 0, "unsigned": 0, "log2_lanes": 0, "first": 0, "last": 0}


def wrapped(number: int) -> int:
    """A sum as 32 signed bits."""
    return (number + 2**31) % 2**32 - 2**31


def weights_in(byte: int, log2_lanes: int) -> list[int]:
    """The weights in a byte."""
    return unpacked(np.array([byte % 256], np.uint8), log2_lanes).tolist()


def placed(source: random.Random, values: list[int]) -> int:
    """1, 2, 4 or 8 activations in their lanes, each as far from the next as from the ends; garbage in the others."""
    octets = [source.randrange(256) for _ in range(LANES)]
    octets[::LANES // len(values)] = [value % 256 for value in values]
    return int.from_bytes(bytes(octets), "little")


def random_activations(source: random.Random, count: int, is_unsigned: int) -> list[int]:
    """Activations of one step, often at the ends of their range."""
    low, high = (0, 255) if is_unsigned else (-128, 127)
    return [source.choice((low, high, source.randint(low, high))) for _ in range(count)]


class RandomSteps:
    """Steps of random sums that follow each other with random bubbles; every sum with a width of its own.

    What a step is: what enters the row, its activations, and the weights that they meet.
    """

    def __init__(self, source: random.Random):
        self.source, self.left = source, 0

    def draw(self, pauses: float) -> tuple[dict, list[int], int]:
        """Return the next step, or a bubble, in which the weights are garbage."""
        source = self.source
        byte = source.choice((*WEIGHTS, source.randrange(-128, 128)))
        if source.random() < pauses:
            return BUBBLE, [], byte
        first = not self.left
        if first:
            self.left, self.width, self.is_unsigned = source.choice((1, 2, 3, 30)), *source.choices(range(4), k=2)
            self.is_unsigned %= 2
        self.left -= 1
        values = random_activations(source, 1 << self.width, self.is_unsigned)
        return {"lanes": placed(source, values), "unsigned": self.is_unsigned, "log2_lanes": self.width,
                "first": int(first), "last": int(not self.left)}, values, byte


@cocotb.test(timeout_time=200, timeout_unit="us")
async def pe(dut):
    """Sums of all widths with random bubbles; a result 3 cycles after its last operands; lanes that stand still."""
    ctx = await begin(dut, "pe")
    source = random.Random(1)
    steps, held, accumulator, done, result = RandomSteps(source), (BUBBLE, [], 0), 0, 0, None
    upper = None
    for cycle in range(6000):
        step = steps.draw((0.0, 0.4)[cycle // 1000 % 2])
        await ctx.drive(weight_in=step[2], activation_in=step[0])
        leaving, weight, shown = ctx.read("activation_out", "weight_out", "result")
        marks, values, byte = held
        if cycle:
            assert {name: int(leaving[name]) for name in marks if name != "lanes"} == {
                name: mark for name, mark in marks.items() if name != "lanes"}
            assert int(leaving.lanes) % 256 == marks["lanes"] % 256 and weight == byte % 256
            assert upper is None or int(leaving.lanes) >> 8 == upper
        assert result is None or shown == result
        await ctx.tick()
        result = accumulator if done else result
        accumulator = wrapped((0 if marks["first"] else accumulator) + sum(
            a * w for a, w in zip(values, weights_in(byte, marks["log2_lanes"]), strict=bool(values))))
        held, done, upper = step, marks["last"], step[0]["lanes"] >> 8 if step[0]["log2_lanes"] else upper


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def pe_wraps(dut):
    """The accumulator counts modulo 2^32, at both ends."""
    ctx = await begin(dut, "pe")
    for a, w in ((255, 127), (255, -128)):
        steps, activation = 2**31 // abs(a * w) + 2, BUBBLE | {"lanes": a, "unsigned": 1}
        await ctx.drive(weight_in=w, activation_in=activation | {"first": 1})
        await ctx.tick()
        await ctx.drive(activation_in=activation)
        await ctx.pass_cycles(steps - 2)
        await ctx.drive(activation_in=activation | {"last": 1})
        await ctx.tick()
        await ctx.drive(activation_in=BUBBLE)
        await ctx.tick().repeat(2)
        await ctx.settle()
        assert ctx.read("result") == (wrapped(steps * a * w),)


@cocotb.test(timeout_time=200, timeout_unit="us")
async def row_sum(dut):
    """Sums of activations, of those lanes alone that the width uses, 3 cycles after the last; random bubbles."""
    ctx = await begin(dut, "row_sum")
    source = random.Random(2)
    steps, total, results = RandomSteps(source), 0, [None] * 3
    for cycle in range(3000):
        marks, values, _ = steps.draw((0.0, 0.4)[cycle // 500 % 2])
        await ctx.drive(activation=marks)
        assert results[0] is None or ctx.read("result") == (results[0],)
        await ctx.tick()
        total = sum(values) + (0 if marks["first"] else total)
        results = [*results[1:], total if marks["last"] else results[-1]]


class Schedule:
    """Random sums for the array: which step each row and column is given in each cycle, and what must come out.

    ``steps`` counts from the corner; row r and column c are given a step r and c cycles later.
    """

    def __init__(self, seed: int, rows: int, pauses: float):
        self.source, self.rows = random.Random(seed), rows
        self.steps, self.ends = [], []
        corner = RandomSteps(self.source)
        while len(self.ends) < 12 or corner.left:
            marks, values, _ = corner.draw(pauses)
            rows_values = [random_activations(self.source, len(values), marks["unsigned"]) for _ in range(rows)]
            bytes_ = [self.source.choice((*WEIGHTS, self.source.randrange(-128, 128))) for _ in range(COLUMNS)]
            self.steps.append((marks, rows_values, bytes_))
            self.ends += [len(self.steps) - 1] * marks["last"]
        firsts = [0, *(end + 1 for end in self.ends)]
        self.sums = np.array([self.total(first, end + 1) for first, end in zip(firsts, self.ends, strict=False)])
        self.cycles = range(len(self.steps) + rows + COLUMNS + 4)

    def total(self, first: int, end: int) -> np.ndarray:
        """Return the sum of some steps, (rows, C + 1), the activations' own in the last column."""
        total = np.zeros((self.rows, COLUMNS + 1), int)
        for marks, values, bytes_ in self.steps[first:end]:
            if values[0]:
                a = np.array(values)
                w = np.array([weights_in(byte, marks["log2_lanes"]) for byte in bytes_])
                total += np.column_stack([a @ w.T, a.sum(1)])
        return total

    def activation(self, row: int, cycle: int) -> dict[str, int]:
        """Return what enters a row."""
        if not 0 <= cycle - row < len(self.steps):
            return BUBBLE
        marks, values, _ = self.steps[cycle - row]
        return marks | {"lanes": placed(self.source, values[row])} if values[row] else BUBBLE

    def weights(self, cycle: int) -> int:
        """Return what enters the columns; garbage where there is nothing."""
        octets = [self.steps[cycle - c][2][c] if 0 <= cycle - c < len(self.steps) else 85 for c in range(COLUMNS)]
        return sum(octet % 256 << 8 * c for c, octet in enumerate(octets))

    def shown(self, row: int, column: int, cycle: int) -> int | None:
        """Return the sum that an element shows; None before the first. Column C: the sum of the row's activations."""
        distance = row + (column if column < COLUMNS else 0)
        index = sum(end + distance + 3 <= cycle for end in self.ends) - 1
        return None if index < 0 else int(self.sums[index, row, column])


@cocotb.test(timeout_time=200, timeout_unit="us")
async def row(dut):
    """C elements in a chain: results 3 + c cycles after column 0 takes the last operands; weights leave after one."""
    ctx = await begin(dut, "row")
    for seed, pauses in enumerate((0.0, 0.3, 0.9)):
        schedule, before = Schedule(seed, 1, pauses), None
        for cycle in schedule.cycles:
            ctx.set(ctx.ports.activation, schedule.activation(0, cycle))
            ctx.set(ctx.ports.weights_in, schedule.weights(cycle))
            await ctx.settle()
            leaving, results = ctx.read("weights_out", "results")
            assert before in (None, leaving)
            for c in range(COLUMNS):
                assert schedule.shown(0, c, cycle) in (None, wrapped(results >> 32 * c & 2**32 - 1))
            await ctx.tick()
            before = schedule.weights(cycle)


@cocotb.test(timeout_time=500, timeout_unit="us")
async def systolic_array(dut):
    """Results 3 + r + c cycles after the corner takes the last operands, until the next sum's; random bubbles."""
    ctx = await begin(dut, "systolic_array")
    for seed, pauses in enumerate((0.0, 0.3)):
        schedule = Schedule(seed + 3, ROWS, pauses)
        assert any(later - earlier < ROWS for earlier, later in pairwise(schedule.ends))
        for cycle in schedule.cycles:
            for r, port in enumerate(ctx.ports.activations):
                ctx.set(port, schedule.activation(r, cycle))
            for c, port in enumerate(ctx.ports.weights):
                ctx.set(port, schedule.weights(cycle) >> 8 * c & 255)
            await ctx.settle()
            for r in range(ROWS):
                await ctx.drive(row=r)
                data, total = ctx.read("data", "row_sum")
                for c, value in enumerate([*(data[c] for c in range(COLUMNS)), total]):
                    assert schedule.shown(r, c, cycle) in (None, value)
            await ctx.tick()
