"""Behavioural peers for Amaranth's simulator: an AXI4 memory that checks the protocol, and stream ends that stall.

Every peer is a background testbench. It samples its signals at the clock edge and sets the next cycle's inputs.
"""

import random
from collections import deque

import numpy as np

MEMORY_BYTES = 1 << 16
PAGE = 4096


class Stalls:
    """Random refusals with a fixed seed; probability 0 refuses nothing."""

    def __init__(self, seed: int, probability: float):
        self.random = random.Random(seed)
        self.probability = probability

    def go(self) -> bool:
        """Whether to proceed in this cycle."""
        return self.random.random() >= self.probability


class Stable:
    """Asserts that a payload stays until it is transferred."""

    def __init__(self, name: str):
        self.name = name
        self.held = None

    def check(self, valid: int, ready: int, *payload) -> None:
        """Check one sampled cycle."""
        if self.held is not None:
            assert valid and payload == self.held, f"{self.name} changed before it was accepted"
        self.held = payload if valid and not ready else None


class Watchdog:
    """Asserts that some count changes within ``patience`` cycles."""

    def __init__(self, patience: int = 500):
        self.patience = patience
        self.seen = None
        self.waited = 0

    def check(self, *counts: int) -> None:
        """Check one cycle."""
        self.waited = self.waited + 1 if counts == self.seen else 0
        self.seen = counts
        assert self.waited < self.patience, f"stuck for {self.patience} cycles at {counts}"


def check_burst(address: int, length: int, bus_bytes: int) -> None:
    """Assert what bursts of the DMA keep: aligned, at most 64 beats, within 4 KiB."""
    assert address % bus_bytes == 0
    assert length < 64
    assert address // PAGE == (address + length * bus_bytes) // PAGE, "burst crosses 4 KiB"


class AxiMemory:
    """DRAM of 64 KiB, repeated over the whole address space.

    Parameters
    ----------
    bus_bytes, latency : int
        ``latency``: cycles from an accepted address to the first beat, and from the last beat to the response.
    data : numpy.ndarray
        uint8, MEMORY_BYTES.
    limit : int
        Transactions in flight that are legal.
    stalls : Stalls
    error_beats : collection of int
        R beats (from 0), or W beats (from 1) whose burst they end, that are answered with SLVERR.
    """

    def __init__(self, bus_bytes: int, data: np.ndarray, latency: int, limit: int, stalls: Stalls,
                 error_beats=()):
        self.bus_bytes = bus_bytes
        self.data = data
        self.latency = latency
        self.limit = limit
        self.stalls = stalls
        self.error_beats = error_beats
        self.cycle = 0
        self.address_cycles: list[int] = []   # cycles in which an address was accepted
        self.data_cycles: list[int] = []      # cycles in which a beat was transferred
        self.bytes_written = 0
        self.beats: deque = deque()           # reads: (earliest cycle, address, last)
        self.bursts: deque = deque()          # writes: (address, beats left)
        self.responses: deque = deque()       # writes: earliest cycle

    @property
    def writes_in_flight(self) -> int:
        """Write bursts whose response has not been taken."""
        return len(self.bursts) + len(self.responses)

    async def serve_reads(self, ctx, axi) -> None:
        """Play the memory for AR and R."""
        address_stable = Stable("AR")
        sampled = ctx.tick().sample(axi.arvalid, axi.arready, axi.araddr, axi.arlen, axi.rvalid, axi.rready)
        ctx.set(axi.arready, self.stalls.go())
        async for _, _, arvalid, arready, address, length, rvalid, rready in sampled:
            address_stable.check(arvalid, arready, address, length)
            if arvalid and arready:
                self.accept_read(address, length)
            if rvalid and rready:
                self.data_cycles.append(self.cycle)
                self.beats.popleft()
            self.cycle += 1
            held = rvalid and not rready
            ctx.set(axi.arready, self.stalls.go())
            offered = bool(self.beats) and self.beats[0][0] <= self.cycle and (held or self.stalls.go())
            ctx.set(axi.rvalid, offered)
            if offered and not held:
                _, address, last = self.beats[0]
                ctx.set(axi.rdata, int.from_bytes(self.beat(address).tobytes(), "little"))
                ctx.set(axi.rlast, last)
                ctx.set(axi.rresp, 2 if len(self.data_cycles) in self.error_beats else 0)

    def accept_read(self, address: int, length: int) -> None:
        """Queue the beats of a burst."""
        check_burst(address, length, self.bus_bytes)
        self.address_cycles.append(self.cycle)
        earliest = self.cycle + self.latency
        for i in range(length + 1):
            self.beats.append((earliest, address + i * self.bus_bytes, i == length))
        assert sum(last for *_, last in self.beats) <= self.limit, "too many reads in flight"

    def beat(self, address: int) -> np.ndarray:
        """View of one beat."""
        low = address % MEMORY_BYTES
        return self.data[low:low + self.bus_bytes]

    async def serve_writes(self, ctx, axi) -> None:
        """Play the memory for AW, W and B."""
        address_stable, data_stable = Stable("AW"), Stable("W")
        sampled = ctx.tick().sample(axi.awvalid, axi.awready, axi.awaddr, axi.awlen,
                                    axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast, axi.bvalid, axi.bready)
        ctx.set(axi.awready, self.stalls.go())
        ctx.set(axi.wready, self.stalls.go())
        async for _, _, awvalid, awready, address, length, wvalid, wready, *beat, bvalid, bready in sampled:
            address_stable.check(awvalid, awready, address, length)
            data_stable.check(wvalid, wready, *beat)
            if wvalid and wready:
                self.accept_beat(*beat)
            if awvalid and awready:
                check_burst(address, length, self.bus_bytes)
                self.address_cycles.append(self.cycle)
                self.bursts.append([address, length])
            if bvalid and bready:
                self.responses.popleft()
            assert self.writes_in_flight <= self.limit, "too many writes in flight"
            self.cycle += 1
            held = bvalid and not bready
            ctx.set(axi.awready, self.stalls.go())
            ctx.set(axi.wready, self.stalls.go())
            due = bool(self.responses) and self.responses[0][0] <= self.cycle
            ctx.set(axi.bvalid, due and (held or self.stalls.go()))
            if due:
                ctx.set(axi.bresp, 2 if self.responses[0][1] in self.error_beats else 0)

    def accept_beat(self, data: int, strobe: int, last: int) -> None:
        """Write the strobed bytes of one beat; its address must have been accepted before."""
        assert self.bursts, "W beat without an address"
        address, left = self.bursts[0]
        assert last == (left == 0), "wlast in the wrong place"
        beat = np.frombuffer(data.to_bytes(self.bus_bytes, "little"), np.uint8)
        mask = [bool(strobe >> i & 1) for i in range(self.bus_bytes)]
        self.beat(address)[mask] = beat[mask]
        self.bytes_written += sum(mask)
        self.data_cycles.append(self.cycle)
        self.bursts[0] = [address + self.bus_bytes, left - 1]
        if last:
            self.bursts.popleft()
            self.responses.append((self.cycle + self.latency, len(self.data_cycles)))


async def feed(ctx, port, payloads: list[dict], accepted: list[int]) -> None:
    """Offer payloads one after the other without a pause; note the cycles in which they are accepted."""
    cycle = 0
    for payload in payloads:
        ctx.set(port.payload, payload)
        ctx.set(port.valid, 1)
        async for _, _, ready in ctx.tick().sample(port.ready):
            cycle += 1
            if ready:
                accepted.append(cycle - 1)
                break
    ctx.set(port.valid, 0)
