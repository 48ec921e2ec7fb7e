"""cocotb tests of memories and the watchdog; see component_top.py."""

import random

import cocotb
import numpy as np

from phonolith.hw.quiesce import DEADLOCK_CYCLES
from tests.hw import scratchpad_model
from tests.hw.cocotb_ports import CONFIG, begin
from tests.hw.component_top import SRAM_WORDS


@cocotb.test(timeout_time=100, timeout_unit="us")
async def sram(dut):
    """Data come in the next cycle and stay; the old word is read; writes beyond the end are dropped."""
    ctx = await begin(dut, "sram")
    source, words, shown = random.Random(1), [0] * SRAM_WORDS, None
    read, write = ctx.ports.read, ctx.ports.write
    places = [*range(SRAM_WORDS + 3), 16, 17, 32, 1 << 15, (1 << 16) - 1]
    for cycle in range(1000):
        place, enable, data = source.choice(places), source.randrange(4), source.getrandbits(16)
        if cycle < SRAM_WORDS:
            place, enable = cycle, 3
        asked = source.randrange(SRAM_WORDS) if cycle >= SRAM_WORDS and source.random() < 0.5 else None
        for port, value in ((read.enable, asked is not None), (read.address, asked or 0), (write.enable, enable),
                            (write.address, place), (write.data, data)):
            ctx.set(port, value)
        _, _, word = await ctx.tick().sample(read.data)
        assert shown is None or word == shown
        shown = shown if asked is None else words[asked]
        if place < SRAM_WORDS:
            mask = (0, 0x00FF, 0xFF00, 0xFFFF)[enable]
            words[place] = words[place] & ~mask | data & mask


@cocotb.test(timeout_time=100, timeout_unit="us")
async def scratchpad(dut):
    """Everyone at once; data the cycle after the read; the source wins where it meets the residual."""
    ctx = await begin(dut, "scratchpad")
    model, source, shown = scratchpad_model.Model(CONFIG), np.random.default_rng(7), {}
    for address in range(CONFIG.scratch_depth):
        cycle = {**dict.fromkeys(("source", "residual", "store", "load")),
                 "vector": (address, 3, np.zeros(CONFIG.scratch_word_bytes, np.uint8))}
        scratchpad_model.apply(ctx, ctx.ports, cycle)
        await ctx.tick()
    for _ in range(1000):
        cycle = scratchpad_model.random_cycle(source, model)
        meet = cycle["source"] is not None and source.random() < 0.1
        if meet:
            cycle["residual"] = model.depth * model.bank(cycle["source"]) + int(source.integers(model.depth))
        scratchpad_model.apply(ctx, ctx.ports, cycle)
        await ctx.settle()
        for reader, word in shown.items():
            assert ctx.get(getattr(ctx.ports, f"{reader}_read").data) == word
        shown = scratchpad_model.update(ctx, ctx.ports, model, cycle, shown)
        if meet:
            del shown["residual"]
        await ctx.tick()


def window_places(bank: int, reach: int, address: int) -> dict[int, int]:
    """The address in each bank that takes a word of a window: those that start 0 .. ``reach`` words before it."""
    first = bank if bank >= reach else bank + CONFIG.rows      # counts windows; the address is in the upper group
    group = {first - s: s - (reach + 1) * ((first - s) // CONFIG.rows < first // CONFIG.rows) for s in range(reach + 1)}
    return {window % CONFIG.rows: (address + offset) % 2**16 for window, offset in group.items()}


@cocotb.test(timeout_time=100, timeout_unit="us")
async def activation_writes(dut):
    """A word goes to the banks of its windows unless the vector engine writes one of them; that always goes."""
    ctx = await begin(dut, "activation_writes")
    source, bits, halves = random.Random(5), 8 * CONFIG.word_bytes, CONFIG.word_bytes // CONFIG.columns
    for _ in range(2000):
        vector = (source.randrange(1 << halves), source.getrandbits(16), source.getrandbits(bits))
        vector_bank, valid = source.randrange(CONFIG.rows), source.getrandbits(1)
        bank, address, data = source.randrange(CONFIG.rows), source.getrandbits(16), source.getrandbits(bits)
        reach = source.choice((0, source.randrange(min(CONFIG.rows, 7))))
        await ctx.drive(vector_bank=vector_bank, valid=valid, write={"bank": bank, "address": address, "data": data,
                                                                     "reach": reach})
        for name, value in zip(("enable", "address", "data"), vector, strict=True):
            ctx.set(getattr(ctx.ports.vector, name), value)
        await ctx.settle()
        expected = {b: ((1 << halves) - 1, a, data) for b, a in window_places(bank, reach, address).items() if valid}
        if vector[0]:
            assert not valid or ctx.read("ready") == (int(vector_bank not in expected),)
            expected[vector_bank] = vector
        for index, port in enumerate(ctx.ports.banks):
            enable = ctx.get(port.enable)
            assert bool(enable) == (index in expected)
            found = (enable, ctx.get(port.address), ctx.get(port.data))
            assert not enable or found == expected[index]
        await ctx.tick()


@cocotb.test(timeout_time=100, timeout_unit="us")
async def watchdog(dut):
    """Expires after exactly DEADLOCK_CYCLES without progress, at random intervals of progress."""
    ctx = await begin(dut, "watchdog")
    source, still = random.Random(1), 0
    for _ in range(3000):
        enable, progress = source.random() < 0.998, source.random() < 0.01
        await ctx.drive(enable=enable, progress=progress)
        assert ctx.read("expired") == (int(still >= DEADLOCK_CYCLES),)
        await ctx.tick()
        still = still + 1 if enable and not progress else 0
