"""Figures inside a page that is written by hand: each between marks that name the script they come from."""

import csv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/verification.md"
TABLES = ROOT / "docs/verification"


def write_section(script: str, text: str) -> None:
    """Put the text between the marks of a script."""
    begin, end = f"<!-- written by benchmarks/{script} -->\n", "<!-- end -->\n"
    before, rest = PAGE.read_text().split(begin)
    _, after = rest.split(end, 1)
    PAGE.write_text(f"{before}{begin}{text}{end}{after}")


def write_table(path: Path, columns: Sequence[str], rows: Sequence[dict]) -> None:
    """Write rows as CSV; what a row does not have stays empty."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
