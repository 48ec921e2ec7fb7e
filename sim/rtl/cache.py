"""Builds kept by content: what is found under a key was built whole, from exactly that key's content."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs

from phonolith.hw.errors import PhonolithError

MANIFEST = "manifest.json"


def default_folder() -> Path:
    """Return the user's cache folder for RTL builds."""
    return Path(platformdirs.user_cache_dir("phonolith")) / "rtl"


def content_key(*parts: str | bytes) -> str:
    """Return 32 hex digits that name the parts, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class BuildCache:
    """A folder of finished builds, one sub-folder per key.

    An entry appears by one rename, when its manifest (the SHA-256 of each file) is written; it is used only while its
    files still match. Two processes that want the same entry build it once: the second waits. Work that was cut
    short stays in a temporary folder that the next build of that key removes.

    Parameters
    ----------
    folder : Path
        Where the entries are; made when needed.
    """

    folder: Path

    def find(self, key: str) -> Path | None:
        """Return the folder of an intact entry, or None."""
        entry = self.folder / key
        return entry if is_intact(entry) else None

    def get(self, key: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of entry ``key``; call ``make(empty folder)`` to fill it when there is none.

        Raises
        ------
        PhonolithError
            ``read-only-cache`` or ``disk-full``, and whatever ``make`` raises.
        """
        found = self.find(key)
        if found:
            return found
        with self.errors_explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / f"{key}.lock"):
                return self.find(key) or self.fill(key, make)

    def fill(self, key: str, make: Callable[[Path], None]) -> Path:
        """Make entry ``key``; the caller holds its lock."""
        for leftover in self.folder.glob(f"{key}.*.part"):
            shutil.rmtree(leftover, ignore_errors=True)
        part = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".part", dir=self.folder))
        try:
            make(part)
            write_manifest(part)
            entry = self.folder / key
            shutil.rmtree(entry, ignore_errors=True)
            os.replace(part, entry)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return entry

    @contextmanager
    def errors_explained(self) -> Iterator[None]:
        """Turn the system's complaints about the folder into errors with a remedy."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(self.folder) from error
            if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
                raise PhonolithError(
                    "read-only-cache", f"Cannot write to the cache folder {self.folder}: {error.strerror}.",
                    "Make it writable, or choose another one (XDG_CACHE_HOME moves it).") from error
            raise


def disk_full(folder: Path) -> PhonolithError:
    """Build the error for a file system without space."""
    return PhonolithError("disk-full", f"No space left for a build of the simulator in {folder}.",
                          "Free about 200 MB there, or choose another cache folder (XDG_CACHE_HOME moves it).")


def write_manifest(folder: Path) -> None:
    """Record the hash of every file; flushed to disk, so that a manifest never outlives its files."""
    hashes = {path.name: file_hash(path) for path in sorted(folder.iterdir())}
    with open(folder / MANIFEST, "w") as file:
        json.dump(hashes, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def is_intact(entry: Path) -> bool:
    """Whether every file of an entry is what its manifest says."""
    with suppress(OSError, ValueError, AttributeError):
        hashes = json.loads((entry / MANIFEST).read_text())
        return bool(hashes) and all(file_hash(entry / name) == value for name, value in hashes.items())
    return False


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
