"""The timing model against the RTL, to the cycle."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from phonolith.compiler import model_file
from phonolith.compiler.pipeline import compile_graph, generate
from phonolith.compiler.program import Program
from phonolith.compiler.random_graphs import random_graph
from phonolith.compiler.timing.model import predict
from phonolith.hw.config import MachineConfig
from phonolith.sim.bench import weight_product
from phonolith.sim.ladder import execute_rtl, machine
from phonolith.sim.program_case import initial_state
from phonolith.sim.program_check import fill_rtl
from phonolith.sim.random_programs import random_program
from phonolith.sim.rtl.run import RtlMachine

DEFAULT, SMALL = MachineConfig(), MachineConfig(rows=8, columns=8)
OTHERS = [(array, bits) for array in ("8x8", "8x32", "12x20", "32x32") for bits in (64, 256)]
PRODUCT = (128, 512, 512)
FRAMES, FEW_FRAMES = 851, 100
MODEL = model_file.load(model_file.resolve("encoder-ctc-w8"))


def encoder(frames: int, config: MachineConfig) -> tuple[Program, np.ndarray]:
    """The shipped encoder on noise, with its DRAM image."""
    features = np.random.default_rng(0).integers(-100, 100, (frames, 40)).astype(np.int8)
    program = compile_graph(MODEL, config, frames)
    return program, program.image({MODEL.inputs[0].name: features})


def product(config: MachineConfig) -> tuple[Program, np.ndarray]:
    """128x512x512."""
    m, k, n = PRODUCT
    a, b = (np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8) for shape in ((m, k), (k, n)))
    program = generate(weight_product(b), {"a": (m, k), "y": (m, n)}, config)
    return program, program.image({"a": a})


@cache
def measured(make, *arguments) -> tuple[int, int]:
    """Predicted and measured cycles; ``arguments`` of ``make`` end with the machine."""
    program, image = make(*arguments)
    config = arguments[-1]
    predicted = predict(program.words, config, program.arguments)
    return predicted.cycles, execute_rtl(program, image, machine(config)).cycles


@pytest.mark.parametrize("config", [DEFAULT, SMALL], ids=["16x16", "8x8"])
def test_a_product_takes_the_cycles_predicted(config):
    predicted, cycles = measured(product, config)
    assert predicted == cycles


@pytest.mark.parametrize("frames, config", [(FRAMES, DEFAULT), (FEW_FRAMES, SMALL)], ids=["16x16", "8x8"])
def test_an_encoder_takes_the_cycles_predicted(frames, config):
    predicted, cycles = measured(encoder, frames, config)
    assert predicted == cycles


@pytest.mark.parametrize("changes", [{"dram_latency": 1}, {"dram_latency": 200}, {"dram_shared": True}],
                         ids=["fast", "slow", "shared"])
def test_other_memory(changes):
    config = replace(DEFAULT, **changes)
    predicted, cycles = measured(encoder, FEW_FRAMES, config)
    assert predicted == cycles


@pytest.mark.parametrize("config", [DEFAULT, SMALL, replace(DEFAULT, dram_latency=100), replace(SMALL, dram_latency=1)],
                         ids=["16x16", "8x8", "16x16 slow", "8x8 fast"])
def test_random_graphs(config):
    compare_graphs(config, range(20))


def compare_graphs(config: MachineConfig, seeds: Iterable[int]) -> None:
    """Assert the cycles of random graphs."""
    for seed in seeds:
        graph, inputs = random_graph(seed)
        program = compile_graph(graph, config, len(inputs["x"]))
        cycles = execute_rtl(program, program.image(inputs), machine(config)).cycles
        assert predict(program.words, config, program.arguments).cycles == cycles, seed


@pytest.mark.parametrize("changes", [{}, {"dram_latency": 300}, {"dram_shared": True}], ids=["", "slow", "shared"])
def test_random_programs(changes):
    """Programs that no compiler made: branches, ports in conflict, empty loops, any address."""
    compare_programs(replace(SMALL, **changes), (*range(60), 91, 452, 1110, 1204, 5065, 5069))


def compare_programs(config: MachineConfig, seeds: Iterable[int]) -> None:
    """Assert the cycles of random programs."""
    rtl = RtlMachine(config)
    for seed in seeds:
        case = random_program(seed, config)
        rtl.reset()
        fill_rtl(initial_state(case, config), rtl)
        cycles = rtl.run(case.memory(), case.program_address, case.arguments).cycles
        assert predict(case.words, config, case.arguments, case.program_address).cycles == cycles, seed


@pytest.mark.slow
@pytest.mark.parametrize("array, bits", OTHERS)
def test_other_machines(array, bits):
    config = MachineConfig.load(array=array, bus_bits=bits)
    for make, arguments in ((product, ()), (encoder, (FRAMES,))):
        predicted, cycles = measured(make, *arguments, config)
        assert predicted == cycles
    compare_programs(config, (*range(60), 1023, 1052, 1105, 1115, 1127))


@pytest.mark.slow
@pytest.mark.parametrize("latency", [20, 200])
def test_few_transactions_in_flight(latency):
    config = MachineConfig.load("tiny", dram_latency=latency)
    compare_graphs(config, range(60))
    compare_programs(config, range(60))
