"""cocotb tests of LOAD's data path, with random stalls on both sides; see component_top.py."""

import cocotb
import numpy as np

from phonolith.hw.isa import LOAD_CONTROL, Target, unpack
from tests.hw.axi_memory import MEMORY_BYTES, Stalls
from tests.hw.cocotb_ports import CONFIG, begin, compare_stream, receive, send
from tests.hw.test_load_engine import expected_writes, gather, load, places, units_of
from tests.hw.test_packer import beats_of, number

WORD, STEP, BANKS = CONFIG.word_bytes, CONFIG.dma_bytes, CONFIG.columns
# (offset in the first beat, bytes): one byte, one beat, one word, ragged on both sides
RAGGED = [(0, 1), (STEP - 1, 1), (0, STEP), (0, WORD), (1, WORD), (STEP - 1, 2 * WORD), (3, 37), (7, 4 * STEP), (2, 3)]


def unit(data: int, row_last: int, last: int, null: int = 0) -> dict:
    """A unit as the packer delivers it."""
    return {"data": data, "row_last": row_last, "last": last, "null": null}


@cocotb.test(timeout_time=200, timeout_unit="us")
async def packer(dut):
    """Rows become words, zero filled; a unit appears 2 cycles after its beat; null beats pass."""
    ctx = await begin(dut, "packer")
    beats, rows = beats_of(RAGGED * 2, STEP, np.random.default_rng(1))
    null = {"data": 99, "beat": {"unused": STEP - 1, "beat_last": 1, "last": 1, "null": 1}}
    words = [(number(row[i:i + WORD]), int(i + WORD >= len(row)), 0, 0)
             for row in rows for i in range(0, len(row), WORD)]
    words[-1] = (*words[-1][:2], 1, 0)
    accepted, seen = await compare_stream(ctx, beats, words, ("data", "row_last", "last", "null"))
    assert seen[0] == accepted[0] + 2
    last, seen = await compare_stream(ctx, [null], [(1, 1)], ("last", "null"))
    assert seen[0] == last[0] + 2


@cocotb.test(timeout_time=200, timeout_unit="us")
async def transposer(dut):
    """Blocks of WB rows turn; the first column comes the cycle after the last row, then one per cycle."""
    ctx = await begin(dut, "transposer")
    for rows, columns in ((1, 1), (WORD, STEP), (1, STEP), (2 * WORD + 3, 1), (WORD + 1, 5)):
        data = np.random.default_rng(rows).integers(0, 256, (rows, columns), dtype=np.uint8)
        data[0, 0], data[-1, -1] = 0x80, 0x7F
        await ctx.drive(columns=columns)
        tokens = [unit(number(row), 1, int(t == rows - 1)) for t, row in enumerate(data)]
        blocks = np.pad(data, ((0, -rows % WORD), (0, 0))).reshape(-1, WORD, columns)
        expected = [(number(block[:, n]), int(n == columns - 1), int(n == columns - 1 and b == len(blocks) - 1))
                    for b, block in enumerate(blocks) for n in range(columns)]
        accepted, seen = await compare_stream(ctx, tokens, expected, ("data", "row_last", "last"))
        assert seen[0] == accepted[min(rows, WORD) - 1] + 1
        assert seen[-1] - accepted[0] + 1 == rows + len(expected)


def early(operands: dict, mask: int) -> dict:
    """A LOAD that raises semaphores when it begins."""
    return operands | {"control": operands["control"] | mask << LOAD_CONTROL["early"][0]}


PLACED = [
    load(Target.ACTIVATION, row_words=2, inner=(9, 40), segment_bytes=2 * WORD - 3),
    load(Target.WEIGHT, bank_per_word=1, base=7, segment_bytes=13 * WORD + 1),
    load(Target.WEIGHT, transpose=1, base=3, row_words=3, inner=(2 * WORD + 3, 50), segment_bytes=STEP),
    load(Target.WEIGHT, transpose=1, inner=(0, 0), segment_bytes=3),
    load(Target.WEIGHT, one_bank=1, base=11, row_words=2, inner=(BANKS + 2, 40), segment_bytes=2 * WORD - 1),
    load(Target.ACTIVATION, one_bank=1, bank_per_word=1, segment_bytes=5 * WORD),
    load(Target.ACTIVATION, one_bank=1, transpose=1, row_words=2, inner=(WORD + 3, 50), segment_bytes=3),
    load(Target.ACTIVATION, transpose=1, window=3, base=5, row_words=9, inner=(WORD * (CONFIG.rows + 2) + 1, 20),
         segment_bytes=STEP - 1),
    load(Target.ACTIVATION, window=4, row_words=12, inner=(3, 99), segment_bytes=WORD * (CONFIG.rows + 4) - 2),
    load(Target.ACTIVATION, window=1, row_words=3, inner=(2, 99), segment_bytes=2 * WORD),
    load(Target.ACTIVATION, transpose=1, inner=(1, 0), segment_bytes=1),
    load(Target.SCRATCHPAD, base=20, row_words=5, inner=(3, 99), segment_bytes=4 * WORD + 1),
    load(Target.PARAMETER, base=2, row_words=2, inner=(2, 80), segment_bytes=7 * WORD),
    load(Target.TABLE, segment_bytes=300),
    load(Target.SCRATCHPAD, inner=(0, 0), segment_bytes=3),
    early(load(Target.WEIGHT, bank_per_word=1, base=3, row_words=3, segment_bytes=3 * WORD * BANKS - 1), 0x801),
    early(load(Target.ACTIVATION, bank_per_word=1, row_words=2, segment_bytes=2 * WORD * CONFIG.rows), 0xFFF),
    early(load(Target.WEIGHT, bank_per_word=1, base=9, row_words=1, segment_bytes=WORD * BANKS), 0x010),
    early(load(Target.WEIGHT, one_bank=1, bank_per_word=1, base=2, row_words=5, segment_bytes=5 * WORD - 2), 0x300),
]


