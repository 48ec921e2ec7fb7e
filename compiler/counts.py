"""Counts that follow from an utterance's length: a program is made for the longest, and clamps them when it runs.

A :class:`Count` is the integer it would be for the longest input, so that planning and allocation need not know; what
it is for a shorter one is the part of a :class:`Size` that lies in ``first .. first + limit``. Instructions take it
from a register (:mod:`phonolith.compiler.registers`).
"""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class Stride:
    """A convolution along time: ``(T + padding - kernel) // step + 1`` frames of T."""

    kernel: int
    step: int
    padding: int

    def __call__(self, frames: int) -> int:
        """Return the frames that the convolution leaves."""
        return (frames + self.padding - self.kernel) // self.step + 1


# What leaves one of two things, and the last one of an odd number.
PAIRS = Stride(kernel=2, step=2, padding=1)


@dataclass(frozen=True)
class Size:
    """``scale`` times the frames that some convolutions leave; at most ``maximum``."""

    maximum: int
    strides: tuple[Stride, ...] = ()
    scale: int = 1

    def at(self, frames: int) -> int:
        """Return the size for an input of ``frames`` frames."""
        for stride in self.strides:
            frames = stride(frames)
        return self.scale * frames

    def times(self, factor: int) -> "Size":
        """Return a multiple."""
        return replace(self, maximum=self.maximum * factor, scale=self.scale * factor)


class Count(int):
    """``min(max(size - first, 0), limit) + offset``; as an integer its value for the longest input.

    Arithmetic gives plain integers; use :func:`part`, :func:`times` and :func:`product` for counts.
    """

    size: Size
    first: int
    limit: int
    offset: int

    def __new__(cls, size: Size, first: int = 0, limit: int | None = None, offset: int = 0) -> Self:
        limit = size.maximum if limit is None else limit
        self = super().__new__(cls, min(max(size.maximum - first, 0), limit) + offset)
        self.size, self.first, self.limit, self.offset = size, first, limit, offset
        return self

    def __reduce__(self) -> tuple:
        return Count, (self.size, self.first, self.limit, self.offset)

    def at(self, frames: int) -> int:
        """Return the count for an input of ``frames`` frames."""
        return min(max(self.size.at(frames) - self.first, 0), self.limit) + self.offset


def convolved(frames: int, stride: Stride) -> int:
    """Return the frames that a convolution along time leaves of ``frames``."""
    if stride.step == 1 and stride.padding == stride.kernel - 1:
        return frames
    if not isinstance(frames, Count):
        return stride(frames)
    return Count(Size(stride(frames), (*frames.size.strides, stride)))


def part(count: int, first: int, most: int) -> int:
    """Return how many of ``count`` things are among the ``most`` from number ``first`` on."""
    if not isinstance(count, Count):
        return min(most, count - first)
    if first == 0 and most >= count:
        return count
    always = count.offset - first
    if always < 0:
        return Count(count.size, count.first - always, min(most, count.limit + always))
    return Count(count.size, count.first, min(most - always, count.limit), always) if most > always else most


def times(count: int, factor: int) -> int:
    """Return a multiple of a count."""
    if factor == 1:
        return count
    if not isinstance(count, Count):
        return count * factor
    return Count(count.size.times(factor), count.first * factor, count.limit * factor, count.offset * factor)


def plus(count: int, addend: int) -> int:
    """Return a count and some more."""
    if not isinstance(count, Count):
        return count + addend
    return Count(count.size, count.first, count.limit, count.offset + addend)


def halved(count: int) -> int:
    """Return the pairs in a count, the last of which may be half; of a part of a size, from an even number on."""
    if not isinstance(count, Count):
        return -(-count // 2)
    if count.first % 2 or count.offset % 2 or count.size.scale != 1:
        raise ValueError(f"pairs must begin with an even number of a size, not with {count.first} + {count.offset}")
    size = Size(-(-count.size.maximum // 2), (*count.size.strides, PAIRS))
    return Count(size, count.first // 2, -(-count.limit // 2), count.offset // 2)


def at_least_one(count: int) -> int:
    """Return a count of at least one, or one where there is none."""
    return plus(part(count, 1, count - 1), 1) if isinstance(count, Count) and not count.offset else count


def product(outer: int, inner: int) -> int:
    """Return the number of turns of two nested loops; exact unless both counts vary."""
    if isinstance(outer, Count):
        return times(outer, inner)
    return times(inner, outer)


def maximum(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape for the longest input as plain integers."""
    return tuple(int(size) for size in shape)
