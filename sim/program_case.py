"""A program with all that it finds, whether it is legal, and what the instruction-set simulator makes of it."""

from dataclasses import dataclass, replace

import numpy as np

from phonolith.compiler.assembler import Issue, Label, Value, assemble, mask_names
from phonolith.compiler.disassembler import signed, trace
from phonolith.compiler.program import READ_AHEAD_BYTES
from phonolith.compiler.races import find_deadlock, find_races
from phonolith.compiler.synchronize import synchronize
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.iss import Machine
from phonolith.sim.iss.state import State

WORD = 0xFFFFFFFF
IMAGE_BYTES = 24 * 1024
# DRAM below this address holds parameters; STOREs stay above.
PARAMETER_BYTES = 2048
Items = tuple[Issue | Label, ...]


def plain(value: Value | str) -> int:
    """Return an operand that is a number; ValueError for a register or a label."""
    if isinstance(value, int):
        return value
    raise ValueError(f"operand must be a number, not {value!r}")


@dataclass(frozen=True)
class ProgramCase:
    """A program, where it lies, and all that it finds.

    Attributes
    ----------
    seed : int
        What :func:`phonolith.sim.random_programs.random_program` made it of; also the contents of the on-chip memories.
    items : tuple
        The program before encoding.
    words : np.ndarray
        uint32.
    image : np.ndarray
        DRAM from address 0 on, uint8, without the program.
    program_address : int
        Of the first word, behind the image.
    arguments : tuple of int
        Registers 1 to 4.
    """

    seed: int
    items: Items
    words: np.ndarray
    image: np.ndarray
    program_address: int
    arguments: tuple[int, ...]

    def memory(self) -> np.ndarray:
        """Return the whole DRAM: the image, the program, and random bytes as far as the fetch unit reads ahead."""
        size = self.program_address + self.words.nbytes + READ_AHEAD_BYTES
        memory = np.random.default_rng((self.seed, 2)).integers(0, 256, size, np.uint8)
        memory[:self.image.size] = self.image
        memory[self.program_address:][:self.words.nbytes] = self.words.astype("<u4").view(np.uint8)
        return memory


def parameter_records(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return ``count`` parameter records, uint8: biases of all magnitudes, signed multipliers, fitting shifts."""
    bias = rng.normal(0, 1, count) * 2.0 ** rng.integers(0, 20, count)
    shift = np.where(rng.random(count) < 0.06, rng.integers(0, 64, count), rng.integers(10, 32, count))
    words = rng.integers(0, 1 << 17, count) | shift << 17 | rng.integers(0, 1 << 9, count) << 23
    records = np.stack([np.clip(bias, -2**31, 2**31 - 1).astype(np.int64), words], axis=1)
    return (records & WORD).astype("<u4").view(np.uint8).reshape(-1)


def random_image(seed: int) -> np.ndarray:
    """Return DRAM contents: parameter records, then random bytes."""
    rng = np.random.default_rng((seed, 1))
    image = rng.integers(0, 256, IMAGE_BYTES, np.uint8)
    image[:PARAMETER_BYTES] = parameter_records(rng, PARAMETER_BYTES // 8)
    return image


def initial_state(case: ProgramCase, config: MachineConfig) -> State:
    """Return a state whose on-chip memories hold random values; its DRAM is a copy of the case's image."""
    rng = np.random.default_rng((case.seed, 3))
    state = State(config, case.image.copy())
    for memory in (state.activation, state.weight, state.scratchpad, state.table):
        memory[:] = rng.integers(0, 256, memory.shape, np.uint8)
    state.parameter[:] = parameter_records(rng, state.parameter.size // 8)
    magnitude = 2.0 ** rng.integers(0, 47, state.row_registers.shape)
    state.row_registers[:] = (rng.uniform(-1, 1, magnitude.shape) * magnitude).astype(np.int64)
    return state


def simulate(case: ProgramCase, config: MachineConfig, on_retire=None, state: State | None = None) -> State:
    """Run a case on the instruction-set simulator and return its final state; PhonolithError when it is illegal."""
    machine = Machine(case.words, case.image, config, case.arguments, on_retire)
    start = state or initial_state(case, config)
    start.registers[:] = machine.state.registers
    machine.state = start
    machine.run()
    return machine.state


def unrolled(case: ProgramCase) -> list[Issue]:
    """Return the engine instructions in the order of issue, operands plain, semaphores as they are; then END."""
    issues = [Issue(each.instruction.mnemonic, {name: signed(value) for name, value in each.operands.items()},
                    mask_names(each.wait), mask_names(each.signal))
              for each in trace(case.words, case.arguments)]
    return [*issues, Issue("END")]


def find_illegal(case: ProgramCase, config: MachineConfig) -> str | None:
    """Return why a program's result is not defined, or None."""
    try:
        simulate(case, config)
        straight, _ = assemble(unrolled(case), config)
        found = find_races(straight, config) or find_deadlock(straight, config)
    except PhonolithError as error:
        return error.message
    return found[0] if found else None


def synchronized(plain: list[Issue], config: MachineConfig) -> list[Issue]:
    """Return plain instructions with the semaphores and fences that make their result defined."""
    words, _ = assemble([*(replace(issue, wait=(), signal=()) for issue in plain), Issue("END")], config)
    return [replace(issue, operands=issue.operands | {"control": each.operands["control"]},
                    wait=mask_names(each.wait), signal=mask_names(each.signal))
            for issue, each in zip(plain, trace(synchronize(words, config)), strict=True)]


def unsafe(issues: list[Issue], config: MachineConfig) -> bool:
    """Tell whether plain instructions with semaphores race or get stuck."""
    words, _ = assemble([*issues, Issue("END")], config)
    try:
        return bool(find_races(words, config) or find_deadlock(words, config))
    except ValueError:
        return True
