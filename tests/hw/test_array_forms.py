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
@pytest.mark.parametrize("rows, columns", [(2, 3), (3, 2), pytest.param(3, 5, marks=pytest.mark.slow)])
def test_the_forms_are_equal(part, rows, columns, tmp_path):
    said = prove(tmp_path, part, simulated(rows, columns), rows, columns)
    assert array_proof.PROVED in said, said[-2000:]


def test_products_are_equal(tmp_path):
    said = prove(tmp_path, "products", simulated(2, 4), 2, 4)
    assert array_proof.PROVED in said, said[-2000:]


@pytest.mark.parametrize("part, right, wrong", [
    ("registers", "finished[r] = last[r];", "finished[r] = first[r];"),
    ("registers", "if (finished[r][c])", "if (finished[r][c] && c != 1)"),
    ("registers", "accumulators[r][c] = 0;", "accumulators[r][c] = 1;"),
    ("registers", "bias = marks[0] ? 0 : 16'h80;", "bias = 16'h80;"),
    ("registers", "entering = lanes != 0 || marks != 0;", "entering = lanes != 0;"),
    ("registers", "if (live[r] != 0 || entering) begin", "if (live[r] != 0) begin"),
    ("registers", "if (narrow[r] != 0 || width != 0) begin", "if (width != 0) begin"),
    ("registers", "if (by_2[r] != 0 || width == 2) begin", "if (width == 2) begin"),
    ("registers", "if (live[r] != narrow[r]) begin", "if (narrow[r] == 0) begin"),
    ("registers", "if (by_1[r] != 0) begin", "if (by_1[r] > 1) begin"),
    ("registers", "= width == 0 ? entered[r] : 0;", "= entered[r];"),
    ("registers", "operands[r][9][0] = 0;", "operands[r][9][0] = 1;"),
    ("registers", "operands[r][4][c] = operands[r][4][c-1];", "operands[r][4][c] = operands[r][3][c-1];"),
    ("registers", "weights_in[c]} ^ 16'h80)", "weights_in[0]} ^ 16'h80)"),
    ("registers", "weight[r][c] = weight[r - 1][c];", "weight[r][c] = weight[r][c];"),
    ("registers", "for (r = R-1; r < R; r = r - 1)", "for (r = 0; r < R; r = r + 1)"),
    ("registers", "if (first[r][0]) sum[r] = 0;", "if (first[r][1]) sum[r] = 0;"),
    ("registers", "if (finished[r][0]) row_sums", "if (finished[r][1]) row_sums"),
    ("registers", "entered[r] = (operands[r][1][0] + operands[r][2][0]);", "entered[r] = operands[r][1][0];"),
    ("registers", "= results[row][g];", "= results[0][g];"),
    ("registers", "row_sum = row_sums[row];", "row_sum = row_sums[1];"),
    ("wiring", "operands[r][2][c] * ((", "operands[r][2][c & 1] * (("),
    ("products", "(((weight[r][c] >> 6) & 3) ^ 2) - 2", "(((weight[r][c] >> 6) & 3) ^ 0) - 0"),
    ("products", "(weight[r][c] >> 5) & 1", "(weight[r][c] >> 4) & 1"),
    ("products", "operands[r][14][c] * ((weight[r][c] >> 7) & 1)", "operands[r][13][c] * ((weight[r][c] >> 7) & 1)"),
    ("products", "product = operands[r][0][c] * weight[r][c];", "product = operands[r][0][c];"),
])
def test_another_machine_is_told_apart(part, right, wrong, tmp_path):
    columns = 3 if part == "wiring" else 2
    text = simulated(2, columns)
    assert text.count(right) == 1
    said = prove(tmp_path, part, text.replace(right, wrong), 2, columns)
    assert array_proof.PROVED not in said and "proof did fail" in said, said[-2000:]
