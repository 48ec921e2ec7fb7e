"""Lets testbenches written for Amaranth's simulator run on Verilog under cocotb, and streams that stall.

A cycle: inputs are set just after the rising edge, everything is sampled at the falling edge.
"""

from types import SimpleNamespace

import cocotb
from amaranth.hdl import Shape, ShapeCastable
from amaranth.lib.wiring import In, SignatureMembers
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer
from cocotb.utils import get_sim_time

from tests.hw.axi_memory import Stable, Stalls
from tests.hw.component_top import MACHINES, components

PERIOD = 10     # ns
PATIENCE = 2000
TOP = cocotb.top._name      # these modules are imported by a simulation: its top says which machine it is
CONFIG = MACHINES[TOP]


class Port:
    """One port of the Verilog, with its shape in Amaranth."""

    def __init__(self, handle, shape, is_input: bool):
        self.handle, self.shape, self.is_input = handle, shape, is_input
        self.signed = not isinstance(shape, ShapeCastable) and Shape.cast(shape).signed

    def read(self):
        """Return an integer, or a constant of the port's layout."""
        if self.signed:
            return self.handle.value.to_signed()
        raw = int(self.handle.value)
        return self.shape.from_bits(raw) if isinstance(self.shape, ShapeCastable) else raw

    def write(self, value) -> None:
        """Set an integer, or the fields of the port's layout."""
        fields = isinstance(value, dict)
        self.handle.value = self.shape.const(value).as_value().value if fields else int(value)


def open_ports(dut, prefix: str, members: SignatureMembers, reverse: bool = False) -> SimpleNamespace:
    """Return the ports of an interface by name, interfaces within it and arrays nested."""
    ports = SimpleNamespace()
    for name, member in members.items():
        flips = (member.flow == In) != reverse
        make = ((lambda path, member=member, flips=flips: Port(getattr(dut, path), member.shape, flips))
                if member.is_port else
                (lambda path, member=member, flips=flips: open_ports(dut, path, member.signature.members, flips)))
        path = f"{prefix}__{name}"
        size = member.dimensions[0] if member.dimensions else None
        setattr(ports, name, make(path) if size is None else [make(f"{path}__{k}") for k in range(size)])
    return ports


def leaves(ports) -> list[Port]:
    """Return all single ports."""
    if isinstance(ports, Port):
        return [ports]
    return [leaf for each in (ports if isinstance(ports, list) else vars(ports).values()) for leaf in leaves(each)]


class Tick:
    """What ``ctx.tick()`` returns: await it, iterate over it, or sample ports with it."""

    def __init__(self, clock, ports=()):
        self.clock, self.ports = clock, ports

    def sample(self, *ports: Port) -> "Tick":
        """Return the values that these ports have just before the edge."""
        return Tick(self.clock, ports)

    def __await__(self):
        return self.once().__await__()

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self.once()

    async def once(self) -> tuple:
        """Wait for the next rising edge."""
        await FallingEdge(self.clock)
        values = [port.read() for port in self.ports]
        await RisingEdge(self.clock)
        return (True, False, *values)

    async def repeat(self, count: int) -> None:
        """Wait for that many edges."""
        for _ in range(count):
            await self.once()


