"""Tensors in DRAM: strided views, and the row loops of LOAD and STORE over them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from phonolith.compiler.counts import Count, halved, maximum, part, product, times
from phonolith.compiler.ir import DTYPES


@dataclass(frozen=True)
class View:
    """A tensor in DRAM: ``strides`` in bytes; the last dimension is contiguous.

    ``frame_rows`` rows before and after the leading dimension, and ``frame_bytes`` bytes before and after each
    of its rows, are zero and stay so: the padding of convolutions that read the tensor.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    frame_rows: int = 0
    frame_bytes: int = 0

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return np.dtype(DTYPES[self.dtype]).itemsize

    @property
    def bits(self) -> int:
        """Bits per element."""
        return 8 * self.itemsize

    def as_bytes(self) -> "View":
        """Return the view as LOAD and STORE see it: itself, unless several elements share a byte."""
        return self

    def read(self, image: np.ndarray) -> np.ndarray:
        """Return a copy of the tensor in ``image`` (uint8)."""
        return np.ascontiguousarray(self.bytes_in(image)).view(DTYPES[self.dtype])[..., 0]

    def write(self, image: np.ndarray, tensor: np.ndarray) -> None:
        """Put ``tensor`` into ``image``, with the zeros that must follow its last row."""
        data = np.ascontiguousarray(tensor, dtype=DTYPES[self.dtype])
        self.bytes_in(image)[:] = data[..., None].view(np.uint8)
        self.rows(self.shape[0], self.frame_rows).bytes_in(image)[:] = 0

    def bytes_in(self, image: np.ndarray) -> np.ndarray:
        """Return the view's bytes in ``image``, ``[*shape, itemsize]``, writable."""
        return np.lib.stride_tricks.as_strided(
            image[self.address:], (*self.shape, self.itemsize), (*self.strides, 1))

    def address_of(self, index: tuple[int, ...]) -> int:
        """Return the address of an element."""
        return self.address + sum(i * stride for i, stride in zip(index, self.strides, strict=True))

    def longest(self) -> "View":
        """Return the view with the sizes of the longest input, as plain integers."""
        return replace(self, shape=maximum(self.shape))

    def slice(self, start: int, stop: int) -> "View":
        """Return columns ``start`` .. ``stop`` of the last dimension."""
        return replace(self, address=self.address + start * self.strides[-1], frame_rows=0, frame_bytes=0,
                       shape=(*self.shape[:-1], stop - start))

    def rows(self, first: int, count: int) -> "View":
        """Return ``count`` rows of the leading dimension from ``first`` on."""
        return replace(self, address=self.address + first * self.strides[0], frame_rows=0, frame_bytes=0,
                       shape=(count, *self.shape[1:]))

    def at(self, index: int) -> "View":
        """Return element ``index`` of the leading dimension."""
        return View(self.address + index * self.strides[0], self.shape[1:], self.strides[1:], self.dtype)

    def reshape(self, shape: tuple[int, ...]) -> "View | None":
        """Return a view with other dimensions behind the leading one; None when its bytes do not allow it."""
        if shape == self.shape:
            return self
        if not self.is_packed():
            return None
        return replace(self, shape=shape, strides=(self.strides[0], *packed_strides(shape[1:], self.itemsize)))

    def is_packed(self) -> bool:
        """Tell whether each element of the leading dimension is contiguous."""
        tail = packed_strides(self.shape[1:], self.itemsize)
        return all(size == 1 or stride == want
                   for size, stride, want in zip(self.shape[1:], self.strides[1:], tail, strict=True))


