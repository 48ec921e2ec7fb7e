"""cocotb tests of the DMA's walkers and of STORE's data path, with random stalls; see component_top.py."""

import random

import cocotb
import numpy as np

from tests.hw.axi_memory import Stalls
from tests.hw.cocotb_ports import CONFIG, begin, compare_stream, receive, send
from tests.hw.cocotb_streams import RAGGED
from tests.hw.component_top import RECORDS
from tests.hw.test_packer import number

WORD, STEP, BUS = CONFIG.word_bytes, CONFIG.dma_bytes, CONFIG.bus_bytes


@cocotb.test(timeout_time=200, timeout_unit="us")
async def loop_walker(dut):
    """Segments of nested loops, one per cycle across walks, the cycle after a walk is accepted."""
    ctx = await begin(dut, "loop_walker")
    source, walks, expected = random.Random(3), [], []
    for sizes in ((1, 1, 1), (2, 3, 4), (1, 0, 1), (3, 1, 2), (1, 5, 1), (0, 1, 1), (1, 1, 7), (1, 1, 1), (2, 2, 2)):
        start, *strides = (source.choice((0, 1, 2**32 - 5, source.getrandbits(32))) for _ in range(4))
        empty = sizes == (1, 1, 7)      # segments without bytes
        walk = {"address": start, "bytes": 0 if empty else source.choice((1, 2**32 - 1, source.randint(1, 99)))}
        for loop, count, stride in zip(("outer", "inner", "segment"), sizes, strides, strict=True):
            walk |= {f"{loop}_count": count, f"{loop}_stride": stride}
        walks.append(walk)
        places = [] if empty else list(np.ndindex(sizes))
        expected += [((start + sum(np.multiply(place, strides).tolist())) % 2**32, walk["bytes"],
                      int(place[2] == sizes[2] - 1), int(place == places[-1]), 0) for place in places] or [None]
    count, fields = len(expected), ("address", "bytes", "row_last", "last", "null")
    for seed, probability in enumerate((0.0, 0.6)):
        accepted, seen = [], []
        sender = cocotb.start_soon(send(ctx, ctx.ports.i, walks, Stalls(seed, probability), accepted))
        segments = await receive(ctx, ctx.ports.o, count, Stalls(seed + 9, probability), seen)
        await sender
        for segment, wanted in zip(segments, expected, strict=True):
            found = tuple(segment[name] for name in fields)
            assert found == wanted if wanted else segment.null and segment.last
        assert probability or seen == list(range(accepted[0] + 1, accepted[0] + 1 + count))


