"""cocotb tests of the array engine and its walk; see component_top.py."""

import cocotb
import numpy as np

from tests.hw.axi_memory import Stalls
from tests.hw.cocotb_ports import CONFIG, Context, begin, receive, send
from tests.hw.matmul_model import DEPTH, NOTICE, Fickle, Matmul, Pace, count, random_matmul

ROWS, COLUMNS, WORD = CONFIG.rows, CONFIG.columns, CONFIG.word_bytes
LIMIT = 8000


STEP = ("product", "read_activation", "read_weight", "first", "last", "band", "final", "unsigned", "log2_lanes", "byte",
        "weight_byte", "weight", "exists", "activation_address", "weight_address")
NO_STEP = (0, 0, 0, 0, 0, 0, 1)


def steps_of(matmul: Matmul) -> list[tuple]:
    """Steps of one MATMUL, by the fields of ``STEP``."""
    if not matmul.row_tiles * matmul.column_tiles:
        return [NO_STEP]
    tiles = [(i, j) for i in range(matmul.row_tiles) for j in range(matmul.column_tiles)]
    return [each for i, j in tiles for each in steps_of_tile(matmul, i, j, (i, j) == tiles[-1])]


def steps_of_tile(matmul: Matmul, i: int, j: int, is_final: bool) -> list[tuple]:
    """Steps of one tile."""
    firsts, ends = [part.start for part in matmul.parts], [part.stop for part in matmul.parts]
    tile = i * matmul.column_tiles + j if matmul.band else j
    steps = []
    for number, k in enumerate(range(0, matmul.k, matmul.lanes)):
        (word, byte), (weight_word, weight_byte) = divmod(k, WORD), divmod(number, WORD)
        steps.append((1, int(byte == 0), int(weight_byte == 0), int(k in firsts),
                      int(any(k < end <= k + matmul.lanes for end in ends)), matmul.band,
                      int(is_final and byte == 0 and word == (matmul.k - 1) // WORD), matmul.a_unsigned,
                      matmul.log2_lanes, byte, weight_byte, int(not matmul.band or k <= matmul.k - COLUMNS),
                      (1 << min(matmul.lanes, matmul.k - k)) - 1,
                      (matmul.a_base + i * matmul.a_tile_words + word) % 2**16,
                      (matmul.w_base + tile * matmul.w_tile_words + weight_word) % 2**16))
    return steps


def fields_of(step) -> tuple[int, ...]:
    """The fields of a step; of ``exists`` those bits that mean something."""
    values = {name: int(step[name]) for name in STEP}
    values["exists"] &= (1 << (1 << values["log2_lanes"])) - 1
    return tuple(values.values())


@cocotb.test(timeout_time=500, timeout_unit="us")
async def tile_walk(dut):
    """Row tiles outermost, then column tiles, then k; one step per cycle from the cycle after acceptance on."""
    ctx = await begin(dut, "tile_walk")
    random_numbers = np.random.default_rng(3)
    matmuls = [random_matmul(random_numbers, WORD) for _ in range(40)]
    matmuls += [Matmul(k=WORD * CONFIG.weight_depth, a_base=65535, w_base=65530), Matmul(k=1, row_tiles=40),
                Matmul(k=1, column_tiles=40, w_tile_words=2000)]
    expected = [step for matmul in matmuls for step in steps_of(matmul)]
    for seed, probability in enumerate((0.0, 0.4)):
        accepted, seen = [], []
        sender = cocotb.start_soon(send(ctx, ctx.ports.instruction, [each.operands(CONFIG) for each in matmuls],
                                        Stalls(seed, probability), accepted))
        steps = await receive(ctx, ctx.ports.step, len(expected), Stalls(seed + 9, probability), seen)
        await sender
        for step, wanted in zip(steps, expected, strict=True):
            assert fields_of(step)[:len(wanted)] == wanted
        assert probability or seen == list(range(accepted[0] + 1, accepted[0] + 1 + len(expected)))


class Bench:
    """Plays dispatcher, operand banks and drain reader, a cycle at a time; notes the cycles of events.

    Parameters
    ----------
    gaps : callable
        Cycles before the next instruction is offered.
    pace : Pace or Fickle, optional
        Of the reader; one that takes tiles at once and says so.
    follow : str, optional
        ``activation`` or ``weight``: a LOAD is still writing that memory, from word 0 on, a word per 7 cycles.
    written : int
        The LOAD does not get beyond this word.
    """

    def __init__(self, ctx: Context, matmuls: list[Matmul], gaps=lambda: 0, pace=None, follow=None,
                 written=DEPTH):
        self.ctx, self.matmuls, self.gaps, self.follow = ctx, matmuls, gaps, follow
        self.pace = pace or Pace(ROWS)
        self.written = written
        source = np.random.default_rng(len(matmuls))
        self.activations, self.weights = (source.integers(-128, 128, (banks, DEPTH, WORD)).astype(np.int8)
                                          for banks in (ROWS, COLUMNS))
        self.activations[0, :4], self.weights[0, :4], self.weights[1, :4] = -128, -128, 127
        ports = ctx.ports
        self.banks = [(port, bank) for ports_, banks in ((ports.activation_read, self.activations),
                                                         (ports.weight_read, self.weights))
                      for port, bank in zip(ports_, banks, strict=True)]
        self.words_read = [0] * len(self.banks)
        self.row, self.frontier, self.cycle, self.shown = ROWS, 0, 0, False
        self.tiles: list[np.ndarray] = []
        self.accepted, self.done, self.valid, self.started, self.last_reads = [], [], [], [], []
        self.stalled = {"dram": 0, "drain": 0, "port": 0}

    async def run(self) -> None:
        """Run all instructions; compare the tiles."""
        await self.ctx.reset()
        queue, gap = list(self.matmuls), self.gaps()
        while (len(self.done) < len(self.matmuls) or len(self.tiles) < count(self.matmuls) or self.row < ROWS):
            offered = bool(queue) and gap <= 0
            gap -= 1
            self.ctx.set(self.ctx.ports.instruction.valid, offered)
            if offered:
                self.ctx.set(self.ctx.ports.instruction.payload, queue[0].operands(CONFIG))
            self.play_load()
            await self.play_reader()
            if await self.step() and offered:
                queue.pop(0)
                gap = self.gaps()
            assert self.cycle < LIMIT, f"{len(self.tiles)} of {count(self.matmuls)} tiles"
        expected = [tile for matmul in self.matmuls for tile in matmul.sums(self.activations, self.weights)]
        np.testing.assert_array_equal(self.tiles, expected)

    def play_load(self) -> None:
        """Words from ``frontier`` on are still to be written."""
        if self.follow:
            chain, self.frontier = self.ctx.ports.chain, min(self.cycle // 7, self.written)
            self.ctx.set(getattr(chain, self.follow), self.frontier < DEPTH)
            self.ctx.set(chain.frontier, self.frontier)
            self.ctx.set(chain.end, DEPTH)

    async def play_reader(self) -> None:
        """Start a tile when one is valid and the pace says so, or go on with the current one."""
        ctx, drain = self.ctx, self.ctx.ports.drain
        await ctx.settle()
        valid = ctx.get(drain.valid)
        if valid and not self.shown:
            self.valid.append(self.cycle)
        start = self.pace.start(self.cycle, bool(valid))
        if start:
            self.tiles.append(np.zeros((ROWS, COLUMNS + 1), np.int32))
            self.row = 0
            self.started.append(self.cycle)
        self.shown = valid and not start
        ctx.set(drain.start, start)
        ctx.set(drain.soon, self.pace.soon(self.cycle))
        ctx.set(drain.row, self.row % ROWS)
        await ctx.settle()
        if self.row < ROWS:
            line = ctx.get(drain.data)
            self.tiles[-1][self.row] = [*(line[c] for c in range(COLUMNS)), ctx.get(drain.row_sum)]
            self.row += 1

    async def step(self) -> bool:
        """Go to the next cycle; return whether ``instruction`` was ready."""
        ports, status = self.ctx.ports, self.ctx.ports.status
        _, _, ready, done, dram, drain, port, busy, *reads = await self.ctx.tick().sample(
            ports.instruction.ready, status.done, status.stalled_dram, status.stalled_drain, status.stalled_port,
            status.busy, *[each for port, _ in self.banks for each in (port.enable, port.address)])
        assert dram + drain + port <= busy
        for name, value in (("dram", dram), ("drain", drain), ("port", port)):
            self.stalled[name] += value
        if done:
            self.done.append(self.cycle)
        if ready and int(self.ctx.ports.instruction.valid.handle.value):
            self.accepted.append(self.cycle)
        for k, (bank_port, bank) in enumerate(self.banks):
            self.words_read[k] += reads[2 * k]
            if reads[2 * k]:
                address = reads[2 * k + 1]
                self.ctx.set(bank_port.data, int.from_bytes(bank[address].tobytes(), "little"))
        first = 0 if self.follow == "activation" else 2 * ROWS
        assert not (self.follow and reads[first]) or reads[first + 1] < self.frontier
        if reads[0]:
            self.last_reads.append(self.cycle)
        self.cycle += 1
        return bool(ready)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def array_engine(dut):
    """Random instructions equal numpy's sums; gaps between them; readers that say early or late what they do."""
    ctx = await begin(dut, "array_engine")
    for seed, slowest in enumerate((0, 3, 50)):
        source, stalls = np.random.default_rng(seed), 0
        delays = lambda s=source, n=slowest: int(s.integers(n + 1))  # noqa: E731
        for pace in (Pace(ROWS, delays), Pace(ROWS, delays, notice=1), Pace(ROWS, delays, notice=None),
                     Fickle(ROWS, source, (0.1, 0.3, 0.7)[seed])):
            matmuls = [random_matmul(source, WORD) for _ in range(5)]
            bench = Bench(ctx, matmuls, lambda s=source: int(s.integers(3)), pace)
            await bench.run()
            stalls += bench.stalled["drain"]
        assert stalls or slowest < 50


def timed_matmuls() -> list[Matmul]:
    """Instructions of four tiles, all sums with as many steps; of every width that the machine's words allow."""
    cases = [(1, 0, 0), (WORD, 0, 0), (WORD + 1, 0, 0), (40, 0, 0), (64, 1, 0), (96, 1, 1), (64, 2, 0), (128, 2, 2),
             (64, 3, 0), (128, 3, 1)]
    return [Matmul(k=k, row_tiles=2, column_tiles=2, a_tile_words=-(-k // WORD), w_tile_words=-(-k // (WORD << width)),
                   log2_lanes=width, block=block) for k, width, block in cases
            if WORD % (1 << width) == 0 and 2 * -(-k // WORD) <= DEPTH]


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def array_engine_cycles(dut):
    """Bank 0 is read a cycle after acceptance, sums of s steps are valid after s + C + 3 and every max(s, R, C) cycles.

    A reader that does not say when it starts makes that C + 3.
    """
    ctx = await begin(dut, "array_engine")
    for matmul in timed_matmuls():
        steps, = set(matmul.steps)
        for notice in (NOTICE, None):
            bench = Bench(ctx, [matmul] * 3, pace=Pace(ROWS, notice=notice))
            await bench.run()
            accepted, interval = bench.accepted[0], max(steps, ROWS, COLUMNS + (3 if notice is None else 0))
            assert bench.last_reads[0] == accepted + 1
            assert bench.valid[0] == bench.started[0] == accepted + steps + COLUMNS + 3
            assert set(np.diff(bench.started)) == {interval}
            assert bool(bench.stalled["drain"]) == (steps < interval)
            assert bench.done[-1] == bench.last_reads[-1] + max(ROWS, COLUMNS) - 1


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def array_engine_follows(dut):
    """No word that a LOAD has still to write is read; the wait counts as one for DRAM."""
    ctx = await begin(dut, "array_engine")
    for follow, band in (("activation", 0), ("weight", 0), ("activation", 1), ("weight", 1)):
        matmul = Matmul(k=4 * WORD, a_base=3, w_base=5, row_tiles=2, column_tiles=2, a_tile_words=4, w_tile_words=4,
                        band=band)
        bench = Bench(ctx, [matmul, matmul], follow=follow)
        await bench.run()
        assert bench.stalled["dram"] > 10


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def array_engine_reads_kernels(dut):
    """A band reads the words of its kernels, of bank 0 only, and waits for no others."""
    ctx = await begin(dut, "array_engine")
    for length in (1, WORD, WORD + 1, 2 * WORD):
        words = -(-length // WORD)
        matmul = Matmul(k=length + COLUMNS - 1, a_base=3, w_base=5, band=1)
        bench = Bench(ctx, [matmul], follow="weight", written=5 + words)
        await bench.run()
        assert bench.words_read == [-(-matmul.k // WORD)] * ROWS + [words] + [0] * (COLUMNS - 1)
