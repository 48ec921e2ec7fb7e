"""No schedule of a thousand others is better than the planned one by more than a percent, on RTL."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice

import numpy as np
import pytest

from phonolith.compiler.lower import product_schedule
from phonolith.compiler.plan import Costs, Plan, column_room, plan_product, step_words, timed
from phonolith.compiler.tile import Action, Order, ProductSize, Traversal, grouped
from phonolith.compiler.views import Block
from phonolith.hw.config import MachineConfig
from phonolith.sim.bench import bench_gemm

SCHEDULES = 1000
# So many of the best by the model run on RTL.
FINALISTS = 3
# M, K, N, whether both operands are row-major along K, DRAM latency.
SHAPES = [
    (128, 512, 512, False, 20), (512, 768, 768, False, 20), (64, 64, 64, False, 20), (512, 64, 512, True, 20),
    (100, 64, 100, True, 20), (50, 192, 50, False, 20), (16, 512, 512, False, 20), (1, 512, 512, False, 20),
    (128, 512, 512, False, 100), (128, 512, 512, False, 200),
]


@dataclass(frozen=True)
class Wayward(Order):
    """An order that now and then loads from the other operand next; ``seed`` says when."""

    seed: int = 0

    def actions(self) -> Iterator[Action]:
        return WaywardTraversal(self).run()


class WaywardTraversal(Traversal):
    """The walk of a wayward order."""

    def __init__(self, order: Wayward):
        super().__init__(order)
        rng = np.random.default_rng(order.seed)
        often = rng.choice([0, 0.1, 0.3, 0.5])
        self.turns = (rng.random() < often for _ in iter(int, 1))

    def next_is_stationary(self) -> bool:
        both = bool(self.waiting and self.to_stream)
        return super().next_is_stationary() ^ (both and next(self.turns))


def cuts(count: int, rng: np.random.Generator) -> list[int]:
    """Return lengths of pieces of ``count`` things: growing by some factor to some size, or of random lengths."""
    most = int(rng.integers(1, min(count, 64) + 1))
    if rng.random() < 0.3:
        lengths = list(rng.integers(1, most + 1, count))
    else:
        first, growth = rng.integers(1, most + 1), rng.choice([1, 1.25, 1.5, 2, 3, 4])
        lengths = [int(min(most, first * growth**min(index, 40))) for index in range(count)]
    ends = [0, *(int(end) for end in accumulate(lengths) if end < count), count]
    pieces = [high - low for low, high in zip(ends, ends[1:], strict=False)]
    return pieces[::-1] if rng.random() < 0.15 else pieces


def row_blocks(size: ProductSize, config: MachineConfig, rng: np.random.Generator) -> list[Block]:
    """Cut rows into tiles and these into pieces; what does not fill a tile comes first, last or at a random place."""
    tiles, ragged = divmod(size.inner, config.rows)
    heights = [length * config.rows for length in cuts(tiles, rng)] if tiles else []
    if ragged:
        heights.insert(int(rng.choice([0, len(heights), rng.integers(0, len(heights) + 1)])), ragged)
    starts = [0, *accumulate(heights)]
    return [Block(0, 1, low, high - low) for low, high in zip(starts, starts[1:], strict=False)]


def random_order(size: ProductSize, config: MachineConfig, rng: np.random.Generator) -> Order | None:
    """Return an order of random pieces; None when a step does not fit."""
    costs, rows_stay = Costs(size, config), bool(rng.random() < 0.5)
    rows = row_blocks(size, config, rng)
    ends = [0, *accumulate(cuts(size.tiles, rng))]
    columns = [range(low, high) for low, high in zip(ends, ends[1:], strict=False)]
    if 2 * step_words(max(block.rows for block in rows), max(map(len, columns)), size,
                      costs) > config.scratch_bank_depth:
        return None
    stationary, streamed = (rows, columns) if rows_stay else (columns, rows)
    rooms = {True: config.activation_depth // costs.row_words, False: column_room(size, costs, config)}
    room, stream_room = rooms[rows_stay], rooms[not rows_stay]
    group_room, total = int(rng.integers(room // 2, room + 1)), sum(map(costs.tiles, streamed))
    largest = max(map(costs.tiles, streamed))
    if max(map(costs.tiles, stationary)) > group_room or largest > stream_room:
        return None
    ahead = total if total <= stream_room else max(stream_room - largest, largest)
    return Wayward(tuple(grouped(stationary, group_room, costs.tiles)), tuple(streamed), rows_stay,
                   total <= stream_room, bool(rng.random() < 0.5),
                   int(rng.choice([ahead, rng.integers(largest, max(ahead, largest) + 1)])),
                   partial(Costs.weight, costs), int(rng.integers(1 << 30)))


def schedules(size: ProductSize, config: MachineConfig) -> Iterator[Plan]:
    """Yield distinct plans that fit the machine."""
    rng, seen = np.random.default_rng(0), set()
    for _ in range(100 * SCHEDULES):
        order = random_order(size, config, rng)
        if order is None:
            continue
        rows = order.streamed if not order.rows_stay else [piece for group in order.groups for piece in group]
        sliced = Costs(size, config).sliced(list(rows)) if rng.random() < 0.5 else None
        key = (tuple(order.actions()), sliced)
        plan = None if key in seen else timed(order, sliced, "random", size, config)
        seen.add(key)
        if plan:
            yield plan


def run(shape: tuple, plan: Plan | None, monkeypatch) -> tuple[int, list[ProductSize]]:
    """Return the cycles of a product on RTL, planned so if a plan is given, and the size that was planned."""
    m, k, n, transpose_b, latency = shape
    sizes = []

    def chosen(size: ProductSize, config: MachineConfig) -> Plan:
        sizes.append(size)
        return plan or plan_product(size, config)

    monkeypatch.setattr(product_schedule, "plan_product", chosen)
    result = bench_gemm(m, k, n, MachineConfig(dram_latency=latency), transpose_b=transpose_b)
    assert result["bit_exact"]
    return result["cycles"], sizes


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape[:3])) + f"-{shape[4]}")
def test_no_other_schedule_is_better(shape, monkeypatch):
    planned, (size,) = run(shape, None, monkeypatch)
    found = list(islice(schedules(size, MachineConfig(dram_latency=shape[4])), SCHEDULES))
    assert len(found) == SCHEDULES
    best = sorted(found, key=lambda plan: plan.cycles)[:FINALISTS]
    cycles = [run(shape, plan, monkeypatch)[0] for plan in best]
    print(f"{shape}: planned {planned}; best of {len(found)} others: predicted {[plan.cycles for plan in best]}, "
          f"on RTL {cycles}")
    assert planned <= 1.01 * min(cycles)