@dataclass(frozen=True)
class BlockedView(View):
    """A tensor of bytes ``[T, C]`` in blocks of ``block`` steps: in each, the steps of one channel after the other.

    ``strides``: from block to block, and from channel to channel. The last block is stored whole.
    """

    block: int = 1

    def bytes_in(self, image: np.ndarray) -> np.ndarray:
        """Return the bytes of all blocks, ``[blocks, C, block]``, writable."""
        shape = (-(-self.shape[0] // self.block), self.shape[1], self.block)
        return np.lib.stride_tricks.as_strided(image[self.address:], shape, (*self.strides, 1))

    def read(self, image: np.ndarray) -> np.ndarray:
        """Return a copy of the tensor in ``image`` (uint8)."""
        steps = self.bytes_in(image).transpose(0, 2, 1).reshape(-1, self.shape[1])[:self.shape[0]]
        return np.ascontiguousarray(steps).view(DTYPES[self.dtype])

    def address_of(self, index: tuple[int, ...]) -> int:
        """Return the address of an element."""
        block, step = divmod(index[0], self.block)
        return self.address + block * self.strides[0] + index[1] * self.strides[1] + step


class Pairs(StrEnum):
    """Which elements of 4 bits share a byte, the first of them being its low half."""

    COLUMNS = "columns"
    ROWS = "rows"


@dataclass(frozen=True)
class NibbleView(View):
    """A tensor ``[T, C]`` of 4 bits: columns 2q and 2q + 1 of a row in byte q, or rows 2m and 2m + 1 in row m of bytes.

    ``strides``: of the bytes. Slices begin with an even column, or rows with an even one, where these are in pairs.
    """

    pairs: Pairs = Pairs.COLUMNS

    @property
    def bits(self) -> int:
        """Bits per element."""
        return 4

    def as_bytes(self) -> View:
        """Return the bytes, of two elements each, as a tensor."""
        rows, columns = self.shape
        shape = (rows, halved(columns)) if self.pairs == Pairs.COLUMNS else (halved(rows), columns)
        return View(self.address, shape, self.strides, "int8")

    def bytes_in(self, image: np.ndarray) -> np.ndarray:
        """Return the view's bytes in ``image``, writable."""
        return self.as_bytes().bytes_in(image)

    def read(self, image: np.ndarray) -> np.ndarray:
        """Return a copy of the tensor in ``image`` (uint8)."""
        octets = self.as_bytes().read(image)
        halves = octets << 4 >> 4, octets >> 4      # of signed bytes
        if self.pairs == Pairs.COLUMNS:
            return np.stack(halves, axis=2).reshape(len(octets), -1)[:, :self.shape[1]]
        return np.stack(halves, axis=1).reshape(-1, self.shape[1])[:self.shape[0]]

    def write(self, image: np.ndarray, tensor: np.ndarray) -> None:
        """Put ``tensor`` (of values of int4) into ``image``; the half of a byte without an element is zero."""
        axis = 1 if self.pairs == Pairs.COLUMNS else 0
        even = np.pad(tensor, [(0, tensor.shape[each] % 2 if each == axis else 0) for each in range(2)])
        low, high = (np.take(even, range(half, even.shape[axis], 2), axis) for half in range(2))
        self.as_bytes().write(image, (low & 15 | high << 4).astype(np.int8))

    def address_of(self, index: tuple[int, ...]) -> int:
        """Return the address of the byte that holds an element."""
        row, column = index
        return super().address_of((row, column // 2) if self.pairs == Pairs.COLUMNS else (row // 2, column))

    def slice(self, start: int, stop: int) -> View:
        """Return columns ``start`` .. ``stop``."""
        first = start // 2 if self.pairs == Pairs.COLUMNS else start
        return replace(self, address=self.address + first, shape=(self.shape[0], stop - start))

    def rows(self, first: int, count: int) -> View:
        """Return ``count`` rows from ``first`` on."""
        stored = first if self.pairs == Pairs.COLUMNS else first // 2
        return replace(self, address=self.address + stored * self.strides[0], shape=(count, self.shape[1]))


@dataclass(frozen=True)
class Unfolded:
    """A copy of a graph input ``[T, F]`` of bytes as a convolution over ``taps`` of its rows reads it.

    Byte i of element (t, f) is ``x[step * t + i - before, f]``, or zero outside x: what a window needs of a column is
    contiguous, and so is, from column to column, the whole window.
    """

    address: int
    rows: int
    columns: int
    pitch: int
    taps: int
    step: int
    before: int

    def write(self, image: np.ndarray, tensor: np.ndarray) -> None:
        """Put the copy of ``tensor`` into ``image``."""
        x = tensor.reshape(len(tensor), -1).view(np.uint8)
        behind = max(0, self.step * (self.rows - 1) + self.taps - self.before - len(x))
        padded = np.pad(x, ((self.before, behind), (0, 0)))
        target = np.lib.stride_tricks.as_strided(
            image[self.address:], (self.rows, self.columns, self.taps), (self.pitch, self.taps, 1))
        for tap in range(self.taps):
            target[..., tap] = padded[tap::self.step][:self.rows]


def packed_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return the byte strides of a contiguous tensor."""
    return tuple(itemsize * math.prod(shape[i + 1:]) for i in range(len(shape)))


@dataclass(frozen=True)
class Rows:
    """Rows in DRAM as LOAD and STORE walk them: two loops, and segments within a row."""

    address: int
    outer_count: int
    outer_stride: int
    inner_count: int
    inner_stride: int
    segment_bytes: int
    segment_count: int = 1
    segment_stride: int = 0

    @property
    def count(self) -> int:
        """Rows in all."""
        return product(self.outer_count, self.inner_count)

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return product(self.segment_count, self.segment_bytes)

    def block(self, block: "Block") -> "Rows":
        """Return the rows of a block."""
        address = self.address + block.outer * self.outer_stride + block.inner * self.inner_stride
        return replace(self, address=address, outer_count=part(self.outer_count, block.outer, block.outer_count),
                       inner_count=part(self.inner_count, block.inner, block.inner_count))

    def columns(self, start: int, size: int) -> "Rows":
        """Return bytes ``start`` .. ``start + size`` of every row (rows of one segment)."""
        return replace(self, address=self.address + start, segment_bytes=part(self.segment_bytes, start, size))


@dataclass(frozen=True)
class Block:
    """A rectangle of the two row loops."""

    outer: int
    outer_count: int
    inner: int
    inner_count: int

    @property
    def rows(self) -> int:
        """Rows in the block."""
        return self.outer_count * self.inner_count


def common_rows(*views: View) -> Iterator[tuple[Rows, ...]]:
    """Yield, for views whose leading dimensions agree, their rows walked by the same two loops.

    Adjacent dimensions are merged where all views allow it; dimensions beyond two give several results.
    """
    loops = merged_loops([v for v in views], len(views[0].shape) - 1)
    while len(loops) < 2:
        loops.insert(0, (1, (0,) * len(views)))
    *extra, (outer, outer_strides), (inner, inner_strides) = loops
    for index in np.ndindex(*(count for count, _ in extra)):
        offsets = [sum(i * strides[v] for i, (_, strides) in zip(index, extra, strict=True))
                   for v in range(len(views))]
        yield tuple(Rows(view.address + offset, outer, outer_strides[v], inner, inner_strides[v],
                         times(view.shape[-1], view.itemsize))
                    for v, (view, offset) in enumerate(zip(views, offsets, strict=True)))


def merged_loops(views: list[View], dimensions: int) -> list[tuple[int, tuple[int, ...]]]:
    """Return (count, stride of each view) of the first ``dimensions`` dimensions, merged and without ones.

    A dimension whose size varies takes what lies behind it into its loop, but goes into none before it.
    """
    loops: list[tuple[int, tuple[int, ...]]] = []
    for axis in range(dimensions):
        count, strides = views[0].shape[axis], tuple(v.strides[axis] for v in views)
        if count == 1 and not isinstance(count, Count):
            continue
        adjacent = loops and all(wide == count * step for wide, step in zip(loops[-1][1], strides, strict=True))
        if adjacent and not isinstance(count, Count):
            loops[-1] = (times(loops[-1][0], count), strides)
        else:
            loops.append((count, strides))
    return loops


def flat_tails(*views: View) -> tuple[View, ...]:
    """Merge the dimensions behind the leading one into columns as far as all views are contiguous."""
    flat = list(views)
    while len(flat[0].shape) > 2 and not any(isinstance(size, Count) for size in flat[0].shape[-2:]) \
            and all(v.strides[-2] == v.shape[-1] * v.itemsize for v in flat):
        flat = [replace(v, shape=(*v.shape[:-2], v.shape[-2] * v.shape[-1]),
                        strides=(*v.strides[:-2], v.itemsize)) for v in flat]
    return tuple(flat)
