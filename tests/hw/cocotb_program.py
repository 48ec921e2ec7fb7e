"""cocotb tests of program fetch and sequencer; see component_top.py."""

import random

import cocotb

from phonolith.hw import isa
from phonolith.hw.fetch import BUFFER_BEATS, BURST_BEATS
from phonolith.hw.isa import BY_OPCODE, Queue
from phonolith.hw.quiesce import Error
from tests.hw.axi_memory import Stable, Stalls, check_burst
from tests.hw.cocotb_ports import CONFIG, Context, begin
from tests.hw.sequencer_model import NO_WORD, Interpreter, Outcome, edge_programs, random_program

BUS, WORDS = CONFIG.bus_bytes, CONFIG.bus_bits // 32


def word_at(address: int) -> int:
    """What the fetch unit's memory holds: every word differs from its neighbours."""
    return address * 2654435761 % 2**32


def fails(address: int) -> bool:
    """Whether the beat with this byte is answered with an error."""
    return address // BUS * 40503 % 65536 < 6000


class FetchModel:
    """What the fetch unit must do, cycle by cycle; plays its memory, too.

    ``flight`` holds the beats asked for, each with whether it is still wanted.
    """

    def __init__(self, stalls: Stalls, latency: int):
        self.stalls, self.latency, self.cycle = stalls, latency, 0
        self.next_beat = self.next_word = None     # None: nothing is to be fetched
        self.flight: list[list] = []               # [earliest cycle, address, wanted]
        self.offered: list[list] = []              # the burst whose address is not accepted yet
        self.address_cycles: list[int] = []
        self.buffered, self.handed, self.held = 0, 0, False
        self.first_beat = None                     # cycle in which the first beat since the jump arrived
        self.word_stable, self.address_stable = Stable("words"), Stable("AR")

    def due(self) -> bool:
        """Whether a beat is offered now."""
        return bool(self.flight) and self.flight[0][0] <= self.cycle and self.stalls.go()

    def check_address(self, valid: int, ready: int, address: int, length: int) -> None:
        """New bursts follow each other, end at multiples of their size, and have room in the buffer."""
        self.address_stable.check(valid, ready, address, length)
        if valid and not self.held:
            check_burst(address, length, BUS)
            self.address_cycles.append(self.cycle)
            assert self.next_beat is not None and address == self.next_beat * BUS
            assert length == BURST_BEATS - 1 - self.next_beat % BURST_BEATS
            self.next_beat = (self.next_beat + length + 1) % (2**32 // BUS)
            self.offered = [[0, address + BUS * n, True] for n in range(length + 1)]
            assert len(self.flight) + length + 1 + -(-self.buffered // WORDS) <= BUFFER_BEATS
        if valid and ready:
            self.flight += [[self.cycle + self.latency, *rest] for _, *rest in self.offered]
            self.offered = []
        self.held = valid and not ready

    def check_word(self, valid: int, ready: int, payload) -> None:
        """Words follow each other from the target on; the first comes 2 cycles after its beat."""
        self.word_stable.check(valid, ready, payload.word, payload.failed)
        assert self.first_beat is None or valid == (self.cycle >= self.first_beat + 2) or self.handed
        assert not valid or self.buffered
        if valid and ready:
            assert (payload.word, payload.failed) == (word_at(self.next_word), fails(self.next_word))
            self.next_word = (self.next_word + 4) % 2**32
            self.buffered, self.handed = self.buffered - 1, self.handed + 1

    def arrive(self) -> None:
        """The oldest beat arrives."""
        _, address, wanted = self.flight.pop(0)
        if wanted:
            fresh = self.first_beat is None
            self.first_beat = self.cycle if fresh else self.first_beat
            self.buffered += WORDS - (self.next_word // 4 % WORDS if fresh else 0)

    def restart(self, place: int | None) -> None:
        """Continue at a byte address, or not at all; what is under way is no longer wanted."""
        self.next_word, self.next_beat = place, None if place is None else place // BUS
        for beat in self.flight + self.offered:
            beat[2] = False
        self.buffered, self.handed, self.first_beat, self.word_stable.held = 0, 0, None, None


async def run_fetch(ctx: Context, seed: int, probability: float, latency: int, cycles: int) -> int:
    """Jump and stop at random; return how many words were handed over."""
    await ctx.reset()
    ports, source, model, total = ctx.ports, random.Random(seed), FetchModel(Stalls(seed, probability), latency), 0
    for cycle in range(cycles):
        model.cycle = cycle
        action = "none" if cycle else "jump"
        if cycle > 2:
            action, = source.choices(("none", "jump", "stop"), (395, 4, 1))
        target, base = source.choice((source.randrange(2000), source.getrandbits(30))), source.getrandbits(30) * 4
        base = source.choice((0, base, 2**32 - 4 * BUS))
        due, ready = model.due(), model.stalls.go()
        address = model.flight[0][1] if due else 0
        beat = sum(word_at((address + 4 * n) % 2**32) << 32 * n for n in range(WORDS))
        inputs = {ports.jump: action == "jump", ports.stop: action == "stop", ports.target: target,
                  ports.program: base, ports.words.ready: ready, ports.axi.arready: model.stalls.go(),
                  ports.axi.rvalid: due, ports.axi.rdata: beat if due else source.getrandbits(CONFIG.bus_bits),
                  ports.axi.rresp: source.choice((2, 3)) if due and fails(address) else 0 if due else 3}
        for port, value in inputs.items():
            ctx.set(port, value)
        _, _, arvalid, araddr, arlen, rready, quiet, valid, payload = await ctx.tick().sample(
            ports.axi.arvalid, ports.axi.araddr, ports.axi.arlen, ports.axi.rready, ports.quiet, ports.words.valid,
            ports.words.payload)
        assert rready and quiet == (not arvalid and not model.flight)
        model.check_address(arvalid, inputs[ports.axi.arready], araddr, arlen)
        model.check_word(valid, ready, payload)
        total += valid and ready
        if due:
            model.arrive()
        if action != "none":
            model.restart((base + 4 * target) % 2**32 if action == "jump" else None)
    assert model.address_cycles[0] == 2
    return total


@cocotb.test(timeout_time=500, timeout_unit="us")
async def fetch(dut):
    """Words from the target of the last jump on, whatever is under way; the address comes 2 cycles after the jump."""
    ctx = await begin(dut, "fetch")
    for seed, (probability, latency) in enumerate(((0.0, 1), (0.0, 20), (0.3, 5), (0.5, 2), (0.1, 60))):
        assert await run_fetch(ctx, seed, probability, latency, 1500) > 100


class Player:
    """Plays the fetch unit and the four queues; notes what the sequencer does."""

    def __init__(self, ctx: Context, words: list[int], failing: int | None, stalls: Stalls):
        self.ctx, self.words, self.failing, self.stalls = ctx, words, failing, stalls
        self.found = Outcome()
        self.cursor, self.offered, self.decoded_cycles, self.idle_moves, self.start = None, False, [], 0, 0

    def offer(self) -> None:
        """Offer the word at the cursor, or none; a word once offered stays."""
        ports, cursor = self.ctx.ports, self.cursor
        self.offered = cursor is not None and (self.offered or self.stalls.go())
        self.ctx.set(ports.words.valid, self.offered)
        word = self.words[cursor] if self.offered and cursor < len(self.words) else NO_WORD
        self.ctx.set(ports.words.payload, {"word": word, "failed": self.offered and cursor == self.failing})
        self.readies = [self.stalls.go() for _ in ports.queues]
        for queue, ready in zip(ports.queues, self.readies, strict=True):
            self.ctx.set(queue.ready, ready)

    async def step(self) -> tuple:
        """Play one cycle; return ``ended``, ``failed``, ``stop``, ``code`` and ``address``."""
        ports, found = self.ctx.ports, self.found
        self.offer()
        queues = [port for queue in ports.queues for port in (queue.enable, queue.data)]
        _, _, taken, jump, target, decoded, queue, position, moving, *rest = (
            await self.ctx.tick().sample(
                ports.words.ready, ports.jump, ports.target, ports.decoded, ports.decoded_queue, ports.position,
                ports.moving, ports.ended, ports.failed, ports.stop, ports.code, ports.address, *queues))
        words = rest[5:]
        for n, ready in enumerate(self.readies):
            if words[2 * n]:
                assert ready
                found.queues[n].append(words[2 * n + 1])
        if decoded:
            found.decoded.append((position, queue))
            self.decoded_cycles.append(self.ctx.now())
        took = self.offered and taken
        assert moving or not took
        self.idle_moves += moving and not took
        self.cursor = None if self.cursor is None else self.cursor + took
        self.offered = self.offered and not taken
        if jump:
            self.cursor, self.offered = target, False
        return tuple(rest[:5])


async def run_program(ctx: Context, player: Player, arguments: list[int], tile_left: bool) -> None:
    """Run a program to its end or its error."""
    ports, found = ctx.ports, player.found
    for port, value in zip(ports.arguments, arguments, strict=True):
        ctx.set(port, value)
    ctx.set(ports.tile_left, tile_left)
    ctx.set(ports.start, 1)
    await player.step()
    player.start = ctx.now()
    ctx.set(ports.start, 0)
    for _ in range(20000):
        drained = player.stalls.go()
        ctx.set(ports.drained, drained)
        ended, failed, stop, code, address = await player.step()
        assert not ended or drained and not tile_left
        if ended or failed:
            assert stop
            found.error, found.address = (code if failed else Error.NONE), address
            return
    raise AssertionError("the program does not end")


def check_cycles(player: Player) -> None:
    """Cycles of a program without stalls, by the sequencer's docstring."""
    ends = [player.start + 6]
    for position, _ in player.found.decoded:
        each = BY_OPCODE[isa.unpack(isa.HEADER, player.words[position])["opcode"]]
        ends.append(ends[-1] + len(each.operands) + 1 + (each.queue == Queue.SEQUENCER and each.mnemonic != "END"))
    assert player.decoded_cycles == ends[:-1]


async def check_program(ctx: Context, words: list[int], arguments: list[int], stalls: Stalls, failing=None,
                        tile_left=False) -> int:
    """Run a program on both sides; compare what leaves the sequencer and how it ends. Return the error."""
    expected = Interpreter(CONFIG, words, arguments, failing, tile_left).run()
    assert expected is not None
    player = Player(ctx, words, failing, stalls)
    await run_program(ctx, player, arguments, tile_left)
    found = player.found
    assert (found.error, found.address, found.decoded) == (expected.error, expected.address, expected.decoded)
    for mine, theirs in zip(found.queues, expected.queues, strict=True):
        assert mine[:len(theirs)] == theirs and len(mine) <= len(theirs) + (found.error != Error.NONE)
    if not stalls.probability:
        check_cycles(player)
    if expected.error != Error.NONE:
        await ctx.reset()
    else:
        own = sum(queue == Queue.SEQUENCER for _, queue in expected.decoded) - 1
        assert player.idle_moves == len(arguments) + own
    return expected.error


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def sequencer(dut):
    """Random programs: what goes to the queues, where, how it ends; n + 1 cycles, one more for its own instructions."""
    ctx, errors = await begin(dut, "sequencer"), set()
    for seed in range(90):
        source = random.Random(seed)
        words, arguments = random_program(source, CONFIG), [source.choice((0, 1, 2**31, source.getrandbits(32)))
                                                            for _ in range(4)]
        failing = source.randrange(len(words)) if source.random() < 0.1 else None
        errors.add(await check_program(ctx, words, arguments, Stalls(seed, (0.0, 0.2, 0.5)[seed % 3]), failing,
                                       source.random() < 0.1))
    assert errors == {Error.NONE, Error.ILLEGAL_INSTRUCTION, Error.WRONG_CONFIGURATION, Error.READ_FAILED,
                      Error.TILE_NOT_TAKEN}


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def sequencer_edges(dut):
    """The ends of what operands may be, and just beyond; every number that is no opcode."""
    ctx = await begin(dut, "sequencer")
    errors = [await check_program(ctx, words, [0] * 4, Stalls(1, 0.0)) for words in edge_programs(CONFIG)]
    assert set(errors) == {Error.NONE, Error.ILLEGAL_INSTRUCTION}
