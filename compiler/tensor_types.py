"""Which integer type and scale each tensor of a float graph gets.

Residual streams, what LayerNorm and softmax read, and the scores of the output are int16; one-sided tensors
uint8; everything else int8. All tensors joined by additions share one scale.
"""

import math
from dataclasses import dataclass

import numpy as np

from phonolith.compiler.calibrate import Observed
from phonolith.compiler.float_graph import FloatGraph, FloatNode
from phonolith.compiler.float_kernels import ONE_SIDED
from phonolith.compiler.float_passes import disjoint_slices

VIEWS = ("slice", "reshape")
LEVELS = {"int8": 127, "uint8": 255, "int16": 32767}
# Room above the largest magnitude seen, for tensors with bits to spare.
INT16_HEADROOM = 2.0
# What each operator reads: a dtype, "byte" for int8 and uint8, or "any".
WANTS = {
    "linear": ("byte",),
    "conv2d": ("byte",),
    "depthwise": ("byte",),
    "function": ("byte",),
    "layernorm": ("int16",),
    "scores": ("int8", "int8"),
    "softmax": ("int16",),
    "context": ("uint8", "int8"),
    "attention": ("int8", "int8", "int8"),
    "add": ("int16", "int16"),
    "add_positions": ("int16",),
    "add_rows": ("int16",),
    "multiply": ("int16", "byte"),
    "scaled": ("any",),
    "argmax": ("int16",),
}
# Their inputs and their output have one scale.
SUMS = ("add", "add_positions", "add_rows")
FIXED = {"scores": "int16", "softmax": "uint8", "argmax": "int16"} | dict.fromkeys(SUMS, "int16")
PRODUCTS = ("linear", "conv2d", "depthwise")


@dataclass(frozen=True)
class TensorTypes:
    """dtype of every tensor; scale of every tensor, a vector per channel where its views differ."""

    dtypes: dict[str, str]
    scales: dict[str, float | np.ndarray]


def satisfies(dtype: str, want: str) -> bool:
    """Tell whether an operand of ``dtype`` can be read as ``want``."""
    return dtype == want or want == "any" or (want == "byte" and dtype in ("int8", "uint8"))


def view_roots(graph: FloatGraph) -> dict[str, str]:
    """Map every tensor to the one whose memory it shows."""
    roots = {graph.input: graph.input}
    for node in graph.nodes:
        roots[node.name] = roots[node.inputs[0]] if node.op in VIEWS else node.name
    return roots


def assign_dtypes(graph: FloatGraph) -> dict[str, str]:
    """Return the dtype in which each tensor is made."""
    roots = view_roots(graph)
    wants: dict[str, set[str]] = {name: set() for name in roots}
    for node in graph.nodes:
        for name, want in zip(node.inputs, WANTS.get(node.op, ()), strict=False):
            wants[roots[name]].add(want)
    made = {graph.input: "int8"} | {n.name: _dtype_made(n, wants[n.name]) for n in graph.nodes}
    return {name: made[root] for name, root in roots.items()}


def _dtype_made(node: FloatNode, wants: set[str]) -> str:
    if node.op == "function":
        return "uint8" if node.attributes["function"] in ONE_SIDED else "int8"
    if node.attributes.get("relu"):
        return "uint8"
    return FIXED.get(node.op, "int16" if "int16" in wants else "int8")


def stream_groups(graph: FloatGraph, dtypes: dict[str, str]) -> dict[str, str]:
    """Map each int16 tensor to a representative of those that additions tie to it."""
    roots = view_roots(graph)
    parent = {name: name for name in roots}

    def find(name: str) -> str:
        return name if parent[name] == name else find(parent[name])

    for node in graph.nodes:
        if node.op in SUMS:
            for name in node.inputs:
                if dtypes[name] == "int16":
                    parent[find(roots[name])] = find(node.name)
    return {name: find(roots[name]) for name in roots if dtypes[name] == "int16"}


