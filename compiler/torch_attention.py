"""Attention in torch: written out, as ``scaled_dot_product_attention``, or as operators of ``models/attention.py``."""

import math
from dataclasses import replace

import numpy as np

from phonolith.compiler.frontend_views import Axis, LayoutError, View, new_axis
from phonolith.compiler.torch_emitter import Emitter


class AttentionOperators(Emitter):
    """Methods ``op_<name>`` take the arguments of ``aten.<name>`` or ``phonolith.<name>``."""

    def op_scaled_dot_product_attention(
        self, q: View, k: View, v: View, mask=None, dropout=0.0, causal=False, *, scale=None, enable_gqa=False
    ) -> View:
        if mask is not None or causal or enable_gqa:
            raise LayoutError("masks and grouped queries are not supported")
        factor = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
        scores = self.op_matmul(q, transposed(k))
        weights = self.op_softmax(replace(scores, scale=scores.scale * factor), -1)
        return self.op_matmul(weights, v)

    def op_matmul(self, a: View, b) -> View:
        """Attention scores [.., H, T, D] x [.., H, D, S], weights [.., H, T, S] x values [.., H, S, D], or a
        constant matrix [K, N] on the right."""
        if isinstance(b, np.ndarray) and b.ndim == 2:
            return self.linear(a, b.T)
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

    def op_relative_attention(self, query: View, key: View, value: View, position_weight, content_bias, position_bias,
                              heads: int, chunk: int, left: int) -> View:
        """The content bias joins the query: (q+u) k + (q+v) p is q' k + (q' + v-u) p with q' = q+u."""
        u, v = self.array(content_bias), self.array(position_bias)
        positions = {"position_weight": self.array(position_weight), "position_bias": v - u}
        shifted = self.affine(self.matrix(query), np.ones_like(u), u)
        return self.whole_attention(shifted, key, value, positions, heads, chunk, left)

    def op_chunked_attention(self, query: View, key: View, value: View, heads: int, chunk: int, left: int) -> View:
        return self.whole_attention(query, key, value, {}, heads, chunk, left)

    def whole_attention(self, query: View, key: View, value: View, positions: dict, heads: int, chunk: int,
                        left: int) -> View:
        """Append attention of [B, T, d] operands as one node."""
        q, k, v = (self.matrix(each) for each in (query, key, value))
        width = q.tail[0]
        if width % heads or not q.tail == k.tail == v.tail:
            raise LayoutError(f"{width}, {k.tail[0]} and {v.tail[0]} columns do not divide into {heads} heads alike")
        name = self.emit("attention", (q.value, k.value, v.value), positions, heads=heads,
                         scale=1 / math.sqrt(width // heads), chunk=chunk, left=left)
        return replace(v, value=name)

    def op_add_positions(self, x: View) -> View:
        matrix = self.matrix(x)
        return replace(matrix, value=self.emit("add_positions", (matrix.value,), width=matrix.tail[0]))


def transposed(x: View) -> View:
    """Swap the last two dimensions."""
    return x.permute((*range(len(x.dims) - 2), len(x.dims) - 1, len(x.dims) - 2))
