"""cocotb tests of the array engine's Verilog, 8x8, its rows being instances; started by test_array_engine.py."""

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, Timer

from phonolith.hw.isa import BY_MNEMONIC
from phonolith.hw.layouts import operands_layout
from tests.hw.test_array_engine import DEPTH, Matmul, count, random_matmul

SIZE = 8
LIMIT = 6000


class Banks:
    """Python's model of the operand banks: a word read in one cycle is at the port in the next."""

    def __init__(self, dut, name: str, content: np.ndarray):
        self.ports = [[getattr(dut, f"{name}__{bank}__{pin}") for pin in ("enable", "address", "data")]
                      for bank in range(SIZE)]
        self.content = content

    def request(self) -> list[tuple]:
        """Return (port, word) of the banks that are read in this cycle."""
        return [(data, int.from_bytes(self.content[bank, int(address.value)].tobytes(), "little"))
                for bank, (enable, address, data) in enumerate(self.ports) if int(enable.value)]


class Driver:
    """Plays instruction queue, operand banks and drain reader, a cycle at a time."""

    def __init__(self, dut, instructions: list[Matmul], delays: np.random.Generator, slowest: int, seed: int):
        random = np.random.default_rng(seed)
        shape = (SIZE, DEPTH, SIZE)
        self.activations, self.weights = (random.integers(-128, 128, shape).astype(np.int8) for _ in range(2))
        self.dut, self.queue, self.delays, self.slowest = dut, list(instructions), delays, slowest
        self.banks = (Banks(dut, "activation_read", self.activations), Banks(dut, "weight_read", self.weights))
        self.row, self.wait = SIZE, 0
        self.tiles: list[np.ndarray] = []
        self.done = 0

    async def cycle(self, words: list[tuple]) -> list[tuple]:
        """Drive one cycle; return the words that the banks show in the next."""
        dut = self.dut
        for port, word in words:
            port.value = word
        dut.instruction__valid.value = bool(self.queue)
        if self.queue:
            layout = operands_layout(BY_MNEMONIC["MATMUL"])
            dut.instruction__payload.value = layout.const(self.queue[0].operands()).as_value().value
        self.choose_row()
        await Timer(1, "ns")
        if self.row < SIZE:
            bits = int(dut.drain__data.value)
            self.tiles[-1][self.row] = np.frombuffer(bits.to_bytes(4 * SIZE, "little"), np.int32)
            self.row += 1
        if self.queue and int(dut.instruction__ready.value):
            self.queue.pop(0)
        self.done += int(dut.status__done.value)
        words = [word for bank in self.banks for word in bank.request()]
        await FallingEdge(dut.clk)
        return words

    def choose_row(self) -> None:
        """Start a tile when one is valid and the delay is over, or go on with the current one."""
        start = False
        if self.row == SIZE and int(self.dut.drain__valid.value):
            start, self.wait = self.wait == 0, max(self.wait - 1, 0)
        if start:
            self.tiles.append(np.zeros((SIZE, SIZE), np.int32))
            self.row, self.wait = 0, int(self.delays.integers(self.slowest + 1))
        self.dut.drain__start.value = start
        self.dut.drain__row.value = self.row % SIZE


async def compare(dut, seed: int, slowest: int) -> None:
    """Run random instructions; every tile must equal numpy's."""
    random = np.random.default_rng(seed)
    instructions = [random_matmul(random, SIZE) for _ in range(12)]
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    driver = Driver(dut, instructions, random, slowest, seed)
    dut.rst.value, dut.instruction__valid.value, dut.drain__start.value = 1, 0, 0
    for _ in range(2):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    words: list[tuple] = []
    for _ in range(LIMIT):
        words = await driver.cycle(words)
        if driver.done == len(instructions) and len(driver.tiles) == count(instructions) and driver.row == SIZE:
            break
    expected = [tile for i in instructions for tile in i.tiles(driver.activations, driver.weights)]
    assert driver.done == len(instructions)
    np.testing.assert_array_equal(driver.tiles, expected)


@cocotb.test()
async def prompt_reader(dut):
    """Tiles back to back."""
    await compare(dut, seed=1, slowest=0)


@cocotb.test()
async def slow_reader(dut):
    """Tiles wait for the reader."""
    await compare(dut, seed=2, slowest=50)