def bursts_of(address: int, size: int) -> list[tuple[int, int]]:
    """Bursts (address, beats - 1) of a segment: cut where 64 beats end."""
    beats, result = range(address // BUS, (address + size - 1) // BUS + 1), []
    for beat in beats:
        if not result or beat % 64 == 0:
            result.append([beat * BUS % 2**32, -1])
        result[-1][1] += 1
    return [tuple(burst) for burst in result]


SEGMENTS = [(0, 1), (7, 1), (7, 2), (512 - 8, 8), (512 - 8, 9), (512 - 1, 2), (4096 - 3, 1030), (0, 512), (0, 513),
            (2**32 - 4, 9), (12345, 1), (2**31 + 5, 64)]


@cocotb.test(timeout_time=200, timeout_unit="us")
async def burst_splitter(dut):
    """Bursts end at multiples of 64 beats; one per cycle, the cycle after the segment; null segments vanish."""
    ctx = await begin(dut, "burst_splitter")
    segments = [{"address": a, "bytes": n} for a, n in SEGMENTS]
    segments[3:3] = [{"address": 1, "bytes": 5, "null": 1}] * 2
    expected = [burst for segment in SEGMENTS for burst in bursts_of(*segment)]
    accepted, seen = await compare_stream(ctx, segments, expected, ("address", "length"))
    assert seen[0] == accepted[0] + 1
    _, seen = await compare_stream(ctx, [segments[0]] * 20, [(0, 0)] * 20, ("address", "length"))
    assert seen == list(range(seen[0], seen[0] + 20))


def steps_of(address: int, size: int, row_last: int = 1, last: int = 0) -> list[dict]:
    """What the beat walker delivers for a segment: beats, or parts of beats."""
    parts, steps = BUS // STEP, range(address // STEP, (address + size - 1) // STEP + 1)
    return [{"offset": address % STEP if step == steps[0] else 0, "part": step % parts,
             "unused": -(address + size) % STEP if step == steps[-1] else 0,
             "beat_last": int(step == steps[-1] or step % parts == parts - 1),
             "burst_last": int(step == steps[-1] or step % (64 * parts) == 64 * parts - 1),
             "row_last": int(step == steps[-1] and row_last), "last": int(step == steps[-1] and last), "null": 0}
            for step in steps]


NULL_STEP = {"unused": STEP - 1, "beat_last": 1, "burst_last": 1, "last": 1, "null": 1}


@cocotb.test(timeout_time=200, timeout_unit="us")
async def beat_walker(dut):
    """Beats of segments, one per cycle, the cycle after the segment is accepted; null segments yield null beats."""
    ctx = await begin(dut, "beat_walker")
    source, segments, expected = random.Random(4), [], []
    for address, size in [*SEGMENTS, *[(source.randrange(512), source.randint(1, 60)) for _ in range(20)]]:
        row_last, last = source.random() < 0.5, source.random() < 0.3
        segments.append({"address": address % (64 * BUS), "bytes": size, "row_last": row_last, "last": last})
        expected += [tuple(step.values()) for step in steps_of(address, size, row_last, last)]
    fields = tuple(steps_of(0, 1)[0])
    accepted, seen = await compare_stream(ctx, segments, expected, fields)
    assert seen == list(range(accepted[0] + 1, accepted[0] + 1 + len(expected)))
    await compare_stream(ctx, [{"address": 5, "bytes": 9, "last": 1, "null": 1}] * 3, [(1, 1)] * 3, ("last", "null"))


@cocotb.test(timeout_time=200, timeout_unit="us")
async def records(dut):
    """A queue: what is accepted is offered in the next cycle, in order; it takes as many as it is deep."""
    ctx = await begin(dut, "records")
    source = random.Random(6)
    items = [{"low": source.randrange(8), "high": source.randrange(32)} for _ in range(100)]
    expected = [tuple(item.values()) for item in items]
    accepted, seen = await compare_stream(ctx, items, expected, ("low", "high"))
    assert seen == [cycle + 1 for cycle in accepted] == list(range(seen[0], seen[0] + 100))
    ctx.set(ctx.ports.i.valid, 1)
    taken = [(await ctx.tick().sample(ctx.ports.i.ready))[-1] for _ in range(RECORDS + 3)]
    assert taken == [1] * RECORDS + [0] * 3


STORED = [  # base, pitch, fence, rows as (address, bytes)
    (3, 7, 0, [*RAGGED, (BUS - 1, 2), (STEP, STEP), (STEP - 1, 3 * BUS)]),
    (9, 0, 0, []),
    (250, 1, 1, [(1, WORD)]),
    (5, 2, 1, []),
    (0, 3, 0, [(64 * BUS - 3, 7 * BUS)]),
]


async def watch_fences(ctx, stalls: Stalls) -> None:
    """Steps are taken while allowed and no fence waits; each instruction is done once, a fence when settled."""
    ports, pending, current, fencing = ctx.ports, [fence for _, _, fence, _ in STORED], 0, 0
    while current < len(pending):
        allowed, settled = stalls.go(), stalls.go() and (not fencing or stalls.random.random() < 0.2)
        ctx.set(ports.allowed, allowed)
        ctx.set(ports.settled, settled)
        _, _, valid, ready, step, taken, done, done_fence, waits = await ctx.tick().sample(
            ports.i.valid, ports.i.ready, ports.i.payload, ports.taken, ports.done, ports.done_fence, ports.fencing)
        took = valid and ready
        assert waits == fencing and not (took and fencing) and (not took or step.null or allowed)
        assert taken == (took and step.burst_last and not step.null) and done_fence == (fencing and settled)
        ends = took and step.last
        assert done == (done_fence or ends and not pending[current])
        fencing = int(fencing and not done_fence or ends and pending[current])
        current += done


@cocotb.test(timeout_time=200, timeout_unit="us")
async def unpacker(dut):
    """Rows of the scratchpad become beats with strobes, 2 cycles after the word of their last part is granted."""
    ctx = await begin(dut, "unpacker")
    words = np.random.default_rng(5).integers(0, 256, (512, CONFIG.scratch_word_bytes), dtype=np.uint8)
    steps = [[step for k, (address, size) in enumerate(rows) for step in steps_of(address, size, 1, k + 1 == len(rows))]
             or [NULL_STEP] for *_, rows in STORED]
    expected = [beat for base, pitch, _, rows in STORED for r, (address, size) in enumerate(rows)
                for beat in beats_stored(words[base + r * pitch:].tobytes()[:size], address)]
    for seed, probability in enumerate((0.0, 0.3, 0.7)):
        granted, seen, stalls = [], [], [Stalls(seed + k, probability) for k in range(5)]
        await ctx.reset()

        async def grant(granted=granted, stalls=stalls[0]):
            read = ctx.ports.read
            ctx.set(ctx.ports.read_ready, stalls.go())
            async for _, _, enable, ready, address in ctx.tick().sample(
                    read.enable, ctx.ports.read_ready, read.address):
                if enable and ready:
                    granted.append(ctx.now() - 1)
                    ctx.set(read.data, number(words[address]))
                ctx.set(ctx.ports.read_ready, stalls.go())

        reader, watcher = cocotb.start_soon(grant()), cocotb.start_soon(watch_fences(ctx, stalls[1]))
        rows = [{"base": base, "pitch": pitch, "fence": fence} for base, pitch, fence, _ in STORED]
        cocotb.start_soon(send(ctx, ctx.ports.i_row, rows, stalls[2], []))
        sender = cocotb.start_soon(send(ctx, ctx.ports.i, sum(steps, []), stalls[3], []))
        found = await receive(ctx, ctx.ports.o, len(expected), stalls[4], seen)
        await sender
        await watcher
        reader.cancel()
        for beat, (data, strobe, last) in zip(found, expected, strict=True):
            mask = sum(0xFF << 8 * k for k in range(BUS) if strobe >> k & 1)
            assert (int(beat.data) & mask, beat.strobe, beat.last) == (data, strobe, last)
        assert probability or seen[0] == granted[0] + 2


def beats_stored(row: bytes, address: int) -> list[tuple[int, int, int]]:
    """Data, strobes and ``last`` of the beats of a row in DRAM; other bytes are zero."""
    first, end = address // BUS * BUS, address + len(row)
    octets = bytes(address - first) + row + bytes(-end % BUS)
    beats = []
    for low in range(first, end, BUS):
        strobe = sum(1 << k for k in range(BUS) if address <= low + k < end)
        last = low + BUS >= end or low // BUS % 64 == 63
        beats.append((number(octets[low - first:low - first + BUS]), strobe, int(last)))
    return beats
