"""cocotb tests of instruction queues, semaphores, the address gate and the read arbiter; see component_top.py."""

import random

import cocotb

from phonolith.hw import isa
from tests.hw.axi_memory import Stable, Stalls
from tests.hw.cocotb_ports import Context, begin, raw
from tests.hw.component_top import GATE_LIMIT, INSTRUCTIONS, TIMEOUT_CYCLES


def random_job(source: random.Random) -> tuple[int, list[int]]:
    """Which instruction, and its words: header with masks, operands."""
    kind = source.randrange(len(INSTRUCTIONS))
    masks = {name: source.choice((0, 1, 0xFFF, source.getrandbits(12))) for name in ("wait", "signal")}
    operands = [source.choice((0, 2**32 - 1, source.getrandbits(32))) for _ in INSTRUCTIONS[kind].operands]
    return kind, [isa.pack(isa.HEADER, opcode=INSTRUCTIONS[kind].opcode, **masks), *operands]


class Engine:
    """Plays sequencer, semaphores and engine, cycle by cycle: takes instructions and completes them, both in order."""

    def __init__(self, ctx: Context, jobs: list[tuple[int, list[int]]], stalls: Stalls, gaps: Stalls):
        self.ctx, self.jobs, self.stalls, self.gaps = ctx, jobs, stalls, gaps
        self.to_write = [word for _, words in jobs for word in words]
        self.started = self.completed = self.words = self.available = 0
        self.written: list[int] = []    # in which cycles words were written
        self.cycles: list[int] = []     # in which instructions were taken
        self.stable = Stable("instructions")

    async def step(self) -> None:
        """Play one cycle."""
        ports, stalls = self.ctx.ports, self.stalls
        streams = [getattr(ports, f"i{kind}") for kind in range(len(INSTRUCTIONS))]
        await self.write()
        done = self.started > self.completed and stalls.go() and stalls.go()
        self.available = self.available or stalls.go()     # a semaphore does not fall before the instruction starts
        ready = stalls.go()
        for port in streams:
            self.ctx.set(port.ready, ready)
        await self.ctx.drive(done=done, **self.semaphores())
        names = ("wait_mask", "signal_mask", "take", "give", "waiting", "started", "completed", "idle")
        wait, signal, take, give, waiting, started, completed, idle = self.ctx.read(*names)
        valid = [self.ctx.get(port.valid) for port in streams]
        assert (started, completed) == (self.started % 256, self.completed % 256) and give == done
        if done:
            assert signal == isa.unpack(isa.HEADER, self.jobs[self.completed][1][0])["signal"]
        queued = sum(len(words) for _, words in self.jobs[:self.started])
        assert idle == (self.words == queued and self.started == self.completed)
        self.check_offer(valid, take, ready, wait, waiting, streams)
        self.words = len(self.written)
        self.completed += done
        await self.ctx.tick()

    async def write(self) -> None:
        """Write a word if the queue has room, with random gaps, in which the word is garbage."""
        port = self.ctx.ports.words
        await self.ctx.settle()
        writes = len(self.written) < len(self.to_write) and self.ctx.get(port.ready) and self.gaps.go()
        self.ctx.set(port.enable, writes)
        self.ctx.set(port.data, self.to_write[len(self.written)] if writes else self.gaps.random.getrandbits(32))
        if writes:
            self.written.append(self.ctx.now())

    def semaphores(self) -> dict[str, int]:
        """Counts above zero, and ``halt``, such that the next instruction is held back or not, for one reason alone."""
        if self.started == len(self.jobs):
            return {"above_zero": self.stalls.random.getrandbits(12), "halt": 0}
        wait = isa.unpack(isa.HEADER, self.jobs[self.started][1][0])["wait"]
        above = wait | self.stalls.random.getrandbits(12)
        if self.available or not wait:
            return {"above_zero": above, "halt": not self.available}
        return {"above_zero": above & ~(1 << self.stalls.random.choice([n for n in range(12) if wait >> n & 1])),
                "halt": 0}

    def check_offer(self, valid: list, take: int, ready: bool, wait: int, waiting: int, streams: list) -> None:
        """Only the next instruction is offered, complete and with its semaphores available."""
        assert take == (any(valid) and ready) and not (waiting and any(valid))
        if waiting or any(valid):
            kind, words = self.jobs[self.started]
            assert wait == isa.unpack(isa.HEADER, words[0])["wait"] and waiting == (not self.available)
        if any(valid):
            operands = sum(word << 32 * n for n, word in enumerate(words[1:]))
            assert self.available and valid == [int(n == kind) for n in range(len(valid))]
            assert raw(self.ctx.get(streams[kind].payload)) == operands
        self.stable.check(any(valid), ready)
        if take:
            self.started, self.available = self.started + 1, 0
            self.cycles.append(self.ctx.now())


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def dispatcher(dut):
    """Instructions start in order when their semaphores allow; the first 3 + operands cycles after its header."""
    ctx = await begin(dut, "dispatcher")
    source = random.Random(1)
    for seed, probability in enumerate((0.0, 0.3, 0.6)):
        await ctx.reset()
        jobs = [random_job(source) for _ in range(40)]
        engine = Engine(ctx, jobs, Stalls(seed, probability), Stalls(seed + 9, probability / 3))
        while engine.completed < len(jobs):
            await engine.step()
        assert probability or engine.cycles[0] == engine.written[0] + 2 + len(jobs[0][1])
        await ctx.settle()
        assert ctx.read("idle", "completed") == (1, len(jobs))


