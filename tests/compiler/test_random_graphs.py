"""Random graphs are legal, reproducible, cover every operator, and are not dead."""

from collections import Counter

import pytest

from phonolith.compiler.ir import DTYPE_RANGES
from phonolith.compiler.model_file import graph_to_json
from phonolith.compiler.operators import OPERATORS
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.random_conformers import ALL_BLOCKS, random_conformer
from phonolith.compiler.random_graphs import random_graph
from phonolith.compiler.random_weights import WeightChoice
from phonolith.compiler.weight_formats import BITS, SCHEME_NAMES, scheme_name, weight_format
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.coverage import names_of, operator_names
from phonolith.sim.golden.compare import compare_graphs
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_iss, first_difference, make_case

SEEDS = range(120)


def test_same_seed_same_graph():
    (a, x), (b, y) = random_graph(5), random_graph(5)
    assert graph_to_json(a) == graph_to_json(b) and (x["x"] == y["x"]).all()
    assert graph_to_json(a) != graph_to_json(random_graph(6)[0])


def test_every_operator_dtype_and_size_occurs():
    seen: Counter = Counter()
    for seed in SEEDS:
        graph, inputs = random_graph(seed, ALL_BLOCKS)
        seen[f"T={len(inputs['x'])}"] += 1
        dtypes = {item.name: item.dtype for item in (*graph.inputs, *graph.nodes)}
        for node in lower_graph(graph).nodes:
            seen.update(names_of(node))
        for node in (*graph.nodes, *lower_graph(graph).nodes):
            seen[node.op] += 1
            seen[f"{node.op} {dtypes[node.inputs[0]]} -> {node.dtype}"] += 1
    assert set(OPERATORS) <= set(seen)
    assert all(seen[name] for name in operator_names())
    for x in ("int8", "uint8"):
        assert all(seen[f"linear {x} -> {y}"] for y in ("int8", "uint8", "int16"))
    assert all(seen[f"T={frames}"] for frames in (1, 7, 8, 9, 15, 16, 17))


def test_most_tensors_are_neither_constant_nor_saturated():
    assert dead_fraction(random_graph(seed) for seed in SEEDS) < 0.05
    assert dead_fraction(random_graph(seed, bits="any") for seed in SEEDS) < 0.05


def dead_fraction(graphs) -> float:
    """Return which part of all tensors of some graphs is for the most part saturated or zero."""
    dead = total = 0
    for graph, inputs in graphs:
        for name, value in interpret(graph, inputs).items():
            if value.size > 20 and graph.node(name).op not in ("argmax", "softmax_exp"):
                highest, total = DTYPE_RANGES[graph.node(name).dtype][1], total + 1
                dead += (value == highest).mean() > 0.5 or (value == 0).mean() > 0.9
    assert total > 500
    return dead / total


def test_without_options_weights_are_plain():
    for node in random_graph(3, ALL_BLOCKS)[0].nodes:
        assert not {"bits", "block", "zero_shift"} & set(node.attributes)


def test_weights_of_any_bits_and_scheme_and_operands_of_four_bits_occur():
    """Often with more than one block, the last one shorter; the passes keep their bits."""
    seen: Counter = Counter()
    for seed in range(100):
        make = random_conformer if seed % 5 == 0 else random_graph
        graph, inputs = make(seed, bits="any")
        lowered, dtypes = lower_graph(graph), {item.name: item.dtype for item in (*graph.inputs, *graph.nodes)}
        if seed % 4 == 0:
            assert compare_graphs(graph, lowered, inputs) == []
        for node in lowered.nodes:
            seen.update(f"{node.op} {position} {dtypes[name]}" for position, name in enumerate(node.inputs))
            if node.op in ("linear", "conv2d"):
                form = weight_format(node)
                seen[(form.bits, scheme_name(node))] += 1
                seen["blocks"] += form.blocked and form.n_blocks > 1 and form.depth % form.block_depth > 0
    assert all(seen[bits, scheme] for bits in BITS for scheme in SCHEME_NAMES)
    assert seen["blocks"] > 50
    assert all(seen[name] for name in ("matmul 1 int4", "attention 1 int4", "attention 2 int4"))


@pytest.mark.parametrize("scheme", SCHEME_NAMES)
@pytest.mark.parametrize("bits", BITS)
def test_asked_for_weights_are_drawn(bits, scheme):
    for seed in range(3):
        graph, _ = random_graph(seed, ALL_BLOCKS, bits, scheme)
        for node in graph.nodes:
            if node.op in ("linear", "conv2d"):
                one_channel = scheme == "tensor" and len(node.constants["weight"]) == 1
                assert weight_format(node).bits == bits and (scheme_name(node) == scheme or one_channel)


@pytest.mark.parametrize(("bits", "scheme", "message"), [(3, None, "weights of 3 bits"), (4, "rows", "scheme 'rows'")])
def test_other_weights_are_refused(bits, scheme, message):
    with pytest.raises(PhonolithError, match=message) as caught:
        WeightChoice(bits, scheme)
    assert caught.value.kind == "option" and caught.value.remedy


@pytest.mark.parametrize("seed", [55, 98, 183, 250])
def test_what_is_large_for_its_machine_goes_in_parts(seed):
    """Depthwise kernels of all channels (55, 98), zeros behind a run (183), parameters beside others' (250)."""
    config = MachineConfig.load("tiny")
    case = make_case(*random_graph(seed, ALL_BLOCKS, "any"), config)
    assert first_difference(case, "iss", execute_iss(case, config)) is None
