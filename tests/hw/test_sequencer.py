"""Fetch and sequencer in Amaranth's simulator: resolved operands, loops, errors, discarded prefetches."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from amaranth.sim import Simulator

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.fetch import Fetch
from phonolith.hw.isa import BY_MNEMONIC, encode_value
from phonolith.hw.layouts import AxiReadSignature
from phonolith.hw.quiesce import Error
from phonolith.hw.sequencer import Sequencer

CONFIG = MachineConfig()


class Bench(wiring.Component):
    """Fetch and sequencer, connected."""

    def __init__(self):
        self.fetch = Fetch(config=CONFIG)
        self.sequencer = Sequencer(config=CONFIG)
        super().__init__({"axi": Out(AxiReadSignature(CONFIG))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetch = fetch = self.fetch
        m.submodules.sequencer = sequencer = self.sequencer
        wiring.connect(m, fetch.words, sequencer.words)
        wiring.connect(m, wiring.flipped(self.axi), fetch.axi)
        m.d.comb += [fetch.jump.eq(sequencer.jump), fetch.stop.eq(sequencer.stop), fetch.target.eq(sequencer.target)]
        return m


def header(mnemonic: str, wait: int = 0, signal: int = 0) -> int:
    return isa.pack(isa.HEADER, opcode=BY_MNEMONIC[mnemonic].opcode, wait=wait, signal=signal)


def instruction(mnemonic: str, *words: int, **masks: int) -> list[int]:
    assert len(words) == len(BY_MNEMONIC[mnemonic].operands)
    return [header(mnemonic, **masks), *words]


async def memory(ctx, bench, words, latency, failing):
    """Answer bursts in order, ``latency`` cycles later; beats from word ``failing`` on come with an error."""
    axi, beats, cycle = bench.axi, [], 0
    ctx.set(axi.arready, 1)
    per_beat = CONFIG.bus_bits // 32
    while True:
        due = bool(beats) and beats[0][0] <= cycle
        ctx.set(axi.rvalid, due)
        if due:
            first = beats[0][1] // 4
            chosen = [words[n] if n < len(words) else 0xFFFFFFFF for n in range(first, first + per_beat)]
            ctx.set(axi.rdata, sum(word << 32 * n for n, word in enumerate(chosen)))
            ctx.set(axi.rresp, 2 if failing is not None and first + per_beat > failing else 0)
        _, _, arvalid, address, length = await ctx.tick().sample(axi.arvalid, axi.araddr, axi.arlen)
        if due:
            beats.pop(0)
        if arvalid:
            assert address % 4096 + (length + 1) * CONFIG.bus_bytes <= 4096
            beats += [(cycle + latency, address + CONFIG.bus_bytes * n) for n in range(length + 1)]
        cycle += 1


def run(words, arguments=(), latency=5, failing=None, limit=3000, tile_left=0):
    """Run a program; return (queue words by engine, error, instruction address, positions of the instructions)."""
    bench = Bench()
    queues = {port: [] for port in range(4)}
    result, positions = {}, []

    async def main(ctx):
        sequencer = bench.sequencer
        for n, value in enumerate(arguments):
            ctx.set(sequencer.arguments[n], value)
        ctx.set(sequencer.drained, 1)
        ctx.set(sequencer.tile_left, tile_left)
        for port in range(4):
            ctx.set(sequencer.queues[port].ready, 1)
        ctx.set(sequencer.start, 1)
        await ctx.tick()
        ctx.set(sequencer.start, 0)
        for _ in range(limit):
            sampled = [sequencer.ended, sequencer.failed, sequencer.code, sequencer.address, sequencer.decoded,
                       sequencer.position]
            for queue in sequencer.queues:
                sampled += [queue.valid, queue.payload]
            _, _, ended, failed, code, address, decoded, position, *words_now = await ctx.tick().sample(*sampled)
            if decoded:
                positions.append(position)
            for port in range(4):
                if words_now[2 * port]:
                    queues[port].append(words_now[2 * port + 1])
            if ended or failed:
                result.update(error=code if failed else Error.NONE, address=address)
                return
        raise AssertionError("the program did not finish")

    async def answer(ctx):
        await memory(ctx, bench, words, latency, failing)

    simulator = Simulator(bench)
    simulator.add_clock(1e-6)
    simulator.add_testbench(main)
    simulator.add_testbench(answer, background=True)
    simulator.run()
    return queues, result["error"], result["address"], positions


def rowop(*values: int, **masks: int) -> list[int]:
    return instruction("ROWOP", *values, **masks)


def test_operands_are_register_plus_immediate():
    program = [CONFIG.hash_word,
               *instruction("SET", encode_value(0, 7), 0xFFFFFFF0),
               *rowop(encode_value(-3), encode_value(5, 7), encode_value(0, 2), encode_value(9, 31), wait=5, signal=9),
               header("END")]
    queues, error, _, positions = run(program, arguments=(11, 22, 33, 44))
    assert error == Error.NONE
    assert positions == [1, 4, 9]
    assert queues[2] == [header("ROWOP", wait=5, signal=9), 0xFFFFFFFD, 0xFFFFFFF5, 22, 9]


@pytest.mark.parametrize("latency", [1, 20])
def test_loop_runs_as_often_as_its_register_says(latency):
    body = 1 + 4
    program = [CONFIG.hash_word,
               *instruction("SHIFT", encode_value(0, 5), encode_value(1), encode_value(40 - 40)),
               *rowop(encode_value(0, 5), *[encode_value(0)] * 3),
               *instruction("ADD", encode_value(0, 5), encode_value(0, 5), encode_value(1)),
               *instruction("BRANCH_LESS", encode_value(0, 5), encode_value(0, 1), body),
               header("END")]
    queues, error, _, _ = run(program, arguments=(6,), latency=latency)
    assert error == Error.NONE
    assert queues[2][1::5] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("value", "amount", "expected"), [
    (1, 31, 0x80000000), (-8, -2, 0xFFFFFFFE), (-8, -31, 0xFFFFFFFF), (5, 0, 5), (12345, -3, 1543)])
def test_shift(value, amount, expected):
    program = [CONFIG.hash_word,
               *instruction("SHIFT", encode_value(0, 9), encode_value(value), encode_value(amount)),
               *rowop(encode_value(0, 9), *[encode_value(0)] * 3), header("END")]
    assert run(program)[0][2][1] == expected


def test_register_zero_stays_zero_and_branch_equal_skips():
    program = [CONFIG.hash_word, *instruction("SET", encode_value(0, 0), 77),
               *instruction("BRANCH_EQUAL", encode_value(0), encode_value(0, 0), 13),
               *rowop(*[encode_value(1)] * 4), header("END"), header("END")]
    queues, error, _, positions = run(program)
    assert (error, queues[2], positions) == (Error.NONE, [], [1, 4, 13])


@pytest.mark.parametrize(("program", "expected", "address"), [
    ([CONFIG.hash_word ^ 1, 0], Error.WRONG_CONFIGURATION, 0),
    ([CONFIG.hash_word, 63, 0], Error.ILLEGAL_INSTRUCTION, 1),
    ([CONFIG.hash_word, *instruction("SHIFT", 0, encode_value(1), encode_value(32)), 0], Error.ILLEGAL_INSTRUCTION, 1),
    ([CONFIG.hash_word, *rowop(*[0] * 4), *instruction("LOAD", 5, *[0] * 10)], Error.ILLEGAL_INSTRUCTION, 6),
    ([CONFIG.hash_word, *rowop(*[0] * 4), *instruction("MATMUL", *[0] * 8)], Error.ILLEGAL_INSTRUCTION, 6),
])
def test_errors_stop_the_program(program, expected, address):
    _, error, where, _ = run(program)
    assert (error, where) == (expected, address)


def test_a_failed_read_stops_the_program_where_it_is_needed():
    words = [CONFIG.hash_word, *rowop(*[0] * 4), *rowop(*[0] * 4), header("END")]
    queues, error, address, _ = run(words, failing=8)
    assert (error, address) == (Error.READ_FAILED, 6)
    assert len(queues[2]) < 10


def test_a_prefetch_beyond_the_end_may_fail():
    assert run([CONFIG.hash_word, header("END")], failing=4)[1] == Error.NONE


def test_a_tile_left_in_the_array_is_an_error():
    assert run([CONFIG.hash_word, *rowop(*[0] * 4), header("END")], tile_left=1)[1:3] == (Error.TILE_NOT_TAKEN, 6)
