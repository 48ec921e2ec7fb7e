"""Every operator alone, at odd sizes, on several machines: program on the simulator = golden model."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.random_conformers import ALL_BLOCKS
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from tests.compiler import lowering_cases as cases

MACHINES = tuple(cases.MACHINES)


def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(5)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("frames, k, n", [(1, 1, 1), (1, 33, 7), (7, 16, 17), (16, 15, 16), (17, 100, 33),
                                          (50, 40, 96)])
@pytest.mark.parametrize("x, y", [("int8", "int8"), ("uint8", "uint8"), ("uint8", "int16")])
def test_linear(machine, frames, k, n, x, y):
    cases.check(cases.linear(rng(), k, n, x, y), machine, frames)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("frames, k, n", [(1, 1, 1), (17, 40, 33), (33, 17, 100)])
def test_linear_with_residual(machine, frames, k, n):
    cases.check(cases.linear(rng(), k, n, "int8", "int16", residual=True), machine, frames)


@pytest.mark.parametrize("frames, k, n", [(300, 512, 16), (20, 500, 700), (90, 300, 1500), (260, 1400, 600)],
                         ids=["rows stream", "columns stream", "columns in groups", "neither fits"])
def test_linear_larger_than_the_memories(frames, k, n):
    machine = MachineConfig(rows=8, columns=8, activation_sram_bytes=32768, weight_sram_bytes=32768,
                            scratchpad_bytes=8192, parameter_bytes=1024)
    cases.check(cases.linear(rng(), k, n, y="int16", residual=True), machine, frames)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("kernel, stride, padding, size, depth, count, frames", [
    ((3, 3), (2, 2), (0, 0), 40, 1, 32, 21), ((3, 3), (2, 2), (1, 1), 9, 3, 5, 8), ((1, 1), (1, 1), (0, 0), 1, 1, 1, 1),
    ((5, 2), (1, 3), (4, 0), 7, 4, 9, 3), ((1, 4), (3, 1), (0, 3), 5, 2, 3, 10),
    ((3, 1), (1, 1), (1, 0), 1, 17, 20, 33)])
def test_conv2d(machine, kernel, stride, padding, size, depth, count, frames):
    case = cases.conv2d(rng(), size, depth, count, kernel, stride, padding)
    cases.check(case, machine, frames)


def test_conv2d_splits_long_rows():
    machine = MachineConfig(rows=4, columns=4, bus_bits=64, activation_sram_bytes=1024)
    cases.check(cases.conv2d(rng(), 150, 2, 3, (2, 2), (1, 1), (1, 1)), machine, 5)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("m, k, n", [(1, 1, 1), (17, 29, 15), (5, 40, 70), (100, 64, 33)])
@pytest.mark.parametrize("x, dtype", [("int8", "int8"), ("uint8", "int16")])
def test_matmul(machine, m, k, n, x, dtype):
    cases.check_shapes(cases.matmul((k,), (k,), True, dtype, x=x), machine, m, n)
    cases.check_shapes(cases.matmul((k,), (n,), False, dtype, x=x), machine, m, k)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("m, k, n, heads", [(1, 1, 1, 1), (17, 29, 15, 3), (5, 600, 8, 2)])
def test_normalized_matmul(machine, m, k, n, heads):
    case = cases.matmul((m, k), (heads * n,), False, heads=heads, normalize=True, x="uint8")
    cases.check_shapes(case, machine, heads, k)


def test_matmul_with_operands_larger_than_the_memories():
    machine = MachineConfig(rows=8, columns=8, activation_sram_bytes=16384, weight_sram_bytes=16384)
    cases.check_shapes(cases.matmul((300,), (300,), True), machine, 150, 160)
    cases.check_shapes(cases.matmul((300,), (160,), False), machine, 150, 300)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("frames, heads, depth", [(1, 1, 1), (9, 3, 5), (33, 2, 16), (50, 3, 32)])
def test_attention(machine, frames, heads, depth):
    cases.check(cases.attention(rng(), heads, depth), machine, frames)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("frames, heads, depth", [(1, 1, 1), (9, 3, 5), (33, 2, 16)])
def test_attention_in_parts(machine, frames, heads, depth):
    cases.check(cases.attention(rng(), heads, depth, fused=False), machine, frames)


def test_attention_over_many_steps():
    machine = MachineConfig(rows=8, columns=8, scratchpad_bytes=8192)
    cases.check(cases.attention(rng(), 2, 8), machine, 300)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("frames, width", [(1, 1), (7, 5), (16, 16), (50, 96), (3, 700)])
@pytest.mark.parametrize("y", ["int8", "int16"])
def test_layernorm(machine, frames, width, y):
    cases.check(cases.layernorm(rng(), width, y), machine, frames)


def test_layernorm_wider_than_the_parameter_memory():
    machine = MachineConfig(rows=8, columns=8, parameter_bytes=256)
    cases.check(cases.layernorm(rng(), 100), machine, 11)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("frames, width", [(1, 1), (5, 7), (50, 96), (3, 3000)])
class TestElementwise:
    def test_add(self, machine, frames, width):
        cases.check(cases.add(width), machine, frames)

    @pytest.mark.parametrize("x, y", [("int8", "int16"), ("uint8", "int8"), ("int16", "uint8"), ("int16", "int16")])
    def test_rescale(self, machine, frames, width, x, y):
        cases.check(cases.rescale(rng(), width, x, y), machine, frames)

    @pytest.mark.parametrize("x, y", [("int8", "int8"), ("uint8", "int8"), ("int8", "uint8")])
    def test_table(self, machine, frames, width, x, y):
        cases.check(cases.table(rng(), width, x, y), machine, frames)

    @pytest.mark.parametrize("x", ["int8", "int16"])
    def test_argmax(self, machine, frames, width, x):
        cases.check(cases.argmax(width, x), machine, frames)

    def test_softmax_exp(self, machine, frames, width):
        cases.check(cases.softmax_exp(rng(), width), machine, frames)


@pytest.mark.parametrize("machine", ["8x8", "16x16"])
def test_tensors_of_more_dimensions(machine):
    cases.check(cases.add(5, 3, 2, 7), machine, 4)


@pytest.mark.parametrize("machine", ["8x8", "16x16"])
def test_reshape_of_a_slice_is_copied(machine):
    generator = rng()
    constants = {"weight": cases.random_tensor(generator, (9, 12), "int8"), **cases.channels(generator, 9, 12, "int8")}
    nodes = (Node("part", "slice", ("x",), "int8", {}, {"start": 1, "stop": 4}),
             Node("flat", "reshape", ("part",), "int8", {}, {"tail": [12]}),
             Node("y", "linear", ("flat",), "int8", constants))
    graph = Graph("views", (Value("x", "int8", (4, 6)),), nodes, ("y",))
    assert cases.check(graph, machine, 10).temporaries


@pytest.mark.parametrize("machine", ["8x8", "16x16"])
def test_padded_convolution_of_a_slice_gets_its_own_zeros(machine):
    conv = cases.conv2d(rng(), 6, 2, 4, (3, 3), (1, 1), (1, 1)).nodes[0]
    nodes = (Node("part", "slice", ("x",), "int8", {}, {"start": 1, "stop": 3}), replace(conv, inputs=("part",)))
    graph = Graph("views", (Value("x", "int8", (6, 5)),), nodes, ("y",))
    assert cases.check(graph, machine, 7).temporaries


def test_view_alone_needs_no_instruction():
    node = Node("y", "slice", ("x",), "int8", {}, {"start": 2, "stop": 5})
    program = cases.check(cases.graph(node, ("int8", (9,))), "16x16", 3)
    assert program.summary()["instructions"] == {"END": 1}


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed):
    graph, inputs = random_graph(seed, ALL_BLOCKS)
    for machine in ("8x8", "16x16", MACHINES[2 + seed % 3]):
        cases.check(graph, machine, inputs=inputs)


def test_inner_dimension_too_long():
    machine = MachineConfig(activation_sram_bytes=8192)
    with pytest.raises(PhonolithError) as error:
        compile_graph(cases.linear(rng(), 2000, 3), machine, 4)
    assert error.value.kind == "does-not-fit"
    assert error.value.message == ("node 'y' (linear): an inner dimension of 2000 needs 125 words of each activation "
                                   "bank; 32 are available.")


@pytest.mark.parametrize("case, frames", [
    (cases.layernorm(rng(), 3000), 2), (cases.softmax_exp(rng(), 3000), 2), (cases.argmax(3000, "int16"), 2),
    (cases.attention(rng(), 1, 4), 3000)], ids=["layernorm", "softmax_exp", "argmax", "attention"])
def test_rows_too_long(case, frames):
    machine = MachineConfig(scratchpad_bytes=4096)
    with pytest.raises(PhonolithError, match="node 'y'") as error:
        compile_graph(case, machine, frames)
    assert error.value.kind == "does-not-fit"


def test_row_sums_of_signed_rows_are_refused():
    with pytest.raises(PhonolithError, match="normalize needs uint8 rows"):
        cases.check_shapes(cases.matmul((5,), (8,), False, normalize=True), "16x16", 5, 5)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("frames, channels, kernel", [(1, 1, 1), (1, 20, 31), (7, 5, 2), (64, 9, 3), (65, 17, 32),
                                                      (130, 40, 33)])
@pytest.mark.parametrize("between", [False, True])
def test_depthwise(machine, frames, channels, kernel, between):
    cases.check(cases.depthwise(rng(), channels, kernel, between=between), machine, frames)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("padding", [(14, 0), (0, 14), (0, 0), (20, 3)])
@pytest.mark.parametrize("x, y", [("uint8", "int8"), ("int8", "int16")])
def test_depthwise_paddings(machine, padding, x, y):
    """Causal, looking ahead, shrinking; results of int16 are not a banded product."""
    cases.check(cases.depthwise(rng(), 11, 15, padding, x, y), machine, 40)


def test_depthwise_longer_than_the_memories():
    """Channels' windows of one row tile, and not all of them, fit the activation memory."""
    config = MachineConfig(rows=8, columns=8, bus_bits=64, activation_sram_bytes=4096)
    cases.check(cases.depthwise(rng(), 20, 15, between=True), config, 500)


@pytest.mark.parametrize("machine, kernel", [("8x8", 9000), ("16x16", 9000)])
def test_a_kernel_that_the_machine_cannot_run(machine, kernel):
    """It says how long a kernel may be; one of that length runs."""
    with pytest.raises(PhonolithError, match=f"a kernel of {kernel} steps and results") as error:
        compile_graph(cases.depthwise(rng(), 40, kernel), cases.MACHINES[machine], 20)
    longest = int(error.value.remedy.split("up to ")[1].split()[0])
    cases.check(cases.depthwise(rng(), 5, longest), machine, 20)
