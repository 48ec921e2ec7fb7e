"""Widths layer by layer: how much each layer's rounding disturbs the model, and which widths a budget affords.

Sensitivity of a layer at a width: the mean squared change of the float model's scores, relative to their variance, when
that layer's weights alone are what their codes stand for. Layers are then narrowed one step at a time, always where the
least is lost per byte or cycle saved.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phonolith.compiler.float_graph import FloatGraph, FloatNode, evaluate, evaluate_nodes
from phonolith.compiler.inspect import constant_bytes, node_macs
from phonolith.compiler.ir import Graph, Node
from phonolith.compiler.shapes import Shape, infer_shapes
from phonolith.compiler.weight_quantizer import WIDTHS, WeightScheme, quantize_weight
from phonolith.hw.errors import PhonolithError

UNITS = ("bytes", "cycles")

Shapes = dict[str, Shape]
Costs = Mapping[str, Mapping[int, float]]
"""What each layer costs at each width, by name."""
NodeCost = Callable[[Node, Shapes], float]
"""Cost of an integer node, for tensors of some shapes."""


@dataclass(frozen=True)
class Budget:
    """What a model may cost.

    Parameters
    ----------
    limit : bytes of all constants, or cycles of all products with constant weights.
    unit : one of :data:`UNITS`.
    """

    limit: int
    unit: str = "bytes"

    def __post_init__(self):
        if self.unit not in UNITS:
            raise PhonolithError("option", f"there are no budgets in {self.unit}.", f"Choose {' or '.join(UNITS)}.")
        if self.limit < 1:
            raise PhonolithError("option", f"a budget of {self.limit} {self.unit} is none.", "Give 1 or more.")

    def flags(self) -> str:
        """Return it as an option of ``phonolith quantize``."""
        return f"--budget-{self.unit} {self.limit}"


def sensitivities(graph: FloatGraph, layers: Sequence[str], scheme: WeightScheme,
                  calibration: Sequence[np.ndarray]) -> dict[str, dict[int, float]]:
    """Return the sensitivity of each of ``layers`` at each width: 0 would be no change.

    Parameters
    ----------
    graph : simplified; the scores are its output, or what its ``argmax`` reads.
    scheme : of the weights at every width.
    calibration : float32 ``[T, *tail]``.
    """
    scores = scores_of(graph)
    known = [evaluate(graph, features) for features in calibration]
    spread = sum(float(np.var(values[scores])) for values in known) or 1.0
    found: dict[str, dict[int, float]] = {}
    for layer in layers:
        found[layer] = {}
        for bits in WIDTHS:
            rest = behind(graph, layer, replace(scheme, bits=bits))
            changes = (evaluate_nodes(rest, dict(values))[scores] - values[scores] for values in known)
            found[layer][bits] = sum(float(np.mean(change**2)) for change in changes) / spread
    return found


def scores_of(graph: FloatGraph) -> str:
    """Return the name of the tensor that holds the model's scores."""
    last = next(node for node in graph.nodes if node.name == graph.output)
    return last.inputs[0] if last.op == "argmax" else last.name


def behind(graph: FloatGraph, layer: str, scheme: WeightScheme) -> list[FloatNode]:
    """Return ``layer`` with rounded weights, and the nodes after it."""
    names = [node.name for node in graph.nodes]
    first, *rest = graph.nodes[names.index(layer):]
    weight = first.constants["weight"]
    values = quantize_weight(weight.reshape(len(weight), -1), scheme).values().reshape(weight.shape)
    return [replace(first, constants=first.constants | {"weight": values.astype(np.float32)}), *rest]


def assign_bits(sensitivity: Costs, cost: Costs, budget: Budget, others: float = 0.0) -> dict[str, int]:
    """Return a width for every layer, such that its costs and ``others`` add up to the budget at most.

    From 8 bits everywhere, the step to a smaller width that adds the least sensitivity per cost saved is taken until
    the costs fit. Raises the PhonolithError of :func:`check_budget`.
    """
    check_budget(cost, budget, others)
    chosen = dict.fromkeys(cost, WIDTHS[0])
    while others + sum(cost[layer][bits] for layer, bits in chosen.items()) > budget.limit:
        steps = [(price, layer, bits) for layer in cost for bits in WIDTHS if bits < chosen[layer]
                 if (price := _price(sensitivity[layer], cost[layer], chosen[layer], bits)) is not None]
        _, layer, bits = min(steps)
        chosen[layer] = bits
    return chosen


def check_budget(cost: Costs, budget: Budget, others: float) -> None:
    """Refuse a budget that the cheapest widths do not meet: PhonolithError ``budget``."""
    least = others + sum(min(by_width.values()) for by_width in cost.values())
    if least > budget.limit:
        raise PhonolithError("budget", f"the model takes at least {least:,.0f} {budget.unit}, more than "
                             f"{budget.limit:,}.", f"Give --budget-{budget.unit} {math.ceil(least)} or more.")


def _price(sensitivity: Mapping[int, float], cost: Mapping[int, float], now: int, bits: int) -> float | None:
    """Return the sensitivity that a step adds per cost saved; None when it saves nothing."""
    saved = cost[now] - cost[bits]
    return (sensitivity[bits] - sensitivity[now]) / saved if saved > 0 else None


def layer_costs(graphs: Mapping[int, Graph], layers: Sequence[str], cost: NodeCost,
                frames: int) -> tuple[dict[str, dict[int, float]], float]:
    """Return the costs of ``layers`` at each width, and of all other nodes together.

    ``graphs`` are the integer graphs whose layers all have one width, by that width; ``frames`` are an utterance's.
    """
    costs: dict[str, dict[int, float]] = {layer: {} for layer in layers}
    for bits, graph in graphs.items():
        shapes = infer_shapes(graph, frames)
        for layer in layers:
            costs[layer][bits] = cost(graph.node(layer), shapes)
    graph = graphs[WIDTHS[0]]
    shapes = infer_shapes(graph, frames)
    return costs, sum(cost(node, shapes) for node in graph.nodes if node.name not in costs)


def node_bytes(node: Node, _shapes: Shapes) -> float:
    """Cost in bytes: what :func:`phonolith.compiler.inspect.constant_bytes` says."""
    return constant_bytes(node)


def node_cycles(rows: int, columns: int) -> NodeCost:
    """Return the cost in cycles of products with constant weights, at full utilisation of ``rows`` x ``columns``."""
    def cost(node: Node, shapes: Shapes) -> float:
        if "weight" not in node.constants:
            return 0.0
        return node_macs(node, shapes) * node.attributes.get("bits", 8) / 8 / (rows * columns)

    return cost
