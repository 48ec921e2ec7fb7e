"""cocotb tests of the vector engine's parts: lanes, the walk of its loops, row registers; see component_top.py."""

import random

import cocotb

from phonolith.hw import isa
from phonolith.hw.isa import BY_MNEMONIC, VECTOR_CONTROL
from phonolith.hw.layouts import ADDRESS_BITS
from tests.hw.cocotb_ports import CONFIG, Context, begin
from tests.hw.matmul_model import NOTICE
from tests.hw.vector_model import shift_round, wrap

ROWS, COLUMNS = CONFIG.rows, CONFIG.columns
PLACES = 1 << ADDRESS_BITS


def extreme(source: random.Random, bits: int) -> int:
    """A signed number of any size, often at an end of its range."""
    low, high = -1 << bits - 1, (1 << bits - 1) - 1
    return source.choice((low, high, -1, 0, 1, source.randint(low, high), source.randint(low, high) >> bits // 2))


def unsigned(source: random.Random, bits: int) -> int:
    """A number of ``bits`` bits, often at an end of its range."""
    return extreme(source, bits) % (1 << bits)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def row_registers(dut):
    """Both ports read before the write of the cycle; a reduction combines within it, modulo 2^48."""
    ctx = await begin(dut, "row_registers")
    source = random.Random(1)
    places = [(register, row) for register in range(isa.ROW_REGISTERS) for row in range(ROWS)]
    words, total = dict.fromkeys(places, 0), 0
    for cycle in range(3000):
        (left, left_row), (right, right_row), place = (source.choice(places) for _ in range(3))
        write, reduce, first = source.random() < 0.7, source.choice(list(isa.Reduce)), source.random() < 0.3
        total = extreme(source, isa.ROW_BITS)
        if cycle < len(places):
            place, write, reduce = places[cycle], True, isa.Reduce.NONE
        await ctx.drive(left_register=left, left_row=left_row, right_register=right, right_row=right_row,
                        write=write, write_register=place[0], write_row=place[1], reduce=reduce, reduce_first=first,
                        total=total)
        if cycle >= len(places):
            assert ctx.read("left", "right") == (words[left, left_row], words[right, right_row])
        await ctx.tick()
        if write and (reduce == isa.Reduce.NONE or first):
            words[place] = total
        elif write:
            old = words[place]
            words[place] = wrap(old + total, isa.ROW_BITS) if reduce == isa.Reduce.SUM else max(old, total)


def reduced(reduce: isa.Reduce, values: list[int], active: int, index: int) -> int:
    """Sum, maximum or best key of one row."""
    if reduce == isa.Reduce.SUM:
        return wrap(sum(values), isa.ROW_BITS)
    chosen = [lane for lane in range(COLUMNS) if active >> lane & 1]
    if reduce == isa.Reduce.MAX:
        return max((values[lane] for lane in chosen), default=-1 << isa.ROW_BITS - 1)
    return max((wrap(values[lane] * PLACES + (index - lane) % PLACES, isa.ROW_BITS) for lane in chosen),
               default=-1 << isa.ROW_BITS - 1)


@cocotb.test(timeout_time=200, timeout_unit="us")
async def row_reduction(dut):
    """Totals two cycles after their rows, with random bubbles; extremes, one lane, none."""
    ctx = await begin(dut, "row_reduction")
    source = random.Random(2)
    for reduce in (isa.Reduce.SUM, isa.Reduce.MAX, isa.Reduce.ARGMAX):
        before = [None, None]
        for _ in range(600):
            active = source.choice(((1 << COLUMNS) - 1, 1, 0, source.getrandbits(COLUMNS)))
            values = [extreme(source, 34) if active >> lane & 1 else 0 for lane in range(COLUMNS)]
            index = source.choice((PLACES - 1, 0, source.randrange(PLACES)))
            valid = source.random() < 0.7
            for port, value in zip(ctx.ports.values, values, strict=True):
                ctx.set(port, value)
            await ctx.drive(reduce=reduce, active=active, index=index, stages=valid | (before[0] is not None) << 1)
            if before[1] is not None:
                assert ctx.read("total") == (before[1],)
            await ctx.tick()
            before = [reduced(reduce, values, active, index) if valid else None, before[0]]


@cocotb.test(timeout_time=100, timeout_unit="us")
async def row_address(dut):
    """Random steps from any base with any pitch, modulo 2^16."""
    ctx = await begin(dut, "row_address")
    source = random.Random(3)
    current = first = pitch = base = 0
    for cycle in range(2000):
        step = "load" if not cycle else source.choices(("", "load", "row", "chunk", "tile"), (2, 1, 8, 3, 2))[0]
        if step == "load":
            base, pitch = unsigned(source, 16), unsigned(source, 16)
        await ctx.drive(**{name: name == step for name in ("load", "row", "chunk", "tile")},
                        base=base if step == "load" else unsigned(source, 16), pitch=pitch)
        assert not cycle or ctx.read("address") == (current,)
        await ctx.tick()
        current = {"load": base, "row": current + pitch, "chunk": first, "tile": current + pitch}.get(step, current)
        current %= PLACES
        first = current if step in ("load", "tile") else first


def random_control(source: random.Random) -> dict[str, int]:
    """Control parts of any VECTOR; no residual with ELEMENT."""
    kinds = {"source": isa.Source, "source_width": isa.Width, "pre": isa.Pre, "multiplier": isa.Multiplier,
             "saturate": isa.Saturate, "destination": isa.Destination, "reduce": isa.Reduce}
    control = {name: int(source.choice(list(kinds[name]))) if name in kinds else source.getrandbits(width)
               for name, (_, width) in VECTOR_CONTROL.items()}
    can_pair = control["destination"] == isa.Destination.SCRATCHPAD and (control["destination_byte"] or not ROWS % 2)
    return control | {"residual": control["residual"] & (control["multiplier"] != isa.Multiplier.ELEMENT),
                      "nibble": control["nibble"] & can_pair}


def random_row(source: random.Random) -> dict[str, int]:
    """What a lane is given for one row."""
    return {"accumulator": extreme(source, 32), "row_sum": extreme(source, 32), "zero": extreme(source, 9),
            "partial": extreme(source, 32), "adds": source.getrandbits(1), "ends": source.getrandbits(1),
            "word": extreme(source, 16), "low_byte": unsigned(source, 8), "high_byte": unsigned(source, 8),
            "half": source.getrandbits(1), "bias": extreme(source, 32),
            "multiplier": extreme(source, 17), "shift": source.choice((0, 1, 16, 47, 48, 63, source.randrange(64))),
            "addend": extreme(source, 32), "factor_multiplier": extreme(source, 17),
            "factor_shift": source.choice((0, 8, 47, 63, source.randrange(64))), "residual": extreme(source, 16),
            "table_entry": unsigned(source, 8), "active": int(source.random() < 0.8)}


def lane_result(control: dict, row: dict) -> tuple[int, int, int]:
    """Steps 1 to 6 of VECTOR for one column: table index, value, and partial sum."""
    byte = row["high_byte" if row["half"] else "low_byte"]
    words = {isa.Width.INT16: row["word"], isa.Width.INT8: wrap(byte, 8), isa.Width.UINT8: byte}
    drained = row["accumulator"]
    if control["row_sum"]:
        drained = drained * 2 ** control["zero_shift"] + row["row_sum"] * row["zero"]
    x = {isa.Source.DRAIN: drained, isa.Source.SCRATCHPAD: words[control["source_width"]]}.get(
        control["source"], 0)
    x = wrap(x + row["bias" if control["pre"] == isa.Pre.BIAS else "addend"], 32)
    if control["multiplier"] == isa.Multiplier.SQUARE:
        y = wrap(x, 17) ** 2
    elif control["multiplier"] == isa.Multiplier.ELEMENT:
        y = shift_round(x * row["residual"], min(row["factor_shift"], 47))
    else:
        prefix = "" if control["multiplier"] == isa.Multiplier.COLUMN else "factor_"
        y = shift_round(x * row[f"{prefix}multiplier"], min(row[f"{prefix}shift"], 47))
    y += row["bias"] if control["post_bias"] else 0
    total = wrap(y + (row["partial"] if row["adds"] else 0), 32)
    y = total // 256 if control["partial"] else y
    if control["residual"]:
        y = min(max(y, -32768), 32767) + row["residual"]
    low, high = {isa.Saturate.INT8: (-128, 127), isa.Saturate.UINT8: (0, 255), isa.Saturate.INT16: (-32768, 32767)}.get(
        control["saturate"], (-1 << 60, 1 << 60))
    low, high = (-8, 7) if control["nibble"] else (low, high)
    y = wrap(min(max(y, low), high), 34)
    entry = row["table_entry"]
    value = y if not control["table"] else wrap(entry, 8) if control["table_signed"] else entry
    return y % 256, value if row["active"] else 0, total % 2**32


# In which stage a lane takes what; the residual operand in stage 1 for ELEMENT, else in stage 4.
TAKEN = {0: ("accumulator", "row_sum"),
         1: ("word", "low_byte", "high_byte", "half", "bias", "multiplier", "shift", "zero", "addend"),
         4: ("partial", "adds", "ends"),
         5: ("table_entry", "active")}


async def run_lane(ctx: Context, source: random.Random, control: dict, count: int) -> None:
    """Send rows through with random bubbles; inputs of empty stages are garbage."""
    pipeline: list[dict | None] = [None] * 6
    taken = [*TAKEN.items(), (1 if control["multiplier"] == isa.Multiplier.ELEMENT else 4, ("residual",))]
    for cycle in range(count + 6):
        pipeline = [random_row(source) if cycle < count and source.random() < 0.7 else None, *pipeline[:5]]
        inputs = {name: (pipeline[stage] or random_row(source))[name] for stage, names in taken
                  for name in names}
        shared = pipeline[1] or random_row(source)
        factor = {"multiplier": shared["factor_multiplier"], "shift": shared["factor_shift"]}
        await ctx.drive(control=control, stages=sum((row is not None) << k for k, row in enumerate(pipeline)),
                        factor=factor, **inputs)
        if pipeline[4] is not None:
            index, _, total = lane_result(control, pipeline[4])
            assert ctx.read("table_index") == (index,), (control, pipeline[4])
            assert not control["partial"] or ctx.read("partial_sum") == (total,), (control, pipeline[4])
        expected = 0 if pipeline[5] is None else lane_result(control, pipeline[5])[1]
        assert ctx.read("value") == (expected,), (control, pipeline[5])
        await ctx.tick()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def vector_lane(dut):
    """Random instructions on extremes; a value five cycles after it is taken; 0 when inactive or empty."""
    ctx = await begin(dut, "vector_lane")
    source = random.Random(4)
    for _ in range(200):
        await run_lane(ctx, source, random_control(source), 12)


def random_operands(source: random.Random) -> dict[str, int]:
    """Operands of a VECTOR whose tiles are ragged; now and then without rows or columns."""
    operands = {operand.name: source.getrandbits(32) for operand in BY_MNEMONIC["VECTOR"].operands}
    rows = source.choice((0, 1, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 3, source.randint(1, 3 * ROWS)))
    columns = source.choice((0, 1, COLUMNS, COLUMNS + 1, 3 * COLUMNS, source.randint(1, 4 * COLUMNS)))
    if rows and columns and source.random() < 0.1:
        rows, columns = source.choice(((1, 30 * COLUMNS + 1), (20 * ROWS + 1, 1)))
    blocks = source.choice((0, 1, 2, 5))
    if rows == columns == 1:
        blocks = 511
    return operands | {"rows": rows + source.choice((0, PLACES)), "columns": columns,
                       "factor": operands["factor"] % (1 << 23) | blocks << 23}


def written(control: dict, i: int, j: int, n: int) -> tuple[int, int]:
    """Which row of words row n of tile i is written to, and which word of that its chunk j."""
    if control["destination"] == isa.Destination.ACTIVATION:
        return i, j // 2 if CONFIG.word_bytes == 2 * COLUMNS else j
    if control["nibble"]:
        return (n, j // 4) if control["destination_byte"] else (n // 2, j // 2)
    return n, j // 2 if control["destination_byte"] else j


def issued(operands: dict, control: dict) -> list[dict]:
    """The rows that enter the pipeline: addresses, beat and whether a further tile is soon taken, in order."""
    rows, columns = operands["rows"] % PLACES, operands["columns"] % PLACES
    chunks, result = -(-columns // COLUMNS), []
    blocks = 1 + (operands["factor"] >> 23) if control["partial"] else 1
    tiles = [(i, j, block) for i in range(-(-rows // ROWS)) for j in range(chunks) for block in range(blocks)]
    for i, j, block in tiles:
        height, ends = min(ROWS, rows - i * ROWS), block == blocks - 1
        for r in range(height):
            n, half = i * ROWS + r, j // 2
            place = lambda name, line, offset: (  # noqa: E731
                operands[f"{name}_base"] + line * operands[f"{name}_pitch"] + offset) % PLACES
            result.append({
                "source": place("source", n, j if control["source_width"] == isa.Width.INT16 else half),
                "residual": place("residual", n, j),
                "destination": place("destination", *written(control, i, j, n)),
                "parameter": (operands["parameter_base"] + j * blocks + block) % PLACES, "row": r, "quarter": j % 4,
                "first": int(j == 0), "tail": int(j == chunks - 1), "adds": int(block > 0), "ends": int(ends),
                "index": (65535 - j * COLUMNS) % PLACES, "final": int(n == rows - 1 and j == chunks - 1 and ends),
                "soon": height - r <= NOTICE, "last": (i, j, block) == tiles[-1]})
    return result


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def vector_issue(dut):
    """Rows in the order of docs/isa.md, one per cycle from the cycle after ``load``; only tiles delay them."""
    ctx = await begin(dut, "vector_issue")
    source = random.Random(5)
    for _ in range(60):
        operands, control = random_operands(source), random_control(source)
        from_drain, rows = control["source"] == isa.Source.DRAIN, issued(operands, control)
        patience = source.choice((0.0, 0.3, 0.8))
        await ctx.drive(load=1, operands=operands, drain_valid=source.getrandbits(1))
        await ctx.tick()
        await ctx.drive(load=0, control=control, operands=random_operands(source))
        assert ctx.read("empty") == (int(not rows),)
        mask = None
        for row in rows:
            opens, ready = row["row"] == 0, source.random() >= patience
            chained = source.getrandbits(1)
            await ctx.drive(drain_valid=ready, chained=chained)
            while from_drain and opens and not ready:
                assert ctx.read("valid", "waiting", "drain_start", "chunk_start", "drain_soon", "free") == (
                    0, 1, 0, 0, 1, 0)
                await ctx.tick()
                ready = source.random() >= patience
                await ctx.drive(drain_valid=ready)
            assert ctx.read("valid", "waiting", "drain_start", "chunk_start") == (1, 0, from_drain and opens, opens)
            soon = from_drain and row.pop("soon") and (chained or not row["last"])
            assert ctx.read("drain_soon", "free") == (soon, row["final"])
            row = {name: value for name, value in row.items() if name not in ("soon", "last")}
            beat, = ctx.read("beat")
            found = {name: int(beat[name]) for name in row if name not in ("source", "parameter")}
            assert found | dict(zip(("source", "parameter"), ctx.read("source", "parameter"), strict=True)) == row
            assert mask is None or not row["tail"] or opens or ctx.read("tail_mask") == (mask,)
            mask = (1 << (operands["columns"] - 1) % COLUMNS + 1) - 1 if row["tail"] else mask
            await ctx.tick()
            await ctx.settle()
        for _ in range(3):
            assert ctx.read("valid", "waiting", "drain_soon", "free") == (0, 0, 0, 1)
            assert mask is None or ctx.read("tail_mask") == (mask,)
            await ctx.tick()
            await ctx.settle()
        assert ctx.read("empty") == (0,)
