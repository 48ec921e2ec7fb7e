"""Run programs on the simulated accelerator."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np

from phonolith.hw import registers
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.rtl import source
from phonolith.sim.rtl.build import BuiltModel, build
from phonolith.sim.rtl.counters import read_counters, read_engines
from phonolith.sim.rtl.library import PROTOCOL_TEXT, Harness, Settings
from phonolith.sim.rtl.recording import Recording

START, CLEAR = 1, 2
CHANNELS = ("read", "write")
DONE_BIT, ERROR_BIT = 2, 4
DEFAULT_MAX_CYCLES = 1_000_000_000
# Without a single transfer on the bus for this long, a program has stopped: the longest computation on operands that
# fit on the chip is shorter.
QUIET_CYCLES = 4_000_000
# Between slices Python sees Ctrl-C.
SLICE_CYCLES = 250_000
IMAGE_ALIGNMENT = 64


class Response(IntEnum):
    """How the bus answers a transaction that is to fail; NONE: not before the next run."""

    SLVERR = 2
    DECERR = 3
    NONE = 4


@dataclass(frozen=True)
class BusFault:
    """One transaction that is to fail.

    Parameters
    ----------
    channel : str
        ``"read"`` or ``"write"``.
    index : int
        Which transaction of the channel, counted from 0 in the run.
    response : Response
    beat : int
        In which beat a read fails (its last one, if it has fewer). A failed write changes nothing.
    """

    channel: str
    index: int
    response: Response = Response.SLVERR
    beat: int = 0


@dataclass(frozen=True)
class RunResult:
    """What one run did.

    Parameters
    ----------
    image : numpy.ndarray
        DRAM afterwards (uint8, as long as the image given).
    cycles : int
        CYCLES register: from the start write to the end, after the last write response.
    pin_cycles : int
        The same as the harness sees it: from the cycle in which the start write is accepted to the first with irq
        high.
    status : int
        STATUS register.
    error_code, error_address : int
        Code 0 means done; otherwise the word index of the failing instruction.
    counters : dict
        ``cycles``, ``instructions``, ``read_beats``, ``write_beats`` of the register map.
    engines : dict
        Per engine ``{busy, idle, stalled: {token, dram, sram_port, drain, config}}``, in cycles.
    dram_read_beats, dram_write_beats : int
        As the DRAM saw them.
    bus_error : dict or None
        First access outside the image: ``address``, ``cycle`` (counted from the start).
    writes : numpy.ndarray or None
        Write beats (cycle from the start, address, strobe), when asked for.
    simulated_cycles_per_second : float
        Per CPU second of the simulation proper.
    cpu_seconds : float
        CPU time of the simulation proper.
    events : numpy.ndarray or None
        What the engines and the bus did (cycle from the start, pulses, levels; see `signals`), from a machine with
        events.
    """

    image: np.ndarray
    cycles: int
    pin_cycles: int
    status: int
    error_code: int
    error_address: int
    counters: dict[str, int]
    engines: dict[str, dict]
    dram_read_beats: int
    dram_write_beats: int
    bus_error: dict[str, int] | None
    simulated_cycles_per_second: float
    cpu_seconds: float
    writes: np.ndarray | None = field(default=None)
    events: np.ndarray | None = field(default=None)

    @property
    def done(self) -> bool:
        """Whether the program ran to its end without an error."""
        return self.status & DONE_BIT != 0 and self.status & ERROR_BIT == 0


class RtlMachine:
    """The accelerator's RTL with its host and its DRAM.

    Parameters
    ----------
    config : MachineConfig
        Gives the DRAM's latency and limits.
    verilog_text : str, optional
        The accelerator; by default what `phonolith.hw.verilog` makes of ``config``.
    waves : Path, optional
        Write all of the machine's life to this VCD file (slow).
    window : tuple of int, optional
        Write ``waves`` only of these cycles of a run, the first and the last.
    cache : Path, optional
        Folder of builds.
    built : BuiltModel, optional
        A build made earlier, instead of one from ``verilog_text``.
    events : bool
        Record what engines and bus do in every cycle (slower).
    """

    def __init__(self, config: MachineConfig, verilog_text: str | None = None, *, waves: Path | None = None,
                 cache: Path | None = None, built: BuiltModel | None = None, events: bool = False,
                 window: tuple[int, int] | None = None):
        self.config = config
        self.built = built or build(verilog_text or source.verilog_text(config, cache), config, trace=waves is not None,
                                    events=events, cache=cache)
        self._harness = Harness(self.built.library, Settings(
            config.dram_latency, config.dram_shared, config.reads_outstanding, config.writes_outstanding))
        self._waves, self._window = waves, window
        self._recording: Recording | None = None
        if waves is not None and window is None:
            self._open_waves(waves)
        self._needs_reset = False

    def _open_waves(self, path: Path) -> None:
        self._recording = Recording(path)
        if not self._harness.trace(self._recording.pipe):
            raise PhonolithError("waves", f"Cannot write waveforms to {path}.", "Choose a writable path.")

    def _finish_waves(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.finish()

    def close(self) -> None:
        """Free the model and finish its waveforms; PhonolithError ``disk-full`` or ``waves``."""
        self._harness.close()
        self._finish_waves()

    def reset(self) -> None:
        """Reset the accelerator and the bus: needed only to start from a known state, or when the bus is stuck."""
        self._harness.reset()
        self._needs_reset = False

    def run(self, image: np.ndarray, program_address: int, args: tuple[int, ...] = (), *,
            max_cycles: int = DEFAULT_MAX_CYCLES, stalls_seed: int | None = None, log_writes: bool = False,
            quiet_cycles: int = QUIET_CYCLES, faults: tuple[BusFault, ...] = (),
            pause: tuple[int, Callable[[], None]] | None = None) -> RunResult:
        """Run the program at ``program_address`` of a DRAM image to its end.

        Parameters
        ----------
        image : numpy.ndarray
            DRAM from address 0 on, uint8; not changed.
        program_address : int
            Byte address of the program's first word.
        args : tuple of int
            Up to four words for registers 1 to 4.
        max_cycles : int
            Give up after that many cycles.
        stalls_seed : int, optional
            Hold up every channel at random; the same seed gives the same run. Cycles then mean nothing.
        log_writes : bool
            Record every write beat.
        quiet_cycles : int
            Give up after that many cycles without any transfer on the bus.
        faults : tuple of BusFault
            Transactions that are to fail.
        pause : (int, callable), optional
            Call this after so many cycles of the run, or when it ends before, and go on.

        Raises
        ------
        PhonolithError
            ``hang`` with the state of the registers, ``axi-protocol`` when the accelerator breaks the AXI4 rules.
        """
        if self._needs_reset:
            self.reset()
        self._needs_reset = True
        memory = padded(image)
        self._harness.memory(memory)
        self._start(program_address, args, stalls_seed, log_writes, faults)
        if pause is not None:
            cycle, action = pause
            self._harness.run(max(cycle - self.cycle, 0))
            action()
        cpu_seconds, clocked = self._clock(max_cycles, quiet_cycles)
        report = self._harness.report()
        self._check_protocol(report)
        result = self._result(memory[:image.size], report, cpu_seconds, clocked, log_writes)
        self._needs_reset = False
        return result

    @property
    def cycle(self) -> int:
        """Cycles clocked since the start write was accepted."""
        report = self._harness.report()
        return report.cycle - report.start_cycle

    def memories(self) -> dict[str, np.ndarray]:
        """Return the on-chip memories by instance path, uint8 ``[words, bytes]``: live views, to read and to write.

        Only between runs, and not after `close`. Bytes beyond a memory's word are zero.
        """
        return self._harness.memories()

    def interrupt(self, image: np.ndarray, program_address: int, args: tuple[int, ...] = (), *, cycles: int,
                  stalls_seed: int | None = None) -> None:
        """Start a program as :meth:`run` does and reset the accelerator (and the bus) after ``cycles`` cycles."""
        self._harness.memory(padded(image))
        self._start(program_address, args, stalls_seed, False, ())
        self._harness.run(cycles)
        self.reset()

    def read_register(self, address: int) -> int:
        """Read one 32-bit register."""
        return self._harness.read(address)

    def _start(self, program_address: int, args: tuple[int, ...], stalls_seed: int | None, log_writes: bool,
               faults: tuple[BusFault, ...]) -> None:
        harness = self._harness
        harness.write(registers.CONTROL, CLEAR)
        harness.begin(stalls_seed, log_writes)
        for fault in faults:
            harness.fault(CHANNELS.index(fault.channel), fault.index, fault.response, fault.beat)
        harness.write(registers.PROGRAM, program_address)
        for index, value in enumerate((*args, 0, 0, 0, 0)[:4]):
            harness.write(registers.ARGUMENT_BASE + 4 * index, value & 0xFFFFFFFF)
        harness.write(registers.IRQ_ENABLE, 1)
        harness.write(registers.CONTROL, START)

    def _clock(self, max_cycles: int, quiet_cycles: int) -> tuple[float, int]:
        """Clock until irq; return CPU seconds and cycles clocked."""
        begin, cpu = self._harness.report(), time.thread_time()
        if self._waves is not None and self._window is not None:
            self._record(self._waves, *self._window)
        now = self._harness.report()
        while not self._harness.run(min(SLICE_CYCLES, max_cycles + now.start_cycle + 1 - now.cycle)):
            now = self._harness.report()
            if now.cycle - now.start_cycle > max_cycles:
                raise self._hang(f"has not finished after {max_cycles} cycles")
            if now.cycle - max(now.last_beat_cycle, now.start_cycle) > quiet_cycles:
                raise self._hang(f"has not used the bus for {quiet_cycles} cycles")
        return time.thread_time() - cpu, self._harness.report().cycle - begin.cycle

    def _record(self, path: Path, first: int, last: int) -> None:
        """Clock through a window of cycles and write its waveforms."""
        self._harness.run(max(first, 0))
        self._open_waves(path)
        self._harness.run(last - max(first, 0) + 1)
        self._harness.trace(None)
        self._finish_waves()

    def _hang(self, what: str) -> PhonolithError:
        report = self._harness.report()
        self._check_protocol(report)
        try:
            state = {"status": self.read_register(registers.STATUS), **read_counters(self.read_register),
                     **read_engines(self.read_register)}
        except PhonolithError as error:
            state = {"registers": error.message}
        return PhonolithError(
            "hang", f"The program {what}. Registers: {state}; last transfer on the bus in cycle "
            f"{max(report.last_beat_cycle, report.start_cycle) - report.start_cycle}.",
            "Raise max_cycles if the program is longer; otherwise look for a semaphore that nobody signals.")

    def _check_protocol(self, report) -> None:
        if report.protocol_errors:
            raise PhonolithError(
                "axi-protocol", f"The accelerator broke the AXI4 rules {report.protocol_errors} times, first in "
                f"cycle {report.protocol_cycle - report.start_cycle}, address {report.protocol_address:#x}: "
                f"{PROTOCOL_TEXT[report.protocol_kind]}.", "This is a fault of the hardware description.")

    def _result(self, image: np.ndarray, report, cpu_seconds: float, clocked: int, log_writes: bool) -> RunResult:
        status = self.read_register(registers.STATUS)
        writes = self._harness.write_log() if log_writes else None
        if writes is not None:
            writes["cycle"] -= np.uint64(report.start_cycle)
        events = self._events(report) if self.built.events else None
        bus_error = None
        if report.bus_errors:
            bus_error = {"address": report.bus_error_address,
                         "cycle": report.bus_error_cycle - report.start_cycle}
        counters = read_counters(self.read_register)
        return RunResult(
            image=image, cycles=counters["cycles"], pin_cycles=report.done_cycle - report.start_cycle, status=status,
            error_code=status >> 8 & 0xFF if status & ERROR_BIT else 0,
            error_address=self.read_register(registers.ERROR_ADDRESS),
            counters=counters, engines=read_engines(self.read_register),
            dram_read_beats=report.read_beats, dram_write_beats=report.write_beats, bus_error=bus_error,
            simulated_cycles_per_second=clocked / max(cpu_seconds, 1e-9), cpu_seconds=cpu_seconds, writes=writes,
            events=events)

    def _events(self, report) -> np.ndarray:
        """Return the events of the run proper: from the start write on, until irq."""
        events = self._harness.events()
        events = events[(events["cycle"] >= report.start_cycle) & (events["cycle"] < report.done_cycle)]
        events["cycle"] -= np.uint64(report.start_cycle)
        return events


def padded(image: np.ndarray) -> np.ndarray:
    """Return a copy, its length rounded up to whole bus beats; ValueError unless it is uint8 of one dimension."""
    if image.dtype != np.uint8 or image.ndim != 1:
        raise ValueError(f"image must be one-dimensional uint8, not {image.dtype} of shape {image.shape}")
    memory = np.zeros(-(-image.size // IMAGE_ALIGNMENT) * IMAGE_ALIGNMENT, np.uint8)
    memory[:image.size] = image
    return memory
