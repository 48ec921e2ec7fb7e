"""The torch operators that can be imported, each as what it does to views and float nodes.

Methods ``op_<name>`` of :class:`Operators` take the arguments of ``aten.<name>``: tensors that depend on the
input as :class:`View`, constants as numpy arrays. They raise LayoutError for what the float graph cannot say.
"""

import math
from dataclasses import replace

import numpy as np

from phonolith.compiler.frontend_views import LayoutError, View
from phonolith.compiler.torch_attention import AttentionOperators, transposed
from phonolith.compiler.torch_convolutions import ConvolutionOperators

# Elementwise functions: torch operator -> name in the float graph.
ELEMENTWISE = {name: name for name in ("relu", "silu", "sigmoid", "tanh", "hardsigmoid", "hardswish", "mish")}
ELEMENTWISE |= {"relu_": "relu", "silu_": "silu", "hardswish_": "hardswish"}
IDENTITIES = ("dropout", "clone", "contiguous", "alias", "detach", "to", "_to_copy", "lift_fresh_copy")
ALIASES = {
    "t": "mT",
    "bmm": "matmul",
    "mm": "matmul",
    "add_": "add",
    "leaky_relu_": "leaky_relu",
    "elu_": "elu",
    "_softmax": "softmax",
    "_unsafe_view": "view",
    "constant_pad_nd": "pad",
    "split_with_sizes": "split",
}


class Operators(ConvolutionOperators, AttentionOperators):
    """All operators that can be imported."""

    def handler(self, name: str):
        """Return the function for ``aten.<name>``, None when there is none."""
        if name in ELEMENTWISE:
            return lambda x: self.elementwise(x, ELEMENTWISE[name])
        if name in IDENTITIES:
            return lambda x, *_arguments, **_keywords: x
        return getattr(self, f"op_{ALIASES.get(name, name)}", None)

    # -- operators: each takes views and torch arguments and returns a view ------------------------

    def op_linear(self, x: View, weight, bias=None) -> View:
        return self.linear(x, weight, bias)

    def op_leaky_relu(self, x: View, slope=0.01) -> View:
        return self.elementwise(x, "leaky_relu", float(slope))

    def op_elu(self, x: View, alpha=1.0) -> View:
        return self.elementwise(x, "elu", float(alpha))

    def op_hardtanh(self, x: View, low=-1.0, high=1.0) -> View:
        return self.elementwise(x, "clip", float(low), float(high))

    def op_softplus(self, x: View, beta=1.0, threshold=20.0) -> View:
        return self.elementwise(x, "softplus", float(beta))

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

    def op_add(self, a, b, alpha=1) -> View:
        if isinstance(a, View) and isinstance(b, View):
            return self.sum_of(a, self.times(b, alpha))
        return self.add_constant(a, b * alpha) if isinstance(a, View) else self.add_constant(self.times(b, alpha), a)

    def op_sub(self, a, b, alpha=1) -> View:
        return self.op_add(a, b, -alpha)

    def times(self, x: View, factor: float) -> View:
        return replace(x, scale=x.scale * factor)

    def add_constant(self, x: View, constant) -> View:
        """A row per frame (learned positions), or one for all."""
        constant = np.asarray(constant, np.float32)
        frames, width = x.shape[-2:]
        if constant.shape[-2:] != (frames, width):
            return self.affine_rows(x, 1, constant)
        matrix = self.matrix(x)
        rows = {"rows": constant.reshape(frames, width)}
        return replace(matrix, value=self.emit("add_rows", (matrix.value,), rows))

    def sum_of(self, a: View, b: View) -> View:
        if a.shape != b.shape:
            raise LayoutError("only the sum of two tensors of one shape is supported")
        a, b = self.alike(a, b)
        return replace(a, value=self.emit("add", (a.value, b.value)))

    def op_mul(self, a, b) -> View:
        if isinstance(a, View) and isinstance(b, View):
            return self.multiply(a, b)
        x, factor = (a, b) if isinstance(a, View) else (b, a)
        return self.times(x, float(factor)) if np.size(factor) == 1 else self.affine_rows(x, factor, 0)

    def op_div(self, x: View, divisor) -> View:
        if isinstance(divisor, View) or np.size(divisor) != 1:
            raise LayoutError("only division by one number is supported")
        return replace(x, scale=x.scale / float(divisor))

    def op_glu(self, x: View, dim=-1) -> View:
        """The first half times the sigmoid of the second."""
        dim %= len(x.dims)
        value, gate = self.op_split(x, x.shape[dim] // 2, dim)
        return self.multiply(value, self.elementwise(gate, "sigmoid"))

    def op_argmax(self, x: View, dim=None, keepdim=False) -> View:
        if dim is None or dim % len(x.dims) != len(x.dims) - 1 or keepdim:
            raise LayoutError("only argmax over the last dimension is supported")
        matrix = self.matrix(x)
        return View(self.emit("argmax", (matrix.value,)), x.dims[:-1], matrix.order[:1], ())

    # -- views -------------------------------------------------------------------------------------

    def op_mT(self, x: View) -> View:
        return transposed(x)

    def op_permute(self, x: View, dims) -> View:
        return x.permute([d % len(x.dims) for d in dims])

    def op_transpose(self, x: View, first, second) -> View:
        order = list(range(len(x.dims)))
        order[first], order[second] = order[second], order[first]
        return x.permute(order)

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


def operator_name(node) -> str:
    """Return ``linear`` of ``aten.linear.default``."""
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def supported_operators() -> list[str]:
    """Return the torch operators that can be imported, as ``torch.export`` names them."""
    methods = [name.removeprefix("op_") for name in dir(Operators) if name.startswith("op_")]
    return sorted({*methods, *ELEMENTWISE, *IDENTITIES, *ALIASES})
