"""The two forms of the array's row, one that is synthesized and one that simulates faster, are the same machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from phonolith.hw.config import MachineConfig
from phonolith.hw.row_verilog import simulated_row, synthesized_row
from phonolith.hw.systolic_array import ROW_MODULE
from tests.hw import row_proof


def prove(folder: Path, part: str, simulated: str, columns: int) -> str:
    """Return what the proof prints."""
    config = MachineConfig(rows=4, columns=columns, bus_bits=64)
    (folder / "simulated.v").write_text(simulated.replace(ROW_MODULE, "simulated"))
    (folder / "synthesized.v").write_text(synthesized_row(config).replace(ROW_MODULE, "synthesized"))
    command = [sys.executable, row_proof.__file__, str(columns), part]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("part", ["registers", "wiring"])
@pytest.mark.parametrize("columns", [4, 7, pytest.param(32, marks=pytest.mark.slow)])
def test_the_forms_are_equal(part, columns, tmp_path):
    said = prove(tmp_path, part, simulated_row(columns), columns)
    assert row_proof.PROVED in said, said[-2000:]


def test_products_are_equal(tmp_path):
    said = prove(tmp_path, "products", simulated_row(4), 4)
    assert row_proof.PROVED in said, said[-2000:]


@pytest.mark.parametrize("part, right, wrong", [
    ("registers", "finished = last;", "finished = first;"),
    ("registers", "if (finished[c])", "if (finished[c] && c != 2)"),
    ("registers", "accumulators[c] = 0;", "accumulators[c] = 1;"),
    ("registers", "word(activation[64], activation[7:0])", "word(0, activation[7:0])"),
    ("registers", "if (live != 0 || activation != 0)", "if (live != 0)"),
    ("registers", "if (widths != 0) begin", "if (widths[1:0] != 0) begin"),
    ("registers", "weights_out <= weights_in;", "weights_out <= ~weights_in;"),
    ("registers", "bytes[c] = weights_out[8*c +: 8]", "bytes[c] = weights_out[8*(c & 2) +: 8]"),
    ("registers", "if (first[0]) sum = 0;", "if (first[1]) sum = 0;"),
    ("registers", "if (finished[0]) row_sum", "if (finished[1]) row_sum"),
    ("registers", "step = operand + word(is_unsigned, lane[39:32]);", "step = operand;"),
    ("registers", "word(is_unsigned, lane[63:56])));", "word(0, lane[63:56])));"),
    ("wiring", "narrow(widths[2*n +: 2]", "narrow(widths[2*(n & 2) +: 2]"),
    ("products", "{24{weights_out[8*c + 7]}}", "24'b0"),
    ("products", "lane[39:32]) * {{28{w[7]}}", "lane[47:40]) * {{28{w[7]}}"),
    ("products", "(low << 7)", "(low << 6)"),
    ("products", "lane) >> 8) & ((odd", "lane) >> 16) & ((odd"),
    ("products", "64'h0000040010004001", "64'h0000040010002001"),
])
def test_another_machine_is_told_apart(part, right, wrong, tmp_path):
    text = simulated_row(4)
    assert text.count(right) == 1
    said = prove(tmp_path, part, text.replace(right, wrong), 4)
    assert row_proof.PROVED not in said and "proof did fail" in said, said[-2000:]
