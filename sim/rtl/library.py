"""The harness's C ABI (``harness.h``) seen from Python."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from phonolith.hw.errors import PhonolithError

WRITE_RECORD = np.dtype([("cycle", np.uint64), ("address", np.uint64), ("strobe", np.uint64)])
EVENT_RECORD = np.dtype([("cycle", np.uint64), ("pulses", np.uint32), ("levels", np.uint32)])
REPORT_FIELDS = (
    "cycle", "start_cycle", "done_cycle", "last_beat_cycle", "read_beats", "write_beats", "protocol_errors",
    "protocol_kind", "protocol_cycle", "protocol_address", "bus_errors", "bus_error_cycle", "bus_error_address")
PROTOCOL_TEXT = (
    "none", "a read burst crosses a 4 KiB boundary", "a write burst crosses a 4 KiB boundary",
    "a read burst is not INCR at full bus width", "a write burst is not INCR at full bus width",
    "wlast does not match awlen", "a read address changed before it was accepted",
    "a write address changed before it was accepted", "write data changed before they were accepted")


class Settings(ctypes.Structure):
    """``struct Settings``."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("latency", "shared", "max_reads", "max_writes")]


class Report(ctypes.Structure):
    """``struct Report``: see ``harness.h`` for each field."""

    _fields_ = [(name, ctypes.c_uint64) for name in REPORT_FIELDS]

    def as_dict(self) -> dict[str, int]:
        """Return all fields."""
        return {name: getattr(self, name) for name in REPORT_FIELDS}


class MemoryView(ctypes.Structure):
    """``struct MemoryView``."""

    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("words", ctypes.c_uint64),
                ("stride", ctypes.c_uint64)]


class Fault(ctypes.Structure):
    """``struct Fault``."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("channel", "index", "response", "beat")]


SIGNATURES = {
    "create": (ctypes.c_void_p, [ctypes.POINTER(Settings)]),
    "destroy": (None, [ctypes.c_void_p]),
    "reset": (None, [ctypes.c_void_p]),
    "memory": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]),
    "begin": (None, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int]),
    "fault": (None, [ctypes.c_void_p, ctypes.POINTER(Fault)]),
    "write": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32]),
    "read": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)]),
    "run": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint64]),
    "report": (None, [ctypes.c_void_p, ctypes.POINTER(Report)]),
    "log": (ctypes.c_uint64, [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)]),
    "events": (ctypes.c_uint64, [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)]),
    "memory_view": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint64, ctypes.POINTER(MemoryView)]),
    "trace": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]),
}


@cache
def load(path: Path) -> ctypes.CDLL:
    """Load a library and declare its functions; PhonolithError ``build-failed`` when it cannot be loaded."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise PhonolithError("build-failed", f"The simulator {path} cannot be loaded: {error}.",
                             f"Remove {path.parent}; it is then built again.") from error
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, f"phonolith_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class Harness:
    """One simulated accelerator in a loaded library.

    Parameters
    ----------
    path : Path
        The shared library.
    settings : Settings
        The machine's surroundings.
    """

    def __init__(self, path: Path, settings: Settings):
        self._library = load(path)
        self._handle = self._library.phonolith_create(ctypes.byref(settings))
        self._image: np.ndarray | None = None

    def close(self) -> None:
        """Free the model; closes an open trace."""
        if self._handle:
            self._library.phonolith_destroy(self._handle)
            self._handle = None

    def __del__(self):
        self.close()

    def reset(self) -> None:
        """Pulse the reset pin and empty the DRAM's queues."""
        self._library.phonolith_reset(self._handle)

    def memory(self, image: np.ndarray) -> None:
        """Use ``image`` (uint8, contiguous) as DRAM from address 0 on; it is changed in place."""
        self._image = image
        self._library.phonolith_memory(self._handle, image.ctypes.data, image.size)

    def begin(self, stalls_seed: int | None, log_writes: bool) -> None:
        """Start a new report and write log; stall at random from ``stalls_seed`` on, or never."""
        seed = 0 if stalls_seed is None else stalls_seed + 1
        self._library.phonolith_begin(self._handle, seed, log_writes)

    def fault(self, channel: int, index: int, response: int, beat: int) -> None:
        """Plan a fault for one transaction of the run that `begin` has begun."""
        self._library.phonolith_fault(self._handle, ctypes.byref(Fault(channel, index, response, beat)))

    def write(self, address: int, value: int) -> None:
        """Write a register over AXI4-Lite."""
        check_answer(self._library.phonolith_write(self._handle, address, value), "writing", address)

    def read(self, address: int) -> int:
        """Read a register over AXI4-Lite."""
        value = ctypes.c_uint32()
        check_answer(self._library.phonolith_read(self._handle, address, ctypes.byref(value)), "reading", address)
        return value.value

    def run(self, cycles: int) -> bool:
        """Clock until irq is high, at most ``cycles`` cycles; return whether it is high."""
        return bool(self._library.phonolith_run(self._handle, cycles))

    def report(self) -> Report:
        """Return what has happened since `begin`."""
        report = Report()
        self._library.phonolith_report(self._handle, ctypes.byref(report))
        return report

    def write_log(self) -> np.ndarray:
        """Return the write beats since `begin` (dtype `WRITE_RECORD`), in the order of their responses."""
        return self._records(self._library.phonolith_log, WRITE_RECORD)

    def events(self) -> np.ndarray:
        """Return what happened since `begin` (dtype `EVENT_RECORD`); empty unless built with events."""
        return self._records(self._library.phonolith_events, EVENT_RECORD)

    def _records(self, function, dtype: np.dtype) -> np.ndarray:
        records = ctypes.c_void_p()
        count = function(self._handle, ctypes.byref(records))
        if count == 0:
            return np.empty(0, dtype)
        return np.frombuffer(ctypes.string_at(records, count * dtype.itemsize), dtype).copy()

    def memories(self) -> dict[str, np.ndarray]:
        """Return the on-chip memories by instance path, uint8 ``[words, bytes]``: live views, to read and to write.

        Only while the accelerator is idle, and not after `close`.
        """
        views, view = {}, MemoryView()
        while self._library.phonolith_memory_view(self._handle, len(views), ctypes.byref(view)):
            pointer = ctypes.cast(view.data, ctypes.POINTER(ctypes.c_uint8))
            views[view.name.decode()] = np.ctypeslib.as_array(pointer, (view.words, view.stride))
        return views

    def trace(self, path: Path | None) -> bool:
        """Write waveforms to a VCD file from now on, or close it; False when this build cannot."""
        return bool(self._library.phonolith_trace(self._handle, None if path is None else str(path).encode()))


def check_answer(answer: int, verb: str, address: int) -> None:
    """Raise ``hang`` when a register access got no response, ``register`` when it got an error response."""
    if answer == 1:
        raise PhonolithError("hang", f"The accelerator did not answer {verb} register {address:#05x}.",
                             "The control port is stuck: this is a fault of the hardware description.")
    if answer == 2:
        raise PhonolithError("register", f"The accelerator refused {verb} register {address:#05x}.",
                             "Use an address of the register map.")