class Context:
    """The part of Amaranth's simulator context that the testbenches use, and one component's ports."""

    def __init__(self, dut, name: str):
        self.dut, self.name = dut, name
        self.ports = open_ports(dut, name, components(TOP)[name].signature.members)

    def set(self, port: Port, value) -> None:
        port.write(value)

    def get(self, port: Port):
        """Return a port's value; after ``set``, await :meth:`settle` first."""
        return port.read()

    def tick(self) -> Tick:
        return Tick(self.dut.clk)

    def now(self) -> int:
        """Number of this cycle."""
        return round(get_sim_time("ns")) // PERIOD

    async def settle(self) -> None:
        """Let inputs set in this cycle reach the outputs."""
        await Timer(100, "ps")

    async def pass_cycles(self, count: int) -> None:
        """Let cycles pass without a look; call it after :meth:`drive`, which ends off the edges."""
        await Timer(count * PERIOD, "ns")

    async def reset(self) -> None:
        """Reset with all inputs zero."""
        for port in leaves(self.ports):
            if port.is_input:
                port.write(0)
        self.dut.rst.value = 1
        await self.tick().repeat(2)
        self.dut.rst.value = 0

    async def drive(self, **values) -> None:
        """Set inputs by name and let them settle."""
        for name, value in values.items():
            self.set(getattr(self.ports, name), value)
        await self.settle()

    def read(self, *names: str) -> tuple:
        """Return outputs by name."""
        return tuple(self.get(getattr(self.ports, name)) for name in names)


async def begin(dut, name: str) -> Context:
    """Start the clock and reset; return the context of one component."""
    cocotb.start_soon(Clock(dut.clk, PERIOD, "ns").start())
    ctx = Context(dut, name)
    await RisingEdge(dut.clk)
    await ctx.reset()
    return ctx


def raw(payload) -> int:
    """Return a payload's bits."""
    return payload if isinstance(payload, int) else payload.as_value().value


async def send(ctx: Context, port, payloads: list, stalls: Stalls, accepted: list[int]) -> None:
    """Offer payloads with random gaps, in which the payload is garbage; note when they are accepted."""
    for payload in payloads:
        while not stalls.go():
            ctx.set(port.valid, 0)
            ctx.set(port.payload, stalls.random.getrandbits(len(port.payload.handle)))
            await ctx.tick()
        ctx.set(port.payload, payload)
        ctx.set(port.valid, 1)
        async for _, _, ready in ctx.tick().sample(port.ready):
            if ready:
                break
        accepted.append(ctx.now() - 1)
    ctx.set(port.valid, 0)


async def receive(ctx: Context, port, count: int, stalls: Stalls, seen: list[int]) -> list:
    """Take ``count`` payloads, refusing at random, and see that they stay until taken; note when."""
    stable, payloads, name, waited = Stable(ctx.name), [], ctx.name, 0
    while len(payloads) < count:
        ctx.set(port.ready, stalls.go())
        _, _, valid, ready, payload = await ctx.tick().sample(port.valid, port.ready, port.payload)
        stable.check(valid, ready, raw(payload))
        waited = 0 if valid else waited + 1
        assert waited < PATIENCE, f"{name}: {len(payloads)} of {count} payloads"
        if valid and ready:
            payloads.append(payload)
            seen.append(ctx.now() - 1)
    ctx.set(port.ready, 0)
    return payloads


async def pass_through(ctx: Context, payloads: list, count: int, probability: float, seed: int = 1):
    """Send all payloads to ``i`` and take ``count`` from ``o``; return these and the cycles of both sides.

    Nothing must follow within a few cycles.
    """
    accepted, seen = [], []
    sender = cocotb.start_soon(send(ctx, ctx.ports.i, payloads, Stalls(seed, probability), accepted))
    units = await receive(ctx, ctx.ports.o, count, Stalls(seed + 100, probability), seen)
    await sender
    for _ in range(4):
        _, _, valid = await ctx.tick().sample(ctx.ports.o.valid)
        assert not valid, f"{ctx.name} delivers more than {count}"
    return units, accepted, seen


async def compare_stream(ctx: Context, payloads: list, expected: list[tuple], fields: tuple[str, ...]) -> tuple:
    """Assert what comes out, without stalls and with; return the cycles of both sides without stalls."""
    cycles = None
    for seed, probability in enumerate((0.0, 0.3, 0.7)):
        units, *when = await pass_through(ctx, payloads, len(expected), probability, seed)
        assert [tuple(int(unit[name]) for name in fields) for unit in units] == expected
        cycles = cycles or when
    return cycles
