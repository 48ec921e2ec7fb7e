"""What stops the machine after a fault, in Amaranth's simulator."""

import random

import pytest
from amaranth.sim import Simulator

from phonolith.hw.history import HISTORY, History
from phonolith.hw.quiesce import (
    DEADLOCK_CYCLES,
    AddressGate,
    Error,
    Faults,
    Supervisor,
    Watchdog,
)


def simulate(component, testbench) -> None:
    simulator = Simulator(component)
    simulator.add_clock(1e-6, if_exists=True)
    simulator.add_testbench(testbench)
    simulator.run()


def drive(ctx, component, **values) -> None:
    for name, value in values.items():
        ctx.set(getattr(component, name), value)


def test_an_offered_address_stays_when_the_gate_closes():
    gate = AddressGate(limit=4)

    async def main(ctx):
        drive(ctx, gate, request=1)
        assert ctx.get(gate.valid)
        await ctx.tick()
        drive(ctx, gate, block=1)
        await ctx.tick().repeat(3)
        assert ctx.get(gate.valid) and ctx.get(gate.pending) and not ctx.get(gate.ready)
        drive(ctx, gate, accept=1)
        assert ctx.get(gate.ready)
        await ctx.tick()
        assert not ctx.get(gate.valid) and not ctx.get(gate.ready) and ctx.get(gate.pending)
        drive(ctx, gate, beat=1, end=1)
        await ctx.tick()
        assert not ctx.get(gate.pending)

    simulate(gate, main)


@pytest.mark.parametrize("accepted", [0, 1])
def test_a_gate_times_out_only_while_nothing_is_transferred(accepted):
    gate = AddressGate(limit=4, timeout_cycles=16)

    async def main(ctx):
        drive(ctx, gate, request=1, accept=accepted)
        await ctx.tick()
        drive(ctx, gate, request=1 - accepted, beat=0)
        await ctx.tick().repeat(14)
        assert not ctx.get(gate.timeout)
        await ctx.tick().repeat(3)
        assert ctx.get(gate.timeout)
        drive(ctx, gate, beat=1)
        await ctx.tick()
        assert not ctx.get(gate.timeout) and ctx.get(gate.pending)

    simulate(gate, main)


def test_the_watchdog_waits_for_progress():
    watchdog = Watchdog()

    async def main(ctx):
        drive(ctx, watchdog, enable=1)
        await ctx.tick().repeat(DEADLOCK_CYCLES - 1)
        drive(ctx, watchdog, progress=1)
        await ctx.tick()
        drive(ctx, watchdog, progress=0)
        await ctx.tick().repeat(DEADLOCK_CYCLES - 1)
        assert not ctx.get(watchdog.expired)
        await ctx.tick()
        assert ctx.get(watchdog.expired)
        drive(ctx, watchdog, enable=0)
        await ctx.tick()
        assert not ctx.get(watchdog.expired)

    simulate(watchdog, main)


@pytest.mark.parametrize("seed", range(4))
def test_history_finds_the_oldest_instruction_in_question(seed):
    history = History()
    generator = random.Random(seed)
    entries = [(generator.randrange(4), generator.randrange(1 << 24)) for _ in range(generator.choice([5, 90, 700]))]
    counts = [sum(queue == q for queue, _ in entries) for q in range(4)]

    async def search(ctx, mask, open_counts):
        drive(ctx, history, search=1, mask=mask, fallback=77)
        for number, count, left in zip(history.numbers, counts, open_counts, strict=True):
            ctx.set(number, (count - left) % 256)
        await ctx.tick()
        drive(ctx, history, search=0)
        for _ in range(2 * HISTORY + 2):
            if ctx.get(history.found):
                return ctx.get(history.address)
            await ctx.tick()
        raise AssertionError("the search does not end")

    async def main(ctx):
        drive(ctx, history, record=1)
        for queue, position in entries:
            drive(ctx, history, queue=queue, position=position)
            await ctx.tick()
        drive(ctx, history, record=0)
        recent = entries[-HISTORY:]
        for _ in range(10):
            mask = generator.randrange(16)
            most = [sum(queue == q for queue, _ in recent) for q in range(4)]
            open_counts = [generator.randint(0, min(30, limit)) for limit in most]
            chosen = [[n for n, (queue, _) in enumerate(entries) if queue == q][-left:]
                      for q, left in enumerate(open_counts) if left and mask >> q & 1]
            expected = entries[min(each[0] for each in chosen)][1] if chosen else 77
            assert await search(ctx, mask, open_counts) == expected

    simulate(history, main)


