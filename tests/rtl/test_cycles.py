"""Cycles, causes and beats of fixed programs, exactly: what gets slower or faster must say so.

After a change that is meant to change them: ``pytest tests/rtl/test_cycles.py --update-golden``.
"""

import json
from functools import cache
from pathlib import Path

import pytest

from phonolith.hw.config import MachineConfig
from phonolith.sim.program_case import initial_state
from phonolith.sim.program_check import fill_rtl
from phonolith.sim.random_programs import random_program
from phonolith.sim.rtl.run import RtlMachine, RunResult
from tests.rtl.programs import tile_case

GOLDEN = Path(__file__).with_name("cycles.json")
CONFIG = MachineConfig().with_array("8x8")
# Programs by seed; with stalls, the machine waits for the bus in other places.
SEEDS = (*range(24), 4007, 4013)
STALLS = (None, 1)


@cache
def built() -> RtlMachine:
    return RtlMachine(CONFIG)


def machine() -> RtlMachine:
    """The machine with an empty bus: a start waits for late beats of the run before."""
    built().reset()
    return built()


def measured(result: RunResult) -> dict:
    assert result.done and result.pin_cycles == result.cycles
    assert result.dram_write_beats == result.counters["write_beats"]
    engines = {name: [each["busy"], each["idle"], *each["stalled"].values()] for name, each in result.engines.items()}
    assert {sum(each) for each in engines.values()} == {result.cycles}
    return {**result.counters, **engines}


def run_tile(stalls: int | None) -> dict:
    case = tile_case(CONFIG)
    return measured(machine().run(case.image, case.program, case.arguments, stalls_seed=stalls))


def run_program(seed: int, stalls: int | None) -> dict:
    case = random_program(seed, CONFIG)
    rtl = machine()
    fill_rtl(initial_state(case, CONFIG), rtl)
    return measured(rtl.run(case.memory(), case.program_address, case.arguments, stalls_seed=stalls))


@cache
def golden() -> dict:
    return json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("stalls", STALLS)
@pytest.mark.parametrize("program", ["tile", *map(str, SEEDS)])
def test_cycles_and_causes(program, stalls, update_golden):
    now = run_tile(stalls) if program == "tile" else run_program(int(program), stalls)
    name = program if stalls is None else f"{program} with stalls"
    if update_golden:
        known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        lines = (f'"{key}": {json.dumps(value)}' for key, value in sorted({**known, name: now}.items()))
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    else:
        assert now == golden()[name]
