"""The two forms of the array's row, one that is synthesized and one that simulates faster, are the same machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from phonolith.hw.config import MachineConfig
from phonolith.hw.row_verilog import simulated_row, synthesized_row
from phonolith.hw.systolic_array import ROW_MODULE
from tests.hw import row_proof


def prove(folder: Path, simulated: str, columns: int) -> str:
    """Return what the proof prints."""
    config = MachineConfig(rows=4, columns=columns, bus_bits=64)
    (folder / "simulated.v").write_text(simulated.replace(ROW_MODULE, "simulated"))
    (folder / "synthesized.v").write_text(synthesized_row(config).replace(ROW_MODULE, "synthesized"))
    command = [sys.executable, row_proof.__file__, str(columns)]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("columns", [4, 12, pytest.param(32, marks=pytest.mark.slow)])
def test_the_forms_are_equal(columns, tmp_path):
    said = prove(tmp_path, simulated_row(columns), columns)
    assert row_proof.PROVED in said, said[-2000:]


@pytest.mark.parametrize("right, wrong", [
    ("finished = last;", "finished = first;"),
    ("if (finished[c])", "if (finished[c] && c != 2)"),
    ("accumulators[32*c +: 32] = 0;", "accumulators[32*c +: 32] = 1;"),
    ("{23{activation[8]}}", "{23{activation[7]}}"),
    ("{24{weights_out[8*c + 7]}}", "24'b0"),
    ("weights_out <= weights_in;", "weights_out <= ~weights_in;"),
    ("+ operands", "- operands"),
])
def test_another_machine_is_told_apart(right, wrong, tmp_path):
    text = simulated_row(4)
    assert text.count(right) == 1
    assert row_proof.PROVED not in prove(tmp_path, text.replace(right, wrong), 4)
