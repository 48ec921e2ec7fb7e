"""cocotb tests of the register file, of what ends runs, and of what names the instruction at fault.

See component_top.py.
"""

import random

import cocotb

from phonolith.hw import registers as regs
from phonolith.hw.history import HISTORY, POSITION_BITS
from phonolith.hw.quiesce import NUMBER_BITS, QUEUES, Error
from tests.hw.axi_memory import Stable
from tests.hw.cocotb_ports import CONFIG, Context, begin

WORD = 2**32
COUNTERS = {(engine, cause): regs.counter_address(name, cause_name)
            for engine, name in enumerate(regs.ENGINES) for cause, cause_name in enumerate(regs.CAUSES)}


class HostModel:
    """The register file by ``docs/registers.md``, cycle by cycle."""

    def __init__(self):
        self.done = self.failed = self.irq_enable = self.bvalid = self.rvalid = self.rdata = 0
        self.words = dict.fromkeys([regs.PROGRAM, *(regs.ARGUMENT_BASE + 4 * n for n in range(4))], 0)
        self.counters = dict.fromkeys([regs.CYCLES, regs.CYCLES_HIGH, regs.INSTRUCTIONS, regs.READ_BEATS,
                                       regs.WRITE_BEATS, *COUNTERS.values()], 0)

    def readable(self, now: dict) -> dict[int, int]:
        """All registers by address, for this cycle's inputs."""
        status = now["busy"] | self.done << 1 | self.failed << 2 | now["error"] << 8
        return {regs.ID: regs.IDENTIFIER, regs.STATUS: status, regs.ERROR_ADDRESS: now["error_address"],
                regs.IRQ_ENABLE: self.irq_enable, regs.CONFIG_HASH: CONFIG.hash_word, **self.words, **self.counters}

    def writes(self, axil: dict) -> bool:
        """Whether a write is accepted."""
        return bool(axil["awvalid"] and axil["wvalid"] and not self.bvalid)

    def outputs(self, now: dict, axil: dict) -> dict[str, int]:
        """Outputs in this cycle."""
        writes = self.writes(axil)
        start = writes and axil["wstrb"] and axil["awaddr"] // 4 == regs.CONTROL // 4 and axil["wdata"] & 1
        return {"awready": writes, "wready": writes, "bvalid": self.bvalid, "bresp": 0, "rresp": 0,
                "arready": axil["arvalid"] and not self.rvalid, "rvalid": self.rvalid, "rdata": self.rdata,
                "start": int(bool(start and not now["busy"])), "irq": self.irq_enable & (self.done | self.failed)}

    def step(self, now: dict, axil: dict, causes: list[int]) -> None:
        """Go to the next cycle."""
        outputs, readable = self.outputs(now, axil), self.readable(now)
        self.rvalid = int(outputs["arready"] or self.rvalid and not axil["rready"])
        if outputs["arready"]:
            self.rdata = readable.get(axil["araddr"] // 4 * 4, 0)
        self.bvalid = int(outputs["awready"] or self.bvalid and not axil["bready"])
        if outputs["awready"] and axil["wstrb"]:
            self.write(axil["awaddr"] // 4 * 4, axil["wdata"], outputs["start"])
        if now["finished"]:
            self.done, self.failed = int(not now["error"]), int(bool(now["error"]))
        self.count(now, causes)

    def write(self, address: int, value: int, start: int) -> None:
        """Write one register."""
        if address == regs.CONTROL and (start or value & 2):
            self.done = self.failed = 0
        elif address == regs.IRQ_ENABLE:
            self.irq_enable = value & 1
        elif address in self.words:
            self.words[address] = value

    def count(self, now: dict, causes: list[int]) -> None:
        """Count events of a run; all counters start at zero with it."""
        if not now["begin"] and not now["running"]:
            return
        if now["begin"]:
            self.counters = dict.fromkeys(self.counters, 0)
        events = {regs.CYCLES: 1, regs.INSTRUCTIONS: now["decoded"], regs.READ_BEATS: now["read_beat"],
                  regs.WRITE_BEATS: now["write_beat"]}
        events |= {address: causes[engine] >> cause & 1 for (engine, cause), address in COUNTERS.items()}
        for address, event in events.items():
            self.counters[address] += event


def random_access(source: random.Random, axil: dict, busy: float) -> dict:
    """The master's signals of the next cycle; what was offered and not accepted stays."""
    known = [*HostModel().readable(dict.fromkeys(("busy", "error", "error_address"), 0)), regs.CONTROL]
    pick = lambda: source.choice((source.choice(known), source.choice(known) + 2, source.getrandbits(12)))  # noqa: E731
    fresh = {"awvalid": source.random() < busy, "awaddr": pick(), "awprot": source.getrandbits(3),
             "wvalid": source.random() < busy, "wdata": source.choice((1, 2, 3, WORD - 1, source.getrandbits(32))),
             "wstrb": source.choice((15, 15, 15, 0, 8)), "arvalid": source.random() < busy, "araddr": pick(),
             "arprot": source.getrandbits(3), "bready": source.random() < 0.5, "rready": source.random() < 0.5}
    if source.random() < 0.2:
        fresh["awaddr"] = regs.CONTROL
    held = [name for channel in ("aw", "w", "ar") if axil.get(f"{channel}valid") and not axil[f"{channel}ready"]
            for name in fresh if name.startswith(channel)]
    return {name: axil[name] if name in held else int(value) for name, value in fresh.items()}


@cocotb.test(timeout_time=100, timeout_unit="us")
async def cycle_counters(dut):
    """Every cycle of a run counts for its cause; a run starts from zero, between runs nothing counts."""
    ctx = await begin(dut, "cycle_counters")
    source, counts = random.Random(5), [0] * len(regs.CAUSES)
    for _ in range(2000):
        cause, index = source.randrange(len(regs.CAUSES)), source.randrange(len(regs.CAUSES) + 1)
        begins, running = source.random() < 0.01, source.random() < 0.8
        await ctx.drive(begin=begins, running=running, causes=1 << cause, index=index)
        assert ctx.read("value") == ((*counts, 0)[index],)
        await ctx.tick()
        if begins or running:
            counts = [0] * len(counts) if begins else counts
            counts[cause] += 1


@cocotb.test(timeout_time=500, timeout_unit="us")
async def registers(dut):
    """Accesses with random stalls on all five channels, in runs that begin and end at random; answers after a cycle."""
    ctx = await begin(dut, "registers")
    ports, source, model, axil, seen = ctx.ports, random.Random(1), HostModel(), {}, set()
    stable = {name: Stable(name) for name in "rb"}
    for cycle in range(5000):
        axil = random_access(source, axil, (0.05, 0.5, 1.0)[cycle // 100 % 3])
        now = {name: int(source.random() < p) for name, p in (
            ("begin", 0.02), ("running", 0.8), ("busy", 0.5), ("finished", 0.05), ("decoded", 0.3),
            ("read_beat", 0.5), ("write_beat", 0.5))}
        now |= {"error": source.choice((0, 0, *Error, 255)), "error_address": source.choice((0, WORD - 1, cycle))}
        causes = [1 << source.randrange(len(regs.CAUSES)) for _ in regs.ENGINES]
        for name, value in axil.items():
            ctx.set(getattr(ports.axil, name), value)
        for port, value in zip(ports.causes, causes, strict=True):
            ctx.set(port, value)
        await ctx.drive(**now)
        outputs = model.outputs(now, axil)
        found = {name: ctx.get(getattr(ports if name in ("start", "irq") else ports.axil, name)) for name in outputs}
        if not model.rvalid:
            outputs["rdata"] = found["rdata"]
        assert found == {name: int(value) for name, value in outputs.items()}
        assert ctx.get(ports.program) == model.words[regs.PROGRAM]
        assert [ctx.get(port) for port in ports.arguments] == [model.words[regs.ARGUMENT_BASE + 4 * n]
                                                              for n in range(4)]
        for name, check in stable.items():
            check.check(found[f"{name}valid"], axil[f"{name}ready"], found["rdata"] if name == "r" else 0)
        if found["arready"]:
            seen.add(axil["araddr"] // 4 * 4)
        axil |= {f"{channel}ready": found[f"{channel}ready"] for channel in ("aw", "w", "ar")}
        model.step(now, axil, causes)
        await ctx.tick()
    assert seen >= set(model.readable(now))


class SupervisorModel:
    """Runs by the supervisor's docstring, cycle by cycle."""

    def __init__(self):
        self.state, self.asked, self.error = "idle", 0, 0

    def outputs(self, quiet, timeout, request, fault, ended, located) -> dict[str, int]:
        """Outputs in this cycle."""
        state, wanted = self.state, request or self.asked
        refused = wanted and timeout and (state == "stuck" or state == "idle" and not quiet)
        stopped = state == "stop" and located and (quiet or timeout)
        return {
            "begin": refused or state == "idle" and wanted and quiet,
            "fallen": state == "run" and fault,
            "halt": state in ("stop", "stuck", "refused"),
            "clear": stopped and quiet or state == "stuck" and not refused and quiet,
            "running": state in ("run", "stop", "refused"),
            "busy": state in ("run", "stop", "refused") or self.asked,
            "finished": stopped or state == "refused" or state == "run" and ended and not fault,
            "error": self.error,
        }

    def step(self, code: int, **now) -> None:
        """Go to the next cycle."""
        outputs, state = self.outputs(**now), self.state
        waiting = (now["request"] or self.asked) and not outputs["begin"]
        self.asked = int(bool(waiting and state in ("idle", "stuck")))
        if outputs["begin"]:
            refused = state == "stuck" or not now["quiet"]
            self.state, self.error = ("refused", Error.BUS_TIMEOUT) if refused else ("run", Error.NONE)
        elif outputs["fallen"]:
            self.state, self.error = "stop", code
        elif outputs["finished"]:
            self.state = "idle" if state == "run" or outputs["clear"] else "stuck"
        elif outputs["clear"]:
            self.state = "idle"


@cocotb.test(timeout_time=500, timeout_unit="us")
async def supervisor(dut):
    """Random requests, ends and faults on a bus that is quiet, busy or silent; the first fault of a run wins."""
    ctx = await begin(dut, "supervisor")
    source, model, seen = random.Random(1), SupervisorModel(), set()
    quiet = timeout = 0
    for _ in range(6000):
        if source.random() < 0.2:
            quiet, timeout = source.choice(((0, 0), (0, 0), (1, 0), (0, 1)))
        now = {"quiet": quiet, "timeout": timeout, **{name: int(source.random() < p) for name, p in (
            ("request", 0.2), ("fault", 0.05), ("ended", 0.1), ("located", 0.4))}}
        code = source.choice([*Error][1:])
        await ctx.drive(code=code, **now)
        expected = {name: int(value) for name, value in model.outputs(**now).items()}
        assert dict(zip(expected, ctx.read(*expected), strict=True)) == expected, model.state
        seen.add((model.state, *(name for name in ("begin", "fallen", "clear", "finished") if expected[name])))
        model.step(code, **now)
        await ctx.tick()
    assert seen >= {("idle", "begin"), ("run", "fallen"), ("run", "finished"), ("stop", "clear", "finished"),
                    ("stop", "finished"), ("stuck", "begin"), ("stuck", "clear"), ("refused", "finished")}


def reported(now: dict, completed: list[int], started: list[int]) -> tuple:
    """Fault, code, queues in question and the numbers from which on they are, by the order of their kinds."""
    load = [now["load_number"], *completed[1:]]
    store = [*completed[:-1], now["store_number"]]
    kinds = (
        (now["load_failed"], Error.READ_FAILED, 0b0001, load), (now["store_failed"], Error.WRITE_FAILED, 0b1000, store),
        (now["overflow"], Error.SEMAPHORE_RANGE, now["overflow"], completed),
        (now["underflow"], Error.SEMAPHORE_RANGE, now["underflow"], started),
        (now["rejected"], now["rejected_code"], 0, completed),
        (now["read_timeout"], Error.BUS_TIMEOUT, now["loading"], load),
        (now["write_timeout"], Error.BUS_TIMEOUT, 0b1000, store), (now["deadlock"], Error.DEADLOCK, 0b1111, completed),
    )
    for happened, *rest in kinds:
        if happened:
            return (1, *rest)
    return (0, 0, 0, completed)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def faults(dut):
    """Every kind of fault, alone and with others, in the same cycle."""
    ctx = await begin(dut, "faults")
    source = random.Random(1)
    for cycle in range(2000):
        often = (0.05, 0.3)[cycle % 2]
        now = {name: int(source.random() < often) for name in (
            "load_failed", "store_failed", "rejected", "deadlock", "read_timeout", "write_timeout", "loading")}
        now |= {name: source.randrange(16) * (source.random() < often) for name in ("overflow", "underflow")}
        now |= {name: source.randrange(256) for name in ("load_number", "store_number", "rejected_code")}
        completed, started = ([source.randrange(256) for _ in range(QUEUES)] for _ in range(2))
        for name, numbers in (("completed", completed), ("started", started)):
            for port, number in zip(getattr(ctx.ports, name), numbers, strict=True):
                ctx.set(port, number)
        await ctx.drive(**now)
        found = (*ctx.read("fault", "code", "mask"), [ctx.get(port) for port in ctx.ports.numbers])
        assert found == reported(now, completed, started)
        await ctx.tick()


async def search(ctx: Context, mask: int, numbers: list[int], fallback: int) -> tuple[int, int]:
    """Search; return the address and in which cycle after the search it is found."""
    ctx.set(ctx.ports.search, 1)
    for port, number in zip(ctx.ports.numbers, numbers, strict=True):
        ctx.set(port, number)
    await ctx.drive(mask=mask, fallback=fallback)
    await ctx.tick()
    await ctx.drive(search=0, mask=15 - mask, fallback=0)
    for cycle in range(1, 2 * HISTORY + 3):
        await ctx.settle()
        found, address = ctx.read("found", "address")
        if found:
            return address, cycle
        await ctx.tick()
    raise AssertionError("the search does not end")


def oldest(entries: list[tuple[int, int]], mask: int, left: list[int]) -> tuple[int | None, int]:
    """Position of the oldest entry in question among the last, and how many entries lie from there to the newest."""
    missing, answer = [count if mask >> queue & 1 else 0 for queue, count in enumerate(left)], None
    for walked, (queue, position) in enumerate(reversed(entries[-HISTORY:])):
        if not any(missing):
            return answer, walked
        if missing[queue]:
            missing[queue], answer = missing[queue] - 1, position
    return answer, min(len(entries), HISTORY)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def history(dut):
    """The oldest instruction in question, two cycles per instruction passed; its address outlives a reset."""
    ctx = await begin(dut, "history")
    source = random.Random(1)
    for length in (1, 3, 90, HISTORY, 2 * HISTORY + 77):
        await ctx.reset()
        entries = [(source.randrange(QUEUES), source.choice((0, 2**32 - 1, source.getrandbits(32))))
                   for _ in range(length)]
        for queue, position in entries:
            await ctx.drive(record=1, queue=queue, position=position)
            await ctx.tick()
            if source.random() < 0.2:
                await ctx.drive(record=0)
                await ctx.tick()
        await ctx.drive(record=0)
        entries = [(queue, position % (1 << POSITION_BITS)) for queue, position in entries]
        counts = [sum(queue == q for queue, _ in entries) for q in range(QUEUES)]
        for _ in range(8):
            mask, fallback = source.randrange(16), source.getrandbits(32)
            left = [source.randint(0, min(count, source.choice((2, 60, 255)))) for count in counts]
            answer, walked = oldest(entries, mask, left)
            numbers = [(count - n) % (1 << NUMBER_BITS) for count, n in zip(counts, left, strict=True)]
            address, cycles = await search(ctx, mask, numbers, fallback)
            assert address == (fallback if answer is None else answer)
            assert cycles == 2 * walked + 1
        await ctx.reset()
        assert ctx.read("address") == (address,)
