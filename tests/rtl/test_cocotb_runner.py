"""The cocotb runner: passing tests pass, failing tests fail, and the log says why."""

import pytest

from phonolith.sim.rtl.cache import default_folder
from phonolith.sim.rtl.cocotb_runner import run_cocotb


@pytest.fixture
def run(monkeypatch, repository, tmp_path, copy_verilog):
    monkeypatch.syspath_prepend(str(repository))

    def run(testcase, **options):
        return run_cocotb(copy_verilog, "phonolith_top", "tests.rtl.cocotb_copy", tmp_path / "a folder", {"BUS": 128},
                          cache=default_folder().with_name("rtl tests"), testcase=testcase,
                          **options)

    return run


def test_passing_test_passes(run):
    assert run("copies") == {"copies": True}


def test_failing_test_fails_with_its_message(run):
    with pytest.raises(AssertionError, match="(?s)cocotb_copy.*planted failure"):
        run("fails")


def test_no_test_at_all_is_a_failure(run):
    with pytest.raises(AssertionError, match="none ran"):
        run("misspelt")


def test_a_simulation_that_hangs_is_stopped(run):
    with pytest.raises(AssertionError, match="timed out"):
        run("hangs", limit_seconds=3)
