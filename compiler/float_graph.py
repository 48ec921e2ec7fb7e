"""The float graph: what a frontend makes and a quantizer reads. Evaluated in numpy, torch-free.

``float_kernels.py`` computes the operators.

Tensors are ``[T, *tail]`` without a batch dimension, channels last, attention weights ``[H, T, S]``.

============= ======================== ==========================================================
op            inputs                   constants; attributes
============= ======================== ==========================================================
linear        x ``[T, K]``             weight ``[N, K]``, bias ``[N]``; relu (fused)
conv2d        x ``[T, F, C]``          weight ``[N, kh, kw, C]``, bias ``[N]``; stride, padding, relu
depthwise     x ``[T, C]``             weight ``[C, k]``, bias ``[C]``; padding [left, right], relu
function      x                        function: a key of ``FUNCTIONS``; arguments, optional
layernorm     x ``[T, D]``             gamma, beta ``[D]``; epsilon
scores        q, k ``[T, H*D]``        heads
softmax       x ``[H, T, S]``          scale, applied before the exponential
context       p ``[H, T, S]``, v       heads
attention     q, k, v ``[T, H*D]``     optional position_weight, position_bias; heads, scale, chunk, left
add           a, b                     --
add_rows      x ``[T, D]``             rows ``[L, D]``, T <= L
add_positions x ``[T, D]``             width (D)
multiply      a, b                     --
affine        x ``[.., C]``            gamma, beta ``[C]``: x * gamma + beta
scaled        x                        factor
pad           x ``[T, C]``             padding [left, right]: rows of zeros
argmax        x ``[T, N]``             --
slice         x ``[T, D]``             start, stop
reshape       x ``[T, ..]``            tail
============= ======================== ==========================================================
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from phonolith.compiler.float_kernels import OPERATORS


@dataclass(frozen=True)
class FloatNode:
    """One operator in float32; its output carries its name. ``source`` says where the module wrote it."""

    name: str
    op: str
    inputs: tuple[str, ...]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class FloatGraph:
    """Nodes in topological order, one input ``[T, *tail]``, one output."""

    name: str
    input: str
    tail: tuple[int, ...]
    nodes: tuple[FloatNode, ...]
    output: str

    def consumers(self, name: str) -> list[FloatNode]:
        """Return the nodes that read ``name``."""
        return [node for node in self.nodes if name in node.inputs]


def evaluate(graph: FloatGraph, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the input's and every node's value for ``x`` float ``[T, *tail]``, in float32.

    What an operator computes on the way to its result is in there, too, as ``node.part``.
    """
    return evaluate_nodes(graph.nodes, {graph.input: np.asarray(x, np.float32)})


def evaluate_nodes(nodes: Iterable[FloatNode], values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the values of ``nodes``, in topological order, to those known, and return them all."""
    for node in nodes:
        arguments = [values[name] for name in node.inputs]
        value = OPERATORS[node.op](*arguments, **node.constants, **node.attributes)
        parts = value if isinstance(value, dict) else {"": value}
        for part, array in parts.items():
            values[node.name + part] = array if node.op == "argmax" else np.asarray(array, np.float32)
    return values
