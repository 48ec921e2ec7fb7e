"""A depthwise convolution along time as a program written by hand, and what it must give."""

from dataclasses import dataclass

import numpy as np

from phonolith.compiler.assembler import Emitter, Issue, assemble
from phonolith.compiler.footprint import window_extent
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Destination, Multiplier, Pre, Saturate, Source, Target
from phonolith.sim.program_case import ProgramCase, synchronized

FACTOR, SHIFT = 40_000, 24
BEAT = 32
# Strips on chip at a time.
BUFFERS = 3
# Channels per VECTOR and STORE.
PIECE = 2


@dataclass(frozen=True)
class Depthwise:
    """``y[t, c] = requantize(bias[c] + sum over k of x[t + k, c] * w[c, k])``, t below ``frames``; int8.

    DRAM holds x ``[frames + taps - 1, channels]`` (``by_channel``: transposed), rows padded to whole beats, a kernel
    and a parameter word per tile of the array, and y ``[blocks, channels, WB]``, a block being WB frames.
    """

    config: MachineConfig
    frames: int
    channels: int
    taps: int
    by_channel: bool = False
    seed: int = 0

    def __post_init__(self):
        assert self.window <= min(self.config.rows, 7), "a window is at most 7 words and R banks"

    @property
    def k(self) -> int:
        """Operand k of MATMUL: what WB neighbouring results need."""
        return self.config.word_bytes + self.taps - 1

    @property
    def window(self) -> int:
        """Words of one window."""
        return -(-self.k // self.config.word_bytes)

    @property
    def halves(self) -> int:
        """Column tiles per word of results."""
        return self.config.word_bytes // self.config.columns

    @property
    def blocks(self) -> int:
        """Words of results per channel."""
        return -(-self.frames // self.config.word_bytes)

    @property
    def groups(self) -> int:
        """Array tiles (of R blocks) per channel and half."""
        return -(-self.blocks // self.config.rows)

    @property
    def row_words(self) -> int:
        """Words of one channel in a bank: windows that begin behind the last result are written, too."""
        words = -(-(self.frames + self.taps - 1) // self.config.word_bytes)
        return max(window_extent(words, self.window, self.config), self.groups * self.window)

    @property
    def kernel_words(self) -> int:
        """Words of one kernel."""
        return -(-(self.k - self.config.columns + 1) // self.config.word_bytes)

    @property
    def pitch(self) -> int:
        """Bytes from one row of x to the next."""
        return -(-(self.frames + self.taps - 1 if self.by_channel else self.channels) // BEAT) * BEAT

    def operands(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x ``[time, channels]`` and w ``[channels, taps]``, int8, and bias, int64."""
        rng = np.random.default_rng(self.seed)
        x = rng.integers(-128, 128, (self.frames + self.taps - 1, self.channels)).astype(np.int8)
        w = rng.integers(-128, 128, (self.channels, self.taps)).astype(np.int8)
        return x, w, rng.integers(-20_000, 20_000, self.channels)

    def expected(self) -> np.ndarray:
        """Return y, int8 ``[frames, channels]``."""
        x, w, bias = self.operands()
        windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.int64), self.taps, axis=0)
        y = (np.einsum("tck,ck->tc", windows, w.astype(np.int64)) + bias) * FACTOR + (1 << SHIFT - 1) >> SHIFT
        return np.clip(y, -128, 127).astype(np.int8)

    def kernels(self) -> np.ndarray:
        """Return the kernel of every tile, int8 ``[channels * halves, kernel bytes]``: behind C zeros for each half."""
        _, w, _ = self.operands()
        size, columns = self.kernel_words * self.config.word_bytes, self.config.columns
        tiles = np.zeros((self.channels, self.halves, size), np.int8)
        for half in range(self.halves):
            tiles[:, half, half * columns:half * columns + self.taps] = w
        return tiles.reshape(-1, size)

    def parameters(self) -> np.ndarray:
        """Return the parameter words, int32 ``[channels * halves, C, 2]``."""
        factor = isa.pack(isa.FACTOR, multiplier=FACTOR, shift=SHIFT)
        words = np.stack([self.operands()[2], np.full(self.channels, factor)], axis=-1).astype(np.int32)
        return np.repeat(words, self.halves * self.config.columns, axis=0).reshape(-1, self.config.columns, 2)

    def image(self) -> tuple[np.ndarray, dict[str, int]]:
        """Return DRAM and where x, kernels, parameters and y lie in it."""
        x, _, _ = self.operands()
        x = x.T if self.by_channel else x
        padded = np.pad(x, ((0, 0), (0, self.pitch - x.shape[1])))
        y = np.full(self.blocks * self.channels * self.config.word_bytes, 0x55, np.int8)
        parts = {"x": padded, "kernels": self.kernels(), "parameters": self.parameters(), "y": y}
        places, image = {}, b""
        for name, part in parts.items():
            places[name] = len(image)
            image += part.tobytes() + bytes(-part.nbytes % 64)
        return np.frombuffer(image, np.uint8), places

    def strips(self) -> list[range]:
        """Return the channels of each strip; the first ones are short where a few channels load fast."""
        most = min(self.config.dma_bytes, self.config.parameter_depth // BUFFERS // self.halves,
                   self.config.activation_depth // BUFFERS // self.row_words)
        strips, size = [], 2 if self.by_channel else most
        while not strips or strips[-1].stop < self.channels:
            first = strips[-1].stop if strips else 0
            strips.append(range(first, min(first + size, self.channels)))
            size = min(size + 2, most)
        return strips

    def case(self) -> ProgramCase:
        """Return the program, its instructions synchronized, with its memory."""
        image, places = self.image()
        emit = Emitter()
        for number, strip in enumerate(self.strips()):
            StripEmitter(self, emit, places, number % BUFFERS).emit(strip)
        plain = synchronized([item for item in emit.items if isinstance(item, Issue)], self.config)
        items = (*plain, Issue("END"))
        words, _ = assemble(items, self.config)
        return ProgramCase(self.seed, items, words, image, len(image), ())

    def result(self, dram: np.ndarray) -> np.ndarray:
        """Return y as :meth:`expected` does, from DRAM."""
        start = self.image()[1]["y"]
        y = dram[start:start + self.blocks * self.channels * self.config.word_bytes].view(np.int8)
        blocked = y.reshape(self.blocks, self.channels, self.config.word_bytes)
        return blocked.transpose(0, 2, 1).reshape(-1, self.channels)[:self.frames]


@dataclass(frozen=True)
class StripEmitter:
    """Emits the instructions of one strip of channels; ``turn`` says which part of the memories it uses."""

    work: Depthwise
    emitter: Emitter
    places: dict[str, int]
    turn: int

    def emit(self, strip: range) -> None:
        """Load the strip's operands, convolve group by group of R blocks, store."""
        work, config = self.work, self.work.config
        activation, weight, parameter = (self.turn * (depth // BUFFERS) for depth in (
            config.activation_depth, config.weight_depth, config.parameter_depth))
        first, tiles = strip.start * work.halves, len(strip) * work.halves
        pitch = work.kernel_words * config.word_bytes
        self.emitter.load(
            target=Target.WEIGHT, address=self.places["kernels"] + first * pitch, base=weight, one_bank=True,
            row_words=work.kernel_words, inner_count=tiles, inner_stride=pitch,
            segment_bytes=work.k - config.columns + 1)
        self.load_windows(strip, activation)
        self.emitter.load(
            target=Target.PARAMETER, address=self.places["parameters"] + first * config.parameter_word_bytes,
            base=parameter, segment_bytes=tiles * config.parameter_word_bytes)
        for group in range(work.groups):
            self.emitter.matmul(
                a_base=activation + group * work.window, a_tile_words=work.row_words, w_base=weight,
                w_tile_words=work.kernel_words, rows=len(strip) * config.rows, columns=work.halves * config.columns,
                k=work.k, band=True)
            for piece in range(0, len(strip), PIECE):
                self.drain(strip[piece:piece + PIECE], group, parameter + piece * work.halves)

    def load_windows(self, strip: range, base: int) -> None:
        """Load the windows of a strip's channels."""
        work, frames = self.work, self.work.frames + self.work.taps - 1
        common = {"target": Target.ACTIVATION, "base": base, "row_words": work.row_words, "window": work.window,
                  "inner_stride": work.pitch}
        if work.by_channel:
            self.emitter.load(address=self.places["x"] + strip.start * work.pitch, inner_count=len(strip),
                              segment_bytes=frames, **common)
        else:
            self.emitter.load(address=self.places["x"] + strip.start, inner_count=frames, segment_bytes=len(strip),
                              transpose=True, **common)

    def drain(self, channels: range, group: int, parameter: int) -> None:
        """Requantize and store R blocks of some channels."""
        work, config = self.work, self.work.config
        rows, tiles = min(config.rows, work.blocks - group * config.rows), len(channels) * work.halves
        words, turn = -(-tiles // 2), channels.start // PIECE + group
        result = turn % 2 * config.scratch_bank_depth
        self.emitter.vector(rows=rows, columns=tiles * config.columns, source=Source.DRAIN, pre=Pre.BIAS,
                            multiplier=Multiplier.COLUMN, parameter_base=parameter, saturate=Saturate.INT8,
                            destination=Destination.SCRATCHPAD, destination_base=result, destination_pitch=words,
                            destination_byte=True)
        block = work.channels * config.word_bytes
        self.emitter.store(address=self.places["y"] + group * config.rows * block + channels.start * config.word_bytes,
                           base=result, pitch=words, inner_count=rows, inner_stride=block,
                           row_bytes=len(channels) * config.word_bytes)
