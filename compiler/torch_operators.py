"""The torch operators that can be imported, each as what it does to views and float nodes.

Methods ``op_<name>`` of :class:`Operators` take the arguments of ``aten.<name>``: tensors that depend on the
input as :class:`View`, constants as numpy arrays. They raise LayoutError for what the float graph cannot say.
"""

import itertools
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np

from phonolith.compiler.float_graph import FloatNode
from phonolith.compiler.frontend_views import Axis, LayoutError, View, axes_of, new_axis

# Elementwise functions: torch operator -> name in the float graph.
ELEMENTWISE = {"relu": "relu", "relu_": "relu", "silu": "silu", "sigmoid": "sigmoid", "tanh": "tanh"}
IDENTITIES = ("dropout", "clone", "contiguous", "alias", "detach", "to", "_to_copy", "lift_fresh_copy")
ALIASES = {
    "t": "mT",
    "bmm": "matmul",
    "mm": "matmul",
    "add_": "add",
    "_softmax": "softmax",
    "_unsafe_view": "view",
    "split_with_sizes": "split",
}


class Operators:
    """Appends float nodes to ``nodes``; ``current`` is the torch node being imported."""

    def __init__(self):
        self.nodes: list[FloatNode] = []
        self.names: set[str] = set()
        self.current: Any = None

    def handler(self, name: str):
        """Return the function for ``aten.<name>``, None when there is none."""
        if name in ELEMENTWISE:
            return lambda x: self.elementwise(x, ELEMENTWISE[name])
        if name in IDENTITIES:
            return lambda x, *_arguments, **_keywords: x
        return getattr(self, f"op_{ALIASES.get(name, name)}", None)

    # -- emitting ---------------------------------------------------------------------------------

    def emit(self, op: str, inputs: tuple[str, ...], constants=None, **attributes) -> str:
        """Append a float node named after the module it comes from; return its name."""
        path = module_path(self.current)
        base = path if op in ("linear", "conv2d", "layernorm") and path else f"{path}.{op}".lstrip(".")
        numbered = (f"{base}_{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([base], numbered) if name not in self.names)
        self.names.add(name)
        self.nodes.append(FloatNode(name, op, inputs, constants or {}, attributes, location(self.current)))
        return name

    def matrix(self, view: View, what: str = "its input") -> View:
        """Return ``view`` on a value of shape ``[T, D]``; LayoutError unless it shows one, in order."""
        if view.flat != view.order or not view.order or not view.order[0].time or view.scale != 1:
            raise LayoutError(f"{what} is not a [T, D] tensor")
        if len(view.tail) == 1:
            return view
        tail = (math.prod(view.tail),)
        return replace(view, value=self.emit("reshape", (view.value,), tail=list(tail)), tail=tail)

    # -- operators: each takes views and torch arguments and returns a view ------------------------

    def op_linear(self, x: View, weight, bias=None) -> View:
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

    def op_conv2d(self, x: View, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
        """[B, C, T, F]; the value is [T, F, C]."""
        if isinstance(padding, str) or groups != 1 or max(dilation) != 1:
            raise LayoutError("groups, dilation and named padding are not supported")
        if len(x.dims) != 4:
            raise LayoutError("its input has no batch dimension")
        batch, channels, time, frequency = x.dims
        if batch or x.order != (*time, *frequency, *channels) or len(time) != 1 or not time[0].time:
            raise LayoutError("its input is not [1, C, T, F] with channels last in memory")
        image = (math.prod(a.size for a in frequency), math.prod(a.size for a in channels))
        source = x.value if x.tail == image else self.emit("reshape", (x.value,), tail=list(image))
        weight = self.array(weight).transpose(0, 2, 3, 1) * np.float32(x.scale)
        constants = {"weight": weight, "bias": self.bias(bias, len(weight))}
        strides, pads = pair(stride), pair(padding)
        value = self.emit("conv2d", (source,), constants, stride=strides, padding=pads)
        sizes = zip((time[0].size, image[0]), weight.shape[1:3], strides, pads, strict=True)
        t, f = ((size + 2 * pad - k) // step + 1 for size, k, step, pad in sizes)
        if t < 2:
            raise LayoutError(f"it leaves {t} frame of the example input; give a longer example")
        t_axis, f_axes, c_axes = new_axis(t, time=True), axes_of(f), axes_of(len(weight))
        dims = ((), c_axes, (t_axis,), f_axes)
        return View(value, dims, (t_axis, *f_axes, *c_axes), (f, len(weight)))

    def elementwise(self, x: View, function: str) -> View:
        """A function of each element keeps the layout."""
        if x.scale != 1:
            raise LayoutError("its input is scaled by a constant")
        return replace(x, value=self.emit("function", (x.value,), function=function))

    def op_gelu(self, x: View, approximate="none") -> View:
        return self.elementwise(x, "gelu" if approximate == "none" else "gelu_tanh")

    def op_layer_norm(self, x: View, shape, weight=None, bias=None, eps=1e-5, _cudnn=True) -> View:
        matrix = self.matrix(x)
        width = matrix.tail[0]
        if list(shape) != [width]:
            raise LayoutError(f"it normalises {list(shape)} of {width} columns")
        gamma = np.ones(width, np.float32) if weight is None else self.array(weight)
        constants = {"gamma": gamma, "beta": self.bias(bias, width)}
        return replace(matrix, value=self.emit("layernorm", (matrix.value,), constants, epsilon=float(eps)))

    def op_scaled_dot_product_attention(
        self, q: View, k: View, v: View, mask=None, dropout=0.0, causal=False, *, scale=None, enable_gqa=False
    ) -> View:
        if mask is not None or causal or enable_gqa:
            raise LayoutError("masks and grouped queries are not supported")
        factor = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
        scores = self.op_matmul(q, self.op_mT(k))
        weights = self.op_softmax(replace(scores, scale=scores.scale * factor), -1)
        return self.op_matmul(weights, v)

    def op_matmul(self, a: View, b) -> View:
        """Attention scores [.., H, T, D] x [.., H, D, S], weights [.., H, T, S] x values [.., H, S, D], or a
        constant matrix [K, N] on the right."""
        if isinstance(b, np.ndarray) and b.ndim == 2:
            return self.op_linear(a, b.T)
        if not isinstance(a, View) or not isinstance(b, View):
            raise LayoutError("one operand is a constant")
        time_k = bool(b.dims[-2]) and b.dims[-2][0].time
        return self.context(a, b) if time_k else self.scores(a, b)

    def head_operand(self, x: View, time: tuple[Axis, ...], width: tuple[Axis, ...], what: str) -> View:
        """Return [.., H, T, D] (or transposed) as its [T, H*D] value; LayoutError if it is not one."""
        heads = tuple(axis for dim in x.dims[:-2] for axis in dim)
        if len(time) != 1 or not time[0].time or x.order != (*time, *heads, *width):
            raise LayoutError(f"{what} is not [T, heads * width] split into heads")
        return self.matrix(replace(x, dims=(time, (*heads, *width)), scale=1.0), what)

    def scores(self, a: View, b: View) -> View:
        q = self.head_operand(a, a.dims[-2], a.dims[-1], "the first operand")
        k = self.head_operand(b, b.dims[-1], b.dims[-2], "the second operand")
        heads = tuple(axis for dim in a.dims[:-2] for axis in dim)
        count = math.prod(axis.size for axis in heads)
        value = self.emit("scores", (q.value, k.value), heads=count)
        source = new_axis(b.shape[-1], time=True)
        dims = (*a.dims[:-1], (source,))
        return View(value, dims, (*heads, *a.dims[-2], source), (count, -1, -1), a.scale * b.scale)

    def op_softmax(self, x: View, dim, dtype=None) -> View:
        if dim % len(x.dims) != len(x.dims) - 1 or len(x.tail) != 3:
            raise LayoutError("only the softmax of attention scores over their last dimension is supported")
        return replace(x, value=self.emit("softmax", (x.value,), scale=x.scale), scale=1.0)

    def context(self, a: View, b: View) -> View:
        v = self.head_operand(b, b.dims[-2], b.dims[-1], "the second operand")
        heads = tuple(axis for dim in a.dims[:-2] for axis in dim)
        if len(a.tail) != 3 or a.order != (*heads, *a.dims[-2], *a.dims[-1]) or a.scale != 1:
            raise LayoutError("the first operand is not attention weights")
        count = math.prod(axis.size for axis in heads)
        value = self.emit("context", (a.value, v.value), heads=count)
        dims, width = (*a.dims[:-1], b.dims[-1]), math.prod(b.shape[:-2]) * b.shape[-1]
        return View(value, dims, (*a.dims[-2], *heads, *b.dims[-1]), (width,))

    def op_add(self, a: View, b: View, alpha=1) -> View:
        if not isinstance(a, View) or not isinstance(b, View) or alpha != 1 or a.shape != b.shape:
            raise LayoutError("only the sum of two tensors of one shape is supported")
        a, b = self.matrix(a), self.matrix(b)
        return replace(a, value=self.emit("add", (a.value, b.value)))

    def op_mul(self, a, b) -> View:
        x, factor = (a, b) if isinstance(a, View) else (b, a)
        if isinstance(factor, View) or np.size(factor) != 1:
            raise LayoutError("only multiplication by a constant in front of a matrix product is supported")
        return replace(x, scale=x.scale * float(factor))

    def op_div(self, x: View, divisor) -> View:
        if isinstance(divisor, View) or np.size(divisor) != 1:
            raise LayoutError("only division by a constant in front of a matrix product is supported")
        return replace(x, scale=x.scale / float(divisor))

    def op_argmax(self, x: View, dim=None, keepdim=False) -> View:
        if dim is None or dim % len(x.dims) != len(x.dims) - 1 or keepdim:
            raise LayoutError("only argmax over the last dimension is supported")
        matrix = self.matrix(x)
        return View(self.emit("argmax", (matrix.value,)), x.dims[:-1], matrix.order[:1], ())

    # -- views -------------------------------------------------------------------------------------

    def op_permute(self, x: View, dims) -> View:
        return x.permute([d % len(x.dims) for d in dims])

    def op_transpose(self, x: View, first, second) -> View:
        order = list(range(len(x.dims)))
        order[first], order[second] = order[second], order[first]
        return x.permute(order)

    def op_mT(self, x: View) -> View:
        return self.op_transpose(x, -2, -1)

    def op_view(self, x: View, shape) -> View:
        return x.reshape(shape)

    op_reshape = op_view

    def op_flatten(self, x: View, start=0, end=-1) -> View:
        start, end = start % len(x.dims), end % len(x.dims)
        return x.reshape((*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))

    def op_unflatten(self, x: View, dim, sizes) -> View:
        dim %= len(x.dims)
        known = math.prod(size for size in sizes if size != -1)
        sizes = [x.shape[dim] // known if size == -1 else size for size in sizes]
        return x.reshape((*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))

    def op_unsqueeze(self, x: View, dim) -> View:
        return x.insert(dim)

    def op_squeeze(self, x: View, dim) -> View:
        return x.drop(dim % len(x.dims))

    def op_slice(self, x: View, dim=0, start=None, end=None, step=1) -> View:
        dim %= len(x.dims)
        size = x.shape[dim]
        start, stop = min(start or 0, size), min(size if end is None else end, size)
        start, stop = (start + size if start < 0 else start), (stop + size if stop < 0 else stop)
        if step != 1:
            raise LayoutError(f"it takes every {step}th element")
        return x if (start, stop) == (0, size) else self.columns(x, dim, start, stop)

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

    def op_split(self, x: View, sizes, dim=0) -> list[View]:
        dim %= len(x.dims)
        total = x.shape[dim]
        if isinstance(sizes, int):
            sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
        edges = np.cumsum([0, *sizes]).tolist()
        return [self.columns(x, dim, a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]

    def op_chunk(self, x: View, chunks, dim=0) -> list[View]:
        return self.op_split(x, -(-x.shape[dim % len(x.dims)] // chunks), dim)

    def op_select(self, x: View, dim, index) -> View:
        dim %= len(x.dims)
        index += x.shape[dim] if index < 0 else 0
        return (self.columns(x, dim, index, index + 1) if x.dims[dim] else x).drop(dim)

    def op_unbind(self, x: View, dim=0) -> list[View]:
        return [self.op_select(x, dim, index) for index in range(x.shape[dim % len(x.dims)])]

    def array(self, parameter) -> np.ndarray:
        """Return a weight's float32 values."""
        if not isinstance(parameter, np.ndarray):
            raise LayoutError("its weight depends on the input")
        return parameter

    def bias(self, parameter, width: int) -> np.ndarray:
        """Return a bias, zeros when there is none."""
        return np.zeros(width, np.float32) if parameter is None else self.array(parameter)


def pair(value) -> list[int]:
    """Return a stride or padding as two integers."""
    values = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    return values if len(values) == 2 else values * 2


def operator_name(node) -> str:
    """Return ``linear`` of ``aten.linear.default``."""
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


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


def supported_operators() -> list[str]:
    """Return the torch operators that can be imported, as ``torch.export`` names them."""
    methods = [name.removeprefix("op_") for name in dir(Operators) if name.startswith("op_")]
    return sorted({*methods, *ELEMENTWISE, *IDENTITIES, *ALIASES})
