"""Sweeps: which points are worth having, and files that are whole."""

import csv

import pytest

from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.reports import sweep as module
from phonolith.reports.sweep import mark_pareto, sweep

RESULT = {"cycles": 1000, "utilisation": 0.5, "latency_ms": 0.002, "area_um2": 2e6, "energy_uj": 3.0, "bit_exact": True,
          "model": "some-model", "reference": "one two", "frames": 99, "area_library": "some-library"}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def simulated(monkeypatch) -> list[str]:
    """Replace the simulation: a machine with more elements is faster, larger and as frugal. Lists the arrays run."""
    arrays = []

    def simulate(audio, model, config):
        arrays.append(config.array)
        elements = config.rows * config.columns
        return {**RESULT, "latency_ms": 1 / elements, "area_um2": 1e6 + 1e4 * elements,
                "reference": "one two" if audio.name.endswith(".wav") else None}

    monkeypatch.setattr(module, "simulate", simulate)
    return arrays


def test_points(simulated):
    result = sweep(MachineConfig(), ("8x8", "16x16", "8x8"), "some-model")
    assert simulated == ["8x8", "16x16"]
    assert [point["array"] for point in result["points"]] == simulated
    assert all(point["pareto"] and point["bit_exact"] for point in result["points"])
    assert result["files"] == []


def test_files(simulated, tmp_path):
    result = sweep(MachineConfig(), ("8x8", "16x16"), "some-model", output=tmp_path / "new")
    table, plot = result["files"]
    assert plot.read_bytes().startswith(PNG) and plot.stat().st_size > 10_000
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["array"] for row in rows] == ["8x8", "16x16"]
    assert [float(row["area_um2"]) for row in rows] == [point["area_um2"] for point in result["points"]]
    assert {row["library"] for row in rows} == {"some-library"}
    assert sorted(path.name for path in table.parent.iterdir()) == ["sweep.csv", "sweep.png"]


def test_impossible_array_stops_before_anything_runs(simulated):
    with pytest.raises(PhonolithError, match="0x3"):
        sweep(MachineConfig(), ("8x8", "0x3"), "some-model")
    assert simulated == []


def test_no_array(simulated):
    with pytest.raises(PhonolithError, match="no array to sweep over"):
        sweep(MachineConfig(), (), "some-model")


def test_folder_that_cannot_be_made(simulated, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PhonolithError, match="cannot write .*folder: Not a directory"):
        sweep(MachineConfig(), ("8x8",), "some-model", output=tmp_path / "file" / "folder")


def costs(latency, area, energy):
    return {"latency_ms": latency, "area_um2": area, "energy_uj": energy}


def test_pareto():
    points = mark_pareto([costs(1, 9, 5), costs(9, 1, 5), costs(9, 9, 5), costs(2, 9, 4), costs(1, 9, 5)])
    assert [point["pareto"] for point in points] == [True, True, False, True, True]


@pytest.mark.slow
def test_real_sweep(tmp_path):
    result = sweep(MachineConfig(), ("8x8", "16x16"), "encoder-ctc-w8", output=tmp_path)
    small, large = result["points"]
    assert small["bit_exact"] and large["bit_exact"]
    assert large["cycles"] < small["cycles"]
    assert large["area_um2"] > small["area_um2"]
