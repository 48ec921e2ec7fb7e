"""The design with mutations: right without one, wrong with most, and right again."""

import numpy as np
import pytest

from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.rtl.instrument import Instrumented, mutated, select
from phonolith.sim.rtl.run import RtlMachine, RunResult
from tests.rtl.programs import Case, tile_case

CONFIG = MachineConfig().with_array("8x8")
BLOCKS = {"pe": "phonolith_row.pe*", "array": "phonolith_top.array phonolith_top.array.walk"}
COUNT = 8


@pytest.fixture(scope="module")
def design() -> Instrumented:
    return mutated(CONFIG, BLOCKS, COUNT, 1)


@pytest.fixture(scope="module")
def machine(design) -> RtlMachine:
    return RtlMachine(CONFIG, design.verilog)


@pytest.fixture(scope="module")
def case() -> Case:
    return tile_case(CONFIG)


def run(machine: RtlMachine, case: Case, number: int) -> RunResult | None:
    """A run with a mutation in force; None if it does not end."""
    select(machine, number)
    machine.reset()
    try:
        return machine.run(case.image, case.program, case.arguments, max_cycles=5000)
    except PhonolithError:
        return None


def test_table(design):
    assert [each["number"] for each in design.table] == list(range(1, 2 * COUNT + 1))
    assert [each["block"] for each in design.table] == ["pe"] * COUNT + ["array"] * COUNT
    for each in design.table:
        assert each["mode"] in ("inv", "const0", "const1", "cnot0", "cnot1")
        assert each["module"].startswith("phonolith_row.pe" if each["block"] == "pe" else "phonolith_top.array")
        assert "clk" not in each["port"].lower()
    assert any(each.get("src", "").startswith("hw/array_engine.py:") for each in design.table)


def test_a_seed_names_a_draw(design):
    assert mutated(CONFIG, BLOCKS, COUNT, 1) == design
    assert mutated(CONFIG, BLOCKS, COUNT, 2).table != design.table


def test_without_a_mutation_it_is_the_accelerator(machine, case):
    result, plain = run(machine, case, 0), RtlMachine(CONFIG)
    expected = plain.run(case.image, case.program, case.arguments)
    assert result is not None and np.array_equal(result.image, case.expected)
    assert (result.counters, result.engines) == (expected.counters, expected.engines)


def test_a_mutation_acts_only_when_chosen(machine, case):
    wrong = 0
    for number in range(1, 2 * COUNT + 1):
        result = run(machine, case, number)
        wrong += result is None or not np.array_equal(result.image, case.expected)
        right = run(machine, case, 0)
        assert right is not None and np.array_equal(right.image, case.expected)
    assert wrong >= COUNT // 2
