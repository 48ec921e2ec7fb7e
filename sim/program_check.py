"""One program on the instruction-set simulator and on RTL: DRAM and every on-chip memory afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from phonolith.compiler.disassembler import instruction_at, line
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.coverage import Coverage
from phonolith.sim.iss.state import State
from phonolith.sim.ladder import last_write
from phonolith.sim.program_case import ProgramCase, initial_state, simulate
from phonolith.sim.rtl.run import RtlMachine, RunResult

# No random program comes near these.
MAX_CYCLES = 2_000_000
QUIET_CYCLES = 100_000


@dataclass(frozen=True)
class MemoryDifference:
    """The first place where two memories differ.

    Attributes
    ----------
    memory : str
        ``DRAM``, ``activation``, ``weight``, ``scratchpad``, ``parameter``, ``row_register``, ``table``; ``run`` when
        the RTL did not come to its end.
    index : tuple of int
        Of the byte: (address), (bank, word, byte), or (word, byte); of a row register (register, row); of a table
        (lane, entry).
    expected, actual : int or str
        The simulator's value and the RTL's; for ``run`` what should and what did happen.
    cycle : int or None
        In which the RTL last wrote there, if known.
    """

    memory: str
    index: tuple[int, ...]
    expected: int | str
    actual: int | str
    cycle: int | None = None

    def address(self, config: MachineConfig) -> int | None:
        """Return the DRAM byte, the table's entry, the row, or the word of a memory, as programs count them."""
        if self.memory == "scratchpad":
            return self.index[0] * config.scratch_bank_depth + self.index[1]
        return self.index[-2 if self.memory in ("activation", "weight", "parameter") else -1] if self.index else None


@dataclass(frozen=True)
class Memory:
    """One memory in both worlds: ``state``, an array of a :class:`State`, and ``rtl``, the RTL's copy of it.

    Both are of the same shape, the index of an element being that of :class:`MemoryDifference`; ``rtl`` is written
    through.
    """

    name: str
    state: np.ndarray
    rtl: np.ndarray
    lead: tuple[int, ...] = ()

    def difference(self) -> MemoryDifference | None:
        """Return the first element that differs."""
        if np.array_equal(self.state, self.rtl):
            return None
        index = tuple(int(each) for each in np.argwhere(self.state != self.rtl)[0])
        return MemoryDifference(self.name, (*self.lead, *index), int(self.state[index]), int(self.rtl[index]))


def on_chip(state: State, views: dict[str, np.ndarray], config: MachineConfig) -> Iterator[Memory]:
    """Yield every on-chip memory of a state beside the RTL's (:meth:`RtlMachine.memories`)."""
    word = config.word_bytes
    for name, banks in (("activation", state.activation), ("weight", state.weight)):
        for bank, contents in enumerate(banks):
            rtl = views[f"{name}_bank_{bank}"]
            yield Memory(name, contents[:len(rtl) * word].reshape(-1, word), rtl[:, :word], (bank,))
    halves = state.scratchpad.reshape(2, -1, config.scratch_word_bytes)
    for bank in range(2):
        rtl = views[f"scratchpad.bank_{bank}"][:, :config.scratch_word_bytes]
        yield Memory("scratchpad", halves[bank], rtl, (bank,))
    parameters = state.parameter.reshape(-1, config.parameter_word_bytes)
    yield Memory("parameter", parameters, views["parameters"][:, :config.parameter_word_bytes])
    for lane in range(config.columns):
        yield Memory("table", state.table, views[f"vector.table_{lane}"][:, 0], (lane,))


def row_registers(views: dict[str, np.ndarray], config: MachineConfig) -> np.ndarray:
    """Return the RTL's row registers, a live view, uint64 ``[4, R]`` of 48 bits each."""
    return views["vector.registers"].view("<u8").reshape(isa.ROW_REGISTERS, config.rows)


def unsigned_rows(state: State) -> np.ndarray:
    """Return a state's row registers as uint64 of 48 bits each."""
    return (state.row_registers & (1 << isa.ROW_BITS) - 1).astype(np.uint64)


def fill_rtl(state: State, rtl: RtlMachine) -> None:
    """Give the RTL's on-chip memories the contents of a state."""
    views = rtl.memories()
    for memory in on_chip(state, views, rtl.config):
        memory.rtl[:] = memory.state
    row_registers(views, rtl.config)[:] = unsigned_rows(state)


