"""Single-operator graphs of any shape, and the check that a program computes them."""

import numpy as np

from phonolith.compiler.ir import DTYPES, Graph, Node, Value
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.program import Program
from phonolith.compiler.races import find_deadlock, find_races
from phonolith.hw.config import MachineConfig
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.iss import run

MACHINES = {
    "8x8": MachineConfig(rows=8, columns=8),
    "16x16": MachineConfig(),
    "12x20": MachineConfig(rows=12, columns=20, bus_bits=256),
    "4x4": MachineConfig(rows=4, columns=4, bus_bits=64),
    "5x32": MachineConfig(rows=5, columns=32),
}


def random_tensor(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return uniform values over the whole range of ``dtype``."""
    limits = np.iinfo(DTYPES[dtype])
    return rng.integers(limits.min, limits.max, shape, DTYPES[dtype], endpoint=True)


def channels(rng: np.random.Generator, count: int, depth: int, dtype: str) -> dict[str, np.ndarray]:
    """Return bias, multiplier and shift that spread sums of ``depth`` products over ``dtype``."""
    shift = 16 + int(np.log2(max(depth, 1))) // 2 + (7 if dtype != "int16" else 0)
    return {
        "bias": rng.integers(-1000, 1000, count).astype(np.int32),
        "multiplier": rng.integers(-65536, 65536, count).astype(np.int32),
        "shift": rng.integers(shift - 2, shift + 2, count).astype(np.int32),
    }


def graph(node: Node, *inputs: tuple[str, tuple[int, ...]]) -> Graph:
    """Return a graph of one node; inputs are (dtype, tail)."""
    values = tuple(Value(name, dtype, tail) for name, (dtype, tail) in zip(node.inputs, inputs, strict=True))
    return Graph("case", values, (node,), (node.name,))


def linear(rng, k, n, x="int8", y="int8", residual=False) -> Graph:
    """A linear layer."""
    constants = {"weight": random_tensor(rng, (n, k), "int8"), **channels(rng, n, k, y)}
    inputs = ("x", "r") if residual else ("x",)
    return graph(Node("y", "linear", inputs, y, constants), (x, (k,)), *[("int16", (n,))] * residual)


def layernorm(rng, d, y="int8") -> Graph:
    """A layer normalization with realistic factors."""
    constants = {"gamma": rng.integers(-65536, 65536, d).astype(np.int32),
                 "gamma_shift": rng.integers(18, 23, d).astype(np.int32),
                 "beta": rng.integers(-60, 60, d).astype(np.int32)}
    mean_shift = 15 + int(np.log2(d))
    attributes = {"mean_multiplier": round(2**mean_shift / d), "mean_shift": mean_shift,
                  "numerator": min(65535, 32768 + d), "shift": 24, "epsilon": int(rng.integers(0, 100))}
    return graph(Node("y", "layernorm", ("x",), y, constants, attributes), ("int16", (d,)))


def add(d) -> Graph:
    """A sum."""
    return graph(Node("y", "add", ("a", "b"), "int16"), ("int16", (d,)), ("int16", (d,)))


def check(case: Graph, machine: str, frames: int, seed: int = 0) -> Program:
    """Compile, run on the instruction-set simulator, compare every tensor; no races, deadlocks, stray writes."""
    config = MACHINES[machine]
    rng = np.random.default_rng(seed)
    inputs = {v.name: random_tensor(rng, (frames, *v.tail), v.dtype) for v in case.inputs}
    program = compile_graph(case, config, frames)
    check_order(program, config)
    before = program.image(inputs, canary_seed=seed)
    after = run(program.words, before, config)
    for name, tensor in interpret(lower_graph(case), inputs).items():
        np.testing.assert_array_equal(program.read(after, name), tensor, err_msg=name)
    assert not program.stray_writes(before, after).size
    return program


def check_order(program: Program, config: MachineConfig) -> None:
    """Assert that semaphores order everything and cannot block."""
    assert find_races(program.words, config) == []
    assert find_deadlock(program.words, config) == []
