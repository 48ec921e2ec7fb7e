"""Packer and transposer on their own: equality with numpy under stalls, cycles per row and per block."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from phonolith.hw.packer import Packer
from phonolith.hw.transposer import Transposer
from tests.hw.axi_memory import Stable, Stalls, feed
from tests.hw.machines import MACHINES


class Bench:
    """Feeds one component with tokens and collects what it delivers."""

    def __init__(self, component, columns: int | None = None):
        self.component = component
        self.columns = columns
        self.used = False
        self.simulator = Simulator(component)
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self.drive)
        self.simulator.add_testbench(self.collect)

    def run(self, tokens: list[dict], lasts: int, stalls: float = 0.0) -> None:
        """Feed tokens until ``lasts`` units with ``last`` have come out."""
        self.tokens, self.lasts, self.stalls = tokens, lasts, Stalls(6, stalls)
        self.accepted: list[int] = []
        self.units: list[dict] = []
        self.cycles: list[int] = []
        if self.used:
            self.simulator.reset()
        self.used = True
        self.simulator.run()

    async def drive(self, ctx) -> None:
        await feed(ctx, self.component.i, self.tokens, self.accepted)

    async def collect(self, ctx) -> None:
        o, stable, missing = self.component.o, Stable("o"), self.lasts
        if self.columns is not None:
            ctx.set(self.component.columns, self.columns)
        for cycle in range(5000):
            ctx.set(o.ready, self.stalls.go())
            _, _, valid, ready, payload = await ctx.tick().sample(o.valid, o.ready, o.payload)
            unit = {name: int(payload[name]) for name in ("data", "row_last", "last", "null")}
            stable.check(valid, ready, unit)
            if valid and ready:
                self.units.append(unit)
                self.cycles.append(cycle)
                missing -= unit["last"]
                if not missing:
                    return
        raise AssertionError(f"{missing} instructions did not come out")


def number(row) -> int:
    """Bytes, the lowest first, as a number."""
    return int.from_bytes(bytes(row), "little")


def beats_of(rows: list[tuple[int, int]], bus: int, rng: np.random.Generator) -> tuple[list[dict], list[bytes]]:
    """Beats of one instruction whose rows are single segments (offset in the first beat, bytes); and the rows."""
    beats, contents = [], []
    for r, (offset, size) in enumerate(rows):
        count = -(-(offset + size) // bus)
        raw = rng.integers(1, 256, count * bus, dtype=np.uint8)
        contents.append(raw[offset:offset + size].tobytes())
        for i in range(count):
            row_last = i == count - 1
            beats.append({"data": number(raw[i * bus:(i + 1) * bus]), "beat": {
                "offset": offset if i == 0 else 0, "unused": (count * bus - offset - size) if row_last else 0,
                "part": 0, "beat_last": 1, "burst_last": 0, "row_last": row_last,
                "last": row_last and r == len(rows) - 1, "null": 0}})
    return beats, contents


@pytest.mark.parametrize("name", ["16x16/128", "12x20/256", "5x24/128", "4x4/64", "5x7/128"])
def test_packer_packs_rows(name):
    """Every row comes out as units of WB bytes, the last one filled with zeros."""
    config = MACHINES[name]
    bench = Bench(Packer(config=config))
    row = st.tuples(st.integers(0, config.dma_bytes - 1), st.integers(1, 4 * config.dma_bytes))

    @settings(max_examples=20, deadline=None, derandomize=True, database=None)
    @given(st.lists(row, min_size=1, max_size=8), st.sampled_from([0.0, 0.5]))
    def check(rows, stalls):
        beats, contents = beats_of(rows, config.dma_bytes, np.random.default_rng(7))
        bench.run(beats, 1, stalls)
        word = config.word_bytes
        expected = [(number(row[i:i + word]), i + word >= len(row))
                    for row in contents for i in range(0, len(row), word)]
        assert [(unit["data"], unit["row_last"]) for unit in bench.units] == expected
        assert [unit["last"] for unit in bench.units] == [0] * (len(expected) - 1) + [1]

    check()


def test_packer_hides_the_rest_of_a_row():
    """The rest of a row leaves while the next row's first beat is taken: 2 beats, 2 units, 2 cycles per row."""
    config = MACHINES["5x24/128"]
    beats, _ = beats_of([(0, 32)] * 10, config.dma_bytes, np.random.default_rng(7))
    bench = Bench(Packer(config=config))
    bench.run(beats, 1)
    assert bench.accepted == list(range(bench.accepted[0], bench.accepted[0] + 20))


def test_packer_passes_null_tokens():
    """An instruction without data becomes one null unit between its neighbours."""
    config = MACHINES["8x8/128"]
    beats, _ = beats_of([(0, 16)], config.dma_bytes, np.random.default_rng(7))
    null = {"data": 0, "beat": {"offset": 0, "unused": 15, "part": 0, "beat_last": 1, "burst_last": 0, "row_last": 0,
                                "last": 1, "null": 1}}
    bench = Bench(Packer(config=config))
    bench.run([*beats, null, *beats], 3)
    assert [unit["null"] for unit in bench.units] == [0, 1, 0]


@pytest.mark.parametrize(("name", "columns", "rows"), [
    ("16x16/128", 16, 40), ("16x16/128", 1, 16), ("12x20/256", 32, 41), ("12x20/256", 5, 3), ("4x4/64", 8, 17)])
@pytest.mark.parametrize("stalls", [0.0, 0.5])
def test_transposer_turns_blocks(name, columns, rows, stalls):
    """Columns of blocks of WB rows, zeros beyond the last row; twice, so that nothing is left in the buffer."""
    config = MACHINES[name]
    word = config.word_bytes
    data = np.random.default_rng(8).integers(1, 256, (rows, columns), dtype=np.uint8)
    tokens = [{"data": number(row), "row_last": 1, "last": t == rows - 1, "null": 0} for t, row in enumerate(data)]
    bench = Bench(Transposer(config=config), columns)
    bench.run(tokens * 2, 2, stalls)
    blocks = np.pad(data, ((0, -rows % word), (0, 0))).reshape(-1, word, columns)
    expected = [number(column) for block in blocks for column in block.T]
    assert [unit["data"] for unit in bench.units] == expected * 2
    assert [n for n, unit in enumerate(bench.units, 1) if unit["row_last"]] == list(
        range(columns, 2 * len(expected) + 1, columns))
    if not stalls:
        assert bench.cycles[-1] + 1 == 2 * (rows + len(expected))