def test_the_first_kind_of_fault_is_reported():
    faults = Faults()

    async def main(ctx):
        assert not ctx.get(faults.fault)
        ctx.set(faults.completed[3], 9)
        drive(ctx, faults, deadlock=1)
        assert (ctx.get(faults.code), ctx.get(faults.mask), ctx.get(faults.numbers[3])) == (Error.DEADLOCK, 15, 9)
        drive(ctx, faults, rejected=1, rejected_code=Error.ILLEGAL_INSTRUCTION)
        assert (ctx.get(faults.code), ctx.get(faults.mask)) == (Error.ILLEGAL_INSTRUCTION, 0)
        drive(ctx, faults, store_failed=1, store_number=5)
        assert (ctx.get(faults.code), ctx.get(faults.mask), ctx.get(faults.numbers[3])) == (Error.WRITE_FAILED, 8, 5)

    simulate(faults, main)


def test_a_fault_waits_for_the_bus_then_resets_and_reports():
    supervisor = Supervisor()

    async def main(ctx):
        drive(ctx, supervisor, request=1, quiet=1)
        assert ctx.get(supervisor.begin)
        await ctx.tick()
        drive(ctx, supervisor, request=0, quiet=0, fault=1, code=Error.WRITE_FAILED)
        assert ctx.get(supervisor.fallen) and not ctx.get(supervisor.halt)
        await ctx.tick()
        drive(ctx, supervisor, code=Error.DEADLOCK, located=1)
        await ctx.tick().repeat(5)
        assert ctx.get(supervisor.halt) and not ctx.get(supervisor.finished) and not ctx.get(supervisor.clear)
        drive(ctx, supervisor, quiet=1)
        assert ctx.get(supervisor.finished) and ctx.get(supervisor.clear)
        await ctx.tick()
        assert ctx.get(supervisor.error) == Error.WRITE_FAILED and not ctx.get(supervisor.busy)
        assert not ctx.get(supervisor.halt) and not ctx.get(supervisor.finished)

    simulate(supervisor, main)


def test_a_start_waits_for_what_the_last_run_read_ahead():
    supervisor = Supervisor()

    async def main(ctx):
        drive(ctx, supervisor, request=1)
        await ctx.tick()
        drive(ctx, supervisor, request=0)
        await ctx.tick().repeat(3)
        assert ctx.get(supervisor.busy) and not ctx.get(supervisor.begin) and not ctx.get(supervisor.running)
        drive(ctx, supervisor, quiet=1)
        assert ctx.get(supervisor.begin)

    simulate(supervisor, main)


def test_a_silent_bus_refuses_starts_until_it_answers():
    supervisor = Supervisor()

    async def main(ctx):
        drive(ctx, supervisor, request=1, quiet=1)
        await ctx.tick()
        drive(ctx, supervisor, request=0, quiet=0, fault=1, code=Error.BUS_TIMEOUT, timeout=1, located=1)
        await ctx.tick()
        drive(ctx, supervisor, fault=0)
        assert ctx.get(supervisor.finished) and not ctx.get(supervisor.clear)
        await ctx.tick()
        drive(ctx, supervisor, request=1)
        await ctx.tick()
        drive(ctx, supervisor, request=0)
        assert ctx.get(supervisor.finished) and ctx.get(supervisor.error) == Error.BUS_TIMEOUT
        await ctx.tick()
        drive(ctx, supervisor, request=1, timeout=0)
        await ctx.tick()
        drive(ctx, supervisor, request=0)
        assert ctx.get(supervisor.busy) and ctx.get(supervisor.halt)
        drive(ctx, supervisor, quiet=1)
        assert ctx.get(supervisor.clear)
        await ctx.tick()
        assert ctx.get(supervisor.begin) and not ctx.get(supervisor.halt)

    simulate(supervisor, main)
