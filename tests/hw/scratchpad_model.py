"""The scratchpad as an array of bytes, and random requests of everyone at once."""

import numpy as np

from phonolith.hw.config import MachineConfig
from tests.hw.vector_model import put


class Model:
    """What the memory must do, cycle by cycle."""

    def __init__(self, config: MachineConfig):
        self.config, self.depth = config, config.scratch_bank_depth
        self.words = np.zeros((config.scratch_depth, config.scratch_word_bytes), np.uint8)

    def bank(self, address: int) -> int:
        """Bank of a word."""
        return address // self.depth

    def word(self, address: int) -> int:
        """Contents of a word."""
        return int.from_bytes(self.words[address].tobytes(), "little")

    def write(self, address: int, start: int, octets) -> None:
        """Replace bytes of a word."""
        self.words[address, start:start + len(octets)] = octets


def random_cycle(random, model: Model) -> dict:
    """Requests of one cycle; source and residual never meet in a bank."""
    depth, columns = model.depth, model.config.columns
    swap = int(random.integers(2))
    pick = lambda bank: int(bank * depth + random.integers(depth))  # noqa: E731
    return {
        "source": pick(swap) if random.random() < 0.5 else None,
        "residual": pick(1 - swap) if random.random() < 0.5 else None,
        "store": pick(int(random.integers(2))) if random.random() < 0.7 else None,
        "vector": (pick(int(random.integers(2))), int(random.integers(1, 16)),
                   random.integers(0, 256, 2 * columns, np.uint8)) if random.random() < 0.5 else None,
        "load": (pick(int(random.integers(2))), int(random.integers(2 * columns // model.config.word_bytes)),
                 random.integers(0, 256, model.config.word_bytes, np.uint8)) if random.random() < 0.7 else None,
    }


def apply(ctx, dut, cycle: dict):
    """Drive the requests of one cycle."""
    for name in ("source", "residual", "store"):
        port = getattr(dut, f"{name}_read")
        ctx.set(port.enable, cycle[name] is not None)
        ctx.set(port.address, cycle[name] or 0)
    address, enable, octets = cycle["vector"] or (0, 0, np.zeros(1, np.uint8))
    ctx.set(dut.vector_write.enable, enable)
    ctx.set(dut.vector_write.address, address)
    ctx.set(dut.vector_write.data, int.from_bytes(octets.tobytes(), "little"))
    ctx.set(dut.load_write.valid, cycle["load"] is not None)
    address, part, octets = cycle["load"] or (0, 0, np.zeros(1, np.uint8))
    ctx.set(dut.load_write.payload, {"address": address, "part": part,
                                     "data": int.from_bytes(octets.tobytes(), "little")})


def update(ctx, dut, model: Model, cycle: dict, shown: dict) -> dict:
    """Check who is granted, note what must be read next, and write."""
    banks_read = {model.bank(cycle[name]) for name in ("source", "residual") if cycle[name] is not None}
    reads = {name: cycle[name] for name in ("source", "residual") if cycle[name] is not None}
    if cycle["store"] is not None:
        granted = model.bank(cycle["store"]) not in banks_read
        assert ctx.get(dut.store_ready) == granted
        if granted:
            reads["store"] = cycle["store"]
    shown = {**{k: v for k, v in shown.items() if k == "store"}, **{k: model.word(v) for k, v in reads.items()}}
    write(ctx, dut, model, cycle)
    return shown


def write(ctx, dut, model: Model, cycle: dict):
    """Carry out what the cycle writes; LOAD waits for the vector engine in its bank."""
    columns = model.config.columns
    if cycle["load"] is not None:
        address, part, octets = cycle["load"]
        blocked = cycle["vector"] is not None and model.bank(cycle["vector"][0]) == model.bank(address)
        assert ctx.get(dut.load_write.ready) == (not blocked)
        if not blocked:
            model.write(address, part * model.config.word_bytes, octets)
    if cycle["vector"] is not None:
        address, enable, octets = cycle["vector"]
        put(model.words[address], int.from_bytes(octets.tobytes(), "little"), enable, 4 * columns)
