"""cocotb tests of the array engine and its walk; see component_top.py."""

import cocotb
import numpy as np

from tests.hw.axi_memory import Stalls
from tests.hw.cocotb_ports import CONFIG, Context, begin, receive, send
from tests.hw.test_array_engine import DEPTH, Matmul, count, random_matmul

ROWS, COLUMNS, WORD = CONFIG.rows, CONFIG.columns, CONFIG.word_bytes
LIMIT = 8000


def steps_of(matmul: Matmul) -> list[tuple]:
    """Steps of one MATMUL: product, read, first, last, band, final, unsigned, byte, weight and both addresses."""
    if not matmul.row_tiles * matmul.column_tiles:
        return [(0, 0, 0, 0, 0, 1)]
    steps, last_word = [], (matmul.k - 1) // WORD
    for i in range(matmul.row_tiles):
        for j in range(matmul.column_tiles):
            final_tile = i == matmul.row_tiles - 1 and j == matmul.column_tiles - 1
            tile = i * matmul.column_tiles + j if matmul.band else j
            for k in range(matmul.k):
                word, byte = divmod(k, WORD)
                steps.append((1, int(byte == 0), int(k == 0), int(k == matmul.k - 1), matmul.band,
                              int(final_tile and byte == 0 and word == last_word), matmul.a_unsigned, byte,
                              int(not matmul.band or k <= matmul.k - COLUMNS),
                              (matmul.a_base + i * matmul.a_tile_words + word) % 2**16,
                              (matmul.w_base + tile * matmul.w_tile_words + word) % 2**16))
    return steps


@cocotb.test(timeout_time=500, timeout_unit="us")
async def tile_walk(dut):
    """Row tiles outermost, then column tiles, then k; one step per cycle from the cycle after acceptance on."""
    ctx = await begin(dut, "tile_walk")
    random_numbers = np.random.default_rng(3)
    matmuls = [random_matmul(random_numbers, WORD) for _ in range(30)]
    matmuls += [Matmul(k=WORD * CONFIG.weight_depth, a_base=65535, w_base=65530), Matmul(k=1, row_tiles=40),
                Matmul(k=1, column_tiles=40, w_tile_words=2000)]
    expected = [step for matmul in matmuls for step in steps_of(matmul)]
    fields = ("product", "read", "first", "last", "band", "final", "unsigned", "byte", "weight", "activation_address",
              "weight_address")
    for seed, probability in enumerate((0.0, 0.4)):
        accepted, seen = [], []
        sender = cocotb.start_soon(send(ctx, ctx.ports.instruction, [each.operands(CONFIG) for each in matmuls],
                                        Stalls(seed, probability), accepted))
        steps = await receive(ctx, ctx.ports.step, len(expected), Stalls(seed + 9, probability), seen)
        await sender
        for step, wanted in zip(steps, expected, strict=True):
            assert tuple(int(step[name]) for name in fields)[:len(wanted)] == wanted
        assert probability or seen == list(range(accepted[0] + 1, accepted[0] + 1 + len(expected)))


class Bench:
    """Plays dispatcher, operand banks and drain reader, a cycle at a time; notes the cycles of events.

    Parameters
    ----------
    gaps, delays : callable
        Cycles before the next instruction is offered; before a tile that is valid is taken.
    follow : str, optional
        ``activation`` or ``weight``: a LOAD is still writing that memory, from word 0 on, a word per 7 cycles.
    written : int
        The LOAD does not get beyond this word.
    """

    def __init__(self, ctx: Context, matmuls: list[Matmul], gaps=lambda: 0, delays=lambda: 0, follow=None,
                 written=DEPTH):
        self.ctx, self.matmuls, self.gaps, self.delays, self.follow = ctx, matmuls, gaps, delays, follow
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
        queue, gap, self.wait = list(self.matmuls), self.gaps(), self.delays()
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
        expected = [tile for matmul in self.matmuls for tile in matmul.tiles(self.activations, self.weights)]
        np.testing.assert_array_equal(self.tiles, expected)

    def play_load(self) -> None:
        """Words from ``frontier`` on are still to be written."""
        if self.follow:
            chain, self.frontier = self.ctx.ports.chain, min(self.cycle // 7, self.written)
            self.ctx.set(getattr(chain, self.follow), self.frontier < DEPTH)
            self.ctx.set(chain.frontier, self.frontier)
            self.ctx.set(chain.end, DEPTH)

    async def play_reader(self) -> None:
        """Start a tile when one is valid and the delay is over, or go on with the current one."""
        ctx, drain = self.ctx, self.ctx.ports.drain
        await ctx.settle()
        valid = ctx.get(drain.valid)
        if valid and not self.shown:
            self.valid.append(self.cycle)
        start = self.row == ROWS and valid and self.wait <= 0
        self.wait -= self.row == ROWS and valid
        if start:
            self.tiles.append(np.zeros((ROWS, COLUMNS), np.int32))
            self.row, self.wait = 0, self.delays()
            self.started.append(self.cycle)
        self.shown = valid and not start
        ctx.set(drain.start, start)
        ctx.set(drain.row, self.row % ROWS)
        await ctx.settle()
        if self.row < ROWS:
            line = ctx.get(drain.data)
            self.tiles[-1][self.row] = [line[c] for c in range(COLUMNS)]
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
    """Random instructions equal numpy's tiles; gaps between instructions, readers prompt and slow."""
    ctx = await begin(dut, "array_engine")
    for seed, slowest in enumerate((0, 3, 50)):
        source = np.random.default_rng(seed)
        matmuls = [random_matmul(source, WORD) for _ in range(10)]
        bench = Bench(ctx, matmuls, lambda s=source: int(s.integers(3)),
                      lambda s=source, n=slowest: int(s.integers(n + 1)))
        await bench.run()
        assert bench.stalled["drain"] or slowest < 50


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def array_engine_cycles(dut):
    """Bank 0 is read a cycle after acceptance, tiles are valid after k + C + 3 and every max(k, R, C + 3) cycles."""
    ctx = await begin(dut, "array_engine")
    for k in (1, WORD, WORD + 1, 40):
        words = -(-k // WORD)
        bench = Bench(ctx, [Matmul(k=k, row_tiles=2, column_tiles=2, a_tile_words=words, w_tile_words=words)] * 3)
        await bench.run()
        accepted, interval = bench.accepted[0], max(k, ROWS, COLUMNS + 3)
        assert bench.last_reads[0] == accepted + 1
        assert bench.valid[0] == bench.started[0] == accepted + k + COLUMNS + 3
        assert set(np.diff(bench.started)) == {interval}
        assert bool(bench.stalled["drain"]) == (k < interval)
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
