"""Single-operator graphs of any shape, and the check that a program computes them."""

from dataclasses import replace

import numpy as np

from phonolith.compiler.ir import DTYPES, Graph, Node, Value
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.pipeline import compile_graph, for_frames, generate
from phonolith.compiler.program import Program
from phonolith.compiler.races import find_deadlock, find_races
from phonolith.compiler.shapes import minimum_frames
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
    constants = {
        "gamma": rng.integers(-65536, 65536, d).astype(np.int32),
        "gamma_shift": rng.integers(18, 23, d).astype(np.int32),
        "beta": rng.integers(-60, 60, d).astype(np.int32),
    }
    mean_shift = 15 + int(np.log2(d))
    attributes = {
        "mean_multiplier": round(2**mean_shift / d),
        "mean_shift": mean_shift,
        "numerator": min(65535, 32768 + d),
        "shift": 24,
        "epsilon": int(rng.integers(0, 100)),
    }
    return graph(Node("y", "layernorm", ("x",), y, constants, attributes), ("int16", (d,)))


def add(d, *tail) -> Graph:
    """A sum."""
    return graph(Node("y", "add", ("a", "b"), "int16"), ("int16", (*tail, d)), ("int16", (*tail, d)))


def rescale(rng, d, x, y) -> Graph:
    """A change of scale."""
    attributes = {"multiplier": int(rng.integers(-65536, 65536)), "shift": 24 if x == "int16" else 16}
    return graph(Node("y", "rescale", ("x",), y, {}, attributes), (x, (d,)))


def table(rng, d, x, y) -> Graph:
    """A table lookup."""
    return graph(Node("y", "table", ("x",), y, {"table": random_tensor(rng, (256,), y)}), (x, (d,)))


def argmax(d, x) -> Graph:
    """Indices of maxima."""
    return graph(Node("y", "argmax", ("x",), "int16"), (x, (d,)))


def softmax_exp(rng, d) -> Graph:
    """Exponentials of scores."""
    attributes = {"multiplier": int(rng.integers(0, 65536)), "shift": 22}
    node = Node("y", "softmax_exp", ("x",), "uint8", {"table": random_tensor(rng, (256,), "uint8")}, attributes)
    return graph(node, ("int16", (d,)))


def conv2d(rng, size, channels_in, count, kernel, stride, padding, x="int8", y="uint8") -> Graph:
    """A convolution over ``size`` frequencies."""
    depth = kernel[0] * kernel[1] * channels_in
    constants = {"weight": random_tensor(rng, (count, *kernel, channels_in), "int8"),
                 **channels(rng, count, depth, y)}
    attributes = {"stride": list(stride), "padding": list(padding)}
    return graph(Node("y", "conv2d", ("x",), y, constants, attributes), (x, (size, channels_in)))


