"""Which integer type and scale each tensor of a float graph gets.

Residual streams, what LayerNorm and softmax read, and the scores of the output are int16; one-sided tensors
uint8; everything else int8. All tensors joined by additions share one scale.
"""

from dataclasses import dataclass

import numpy as np

from phonolith.compiler.calibrate import Observed
from phonolith.compiler.float_graph import ONE_SIDED, FloatGraph, FloatNode

VIEWS = ("slice", "reshape")
LEVELS = {"int8": 127, "uint8": 255, "int16": 32767}
# Room above the largest magnitude seen, for tensors with bits to spare.
INT16_HEADROOM = 2.0
# What each operator reads: a dtype, or "byte" for int8 and uint8.
WANTS = {
    "linear": ("byte",),
    "conv2d": ("byte",),
    "function": ("byte",),
    "layernorm": ("int16",),
    "scores": ("int8", "int8"),
    "softmax": ("int16",),
    "context": ("uint8", "int8"),
    "add": ("int16", "int16"),
    "argmax": ("int16",),
}
FIXED = {"scores": "int16", "softmax": "uint8", "add": "int16", "argmax": "int16"}


@dataclass(frozen=True)
class TensorTypes:
    """dtype of every tensor; scale of every tensor, a vector per channel where its views differ."""

    dtypes: dict[str, str]
    scales: dict[str, float | np.ndarray]


def satisfies(dtype: str, want: str) -> bool:
    """Tell whether an operand of ``dtype`` can be read as ``want``."""
    return dtype == want or (want == "byte" and dtype in ("int8", "uint8"))


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
        if node.op == "add":
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
    return TensorTypes(dtypes, scales)


def _view_scale(node: FloatNode, scale: float | np.ndarray) -> float | np.ndarray:
    return float(scale[node.attributes["start"]]) if isinstance(scale, np.ndarray) else scale


def _own_scale(graph: FloatGraph, node: FloatNode, dtype: str, observed, method: str) -> float | np.ndarray:
    slices = _disjoint_slices(graph, node)
    if not slices:
        return byte_scale(observed[node.name], dtype, method)
    scales = np.empty(len(node.constants["bias"]))
    for part in slices:
        columns = slice(part.attributes["start"], part.attributes["stop"])
        scales[columns] = byte_scale(observed[part.name], dtype, method)
    return scales


def _disjoint_slices(graph: FloatGraph, node: FloatNode) -> list[FloatNode]:
    """Return the slices that alone read a linear's output and cover it without overlap, else nothing."""
    readers = graph.consumers(node.name)
    if node.op != "linear" or graph.output == node.name or any(r.op != "slice" for r in readers):
        return []
    covered = [c for r in readers for c in range(r.attributes["start"], r.attributes["stop"])]
    return readers if readers and sorted(covered) == list(range(len(node.constants["bias"]))) else []
