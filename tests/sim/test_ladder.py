"""The three rungs on random graphs, and that the comparison notices what it must."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import BY_MNEMONIC
from phonolith.sim.iss import run as run_iss
from phonolith.sim.ladder import execute_rtl, first_difference, machine, make_case
from phonolith.sim.verify import verify_cases, verify_random

SMALL = MachineConfig(rows=8, columns=8)


@pytest.fixture(scope="module")
def case():
    return make_case(*random_graph(3), SMALL)


@pytest.fixture(scope="module")
def run(case):
    return execute_rtl(case.program, case.image, machine(SMALL), log_writes=True)


@pytest.mark.parametrize("array", ["8x8", "16x16"])
def test_random_graphs_agree_on_all_rungs(array):
    result = verify_random("graph", 25, MachineConfig().with_array(array), seed=500)
    assert result["first_difference"] is None
    assert (result["checked"], result["failed"]) == (25, 0)
    assert result["tensors_compared"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("array", ["4x4", "8x8", "8x16", "12x20", "16x16"])
def test_a_thousand_random_graphs_agree_on_all_rungs(array):
    """As ``phonolith verify --random 1000 --kind graph --array RxC``; what programs cover is up to random programs."""
    result = verify_random("graph", 1000, MachineConfig().with_array(array), seed=0)
    assert (result["checked"], result["failed"], result["first_difference"]) == (1000, 0, None)
    assert [name for name, count in result["coverage"]["operator"].items() if not count] == []


def test_random_stalls_change_cycles_but_no_bit(case, run):
    stalled = execute_rtl(case.program, case.image, machine(SMALL), stalls_seed=7)
    assert stalled.cycles > run.cycles
    assert first_difference(case, "rtl", stalled.image) is None


def test_a_second_run_gives_the_same_cycles_and_bits(case, run):
    again = execute_rtl(case.program, case.image, machine(SMALL))
    assert again.cycles == run.cycles
    assert np.array_equal(again.image, run.image)


def test_engine_cycles_sum_to_the_total(run):
    for engine in run.engines.values():
        assert engine["busy"] + engine["idle"] + sum(engine["stalled"].values()) == run.cycles


def test_one_wrong_byte_in_any_expected_tensor_is_found(case, run):
    for name, tensor in case.expected.items():
        wrong = tensor.copy()
        wrong.reshape(-1).view(np.uint8)[-1] ^= 1
        difference = first_difference(replace(case, expected=case.expected | {name: wrong}), "rtl", run.image,
                                      run.writes)
        if name in {region.node for region in case.program.regions}:
            assert difference["tensor"] == name
            assert difference["expected"] != difference["actual"]
            assert 0 < difference["cycle"] <= run.cycles
            word, text = difference["instruction"].split(": ")
            assert text.startswith("STORE ")
            start, stop = difference["words"]
            assert start <= int(word) < stop or start == stop   # a view is stored by another node


def test_the_store_named_is_the_one_that_wrote(case):
    """Without that STORE the byte keeps what it was."""
    name = case.program.outputs[0]
    address = case.program.tensors[name].address
    word = int(case.program.writer(address).split(":")[0])
    words = case.program.words.copy()
    words[word + 1 + BY_MNEMONIC["STORE"].index("row_bytes")] = 0
    right = run_iss(case.program.words, case.image, SMALL, case.program.arguments)[address]
    before = case.image.copy()
    before[address] = right ^ 0xFF
    assert run_iss(words, before, SMALL, case.program.arguments)[address] == before[address]
    assert run_iss(case.program.words, before, SMALL, case.program.arguments)[address] == right


@pytest.mark.slow
def test_first_difference_comes_with_waveforms(monkeypatch, tmp_path):
    import phonolith.sim.verify as verify

    def corrupted(graph, inputs, config):
        case = make_case(graph, inputs, config)
        wrong = case.expected[graph.outputs[0]].copy()
        wrong.reshape(-1).view(np.uint8)[0] ^= 1
        return replace(case, expected=case.expected | {graph.outputs[0]: wrong})

    monkeypatch.setattr(verify, "make_case", corrupted)
    path = tmp_path / "around.vcd"
    found = verify_random("graph", 1, SMALL, seed=3, rungs=("golden", "rtl"), waves=path)["first_difference"]
    first, last = found["waves_cycles"]
    assert first <= found["cycle"] <= last and found["waves"] == str(path)
    times = {int(line[1:]) for line in path.read_text().splitlines() if line.startswith("#")}
    assert 2 * verify.WAVES_AROUND < len(times) <= 2 * (last - first + 1)   # two times a cycle; the run may end before


def test_verify_reports_a_wrong_expectation(monkeypatch):
    import phonolith.sim.verify as verify

    def corrupted(graph, inputs, config):
        case = make_case(graph, inputs, config)
        wrong = case.expected[graph.outputs[0]].copy()
        wrong.reshape(-1).view(np.uint8)[0] ^= 1
        return replace(case, expected=case.expected | {graph.outputs[0]: wrong})

    monkeypatch.setattr(verify, "make_case", corrupted)
    graph, inputs = random_graph(3)
    result = verify_cases([("case", graph, inputs)], SMALL, ("golden", "iss"))
    assert result["failed"] == 1
    assert result["first_difference"]["tensor"] == graph.outputs[0]


def test_a_write_outside_the_tensors_is_found(case, run):
    image = run.image.copy()
    outside = int(np.flatnonzero(~case.program.writable())[-1])
    image[outside] ^= 0x80
    difference = first_difference(case, "rtl", image)
    assert difference["index"] == [outside]


def test_a_program_for_another_machine_is_refused(case):
    other = MachineConfig()
    with pytest.raises(PhonolithError, match="was compiled for configuration"):
        execute_rtl(case.program, case.image, machine(other))
    with pytest.raises(PhonolithError, match="compiled for another machine"):
        run_iss(case.program.words, case.image, other, case.program.arguments)


def test_the_hardware_refuses_a_program_for_another_machine(case):
    words = case.program.words.copy()
    words[0] ^= 1
    with pytest.raises(PhonolithError, match="wrong configuration"):
        execute_rtl(replace(case.program, words=words), case.image, machine(SMALL))


def test_an_illegal_opcode_stops_the_hardware_with_its_address(case):
    words = case.program.words.copy()
    words[1] = words[1] & ~np.uint32(63) | np.uint32(62)
    with pytest.raises(PhonolithError, match="illegal instruction.* at program word 1"):
        execute_rtl(replace(case.program, words=words), case.image, machine(SMALL))