def depthwise(rng, count, kernel, padding=None, x="int8", y="int8", between=False) -> Graph:
    """A depthwise convolution of the input, or ``between`` a table and a linear layer."""
    same = ((kernel - 1) // 2, kernel // 2)
    constants = {"weight": random_tensor(rng, (count, kernel), "int8"), **channels(rng, count, kernel, y)}
    node = Node("y", "depthwise_conv1d", ("x",), y, constants, {"padding": list(padding or same)})
    if not between:
        return graph(node, (x, (count,)))
    first = Node("first", "table", ("x",), x, {"table": random_tensor(rng, (256,), x)})
    last = Node("z", "linear", ("y",), "int8", {"weight": random_tensor(rng, (9, count), "int8"),
                                                **channels(rng, 9, count, "int8")})
    nodes = (first, replace(node, inputs=("first",)), last)
    return Graph("case", (Value("x", x, (count,)),), nodes, ("z",))


def matmul(a, b, transpose_b, dtype="int8", heads=None, normalize=False, x="int8") -> Graph:
    """A product of two inputs with tails ``a`` and ``b``."""
    attributes = {"transpose_b": transpose_b, "shift": 26 if dtype == "int8" else 22}
    attributes |= {"normalize": True, "numerator": 40000} if normalize else {"multiplier": 40000}
    attributes |= {} if heads is None else {"heads": heads}
    return graph(Node("y", "matmul", ("a", "b"), dtype, {}, attributes), (x, a), ("int8", b))


def attention(rng, heads, depth, fused=True) -> Graph:
    """Self-attention over three slices of one input; not fused when its scores are an output."""
    width = heads * depth
    factor = {"multiplier": 50000, "shift": 22}
    nodes = (
        Node("q", "slice", ("x",), "int8", {}, {"start": 0, "stop": width}),
        Node("k", "slice", ("x",), "int8", {}, {"start": width, "stop": 2 * width}),
        Node("v", "slice", ("x",), "int8", {}, {"start": 2 * width, "stop": 3 * width}),
        Node("s", "matmul", ("q", "k"), "int16", {}, {"heads": heads, "transpose_b": True, **factor}),
        Node("e", "softmax_exp", ("s",), "uint8", {"table": random_tensor(rng, (256,), "uint8")},
             {"multiplier": 40000, "shift": 21}),
        Node("y", "matmul", ("e", "v"), "int8", {},
             {"heads": heads, "transpose_b": False, "normalize": True, "numerator": 60000, "shift": 31}),
    )
    outputs = ("y",) if fused else ("s", "e", "y")
    return Graph("attention", (Value("x", "int8", (3 * width,)),), nodes, outputs)


def check(case: Graph, machine: str | MachineConfig, frames: int = 0, inputs=None) -> Program:
    """Compile and check; random inputs of ``frames`` time steps unless ``inputs`` are given.

    The program must compute their first frames, too, at other lengths.
    """
    config, lowered = as_config(machine), lower_graph(case)
    inputs = inputs or random_inputs(case, frames)
    longest, least = len(inputs[case.inputs[0].name]), minimum_frames(lowered)
    program = compile_graph(case, config, longest)
    for length in {least, (least + longest) // 2, longest - 1} & set(range(least, longest)):
        first = {name: tensor[:length] for name, tensor in inputs.items()}
        run_program(for_frames(program, case, length), lowered, first, config)
    return check_program(program, lowered, inputs, config)


def check_shapes(case: Graph, machine: str | MachineConfig, *frames: int) -> Program:
    """Generate code without the passes, so that inputs may differ in their number of frames, and check."""
    rng = np.random.default_rng(0)
    inputs = {v.name: random_tensor(rng, (count, *v.tail), v.dtype)
              for v, count in zip(case.inputs, frames, strict=True)}
    shapes = {name: tensor.shape for name, tensor in (inputs | interpret(case, inputs)).items()}
    return check_program(generate(case, shapes, as_config(machine)), case, inputs, as_config(machine))


def as_config(machine: str | MachineConfig) -> MachineConfig:
    """Return a machine by name."""
    return MACHINES[machine] if isinstance(machine, str) else machine


def random_inputs(case: Graph, frames: int) -> dict[str, np.ndarray]:
    """Return random inputs of a graph."""
    rng = np.random.default_rng(0)
    return {v.name: random_tensor(rng, (frames, *v.tail), v.dtype) for v in case.inputs}


def check_program(program: Program, case: Graph, inputs: dict, config: MachineConfig) -> Program:
    """Run on the instruction-set simulator; compare every tensor; no races, deadlocks, stray writes."""
    check_order(program, config)
    return run_program(program, case, inputs, config)


def run_program(program: Program, case: Graph, inputs: dict, config: MachineConfig) -> Program:
    """Run on the instruction-set simulator; compare every tensor; no stray writes."""
    before = program.image(inputs, canary_seed=0)
    after = run(program.words, before, config, program.arguments)
    for name, tensor in interpret(case, inputs).items():
        np.testing.assert_array_equal(program.read(after, name), tensor, err_msg=name)
    assert not program.stray_writes(before, after).size
    return program


def check_order(program: Program, config: MachineConfig) -> None:
    """Assert that semaphores order everything and cannot block."""
    assert find_races(program.words, config, program.arguments) == []
    assert find_deadlock(program.words, config, program.arguments) == []
