"""Components as Verilog under cocotb: random stalls on both sides, latency, corners."""

import pytest

from phonolith.sim.rtl.cocotb_runner import run_cocotb
from tests.hw.component_top import MACHINES, generate

# What each module of benches, tests/hw/cocotb_*.py, holds a bench for.
BENCHES = {
    "streams": ("packer", "transposer", "placer", "loop_walker", "burst_splitter", "beat_walker", "unpacker"),
    "engines": ("load_engine", "store_engine"),
    "memories": ("sram", "scratchpad", "row_unit", "watchdog"),
    "program": ("fetch", "sequencer"),
    "host": ("registers", "supervisor", "faults", "history"),
    "vector_parts": ("row_registers", "row_reduction", "row_address", "vector_lane", "vector_issue"),
    "control": ("dispatcher", "semaphores", "address_gate", "read_arbiter"),
}


@pytest.fixture(scope="module", params=MACHINES)
def design(request) -> tuple[str, str]:
    """Top and Verilog of all components of one machine, side by side."""
    return request.param, generate(request.param)


@pytest.mark.parametrize("family", BENCHES)
def test_verilog_under_cocotb(design, tmp_path, monkeypatch, repository, family):
    monkeypatch.syspath_prepend(str(repository))
    top, text = design
    passed = run_cocotb(text, top, f"tests.hw.cocotb_{family}", tmp_path)
    assert set(BENCHES[family]) <= set(passed)
