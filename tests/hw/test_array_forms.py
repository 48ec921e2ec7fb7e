"""The two forms of the array, one that is synthesized and one that simulates faster, are the same machine."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from amaranth.back import verilog

from phonolith.hw.array_verilog import simulated_array, synthesized_row
from phonolith.hw.systolic_array import SystolicArray
from tests.hw import array_proof


def machine(rows: int, columns: int) -> SimpleNamespace:
    """Return what an array needs to know of a machine."""
    return SimpleNamespace(rows=rows, columns=columns)


def simulated(rows: int, columns: int) -> str:
    return simulated_array("simulated", machine(rows, columns))


def synthesized(rows: int, columns: int) -> str:
    config = machine(rows, columns)
    return verilog.convert(SystolicArray(config=config), name="synthesized", emit_src=False) + synthesized_row(config)


def prove(folder: Path, part: str, fast: str, rows: int, columns: int) -> str:
    """Return what the proof prints."""
    (folder / "simulated.v").write_text(fast)
    (folder / "synthesized.v").write_text(synthesized(rows, columns))
    command = [sys.executable, array_proof.__file__, str(rows), str(columns), part]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("part", ["registers", "wiring"])
@pytest.mark.parametrize("rows, columns", [(2, 4), (3, 3), pytest.param(2, 16, marks=pytest.mark.slow)])
def test_the_forms_are_equal(part, rows, columns, tmp_path):
    said = prove(tmp_path, part, simulated(rows, columns), rows, columns)
    assert array_proof.PROVED in said, said[-2000:]


def test_products_are_equal(tmp_path):
    said = prove(tmp_path, "products", simulated(2, 4), 2, 4)
    assert array_proof.PROVED in said, said[-2000:]


@pytest.mark.parametrize("part, right, wrong", [
    ("registers", "finished[r] = last[r];", "finished[r] = first[r];"),
    ("registers", "if (finished[r][c])", "if (finished[r][c] && c != 2)"),
    ("registers", "accumulators[r][c] = 0;", "accumulators[r][c] = 1;"),
    ("registers", "word(activation[64], activation[7:0])", "word(0, activation[7:0])"),
    ("registers", "if (live[r] != 0 || activation != 0)", "if (live[r] != 0)"),
    ("registers", "if (widths[r] != 0) begin", "if (widths[r][1:0] != 0) begin"),
    ("registers", "weights_in[r] = weights_in[r - 1];", "weights_in[r] = weights;"),
    ("registers", "weights_in[r] = weights;", "weights_in[r] = ~weights;"),
    ("registers", "bytes[c] = weights_in[r][8*c +: 8]", "bytes[c] = weights_in[r][8*(c & 2) +: 8]"),
    ("registers", "if (first[r][0]) sum[r] = 0;", "if (first[r][1]) sum[r] = 0;"),
    ("registers", "if (finished[r][0]) row_sums", "if (finished[r][1]) row_sums"),
    ("registers", "step = operand + word(is_unsigned, lane[39:32]);", "step = operand;"),
    ("registers", "word(is_unsigned, lane[63:56])));", "word(0, lane[63:56])));"),
    ("registers", "= results[row][g];", "= results[0][g];"),
    ("registers", "row_sum = row_sums[row];", "row_sum = row_sums[1];"),
    ("registers", "for (r = R-1; r >= 0; r = r - 1)", "for (r = 0; r < R; r = r + 1)"),
    ("wiring", "narrow(widths[r][2*c +: 2]", "narrow(widths[r][2*(c & 2) +: 2]"),
    ("products", "{C{8'h80}}", "{C{8'h40}}"),
    ("products", "lane[39:32]) * {{28{w[7]}}", "lane[47:40]) * {{28{w[7]}}"),
    ("products", "(low << 7)", "(low << 6)"),
    ("products", "lane) >> 8) & ((odd", "lane) >> 16) & ((odd"),
    ("products", "64'h0000040010004001", "64'h0000040010002001"),
])
def test_another_machine_is_told_apart(part, right, wrong, tmp_path):
    text = simulated(2, 3)
    assert text.count(right) == 1
    said = prove(tmp_path, part, text.replace(right, wrong), 2, 3)
    assert array_proof.PROVED not in said and "proof did fail" in said, said[-2000:]
