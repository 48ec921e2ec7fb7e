"""Whatever stopped a run, and wherever, the next one is as on a fresh machine: every memory, cycle and counter."""

from functools import cache

import numpy as np
import pytest

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.sim.iss.state import State
from phonolith.sim.program_case import ProgramCase, initial_state, simulate
from phonolith.sim.program_check import compare, fill_rtl
from phonolith.sim.random_programs import random_program
from phonolith.sim.rtl.run import BusFault, Response, RtlMachine, RunResult

CONFIG = MachineConfig().with_array("8x8")
VICTIMS, WITNESSES = range(2000, 2040), range(3000, 3012)
TRIALS = 150


@cache
def machine() -> RtlMachine:
    return RtlMachine(CONFIG)


@cache
def program(seed: int) -> ProgramCase:
    return random_program(seed, CONFIG)


def run(seed: int, **options) -> RunResult:
    """Run a program on memories filled as it expects them."""
    case = program(seed)
    fill_rtl(initial_state(case, CONFIG), machine())
    return machine().run(case.memory(), case.program_address, case.arguments, quiet_cycles=1_200_000, **options)


def headers(case: ProgramCase) -> list[int]:
    """Return the word index of every instruction."""
    found, index = [], 1
    while index < case.words.size:
        found.append(index)
        opcode = isa.unpack(isa.HEADER, int(case.words[index]))["opcode"]
        index += 1 + len(isa.BY_OPCODE[opcode].operands)
    return found


@cache
def fresh(seed: int) -> tuple[State, dict, dict]:
    """What a program leaves by the simulator, and its counters on a machine that was reset."""
    machine().reset()
    result = run(seed)
    return simulate(program(seed), CONFIG), result.counters, result.engines


def check_witness(generator: np.random.Generator) -> None:
    """One program, right to the bit and to the cycle."""
    seed = int(generator.choice(WITNESSES))
    right, (state, counters, engines) = program(seed), fresh(seed)
    result = run(seed)
    assert compare(right, state, machine(), result) is None
    assert (result.counters, result.engines) == (counters, engines)


@pytest.fixture(scope="module", autouse=True)
def witnesses():
    """Have them all measured before anything goes wrong."""
    for seed in WITNESSES:
        fresh(seed)


@pytest.mark.parametrize("seed", range(4))
def test_after_a_bus_fault(seed):
    generator = np.random.default_rng(seed)
    stopped = 0
    for _ in range(TRIALS):
        channel = str(generator.choice(["read", "read", "write"]))
        fault = BusFault(channel, int(generator.integers(0, 60 if channel == "read" else 12)),
                         Response(int(generator.integers(2, 4))), int(generator.integers(0, 16)))
        stalls = int(generator.integers(100)) if seed % 2 else None
        result = run(int(generator.choice(VICTIMS)), faults=(fault,), stalls_seed=stalls)
        stopped += not result.done
        check_witness(generator)
    assert stopped > TRIALS // 5


@pytest.mark.parametrize("seed", range(4))
def test_after_a_reset(seed):
    generator = np.random.default_rng(seed)
    for _ in range(TRIALS):
        case = program(int(generator.choice(VICTIMS)))
        stalls = int(generator.integers(100)) if seed % 2 else None
        machine().interrupt(case.memory(), case.program_address, case.arguments,
                            cycles=int(generator.integers(1, 700)), stalls_seed=stalls)
        check_witness(generator)


@pytest.mark.parametrize("seed", range(2))
def test_after_a_word_that_is_no_instruction(seed):
    """The program is cut off by an illegal word at a random place, with everything before it under way."""
    generator = np.random.default_rng(seed)
    for _ in range(TRIALS):
        case = program(int(generator.choice(VICTIMS)))
        memory = case.memory()
        at = case.program_address + 4 * int(generator.choice(headers(case)))
        memory[at:at + 4] = 0xFF
        stalls = int(generator.integers(100)) if seed else None
        fill_rtl(initial_state(case, CONFIG), machine())
        machine().run(memory, case.program_address, case.arguments, quiet_cycles=1_200_000, stalls_seed=stalls)
        check_witness(generator)
