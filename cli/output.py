"""What a command writes: one JSON object or a readable table on stdout, everything else on stderr."""

import contextlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


def to_json(payload: dict[str, Any]) -> str:
    """Return `payload` as one JSON object; numpy scalars, arrays and paths become plain values."""
    return json.dumps(payload, default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):   # numpy arrays and scalars, without importing numpy here
        return value.tolist()
    raise TypeError(f"A command returned a {type(value).__name__}, which JSON cannot hold.")


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send what libraries and their subprocesses print to stderr: stdout is for the result alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[None]:
    """Show the library's log (loggers ``phonolith.*``) and warnings as plain lines on stderr."""
    logger = logging.getLogger("phonolith")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    shown, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        yield
    finally:
        warnings.showwarning = shown
        logger.removeHandler(handler)


def _show_warning(message: Warning | str, *_args: object, **_options: object) -> None:
    print(f"phonolith: {message}", file=sys.stderr)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print named values, one per line, the values aligned."""
    rows = list(facts)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; a column whose first cell is a number is aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    body = [[cell(value) for value in row] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(body) and body[0][index][:1].isdigit()
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in body:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    console.width = max(console.width, 120)
    console.print(table)


def cell(value: object) -> str:
    """Return a value as people read it: thousands separated, fractions short, absent as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {cell(part)}" for name, part in value.items())
    return str(value)


def percent(fraction: float) -> str:
    """Return a fraction 0..1 as a percentage."""
    return f"{100 * fraction:.1f} %"
