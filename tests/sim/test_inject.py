"""One register bit of the RTL flips: what differs is found, and what does not differ is called without effect."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from phonolith.cli.main import run
from phonolith.hw.config import MachineConfig
from phonolith.sim import inject
from phonolith.sim.coverage import Coverage
from phonolith.sim.inject import NO_EFFECT, Flip, inject_into_graphs, inject_into_programs, injector
from phonolith.sim.rtl.instrument import ID_BITS
from phonolith.sim.subjects import program_subject
from phonolith.sim.verify import graph_cases, verify_random

CONFIG = MachineConfig(rows=8, columns=8)


@pytest.fixture(scope="module")
def machine():
    return injector(CONFIG)


@pytest.fixture(scope="module")
def subject():
    """A random program without stalls, so that its cycles are always the same."""
    return program_subject(4, CONFIG, Coverage(), False)


@pytest.fixture(scope="module")
def right(machine, subject):
    return machine.right(subject)


def flip(machine, register: str, bit: int, cycle: int) -> Flip:
    names = [each["register"] for each in machine.registers]
    return Flip(register, bit, cycle, bit << ID_BITS | names.index(register) + 1)


def effect(machine, subject, right, chosen: Flip) -> tuple[str, dict | None]:
    """What judge says about one flip; the machine is reset afterwards."""
    found = machine.judge(subject, *right, machine.look(subject, chosen, right[1]))
    machine.rtl.reset()
    return found


def test_registers_can_be_flipped_everywhere(machine):
    """PEs by row and column, each lane, each dispatcher: names are unique, and no block is without."""
    names = [each["register"] for each in machine.registers]
    assert len(set(names)) == len(names) > 500
    assert {"array.array.row7.pe07.accumulator", "vector.lane_7.requantizer.product", "registers.cycles"} <= set(names)
    blocks = {name.split(".")[0] for name in names}
    assert {"fetch", "sequencer", "load", "array", "vector", "store", "registers", "supervisor", "semaphores"} <= blocks


def test_without_a_flip_nothing_differs(machine, subject, right):
    for _ in range(2):
        assert machine.judge(subject, *right, machine.look(subject)) == ("", None)
    assert right[1].cycles == machine.look(replace(subject)).outcome.cycles


def test_a_counter_flips_in_its_cycle(machine, subject, right):
    """CYCLES counts on from the flipped value: exactly one bit differs at the end."""
    for cycle in (inject.FIRST_CYCLE, 100, right[1].cycles - 1):
        found, difference = effect(machine, subject, right, flip(machine, "registers.cycles", 20, cycle))
        assert (found, difference["tensor"]) == ("counters", "counters")
        assert difference["actual"]["cycles"] == difference["expected"]["cycles"] + (1 << 20)


@pytest.mark.parametrize(("register", "bit", "kinds"), [
    ("registers.irq_enable", 0, {"hang"}),
    ("sequencer.state_state", 0, {"status", "output"}),
    ("load.in_progress", 0, {"hang"}),
    ("supervisor.running", 0, {"counters"}),
])
def test_flips_of_control_are_found(machine, subject, right, register, bit, kinds, monkeypatch):
    monkeypatch.setattr(inject, "SLACK_CYCLES", 5000)
    found, difference = effect(machine, subject, right, flip(machine, register, bit, 60))
    assert found in kinds and difference["rung"] == "rtl"
    assert machine.judge(subject, *right, machine.look(subject)) == ("", None)


def test_every_flip_is_found_or_without_effect():
    graphs = inject_into_graphs(graph_cases(20, 300), CONFIG, 5)
    programs = inject_into_programs(20, CONFIG, 5, 300)
    for result in (graphs, programs):
        found = [each for each in result["injected"] if each["found"]]
        assert (result["checked"], result["failed"]) == (20, len(found))
        assert all((each["effect"] == NO_EFFECT) != each["found"] for each in result["injected"])
        assert (result["first_difference"] is None) == (not found)
    assert graphs["failed"] + programs["failed"] > 2


def test_the_same_seed_flips_the_same():
    one, same, other = (inject_into_programs(2, CONFIG, seed, 40)["injected"] for seed in (1, 1, 2))
    assert one == same != other


def test_command_says_what_it_hit(capfd, machine):
    code = run(["verify", "--random", "3", "--kind", "program", "--array", "8x8", "--inject-fault", "1", "--json"])
    result = json.loads(capfd.readouterr().out)
    assert code == (1 if result["failed"] else 0)
    assert {"checked", "failed", "coverage", "first_difference", "config", "version"} <= set(result)
    assert [set(each) for each in result["injected"]] == [
        {"case", "register", "bit", "cycle", "found", "effect"}] * 3


@pytest.mark.parametrize(("options", "complaint"), [
    (["--rungs", "golden,iss"], "needs the rung rtl"),
    (["--waves", "x.vcd"], "--waves goes neither"),
    (["--data", "folder"], "exactly one of them"),
])
def test_options_that_do_not_go_together(options, complaint, capfd):
    assert run(["verify", "--random", "1", "--inject-fault", "1", *options]) != 0
    assert complaint in " ".join(capfd.readouterr().err.replace("│", " ").split())


@pytest.mark.slow
def test_two_hundred_flips():
    """Each is found or without effect on any output or status; the runs after it are as they should be."""
    effects = Counter()
    for result in (inject_into_graphs(graph_cases(100, 0), CONFIG, 0), inject_into_programs(100, CONFIG, 0)):
        effects.update(each["effect"] for each in result["injected"])
        assert sum(each["found"] for each in result["injected"]) == result["failed"]
    print(dict(effects))
    assert effects.total() == 200 and 200 - effects[NO_EFFECT] > 10
    for kind, seed in (("graph", 0), ("program", 0)):
        assert verify_random(kind, 5, CONFIG, seed)["failed"] == 0
