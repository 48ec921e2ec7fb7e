"""Every field of MachineConfig reaches all that depends on it: RTL, compiler, simulators, harness, cost."""

from dataclasses import fields, replace

import numpy as np
import pytest
from amaranth.back import rtlil

from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.accelerator import Accelerator
from phonolith.hw.array_verilog import synthesized_row
from phonolith.hw.config import ENVIRONMENT_FIELDS, MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.verilog import TOP
from phonolith.reports.area import builtin_area
from phonolith.reports.simulation import costs
from phonolith.sim.iss import run as run_iss
from phonolith.sim.iss.state import State
from phonolith.sim.ladder import execute_rtl, machine, make_case

BASE = MachineConfig(rows=4, columns=8, bus_bits=64, activation_sram_bytes=1 << 14, weight_sram_bytes=1 << 14,
                     scratchpad_bytes=1 << 14, parameter_bytes=1 << 11)
CHANGED = {
    "rows": 5, "columns": 9, "bus_bits": 128, "activation_sram_bytes": 1 << 13, "weight_sram_bytes": 1 << 13,
    "scratchpad_bytes": 1 << 13, "parameter_bytes": 1 << 14, "queue_words": 64, "row_units": 2,
    "reads_outstanding": 3, "writes_outstanding": 3, "dram_latency": 77, "dram_shared": True, "clock_mhz": 250.0,
}
HARDWARE = [name for name in CHANGED if name not in ENVIRONMENT_FIELDS]
# What decides only when things happen: an untimed simulator and a program without time do not know it.
TIMING = ("queue_words", "row_units", "reads_outstanding", "writes_outstanding")
# The compiler plans products for the latency, and for as many bursts in flight.
PLANNED = ("reads_outstanding", "writes_outstanding", "dram_latency", "dram_shared")
# A few bits of counters, which the table of area figures leaves out.
WITHOUT_AREA = ("reads_outstanding", "writes_outstanding")
# The harness runs on a machine whose build other tests use, too.
TIMED = MachineConfig(rows=8, columns=8)


def changed(name: str, base: MachineConfig = BASE) -> MachineConfig:
    return replace(base, **{name: CHANGED[name]})


def memories(config: MachineConfig) -> list[tuple[int, ...]]:
    """Bytes per operand word, and shapes of what a program can see."""
    state = State(config, np.zeros(0, np.uint8))
    names = ("activation", "weight", "scratchpad", "parameter", "row_registers")
    return [(config.word_bytes,)] + [getattr(state, name).shape for name in names]


@pytest.fixture(scope="module")
def base_case():
    return make_case(*random_graph(3), BASE)


@pytest.fixture(scope="module")
def structure():
    """Return what becomes the Verilog text, without the configuration's hash: only structure makes a difference."""
    def text(config: MachineConfig) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MachineConfig, "hash", "0" * 16)
            return rtlil.convert(Accelerator(config=config), name=TOP, emit_src=False) + synthesized_row(config)

    return text


def test_every_field_is_changed():
    assert set(CHANGED) == {field.name for field in fields(MachineConfig)}
    assert all(getattr(BASE, name) != value for name, value in CHANGED.items())


@pytest.fixture(scope="module")
def base_structure(structure):
    return structure(BASE)


@pytest.mark.parametrize("name", HARDWARE)
def test_hardware_follows(structure, base_structure, name):
    assert structure(changed(name)) != base_structure


def test_hardware_does_not_know_its_environment(structure, base_structure):
    elsewhere = replace(BASE, **{name: CHANGED[name] for name in ENVIRONMENT_FIELDS})
    assert structure(elsewhere) == base_structure


@pytest.mark.parametrize("name", CHANGED)
def test_hash_follows_the_hardware_alone(name):
    assert (changed(name).hash == BASE.hash) == (name in ENVIRONMENT_FIELDS)


@pytest.mark.parametrize("name", HARDWARE)
def test_simulator_follows(name):
    assert (memories(changed(name)) == memories(BASE)) == (name in TIMING)


@pytest.mark.parametrize("name", HARDWARE)
def test_a_program_is_for_one_machine(base_case, name):
    with pytest.raises(PhonolithError, match="configuration"):
        run_iss(base_case.program.words, base_case.image, changed(name), base_case.program.arguments)
    with pytest.raises(PhonolithError, match="configuration") as caught:
        base_case.program.check_machine(changed(name))
    assert caught.value.kind == "wrong-configuration"


@pytest.mark.parametrize("name", CHANGED)
def test_compiler_follows_and_the_golden_model_does_not(base_case, name):
    """A program of the changed machine gives the same tensors on it."""
    config = changed(name)
    case = make_case(*random_graph(3), config)
    assert {key: value.tobytes() for key, value in case.expected.items()} == {
        key: value.tobytes() for key, value in base_case.expected.items()}
    assert case.program.config_hash == config.hash
    if name in (*TIMING, *ENVIRONMENT_FIELDS) and name not in PLANNED:
        assert np.array_equal(case.program.words[1:], base_case.program.words[1:])
    image = run_iss(case.program.words, case.image, config, case.program.arguments)
    for tensor, expected in case.expected.items():
        assert np.array_equal(case.program.read(image, tensor), expected)


@pytest.mark.parametrize("name", ["rows", "columns", "bus_bits"])
def test_instructions_follow_dimensions(base_case, name):
    words = compile_graph(random_graph(3)[0], changed(name), len(next(iter(random_graph(3)[1].values())))).words
    assert not np.array_equal(words[1:], base_case.program.words[1:])


@pytest.mark.parametrize("name", CHANGED)
def test_area_follows(name):
    same = builtin_area(changed(name))["area_um2"] == builtin_area(BASE)["area_um2"]
    assert same == (name in (*WITHOUT_AREA, *ENVIRONMENT_FIELDS))


@pytest.fixture(scope="module")
def timed():
    """Costs of one run on TIMED with some fields changed."""
    graph, inputs = random_graph(3)

    def run(**overrides) -> dict:
        config = replace(TIMED, **overrides)
        case = make_case(graph, inputs, config)
        result = execute_rtl(case.program, case.image, machine(config), log_writes=True)
        return costs(case, result, config, 1)

    return run


def test_environment_follows(timed):
    """Latency and sharing change cycles, the clock seconds."""
    base = timed()
    assert timed(dram_latency=100)["cycles"] > base["cycles"]
    assert timed(dram_shared=True)["cycles"] >= base["cycles"]
    slow = timed(clock_mhz=250.0)
    assert (slow["cycles"], slow["latency_ms"]) == (base["cycles"], pytest.approx(2 * base["latency_ms"]))
    assert all(timed(dram_latency=100)[key] == base[key] for key in ("area_um2", "dram_bytes", "macs"))
