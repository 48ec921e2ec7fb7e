"""What importing any torch operator needs: appending float nodes, values as matrices, names and places."""

import itertools
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np

from phonolith.compiler.float_graph import FloatNode
from phonolith.compiler.frontend_views import LayoutError, View, axes_of


class Emitter:
    """Appends float nodes to ``nodes``; ``current`` is the torch node being imported."""

    def __init__(self):
        self.nodes: list[FloatNode] = []
        self.names: set[str] = set()
        self.current: Any = None

    def emit(self, op: str, inputs: tuple[str, ...], constants=None, **attributes) -> str:
        """Append a float node named after the module it comes from; return its name."""
        path = module_path(self.current)
        base = path if op in ("linear", "conv2d", "depthwise", "layernorm") and path else f"{path}.{op}".lstrip(".")
        numbered = (f"{base}_{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([base], numbered) if name not in self.names)
        self.names.add(name)
        self.nodes.append(FloatNode(name, op, inputs, constants or {}, attributes, location(self.current)))
        return name

    def matrix(self, view: View, what: str = "its input") -> View:
        """Return ``view`` on a value of shape ``[T, D]``, multiplied; LayoutError unless it shows one, in order."""
        if view.flat != view.order or not view.order or not view.order[0].time:
            raise LayoutError(f"{what} is not a [T, D] tensor")
        view = self.unscaled(view)
        if len(view.tail) == 1:
            return view
        tail = (math.prod(view.tail),)
        return replace(view, value=self.emit("reshape", (view.value,), tail=list(tail)), tail=tail)

    def unscaled(self, view: View) -> View:
        """Return ``view`` with its factor multiplied in."""
        if view.scale == 1:
            return view
        return replace(view, value=self.emit("scaled", (view.value,), factor=view.scale), scale=1.0)

    def alike(self, a: View, b: View) -> tuple[View, View]:
        """Return two views of one shape on values ``[T, D]`` whose elements correspond; they may be transposed."""
        if a.positions == b.positions:
            return self.stored(a), self.stored(b)
        return self.matrix(a), self.matrix(b)

    def stored(self, view: View) -> View:
        """Return ``view`` on a value ``[T, D]``, whatever order of its dimensions it shows."""
        matrix = self.matrix(replace(view, dims=(view.order[:1], view.order[1:])))
        return replace(matrix, dims=view.dims)

    def elementwise(self, x: View, function: str, *arguments: float) -> View:
        """A function of each element keeps the layout."""
        x, more = self.unscaled(x), {"arguments": list(arguments)} if arguments else {}
        return replace(x, value=self.emit("function", (x.value,), function=function, **more))

    def linear(self, x: View, weight, bias=None) -> View:
        """The columns of the weight follow the axes of the last dimension into the value's order."""
        rows, columns = [a for dim in x.dims[:-1] for a in dim], x.dims[-1]
        if len(rows) != 1 or not rows[0].time or x.order[0] != rows[0]:
            raise LayoutError("its input is not [T, D]")
        weight = self.array(weight) * np.float32(x.scale)
        spread = weight.reshape(len(weight), *(axis.size for axis in columns))
        ordered = spread.transpose(0, *(1 + columns.index(axis) for axis in x.order[1:]))
        matrix = replace(x, dims=(x.order[:1], x.order[1:]), scale=1.0)
        constants = {"weight": ordered.reshape(len(weight), -1), "bias": self.bias(bias, len(weight))}
        value = self.emit("linear", (self.matrix(matrix).value,), constants)
        y = axes_of(len(weight))
        return View(value, (*x.dims[:-1], y), (rows[0], *y), (len(weight),))

    def affine(self, x: View, gamma: np.ndarray, beta: np.ndarray) -> View:
        """``x * gamma + beta`` over the last axis of the value."""
        constants = {"gamma": gamma.astype(np.float32), "beta": beta.astype(np.float32)}
        return replace(x, value=self.emit("affine", (x.value,), constants))

    def affine_rows(self, x: View, gamma, beta) -> View:
        """``x * gamma + beta`` of [.., T, D] and constants that are one number, or one per column."""
        matrix = self.matrix(x)
        (width,) = matrix.tail
        if x.shape[-1] != width:
            raise LayoutError("its input is not [T, D]")
        return self.affine(matrix, per_column(gamma, width), per_column(beta, width))

    def multiply(self, a: View, b: View) -> View:
        """The product of two tensors; of one of them and a sigmoid, the sigmoid comes second."""
        if a.shape != b.shape:
            raise LayoutError("only the product of two tensors of one shape is supported")
        a, b = self.alike(a, b)
        gates = {node.name for node in self.nodes if node.attributes.get("function") == "sigmoid"}
        first, second = (b, a) if a.value in gates and b.value not in gates else (a, b)
        return replace(a, value=self.emit("multiply", (first.value, second.value)))

    def columns(self, x: View, dim: int, start: int, stop: int) -> View:
        """Entries ``start`` .. ``stop`` of a dimension that is the most significant of the tail."""
        sliced, size = x.dims[dim], x.shape[dim]
        if not x.order[0].time or x.order[1 : 1 + len(sliced)] != sliced:
            raise LayoutError("it takes columns that do not lie next to each other")
        rest = x.order[1 + len(sliced) :]
        inner = math.prod(axis.size for axis in rest)
        matrix = self.matrix(replace(x, dims=(x.order[:1], x.order[1:]), scale=1.0))
        value = self.emit("slice", (matrix.value,), start=start * inner, stop=stop * inner)
        kept = axes_of(stop - start) if stop - start < size else sliced
        dims = (*x.dims[:dim], kept, *x.dims[dim + 1 :])
        return View(value, dims, (x.order[0], *kept, *rest), ((stop - start) * inner,), x.scale)

    def array(self, parameter) -> np.ndarray:
        """Return a weight's float32 values."""
        if not isinstance(parameter, np.ndarray):
            raise LayoutError("its weight depends on the input")
        return parameter

    def bias(self, parameter, width: int) -> np.ndarray:
        """Return a bias, zeros when there is none."""
        return np.zeros(width, np.float32) if parameter is None else self.array(parameter)


def per_column(constant, width: int) -> np.ndarray:
    """Return a constant as ``width`` numbers."""
    array = np.asarray(constant, np.float32)
    if array.size != 1 and array.shape[-1:] != (width,) or array.size > width:
        raise LayoutError("only constants of one number, or of one per column, are supported")
    return np.broadcast_to(array.reshape(-1), width)


def module_path(node) -> str:
    """Return the dotted path of the innermost module a node comes from."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return re.sub(r"^L\['self'\]\.?", "", paths[-1]) if paths else ""


def location(node) -> str:
    """Return where a node was written: module path, file and line."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    written = [line for line in lines if "/torch/" not in line[0]] or lines
    where = [f"module {module_path(node) or '(top)'}"]
    return ", ".join(where + [f"{file}:{line}" for file, line in written[-1:]])
