"""Widths layer by layer within a budget."""

import numpy as np
import pytest

from phonolith.compiler.float_graph import FloatGraph, FloatNode
from phonolith.compiler.mixed_precision import (
    Budget,
    assign_bits,
    layer_costs,
    node_bytes,
    node_cycles,
    sensitivities,
)
from phonolith.compiler.quantization import Quantization
from phonolith.compiler.quantize import assign, noise_features, quantize
from phonolith.compiler.weight_quantizer import WIDTHS, WeightScheme
from phonolith.hw.errors import PhonolithError

FEATURES = 16


def layers(gain: float = 100.0) -> FloatGraph:
    """Two inner linear layers side by side, of which one counts ``gain`` times as much, between two others."""
    rng = np.random.default_rng(0)

    def dense(name: str, source: str, inputs: int, outputs: int, factor: float = 1.0) -> FloatNode:
        weight = (factor * rng.standard_normal((outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)
        return FloatNode(name, "linear", (source,), {"weight": weight, "bias": np.zeros(outputs, np.float32)})

    nodes = (dense("first", "x", FEATURES, 32), dense("large", "first", 32, 32, gain), dense("small", "first", 32, 32),
             FloatNode("sum", "add", ("large", "small")), dense("last", "sum", 32, 8),
             FloatNode("ids", "argmax", ("last",)))
    return FloatGraph("two", "x", (FEATURES,), nodes, "ids")


def test_sensitivities():
    found = sensitivities(layers(), ["large", "small"], WeightScheme(), noise_features(2, FEATURES, 0, 30))
    for layer in found.values():
        assert 0 < layer[8] < layer[4] < layer[2] and layer[4] < layer[1]
    assert found["large"][2] > 100 * found["small"][2] and found["large"][2] < 2


def test_costs():
    calibration = noise_features(1, FEATURES, 0, 30)
    graphs = {bits: quantize(layers(), calibration, Quantization(WeightScheme(bits))) for bits in WIDTHS}
    costs, others = layer_costs(graphs, ["large", "small"], node_bytes, 10)
    assert {bits: costs["large"][bits] for bits in WIDTHS} == {bits: 32 * (32 * bits // 8 + 8) for bits in WIDTHS}
    assert others == 32 * (FEATURES + 8) + 8 * (32 + 8)
    costs, others = layer_costs(graphs, ["large", "small"], node_cycles(4, 8), 10)
    assert costs["small"] == {bits: 10 * 32 * 32 * bits / 8 / 32 for bits in WIDTHS}
    assert others == 10 * (FEATURES + 8)


SENSITIVITY = {"a": {8: 0.0, 4: 1.0, 2: 2.0, 1: 9.0}, "b": {8: 0.0, 4: 0.04, 2: 0.08, 1: 50.0}}
COST = {"a": {8: 80, 4: 40, 2: 20, 1: 10}, "b": {8: 8, 4: 4, 2: 2, 1: 1}}


@pytest.mark.parametrize(("limit", "expected"), [
    (98, {"a": 8, "b": 8}), (97, {"a": 8, "b": 4}), (93, {"a": 8, "b": 2}), (91, {"a": 4, "b": 2}),
    (32, {"a": 2, "b": 2}), (22, {"a": 1, "b": 2}), (21, {"a": 1, "b": 1})])
def test_the_least_is_lost_per_cost_saved(limit, expected):
    chosen = assign_bits(SENSITIVITY, COST, Budget(limit), 10)
    assert chosen == expected
    assert 10 + sum(COST[layer][bits] for layer, bits in chosen.items()) <= limit


def test_a_budget_below_the_least():
    with pytest.raises(PhonolithError) as caught:
        assign_bits(SENSITIVITY, COST, Budget(20), 10)
    assert (caught.value.kind, caught.value.message) == ("budget", "the model takes at least 21 bytes, more than 20.")
    assert caught.value.remedy == "Give --budget-bytes 21 or more."


@pytest.mark.parametrize(("arguments", "message"), [
    ((0,), "a budget of 0 bytes is none"), ((5, "euros"), "there are no budgets in euros")])
def test_budgets_that_are_none(arguments, message):
    with pytest.raises(PhonolithError, match=message):
        Budget(*arguments)


def test_assignment_keeps_to_the_budget_and_spares_what_counts():
    calibration = noise_features(3, FEATURES, 0, 30)
    full = sum(node_bytes(node, {}) for node in quantize(layers(), calibration).nodes)
    for limit, unit, cost in ((full - 500, "bytes", node_bytes), (6000, "cycles", node_cycles(4, 8))):
        budget = Budget(int(limit), unit)
        options = assign(layers(), calibration, Quantization(), budget, cost)
        assert set(options.layer_bits) == {"large", "small"}
        assert options.layer_bits["large"] > options.layer_bits["small"]
        graph = quantize(layers(), calibration, options)
        assert graph.node("small").attributes["bits"] == options.layer_bits["small"]
        if unit == "bytes":
            assert sum(node_bytes(node, {}) for node in graph.nodes) <= limit


def test_widths_that_are_given_stay():
    calibration = noise_features(2, FEATURES, 0, 30)
    options = assign(layers(), calibration, Quantization(layer_bits={"small": 8}), Budget(3000), node_bytes)
    assert options.layer_bits["small"] == 8
