"""What area needs from Liberty files: cell areas, flip-flops, and the NAND2 that counts as one gate."""

import gzip
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from phonolith.hw.errors import PhonolithError

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
LIBRARY_NAME = re.compile(r"\blibrary\s*\(\s*\"?([^\s\")]+)")
# Words are searched as literals, and only then looked behind: that is fast in files of many megabytes.
CELL = re.compile(r"cell(?<!\wcell)\s*\(\s*\"?([^\s\")]+)\"?\s*\)\s*\{")
AREA = re.compile(r"area(?<!\warea)\s*:\s*\"?([\d.eE+-]+)")
FLIP_FLOP = re.compile(r"ff(?<!\wff)\s*\(")
FUNCTION = re.compile(r"function(?<!\wfunction)\s*:\s*\"([^\"]*)\"")
TOKEN = re.compile(r"[A-Za-z_][\w\[\]]*|[01!'*&+|^()]")
MOST_NAND2_TEXT = 60


@dataclass(frozen=True)
class Library:
    """Standard cells of one or several Liberty files.

    Members
    -------
    name : str
        Names inside the files, joined with `` + ``.
    texts : tuple of str
        The files, uncompressed.
    areas : dict
        um2 by cell.
    nand2 : float
        um2 of the smallest two-input NAND: one gate equivalent.
    """

    name: str
    texts: tuple[str, ...]
    areas: dict[str, float]
    nand2: float


def read_library(paths: Iterable[Path]) -> Library:
    """Read Liberty files, plain or gzipped, as one library.

    Raises
    ------
    PhonolithError
        kind ``liberty``: a file cannot be read or is not Liberty, or all together hold no flip-flop or no NAND2.
    """
    paths = [Path(path) for path in paths]
    texts = tuple(read_text(path) for path in paths)
    names = [library_name(text, path) for text, path in zip(texts, paths, strict=True)]
    areas: dict[str, float] = {}
    nands, flip_flop = [], False
    for text in texts:
        for cell, body in cell_bodies(text):
            area = AREA.search(body)
            if not area:
                continue
            areas[cell] = float(area[1])
            flip_flop |= bool(FLIP_FLOP.search(body))
            nands += [float(area[1])] * is_nand2(body)
    given = ", ".join(str(path) for path in paths)
    if not flip_flop:
        raise liberty_error(f"no flip-flop in {given}.", "Add the file of the library that holds sequential cells.")
    if not nands:
        raise liberty_error(f"no two-input NAND in {given}.", "Add the file of the library that holds simple gates.")
    return Library(" + ".join(names), texts, areas, min(nands))


def read_text(path: Path) -> str:
    """Return a file's text, unzipped if need be."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError, gzip.BadGzipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise liberty_error(f"cannot read Liberty file {path}: {reason}.", "Give a .lib or .lib.gz file.") from error


def library_name(text: str, path: Path) -> str:
    """Return the name a Liberty file gives itself."""
    match = LIBRARY_NAME.search(COMMENT.sub("", text[:100_000]))
    if not match:
        raise liberty_error(f"{path} is not a Liberty file: no library(...) in it.", "Give a .lib or .lib.gz file.")
    return match[1]


def cell_bodies(text: str) -> Iterable[tuple[str, str]]:
    """Yield name and text of every cell."""
    text = COMMENT.sub("", text)
    heads = list(CELL.finditer(text))
    for index, head in enumerate(heads):
        end = heads[index + 1].start() if index + 1 < len(heads) else len(text)
        yield head[1], text[head.end():end]


def is_nand2(body: str) -> bool:
    """Tell whether a cell's only function is a NAND of two pins."""
    functions = FUNCTION.findall(body)
    if len(functions) != 1 or len(functions[0]) > MOST_NAND2_TEXT or FLIP_FLOP.search(body):
        return False
    tokens = TOKEN.findall(functions[0])
    pins = sorted({token for token in tokens if token[0].isalpha() or token[0] == "_"})
    if len(pins) != 2:
        return False
    rows = product((False, True), repeat=2)
    return all(evaluate(list(tokens), dict(zip(pins, row, strict=True))) == (not all(row)) for row in rows)


def evaluate(tokens: list[str], values: dict[str, bool]) -> bool:
    """Evaluate a Liberty function (OR of ANDs of XORs); takes its tokens off the list."""
    result = conjunction(tokens, values)
    while tokens and tokens[0] in "+|":
        tokens.pop(0)
        result |= conjunction(tokens, values)
    return result


def conjunction(tokens: list[str], values: dict[str, bool]) -> bool:
    """Evaluate factors joined by ``*``, ``&`` or nothing."""
    result = exclusive(tokens, values)
    while tokens and tokens[0] not in ("+", "|", ")"):
        if tokens[0] in "*&":
            tokens.pop(0)
        result &= exclusive(tokens, values)
    return result


def exclusive(tokens: list[str], values: dict[str, bool]) -> bool:
    """Evaluate terms joined by ``^``."""
    result = term(tokens, values)
    while tokens and tokens[0] == "^":
        tokens.pop(0)
        result ^= term(tokens, values)
    return result


def term(tokens: list[str], values: dict[str, bool]) -> bool:
    """Evaluate a pin, a constant, a parenthesis or a negation, before (``!``) or behind (``'``)."""
    token = tokens.pop(0) if tokens else "0"
    if token == "!":
        return not term(tokens, values)
    if token == "(":
        result = evaluate(tokens, values)
        tokens[:1] = []
    else:
        result = values.get(token, token == "1")
    while tokens and tokens[0] == "'":
        tokens.pop(0)
        result = not result
    return result


def liberty_error(message: str, remedy: str) -> PhonolithError:
    """Build the error for an unusable library."""
    return PhonolithError("liberty", message, remedy)
