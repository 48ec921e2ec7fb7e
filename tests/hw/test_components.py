"""Components as Verilog under cocotb: random stalls on both sides, latency, corners."""

import pytest

from phonolith.sim.rtl.cocotb_runner import run_cocotb
from tests.hw.component_top import TOP, generate


@pytest.fixture(scope="module")
def design() -> str:
    """Verilog of all components side by side."""
    return generate()


@pytest.mark.parametrize(("family", "count"), [("streams", 7), ("engines", 2), ("memories", 4), ("control", 4)])
def test_verilog_under_cocotb(design, tmp_path, monkeypatch, repository, family, count):
    monkeypatch.syspath_prepend(str(repository))
    assert len(run_cocotb(design, TOP, f"tests.hw.cocotb_{family}", tmp_path)) == count