def int16_scales(graph: FloatGraph, dtypes: dict[str, str], observed: dict[str, Observed]) -> dict[str, float]:
    """Return the scale of each int16 tensor: the largest magnitude of its group with headroom."""
    groups = stream_groups(graph, dtypes)
    maxima: dict[str, float] = {}
    for name, group in groups.items():
        maxima[group] = max(maxima.get(group, 0.0), observed[name].maximum)
    return {name: int16_scale(maxima[group]) for name, group in groups.items()}


def int16_scale(maximum: float) -> float:
    """Return the scale of an int16 tensor that was seen to reach ``maximum``."""
    return INT16_HEADROOM * (maximum or 1.0) / LEVELS["int16"]


def byte_scale(observed: Observed, dtype: str, method: str) -> float:
    """Return the scale of an int8 or uint8 tensor by calibration method ``method``."""
    return observed.clip(method, LEVELS[dtype]) / LEVELS[dtype]


def choose_types(graph: FloatGraph, observed: dict[str, Observed], method: str) -> TensorTypes:
    """Return the dtype and scale of every tensor.

    Views of a linear's int8 output that do not overlap have scales of their own: the linear's output then
    has one per channel.
    """
    dtypes = assign_dtypes(graph)
    scales: dict[str, float | np.ndarray] = dict(int16_scales(graph, dtypes, observed))
    scales[graph.input] = byte_scale(observed[graph.input], "int8", method)
    for node in graph.nodes:
        if node.op in VIEWS:
            scales[node.name] = _view_scale(node, scales[node.inputs[0]])
        elif node.name not in scales:
            scales[node.name] = _own_scale(graph, node, dtypes[node.name], observed, method)
        if node.op == "multiply":
            _fit_factor(graph, node, dtypes, scales, observed, method)
    return TensorTypes(dtypes, scales)


def _fit_factor(graph: FloatGraph, node: FloatNode, dtypes, scales, observed: dict[str, Observed], method: str) -> None:
    """Give the int16 factor of a product the scale with which a shift alone makes the product's.

    The product gets coarser steps if its own are finer than those of its factors.
    """
    first, second = node.inputs
    other = second_scale(second, dtypes, scales, observed, method)
    if dtypes[node.name] != "int16":
        scales[node.name] = max(float(scales[node.name]), other * int16_scale(observed[first].maximum))
    makers = [n for n in graph.nodes if n.name == first and n.op in PRODUCTS]
    if makers and len(graph.consumers(first)) == 1 and first != graph.output and dtypes[first] == "int16":
        scales[first] = factor_scale(float(scales[node.name]), other, observed[first].maximum)[0]


def second_scale(name: str, dtypes, scales, observed: dict[str, Observed], method: str) -> float:
    """Return the scale in which a product of tensors reads its second factor, rescaled to int8 if it is no byte."""
    own = dtypes[name] in ("int8", "uint8")
    return float(scales[name]) if own else byte_scale(observed[name], "int8", method)


def factor_scale(product: float, other: float, maximum: float) -> tuple[float, int]:
    """Return the scale of the int16 factor of a product, and the shift with which the product has its scale.

    ``product`` and ``other`` are the scales of the product and of the other factor; ``maximum`` is the largest
    magnitude of the int16 factor. The scale is the smallest that leaves headroom, of those that need no multiplier.
    """
    shift = max(math.floor(math.log2(product / (other * int16_scale(maximum)))), 0)
    return product / (other * 2**shift), shift


def _view_scale(node: FloatNode, scale: float | np.ndarray) -> float | np.ndarray:
    return float(scale[node.attributes["start"]]) if isinstance(scale, np.ndarray) else scale


def _own_scale(graph: FloatGraph, node: FloatNode, dtype: str, observed, method: str) -> float | np.ndarray:
    slices = disjoint_slices(graph, node)
    if not slices:
        return byte_scale(observed[node.name], dtype, method)
    scales = np.empty(len(node.constants["bias"]))
    for part in slices:
        columns = slice(part.attributes["start"], part.attributes["stop"])
        scales[columns] = byte_scale(observed[part.name], dtype, method)
    return scales
