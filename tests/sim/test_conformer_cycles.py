"""A Conformer keeps the array busy: 250 output frames, d = 144, 4 heads, kernels of 31, relative positions."""

from functools import cache

import numpy as np
import pytest

from phonolith.compiler.inspect import node_macs
from phonolith.compiler.ir import Graph
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.random_conformers import Attending, sized_conformer
from phonolith.compiler.shapes import infer_shapes
from phonolith.compiler.timing import model as timing
from phonolith.hw.config import MachineConfig
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_rtl, machine
from phonolith.sim.rtl.run import RunResult

FRAMES, MELS, WIDTH, HEADS, KERNEL, LONGEST = 1003, 40, 144, 4, 31, 256
CONFIG = MachineConfig()
MACS_PER_CYCLE = CONFIG.rows * CONFIG.columns


@cache
def conformer(layers: int) -> Graph:
    return sized_conformer(FRAMES, MELS, 32, Attending(HEADS, WIDTH // HEADS, LONGEST), KERNEL, layers, 11)


def macs(layers: int) -> int:
    graph = conformer(layers)
    shapes = infer_shapes(graph, FRAMES)
    assert shapes[graph.outputs[0]] == (250,)
    return sum(node_macs(node, shapes) for node in graph.nodes)


@cache
def cycles(layers: int, **changes) -> int:
    config = MachineConfig(**changes)
    program = compile_graph(conformer(layers), config, FRAMES)
    return timing.predict(program.words, config, program.arguments, program.program_address).cycles


def test_the_array_is_busy():
    """Features to ids, and the blocks alone: what a second one adds."""
    assert macs(1) / MACS_PER_CYCLE / cycles(1) >= 0.90
    assert (macs(2) - macs(1)) / MACS_PER_CYCLE / (cycles(2) - cycles(1)) >= 0.925


@pytest.mark.parametrize("change", [{"dram_latency": 200}, {"dram_shared": True}], ids=["latency", "shared"])
def test_slower_memory_costs_little(change):
    assert cycles(1, **change) <= 1.05 * cycles(1)


@cache
def run(layers: int) -> RunResult:
    graph = conformer(layers)
    features = np.random.default_rng(0).integers(-128, 128, (FRAMES, MELS)).astype(np.int8)
    program = compile_graph(graph, CONFIG, FRAMES)
    result = execute_rtl(program, program.image({"features": features}), machine(CONFIG))
    (name,) = graph.outputs
    assert np.array_equal(program.read(result.image, name), interpret(graph, {"features": features})[name])
    return result


@pytest.mark.slow
def test_the_vector_unit_does_not_hold_the_array_up():
    """On RTL: of a block's cycles, the array waits for the drain in 2 % at most."""
    results = [run(layers) for layers in (1, 2)]
    assert [result.cycles for result in results] == [cycles(1), cycles(2)]
    stalled = [result.engines["array"]["stalled"]["drain"] for result in results]
    assert stalled[1] - stalled[0] <= 0.02 * (cycles(2) - cycles(1))
