"""Figures inside a page that is written by hand: each between marks that name the script they come from."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/verification.md"
RESULTS = ROOT / "docs/results.md"
TABLES = ROOT / "docs/verification"


def write_section(script: str, text: str, page: Path = PAGE) -> None:
    """Put the text between the marks of a script."""
    begin, end = f"<!-- written by benchmarks/{script} -->\n", "<!-- end -->\n"
    before, rest = page.read_text().split(begin)
    _, after = rest.split(end, 1)
    page.write_text(f"{before}{begin}{text}{end}{after}")


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table."""
    columns = list(header)
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def percent(fraction: float) -> str:
    """Return a percentage."""
    return f"{100 * fraction:.2f} %"


def prediction(result: dict) -> str:
    """Say what was predicted, and how far that is from the measurement."""
    return f"{result['predicted']:,} ({result['predicted'] / result['cycles'] - 1:+.2%})"


def write_table(path: Path, columns: Sequence[str], rows: Sequence[dict]) -> None:
    """Write rows as CSV; what a row does not have stays empty."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
