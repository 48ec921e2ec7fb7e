"""Waveforms on their way to a file: it appears when it is whole.

Verilator ends the process when it cannot write. It writes to a pipe instead, from which a thread copies to a temporary
file; what goes wrong there is reported when the recording ends.
"""

import errno
import os
import shutil
import tempfile
import threading
import weakref
from contextlib import suppress
from pathlib import Path

from phonolith.hw.errors import PhonolithError

CHUNK_BYTES = 1 << 20


class Recording:
    """One VCD file in the making.

    Parameters
    ----------
    path : Path
        What :meth:`finish` makes of it; nothing is left of a recording that is not finished.

    Attributes
    ----------
    pipe : Path
        Where the simulator writes to.

    Raises
    ------
    PhonolithError
        ``waves``, when no file can be made there.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            descriptor, self._part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        except OSError as error:
            raise PhonolithError("waves", f"Cannot write waveforms to {path}: {error.strerror}.",
                                 "Choose a writable path.") from error
        folder = tempfile.mkdtemp(prefix="phonolith-")
        self._discard = weakref.finalize(self, discard, self._part, folder)
        self.pipe = Path(folder) / "waves"
        os.mkfifo(self.pipe)
        reader = os.open(self.pipe, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reader, True)
        # Keeps the pipe open until the end, so that the reader does not take a late writer for none.
        self._keeper = os.open(self.pipe, os.O_WRONLY)
        self._failures: list[OSError] = []
        self._thread = threading.Thread(target=copy, args=(reader, descriptor, self._failures), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Give the file its name, once the simulator has closed the pipe; PhonolithError ``disk-full`` or ``waves``."""
        os.close(self._keeper)
        self._thread.join()
        try:
            if self._failures:
                raise self.failure(self._failures[0])
            os.chmod(self._part, 0o644)
            os.replace(self._part, self.path)
        finally:
            self._discard()

    def failure(self, error: OSError) -> PhonolithError:
        """Return the error for waveforms that could not be written."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return PhonolithError("disk-full" if full else "waves",
                              f"Cannot write waveforms to {self.path}: {error.strerror}.",
                              "Free some space there, choose another folder, or record a shorter run.")


def copy(reader: int, target: int, failures: list[OSError]) -> None:
    """Copy a pipe to a file until it is closed; after a failure only read on, so that the writer never waits."""
    with os.fdopen(reader, "rb", buffering=0) as pipe, os.fdopen(target, "wb", buffering=0) as file:
        while chunk := pipe.read(CHUNK_BYTES):
            if not failures:
                try:
                    write_all(file.fileno(), chunk)
                except OSError as error:
                    failures.append(error)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of some bytes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]


def discard(part: str, folder: str) -> None:
    """Remove what is temporary."""
    with suppress(OSError):
        os.unlink(part)
    shutil.rmtree(folder, ignore_errors=True)
