"""Fit the SRAM area model of ``phonolith.reports.sram_area`` to the IHP SG13G2 macros.

    python benchmarks/sram_area.py [FOLDER]

FOLDER (default ``../shared/data/liberty/ihp_sg13g2_sram``) holds the macros' Liberty files, plain or gzipped
(IHP-Open-PDK on GitHub, Apache-2.0). Prints the constants to put into ``reports/sram_area.py``.
"""

import gzip
import re
import sys
from pathlib import Path

import numpy as np

NAME = re.compile(r"RM_IHPSG13_(\d)P_(\d+)x(\d+)_c(\d)")
AREA = re.compile(r"^\s*area\s*:\s*([\d.]+)", re.MULTILINE)
FOLDER = Path(__file__).resolve().parents[2] / "shared/data/liberty/ihp_sg13g2_sram"


def macros(folder: Path) -> dict[int, np.ndarray]:
    """Return rows of (words, bits, area in um2) of all macros, by number of ports."""
    found: dict[int, list[tuple[float, ...]]] = {}
    for path in sorted(folder.glob("RM_IHPSG13_*.lib*")):
        match, area = NAME.match(path.name), AREA.search(read(path))
        if match and area:
            ports, words, bits, _ = map(int, match.groups())
            found.setdefault(ports, []).append((words, bits, float(area[1])))
    return {ports: np.array(rows) for ports, rows in found.items()}


def read(path: Path) -> str:
    """Return the text of a plain or gzipped file."""
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()


def fit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return constants of 1, words, bits, words*bits by least relative squares, and relative errors."""
    words, bits, area = rows.T
    terms = np.stack([np.ones_like(words), words, bits, words * bits], axis=1)
    constants = np.linalg.lstsq(terms / area[:, None], np.ones_like(area), rcond=None)[0]
    return constants, terms @ constants / area - 1


def main() -> None:
    """Print constants and errors for macros of one and two ports."""
    found = macros(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
    for ports, rows in sorted(found.items()):
        constants, errors = fit(rows)
        print(f"{ports} port(s), {len(rows)} macros: Coefficients({', '.join(f'{c:.5g}' for c in constants)})")
        print(f"  relative error: largest {abs(errors).max():.1%}, mean {abs(errors).mean():.1%}")
        for (words, bits, area), error in zip(rows, errors, strict=True):
            print(f"  {words:5.0f} x {bits:2.0f}  {area:10.0f} um2  {area / (words * bits):6.2f} um2/bit  {error:+.1%}")


if __name__ == "__main__":
    main()
