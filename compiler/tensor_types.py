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
from phonolith.hw.errors import PhonolithError

VIEWS = ("slice", "reshape")
LEVELS = {"int4": 7, "int8": 127, "uint8": 255, "int16": 32767}
# Room above the largest magnitude seen, for tensors with bits to spare.
INT16_HEADROOM = 2.0
KV_BITS = (8, 4)
# What each operator reads: a dtype, "byte" for int8 and uint8, "key" (or a value) for int8 and int4, or "any".
WANTS = {
    "linear": ("byte",),
    "conv2d": ("byte",),
    "depthwise": ("byte",),
    "function": ("byte",),
    "layernorm": ("int16",),
    "scores": ("int8", "key"),
    "softmax": ("int16",),
    "context": ("uint8", "key"),
    "attention": ("int8", "key", "key"),
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
ALTERNATIVES = {"byte": ("int8", "uint8"), "key": ("int8", "int4")}


@dataclass(frozen=True)
class TensorTypes:
    """dtype of every tensor; scale of every tensor, a vector per channel where its views differ."""

    dtypes: dict[str, str]
    scales: dict[str, float | np.ndarray]


@dataclass(frozen=True)
class ScaleRule:
    """How ranges become scales.

    Parameters
    ----------
    method : how clips of byte ranges are chosen, one of :data:`phonolith.compiler.calibrate.CLIPS`.
    power_of_two : round scales up to powers of two.
    """

    method: str = "max"
    power_of_two: bool = False

    def byte(self, observed: Observed, dtype: str) -> float:
        """Return the scale of an int4, int8 or uint8 tensor."""
        return self._rounded(observed.clip(self.method, LEVELS[dtype]) / LEVELS[dtype])

    def int16(self, maximum: float) -> float:
        """Return the scale of an int16 tensor that was seen to reach ``maximum``."""
        return self._rounded(INT16_HEADROOM * (maximum or 1.0) / LEVELS["int16"])

    def _rounded(self, scale: float) -> float:
        return 2.0 ** math.ceil(math.log2(scale)) if self.power_of_two else scale


def satisfies(dtype: str, want: str) -> bool:
    """Tell whether an operand of ``dtype`` can be read as ``want``."""
    return dtype == want or want == "any" or dtype in ALTERNATIVES.get(want, ())


def view_roots(graph: FloatGraph) -> dict[str, str]:
    """Map every tensor to the one whose memory it shows."""
    roots = {graph.input: graph.input}
    for node in graph.nodes:
        roots[node.name] = roots[node.inputs[0]] if node.op in VIEWS else node.name
    return roots


def assign_dtypes(graph: FloatGraph, kv_bits: int = 8) -> dict[str, str]:
    """Return the dtype in which each tensor is made; keys and values in ``kv_bits``.

    PhonolithError ``option`` when keys or values of 4 bits would not come from linear layers of their own.
    """
    roots = view_roots(graph)
    wants: dict[str, set[str]] = {name: set() for name in roots}
    for node in graph.nodes:
        for name, want in zip(node.inputs, WANTS.get(node.op, ()), strict=False):
            wants[roots[name]].add(want)
    made = {graph.input: "int8"} | {n.name: _dtype_made(n, wants[n.name], kv_bits) for n in graph.nodes}
    dtypes = {name: made[root] for name, root in roots.items()}
    if kv_bits == 4:
        check_keys(graph, dtypes)
    return dtypes


def _dtype_made(node: FloatNode, wants: set[str], kv_bits: int) -> str:
    if node.op == "function":
        return "uint8" if node.attributes["function"] in ONE_SIDED else "int8"
    if node.attributes.get("relu"):
        return "uint8"
    if kv_bits == 4 and node.op == "linear" and wants == {"key"}:
        return "int4"
    return FIXED.get(node.op, "int16" if "int16" in wants else "int8")


def check_keys(graph: FloatGraph, dtypes: dict[str, str]) -> None:
    """Refuse keys and values that are not int4."""
    for node in graph.nodes:
        for name, want in zip(node.inputs, WANTS.get(node.op, ()), strict=False):
            if want == "key" and dtypes[name] != "int4":
                raise PhonolithError(
                    "option", f"keys or values {name!r} cannot have 4 bits: no linear layer makes them for attention "
                    "alone.", "Choose --kv-bits 8.")


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


def int16_scales(graph: FloatGraph, dtypes: dict[str, str], observed: dict[str, Observed],
                 rule: ScaleRule) -> dict[str, float]:
    """Return the scale of each int16 tensor: the largest magnitude of its group with headroom."""
    groups = stream_groups(graph, dtypes)
    maxima: dict[str, float] = {}
    for name, group in groups.items():
        maxima[group] = max(maxima.get(group, 0.0), observed[name].maximum)
    return {name: rule.int16(maxima[group]) for name, group in groups.items()}


def choose_types(graph: FloatGraph, observed: dict[str, Observed], rule: ScaleRule, kv_bits: int = 8) -> TensorTypes:
    """Return the dtype and scale of every tensor; keys and values have ``kv_bits``.

    Views of a linear's int8 output that do not overlap have scales of their own: the linear's output then
    has one per channel.
    """
    dtypes = assign_dtypes(graph, kv_bits)
    scales: dict[str, float | np.ndarray] = dict(int16_scales(graph, dtypes, observed, rule))
    scales[graph.input] = rule.byte(observed[graph.input], "int8")
    for node in graph.nodes:
        if node.op in VIEWS:
            scales[node.name] = _view_scale(node, scales[node.inputs[0]])
        elif node.name not in scales:
            scales[node.name] = _own_scale(graph, node, dtypes[node.name], observed, rule)
        if node.op == "multiply":
            _fit_factor(graph, node, dtypes, scales, observed, rule)
    return TensorTypes(dtypes, scales)


def _fit_factor(graph: FloatGraph, node: FloatNode, dtypes, scales, observed: dict[str, Observed],
                rule: ScaleRule) -> None:
    """Give the int16 factor of a product the scale with which a shift alone makes the product's.

    The product gets coarser steps if its own are finer than those of its factors.
    """
    first, second = node.inputs
    other, own = second_scale(second, dtypes, scales, observed, rule), rule.int16(observed[first].maximum)
    if dtypes[node.name] != "int16":
        scales[node.name] = max(float(scales[node.name]), other * own)
    makers = [n for n in graph.nodes if n.name == first and n.op in PRODUCTS]
    if makers and len(graph.consumers(first)) == 1 and first != graph.output and dtypes[first] == "int16":
        scales[first] = factor_scale(float(scales[node.name]), other, own)[0]


def second_scale(name: str, dtypes, scales, observed: dict[str, Observed], rule: ScaleRule) -> float:
    """Return the scale in which a product of tensors reads its second factor, rescaled to int8 if it is no byte."""
    own = dtypes[name] in ("int8", "uint8")
    return float(scales[name]) if own else rule.byte(observed[name], "int8")


def factor_scale(product: float, other: float, finest: float) -> tuple[float, int]:
    """Return the scale of the int16 factor of a product, and the shift with which the product has its scale.

    ``product`` and ``other`` are the scales of the product and of the other factor; ``finest`` is the smallest scale of
    the int16 factor that leaves headroom. The result is the smallest above it, of those that need no multiplier.
    """
    shift = max(math.floor(math.log2(product / (other * finest))), 0)
    return product / (other * 2**shift), shift


def _view_scale(node: FloatNode, scale: float | np.ndarray) -> float | np.ndarray:
    return float(scale[node.attributes["start"]]) if isinstance(scale, np.ndarray) else scale


def _own_scale(graph: FloatGraph, node: FloatNode, dtype: str, observed, rule: ScaleRule) -> float | np.ndarray:
    slices = disjoint_slices(graph, node)
    if not slices:
        return rule.byte(observed[node.name], dtype)
    scales = np.empty(len(node.constants["bias"]))
    for part in slices:
        columns = slice(part.attributes["start"], part.attributes["stop"])
        scales[columns] = rule.byte(observed[part.name], dtype)
    return scales
