"""Dispatcher and semaphores in Amaranth's simulator: order, waiting, numbers of instructions, ranges."""

import pytest
from amaranth.sim import Simulator

from phonolith.hw import isa
from phonolith.hw.dispatch import Dispatcher, Semaphores
from phonolith.hw.isa import BY_MNEMONIC

ROWOP, VECTOR = BY_MNEMONIC["ROWOP"], BY_MNEMONIC["VECTOR"]
LARGEST = (1 << isa.SEMAPHORE_BITS) - 1


def simulate(component, testbench) -> None:
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


async def push(ctx, dispatcher, instruction, operands, **masks) -> None:
    """Write one instruction to the queue."""
    words = [isa.pack(isa.HEADER, opcode=instruction.opcode, **masks), *operands]
    for word in words:
        ctx.set(dispatcher.words.payload, word)
        ctx.set(dispatcher.words.valid, 1)
        await ctx.tick().until(dispatcher.words.ready)
    ctx.set(dispatcher.words.valid, 0)


async def take(ctx, dispatcher, stream, limit=40) -> tuple[int, list[int]]:
    """Accept one instruction; return its wait mask and its operands."""
    ctx.set(stream.ready, 1)
    for _ in range(limit):
        valid, mask, operands = ctx.get(stream.valid), ctx.get(dispatcher.wait_mask), ctx.get(stream.payload)
        await ctx.tick()
        if valid:
            ctx.set(stream.ready, 0)
            return mask, [operands[name] for name in stream.payload.shape().members]
    raise AssertionError("no instruction")


def test_instructions_go_to_their_stream_in_order():
    dispatcher = Dispatcher(instructions=(VECTOR, ROWOP), queue_words=64)

    async def main(ctx):
        ctx.set(dispatcher.available, 1)
        await push(ctx, dispatcher, ROWOP, [1, 2, 3, 4], wait=5, signal=6)
        await push(ctx, dispatcher, VECTOR, list(range(11)), wait=0, signal=9)
        assert await take(ctx, dispatcher, dispatcher.i1) == (5, [1, 2, 3, 4])
        assert await take(ctx, dispatcher, dispatcher.i0) == (0, list(range(11)))
        assert (ctx.get(dispatcher.started), ctx.get(dispatcher.completed)) == (2, 0)
        for completed, mask in enumerate((6, 9)):
            assert ctx.get(dispatcher.signal_mask) == mask and not ctx.get(dispatcher.idle)
            ctx.set(dispatcher.done, 1)
            await ctx.tick()
            ctx.set(dispatcher.done, 0)
            assert ctx.get(dispatcher.completed) == completed + 1
        assert ctx.get(dispatcher.idle)

    simulate(dispatcher, main)


def test_an_instruction_waits_for_its_semaphores():
    dispatcher = Dispatcher(instructions=(ROWOP,), queue_words=32)

    async def main(ctx):
        await push(ctx, dispatcher, ROWOP, [1, 2, 3, 4], wait=1)
        ctx.set(dispatcher.i0.ready, 1)
        await ctx.tick().repeat(10)
        assert ctx.get(dispatcher.waiting) and not ctx.get(dispatcher.i0.valid) and not ctx.get(dispatcher.take)
        ctx.set(dispatcher.available, 1)
        assert ctx.get(dispatcher.i0.valid) and ctx.get(dispatcher.take)

    simulate(dispatcher, main)


@pytest.mark.parametrize("extra", [0, 1])
def test_a_semaphore_that_rises_too_high_is_reported_for_who_gives(extra):
    semaphores = Semaphores(ports=4)

    async def main(ctx):
        ctx.set(semaphores.signal_mask[2], 1 << 7)
        ctx.set(semaphores.give[2], 1)
        ctx.set(semaphores.give[1], 1)
        await ctx.tick().repeat(LARGEST - 1 + extra)
        assert ctx.get(semaphores.overflow) == (0b100 if extra else 0) and not ctx.get(semaphores.underflow)

    simulate(semaphores, main)


def test_a_token_taken_twice_is_reported_for_who_takes():
    semaphores = Semaphores(ports=4)

    async def main(ctx):
        ctx.set(semaphores.signal_mask[0], 1)
        ctx.set(semaphores.give[0], 1)
        await ctx.tick()
        ctx.set(semaphores.give[0], 0)
        for port in (1, 2):
            ctx.set(semaphores.wait_mask[port], 1)
        assert ctx.get(semaphores.available[1]) and ctx.get(semaphores.available[2])
        ctx.set(semaphores.take[1], 1)
        assert not ctx.get(semaphores.underflow)
        ctx.set(semaphores.take[2], 1)
        assert ctx.get(semaphores.underflow) == 0b110
        ctx.set(semaphores.clear, 1)
        await ctx.tick()
        assert not ctx.get(semaphores.available[1])

    simulate(semaphores, main)
