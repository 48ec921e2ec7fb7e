"""How a torch tensor lies in a value of the float graph, whatever its shape says.

A torch tensor is a list of dimensions, each a run of *axes*; the value it shows is the same axes in the order
``[T, *tail]`` in which the float graph keeps them. Reshapes and permutations only regroup axes, so they need
no operator. Dimensions of size 1 (the batch, a single channel) have no axes.
"""

import itertools
import math
from dataclasses import dataclass, replace

_numbers = itertools.count()


class LayoutError(Exception):
    """A view that the float graph cannot express; the text says why."""


@dataclass(frozen=True)
class Axis:
    """An axis of size > 1; ``time`` marks the one that varies at run time. Identity is the number."""

    size: int
    time: bool = False
    number: int = 0


def new_axis(size: int, time: bool = False) -> Axis:
    """Return a fresh axis."""
    return Axis(size, time, next(_numbers))


def axes_of(*sizes: int) -> tuple[Axis, ...]:
    """Return fresh axes for those sizes that exceed 1."""
    return tuple(new_axis(size) for size in sizes if size > 1)


@dataclass(frozen=True)
class View:
    """A torch tensor: ``dims`` (runs of axes) of value ``value``, which keeps them in ``order``.

    ``tail`` is the value's shape after T; ``scale`` a factor still to be multiplied in.
    """

    value: str
    dims: tuple[tuple[Axis, ...], ...]
    order: tuple[Axis, ...]
    tail: tuple[int, ...]
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The torch shape."""
        return tuple(math.prod(axis.size for axis in dim) for dim in self.dims)

    @property
    def flat(self) -> tuple[Axis, ...]:
        """All axes in the torch tensor's row-major order."""
        return tuple(axis for dim in self.dims for axis in dim)

    @property
    def positions(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each dimension where in the value's order its axes are, and their sizes."""
        return tuple(tuple((self.order.index(axis), axis.size) for axis in dim) for dim in self.dims)

    def permute(self, order) -> "View":
        """Reorder the dimensions."""
        return replace(self, dims=tuple(self.dims[i] for i in order))

    def split_axis(self, axis: Axis, sizes: list[int]) -> tuple["View", tuple[Axis, ...]]:
        """Replace ``axis`` by axes of ``sizes``, most significant first."""
        if axis.time:
            raise LayoutError("it splits the time dimension")
        parts = axes_of(*sizes)

        def expand(axes):
            return tuple(new for old in axes for new in (parts if old == axis else (old,)))

        return replace(self, dims=tuple(map(expand, self.dims)), order=expand(self.order)), parts

    def reshape(self, shape) -> "View":
        """Regroup the axes to ``shape``, splitting those that straddle a boundary."""
        shape = _resolve(shape, math.prod(self.shape))
        view, queue, dims = self, list(self.flat), []
        for size in shape:
            dim: list[Axis] = []
            while size > 1:
                axis = queue.pop(0)
                if axis.size > size:
                    if axis.size % size:
                        raise LayoutError(f"it splits an axis of {axis.size} into runs of {size}")
                    view, (axis, rest) = view.split_axis(axis, [size, axis.size // size])
                    queue.insert(0, rest)
                elif size % axis.size:
                    raise LayoutError(f"it joins an axis of {axis.size} into a dimension of {size}")
                dim.append(axis)
                size //= axis.size
            dims.append(tuple(dim))
        return replace(view, dims=tuple(dims))

    def drop(self, dimension: int) -> "View":
        """Remove a dimension of size 1."""
        dims = list(self.dims)
        if dims.pop(dimension):
            raise LayoutError(f"it removes dimension {dimension}, whose size is not 1")
        return replace(self, dims=tuple(dims))

    def insert(self, dimension: int) -> "View":
        """Add a dimension of size 1."""
        dims = list(self.dims)
        dims.insert(dimension if dimension >= 0 else dimension + len(dims) + 1, ())
        return replace(self, dims=tuple(dims))


def _resolve(shape, total: int) -> list[int]:
    """Replace the -1 of a torch shape."""
    known = math.prod(size for size in shape if size != -1)
    return [total // known if size == -1 else int(size) for size in shape]