@cocotb.test(timeout_time=500, timeout_unit="us")
async def semaphores(dut):
    """Counts of twelve semaphores under random traffic, cleared at times; ranges are reported for the port at fault."""
    ctx = await begin(dut, "semaphores")
    source, counts, limit = random.Random(2), [0] * isa.SEMAPHORES, 1 << isa.SEMAPHORE_BITS
    ports, faults = ctx.ports, [0, 0]
    for _ in range(3000):
        waits, gives = ([source.getrandbits(12) & source.getrandbits(12) & source.getrandbits(12) for _ in range(4)]
                        for _ in range(2))
        takes, raises = ([source.random() < p for _ in range(4)] for p in (0.2, 0.25))
        clear = source.random() < 0.005
        ctx.set(ports.clear, clear)
        for p in range(4):
            for port, value in ((ports.wait_mask[p], waits[p]), (ports.signal_mask[p], gives[p]),
                                (ports.take[p], takes[p]), (ports.give[p], raises[p])):
                ctx.set(port, value)
        await ctx.settle()
        following = [count + sum(raises[p] and gives[p] >> k & 1 for p in range(4))
                     - sum(takes[p] and waits[p] >> k & 1 for p in range(4)) for k, count in enumerate(counts)]
        low, high = (sum(bad(n) << k for k, n in enumerate(following)) for bad in (
            lambda n: n < 0, lambda n: n >= limit))
        assert ctx.get(ports.above_zero) == sum((count > 0) << k for k, count in enumerate(counts))
        expected = (sum(bool(raises[p] and gives[p] & high) << p for p in range(4)),
                    sum(bool(takes[p] and waits[p] & low) << p for p in range(4)))
        assert ctx.read("overflow", "underflow") == expected
        faults = [seen + bool(now) for seen, now in zip(faults, expected, strict=True)]
        await ctx.tick()
        counts = [0 if clear else n % limit for n in following]
    assert all(faults)


@cocotb.test(timeout_time=500, timeout_unit="us")
async def address_gate(dut):
    """Adds no cycle, keeps what it offered when it closes, counts bursts, times out exactly when nothing moves."""
    ctx = await begin(dut, "address_gate")
    source, held, flight, waited, timeouts = random.Random(3), False, 0, 0, 0
    for cycle in range(4000):
        busy = 0.4 if cycle // 100 % 2 else 0.02
        request, accept, block = held or source.random() < busy, source.random() < busy, source.random() < 0.3
        request = request and flight < GATE_LIMIT
        end = source.random() < (busy if flight else 0.02)     # one without a burst does not count
        beat = end or source.random() < busy / 4
        await ctx.drive(request=request, accept=accept, block=block, beat=beat, end=end)
        valid = request and (held or not block)
        pending = valid or flight > 0
        assert ctx.read("valid", "ready", "pending", "timeout") == (
            valid, accept and (held or not block), pending, waited >= TIMEOUT_CYCLES)
        timeouts += waited >= TIMEOUT_CYCLES
        await ctx.tick()
        waited = 0 if valid and accept or beat or not pending else waited + 1
        held, flight = valid and not accept, flight + (valid and accept) - (end and flight > 0)
    assert timeouts


@cocotb.test(timeout_time=500, timeout_unit="us")
async def read_arbiter(dut):
    """Fetch first, an offered address stays, responses go to their id; adds no cycle."""
    ctx = await begin(dut, "read_arbiter")
    source, ports, stable, offered = random.Random(4), ctx.ports, Stable("AR"), {}
    for _ in range(2000):
        for name in ("fetch", "load"):
            port = getattr(ports, name)
            if name not in offered and source.random() < 0.4:
                offered[name] = source.getrandbits(32), source.getrandbits(8)
            ctx.set(port.arvalid, name in offered)
            ctx.set(port.araddr, offered.get(name, (0, 0))[0])
            ctx.set(port.arlen, offered.get(name, (0, 0))[1])
            ctx.set(port.rready, source.random() < 0.5)
        ready, rid, data = source.random() < 0.4, source.getrandbits(1), source.getrandbits(64)
        response, last, arrives = source.randrange(4), source.getrandbits(1), source.getrandbits(1)
        for port, value in ((ports.axi.arready, ready), (ports.rid, rid), (ports.axi.rdata, data),
                            (ports.axi.rresp, response), (ports.axi.rlast, last), (ports.axi.rvalid, arrives)):
            ctx.set(port, value)
        await ctx.settle()
        valid, *address, identifier = (ctx.get(port) for port in (ports.axi.arvalid, ports.axi.araddr, ports.axi.arlen,
                                                                  ports.arid))
        name = ("fetch", "load")[identifier]
        assert valid == bool(offered) and (not valid or tuple(address) == offered[name])
        others = [ctx.get(port.arready) for port in (ports.fetch, ports.load)]
        assert not valid or others == [ready * (not identifier), ready * identifier]
        assert valid == 0 or stable.held or name == min(offered)
        stable.check(valid, ready, *address, identifier)
        target, other = (ports.fetch, ports.load)[::-1 if rid else 1]
        assert [ctx.get(port) for port in (target.rvalid, other.rvalid, target.rdata, target.rresp, target.rlast)] == [
            arrives, 0, data, response, last]
        assert ctx.get(ports.axi.rready) == ctx.get(target.rready)
        if valid and ready:
            del offered[name]
        await ctx.tick()