def placement(operands: dict) -> dict:
    """The record of a LOAD."""
    return {**unpack(LOAD_CONTROL, operands["control"]), "base": operands["base"], "row_words": operands["row_words"],
            "columns": operands["segment_bytes"] % (STEP + 1)}


def units(operands: dict, memory: np.ndarray) -> list[dict]:
    """What the packer delivers for a LOAD; one null unit when it has no data."""
    rows = [units_of(row, WORD) for row in gather(operands, memory)]
    each = [unit(number(octets), int(w == len(row) - 1), int(w == len(row) - 1 and r == len(rows) - 1))
            for r, row in enumerate(rows) for w, octets in enumerate(row)]
    return each or [unit(0, 0, 1, 1)]


def units_written(operands: dict) -> int:
    """Words that a LOAD writes, those in several banks counted once."""
    control, rows = unpack(LOAD_CONTROL, operands["control"]), operands["outer_count"] * operands["inner_count"]
    octets = operands["segment_count"] * operands["segment_bytes"]
    if control["transpose"]:
        rows, octets = octets, rows
    octets = min(octets, 256) if control["target"] == Target.TABLE else octets
    return rows * -(-octets // WORD)


async def watch_chain(ctx) -> None:
    """Semaphores rise when an instruction begins; the frontier is the first address that a bank still lacks."""
    ports, following = ctx.ports, [placement(operands) for operands in PLACED]
    current, written, active, new, begun = 0, 0, False, False, 0
    while current < len(PLACED):
        _, _, valid, ready, rises, mask, activation, weight, frontier, end, offered, taken, done = (
            await ctx.tick().sample(
                ports.i_placement.valid, ports.i_placement.ready, ports.early, ports.early_mask,
                ports.chain.activation, ports.chain.weight, ports.chain.frontier, ports.chain.end, ports.o.valid,
                ports.o.ready, ports.done))
        record = following[current]
        follows = active and record["early"] != 0
        assert rises == new and (not new or mask == record["early"])
        assert (activation, weight) == tuple(follows and record["target"] == target
                                             for target in (Target.ACTIVATION, Target.WEIGHT))
        if follows:
            banks = 1 if record["one_bank"] else CONFIG.rows if activation else CONFIG.columns
            assert (frontier, end) == (record["base"] + written // banks, record["base"] + record["row_words"])
        written += offered and taken
        if done:
            assert written == units_written(PLACED[current])
            current, written = current + 1, 0
        new = bool(valid and ready)
        active, begun = new or active and not done, begun + new
        assert begun - current in (0, 1)


@cocotb.test(timeout_time=200, timeout_unit="us")
async def placer(dut):
    """Every unit goes where docs/isa.md says; offered in the cycle in which it comes, unless transposed."""
    ctx = await begin(dut, "placer")
    memory = np.random.default_rng(2).integers(1, 256, MEMORY_BYTES, dtype=np.uint8)
    expected = [expected_writes(CONFIG, o, memory) for o in PLACED]
    for seed, probability in enumerate((0.0, 0.5)):
        accepted, seen, stalls = [], [], [Stalls(seed + k, probability) for k in range(3)]
        tokens = [token for o in PLACED for token in units(o, memory)]
        cocotb.start_soon(send(ctx, ctx.ports.i_placement, [placement(o) for o in PLACED], stalls[0], []))
        watcher = cocotb.start_soon(watch_chain(ctx))
        sender = cocotb.start_soon(send(ctx, ctx.ports.i, tokens, stalls[1], accepted))
        writes = await receive(ctx, ctx.ports.o, sum(map(units_written, PLACED)), stalls[2], seen)
        await sender
        await watcher
        for wanted in expected:
            found = {}
            while len(found) < len(wanted):
                write = writes.pop(0)
                found |= dict.fromkeys(places(CONFIG, write), int(write.data).to_bytes(WORD, "little"))
            assert found == wanted
        if not probability:
            direct = len(units(PLACED[0], memory)) + len(units(PLACED[1], memory))
            assert seen[:direct] == accepted[:direct]
