"""Whole encoders keep the array busy: the shipped one on 208 output frames of noise, features to ids."""

from functools import cache

import numpy as np
import pytest

from phonolith.compiler import model_file
from phonolith.compiler.inspect import node_macs
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.shapes import infer_shapes
from phonolith.hw.config import MachineConfig
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_rtl, machine

FRAMES = 851
MODEL = model_file.load(model_file.resolve("encoder-ctc-w8"))


@cache
def cycles(**changes) -> int:
    config = MachineConfig(**changes)
    features = np.random.default_rng(0).integers(-100, 100, (FRAMES, 40)).astype(np.int8)
    inputs = {MODEL.inputs[0].name: features}
    program = compile_graph(MODEL, config, FRAMES)
    result = execute_rtl(program, program.image(inputs), machine(config))
    (name,) = MODEL.outputs
    assert np.array_equal(program.read(result.image, name), interpret(MODEL, inputs)[name])
    return result.cycles


def test_array_is_busy():
    shapes = infer_shapes(MODEL, FRAMES)
    assert shapes[MODEL.outputs[0]] == (208,)
    assert sum(node_macs(node, shapes) for node in MODEL.nodes) / 256 / cycles() >= 0.93


@pytest.mark.parametrize("change", [{"dram_latency": 200}, {"dram_shared": True}], ids=["latency", "shared"])
def test_slower_memory_costs_little(change):
    assert cycles(**change) <= 1.03 * cycles()
