"""The model of SRAM macros: sane everywhere, and close to the macros it was fitted to."""

import gzip
import re

import pytest

from phonolith.reports.sram_area import TWO_PORT, sram_area


@pytest.mark.parametrize("ports", [1, 2])
@pytest.mark.parametrize("axis", [0, 1])
def test_more_never_costs_less(ports, axis):
    for fixed in (8, 32, 128, 500):
        sizes = [(grows, fixed) if axis == 0 else (fixed, grows) for grows in range(16, 3000, 61)]
        areas = [sram_area(*size, ports=ports) for size in sizes]
        assert areas == sorted(areas)


def test_two_ports_cost_more_than_one():
    for words, bits in ((64, 8), (512, 32), (1024, 128)):
        assert sram_area(words, bits, ports=1) < sram_area(words, bits, ports=2)


def test_large_memories_are_several_macros():
    assert sram_area(1024, 128) == pytest.approx(4 * sram_area(1024, 32))
    assert sram_area(2048, 32) == pytest.approx(2 * sram_area(1024, 32))


def test_less_than_the_smallest_macro_costs_the_smallest():
    assert sram_area(1, 1) == TWO_PORT.macro(64, 8)


@pytest.mark.parametrize("arguments", [(0, 8), (64, 0), (64, 8, 3)])
def test_impossible_memory(arguments):
    with pytest.raises(ValueError, match="must be positive and ports 1 or 2"):
        sram_area(*arguments)


@pytest.mark.parametrize(("ports", "macros", "most"), [(1, 18, 0.093), (2, 10, 0.017)])
def test_close_to_the_macros(liberty, ports, macros, most):
    name = re.compile(rf"RM_IHPSG13_{ports}P_(\d+)x(\d+)_")
    files = [path for path in (liberty / "ihp_sg13g2_sram").glob("*.lib.gz") if name.match(path.name)]
    if not files:
        pytest.skip(f"no IHP SG13G2 SRAM macros in {liberty}")
    assert len(files) == macros
    for path in files:
        words, bits = map(int, name.match(path.name).groups())
        real = float(re.search(r"\barea\s*:\s*([\d.]+)", gzip.decompress(path.read_bytes()).decode())[1])
        assert sram_area(words, bits, ports) == pytest.approx(real, rel=most), path.name
