"""The accelerator's RTL on hand-written programs: in the C++ harness, and at its pins under cocotb."""

import numpy as np
import pytest

from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.rtl.cocotb_runner import run_cocotb
from phonolith.sim.rtl.run import RtlMachine
from phonolith.sim.rtl.source import verilog_text
from tests.rtl.programs import PROGRAM, instruction, tile_case


def machine(array: str, **fields) -> RtlMachine:
    return RtlMachine(MachineConfig.load(array=array, **fields))


@pytest.mark.parametrize("array", ["8x8", "16x16"])
@pytest.mark.parametrize("seed", range(3))
def test_tile_equals_numpy(array, seed):
    case = tile_case(MachineConfig().with_array(array), seed)
    for stalls in (None, *range(10)):
        result = machine(array).run(case.image, case.program, case.arguments, stalls_seed=stalls)
        assert result.done and np.flatnonzero(result.image != case.expected).tolist() == []


def test_counters_agree_with_the_pins():
    case = tile_case(MachineConfig().with_array("8x8"))
    result = machine("8x8").run(case.image, case.program, case.arguments)
    assert result.pin_cycles == result.cycles
    assert result.counters["read_beats"] == result.dram_read_beats
    assert result.counters["write_beats"] == result.dram_write_beats
    for engine in result.engines.values():
        assert engine["busy"] + engine["idle"] + sum(engine["stalled"].values()) == result.counters["cycles"]


def test_repeated_runs_take_the_same_cycles():
    case = tile_case(MachineConfig().with_array("8x8"))
    rtl = machine("8x8")
    cycles = {rtl.run(case.image, case.program, case.arguments).cycles for _ in range(3)}
    rtl.reset()
    assert {rtl.run(case.image, case.program, case.arguments).cycles} == cycles


def test_latency_costs_cycles_but_changes_no_bit():
    case = tile_case(MachineConfig().with_array("8x8"))
    results = [machine("8x8", dram_latency=latency).run(case.image, case.program, case.arguments)
               for latency in (1, 20, 200)]
    assert all(np.array_equal(result.image, case.expected) for result in results)
    assert results[0].cycles < results[1].cycles < results[2].cycles


def test_program_for_another_machine_is_refused():
    case = tile_case(MachineConfig().with_array("16x16"))
    result = machine("8x8").run(case.image, case.program, case.arguments)
    assert not result.done and result.error_code != 0
    assert np.array_equal(result.image, case.image)


def test_program_without_end_is_reported_as_a_hang():
    config = MachineConfig().with_array("8x8")
    words = [config.hash_word, *instruction("MATMUL", wait=1, rows=1, columns=1, k=1),
             *instruction("BRANCH_EQUAL", target=10)]
    image = np.zeros(1 << 12, np.uint8)
    image[PROGRAM:PROGRAM + 4 * len(words)] = np.array(words, "<u4").view(np.uint8)
    with pytest.raises(PhonolithError, match="'token': [1-9]") as caught:
        machine("8x8").run(image, PROGRAM, max_cycles=10_000)
    assert caught.value.kind == "hang"


def test_cocotb_at_the_pins(monkeypatch, repository, tmp_path):
    monkeypatch.syspath_prepend(str(repository))
    verilog = verilog_text(MachineConfig().with_array("8x8"))
    outcomes = run_cocotb(verilog, "phonolith_top", "tests.rtl.cocotb_top", tmp_path)
    assert len(outcomes) == 4 and all(outcomes.values())