def check(case: ProgramCase, rtl: RtlMachine, stalls_seed: int | None = None,
          coverage: Coverage | None = None, log_writes: bool = False) -> MemoryDifference | None:
    """Run a case on both and return where they first differ.

    ``stalls_seed`` holds up every AXI channel at random. PhonolithError when the case is illegal.
    """
    expected = simulate(case, rtl.config, coverage.retire if coverage else None)
    fill_rtl(initial_state(case, rtl.config), rtl)
    try:
        result = rtl.run(case.memory(), case.program_address, case.arguments, max_cycles=MAX_CYCLES,
                         quiet_cycles=QUIET_CYCLES, stalls_seed=stalls_seed, log_writes=log_writes)
    except PhonolithError as error:
        if error.kind not in ("hang", "axi-protocol"):
            raise
        return MemoryDifference("run", (), "the program ends", error.message)
    if coverage:
        coverage.stall(result.engines)
    return compare(case, expected, rtl, result)


def compare(case: ProgramCase, expected: State, rtl: RtlMachine, result: RunResult) -> MemoryDifference | None:
    """Return the first difference after a run: its end, DRAM, then each memory."""
    if not result.done or result.bus_error:
        end = f"status {result.status:#x} at word {result.error_address}, bus error {result.bus_error}"
        return MemoryDifference("run", (), "the program ends", end)
    memory = case.memory()
    memory[:expected.dram.size] = expected.dram
    wrong = np.flatnonzero(memory != result.image)
    if len(wrong):
        address = int(wrong[0])
        return MemoryDifference("DRAM", (address,), int(memory[address]), int(result.image[address]),
                                last_write(address, result.writes))
    views = rtl.memories()
    rows = Memory("row_register", unsigned_rows(expected), row_registers(views, rtl.config))
    found = (memory.difference() for memory in (*on_chip(expected, views, rtl.config), rows))
    return next((each for each in found if each), None)


def element(state: State, difference: MemoryDifference) -> tuple[np.ndarray, int]:
    """Return the flat array of a state, and the place in it, that a difference is about."""
    config, index = state.config, difference.index
    words = {"activation": config.word_bytes, "weight": config.word_bytes, "parameter": config.parameter_word_bytes,
             "scratchpad": config.scratch_word_bytes}
    if difference.memory == "row_register":
        return state.row_registers.reshape(-1), index[0] * config.rows + index[1]
    if difference.memory == "table":
        return state.table, index[1]
    if difference.memory == "DRAM":
        return state.dram, index[0]
    flat = getattr(state, difference.memory).reshape(-1)
    at = index[-2] * words[difference.memory] + index[-1]
    return flat, at + (index[0] * (len(flat) // bank_count(difference.memory, config)) if len(index) == 3 else 0)


def bank_count(memory: str, config: MachineConfig) -> int:
    """Return how many banks a memory has."""
    return {"activation": config.rows, "weight": config.columns, "scratchpad": 2}[memory]


def last_writer(case: ProgramCase, config: MachineConfig, difference: MemoryDifference) -> str | None:
    """Return the last instruction (disassembled) that writes where two runs differ; None if none does.

    Before each instruction the place gets a value that tells a write; a second pass with another one finds writes of
    that very value. What a program writes where depends on no memory contents.
    """
    seen = [each for poison in (0x5A, 0xA5) for each in last_write_seen(case, config, difference, poison)]
    if not seen:
        return None
    _, position = max(seen)
    return line(case.words, position, instruction_at(case.words, position))


def describe_difference(case: ProgramCase, config: MachineConfig, found: MemoryDifference) -> dict:
    """Return a difference with the contract's keys.

    ``tensor`` and ``memory`` name the memory, ``index`` and ``address`` the place in it, ``instruction`` is the last
    one that writes there (disassembled).
    """
    writer = None if found.memory == "run" else last_writer(case, config, found)
    return {"rung": "rtl", "tensor": found.memory, "memory": found.memory, "index": list(found.index),
            "address": found.address(config), "expected": found.expected, "actual": found.actual,
            "instruction": writer, "cycle": found.cycle}


def last_write_seen(case: ProgramCase, config: MachineConfig, difference: MemoryDifference,
                    poison: int) -> Iterator[tuple[int, int]]:
    """Yield (ordinal, word position) of the last instruction that replaced a poisoned value."""
    state = initial_state(case, config)
    flat, at = element(state, difference)
    flat[at] = poison
    seen: list[tuple[int, int]] = []
    ordinals = iter(range(1 << 62))

    def on_retire(position: int, _mnemonic: str, _operands: dict, _state: State) -> None:
        ordinal = next(ordinals)
        if flat[at] != poison:
            seen.append((ordinal, position))
            flat[at] = poison

    simulate(case, config, on_retire, state)
    yield from seen[-1:]
