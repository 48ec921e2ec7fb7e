"""Files that are whole or not there."""

import errno
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from phonolith.hw.errors import PhonolithError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cannot_write(path: Path, error: OSError) -> PhonolithError:
    """Return the error for a file that the system refuses to write: ``disk-full`` or ``cannot-write``."""
    message = f"cannot write {path}: {error.strerror}."
    if error.errno in FULL:
        return PhonolithError("disk-full", message, "Free some space there, or choose another folder.")
    return PhonolithError("cannot-write", message, "Choose a folder that exists and that you may write to.")


def write_part(path: Path, content: bytes) -> str:
    """Write a temporary file beside ``path`` and return its name; nothing stays of one that fails."""
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(part, 0o644)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return part


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file, so that no reader sees half of it.

    PhonolithError ``disk-full`` or ``cannot-write``; then ``path`` is what it was before.
    """
    write_together(path.parent, {path.name: content})


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder, made if need be: all of them or none. Return their paths.

    PhonolithError as for :func:`write_atomically`.
    """
    existed = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        return write_together(folder, contents)
    except BaseException:
        if not existed:
            with suppress(OSError):
                folder.rmdir()
        raise


def write_together(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder that exists; rename them when all are whole."""
    parts: dict[Path, str] = {}
    try:
        for name, content in contents.items():
            path = folder / name
            try:
                parts[path] = write_part(path, content)
            except OSError as error:
                raise cannot_write(path, error) from error
        for path, part in parts.items():
            os.replace(part, path)
    except BaseException:
        for part in parts.values():
            Path(part).unlink(missing_ok=True)
        raise
    return list(parts)
