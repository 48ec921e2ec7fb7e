"""Every component as Verilog under cocotb: random stalls on both sides, latency, corners."""

import functools
import pkgutil
from collections.abc import Callable
from importlib import import_module

import pytest
from amaranth.hdl import Elaboratable

from phonolith import hw
from phonolith.hw.accelerator import Accelerator
from phonolith.sim.rtl.cocotb_runner import run_cocotb
from tests.hw.component_top import MACHINES, WIDE, components, generate

# What each module of benches, tests/hw/cocotb_*.py, holds a bench for.
BENCHES = {
    "streams": ("packer", "transposer", "placer"),
    "walks": ("loop_walker", "burst_splitter", "beat_walker", "records", "unpacker"),
    "engines": ("load_engine", "store_engine"),
    "memories": ("sram", "scratchpad", "activation_writes", "watchdog"),
    "arithmetic": ("requantizer", "serial_unit", "row_unit"),
    "program": ("fetch", "sequencer"),
    "host": ("cycle_counters", "registers", "supervisor", "faults", "history"),
    "vector_parts": ("row_registers", "row_reduction", "row_address", "vector_lane", "vector_issue"),
    "vector": ("vector_engine",),
    "array": ("pe", "row_sum", "row", "systolic_array"),
    "matmul": ("tile_walk", "array_engine"),
    "control": ("dispatcher", "semaphores", "address_gate", "read_arbiter"),
}
ELSEWHERE = {Accelerator}   # tests/rtl/test_top.py
ARRAY = ("array", "matmul")
FAMILIES = [(top, family) for top in MACHINES for family in BENCHES if top != WIDE or family in ARRAY]


@pytest.fixture(scope="module")
def designs() -> Callable[[str], str]:
    """Verilog of a machine's components, side by side."""
    return functools.cache(generate)


def component_classes() -> set[type]:
    """All components that hw/ defines."""
    modules = [import_module(f"{hw.__name__}.{module.name}") for module in pkgutil.iter_modules(hw.__path__)]
    return {kind for module in modules for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, Elaboratable) and kind.__module__ == module.__name__}


def test_every_component_of_the_array_has_a_bench():
    assert sorted(name for family in ARRAY for name in BENCHES[family]) == sorted(components(WIDE))


@pytest.mark.parametrize("top", [top for top in MACHINES if top != WIDE])
def test_every_component_has_a_bench(top):
    built = components(top)
    assert sorted(name for names in BENCHES.values() for name in names) == sorted(built)
    assert {type(component) for component in built.values()} | ELSEWHERE == component_classes()


@pytest.mark.parametrize("top, family", FAMILIES)
def test_verilog_under_cocotb(designs, tmp_path, monkeypatch, repository, top, family):
    monkeypatch.syspath_prepend(str(repository))
    passed = run_cocotb(designs(top), top, f"tests.hw.cocotb_{family}", tmp_path)
    assert set(BENCHES[family]) <= set(passed)
