"""The order of emission: row-wise nodes on chip behind products, weights ahead of their turn."""

import numpy as np
import pytest

from phonolith.compiler.disassembler import Resolved, trace
from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.program import Program
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Queue, Target
from tests.compiler import lowering_cases as cases

WIDTH = 24


def layer(rng: np.random.Generator, name: str, source: str, op: str, **kwargs) -> Node:
    """Return a node of one of the single-operator graphs under another name, reading ``source``."""
    case = {"linear": cases.linear, "layernorm": cases.layernorm}[op](rng, **kwargs)
    (node,) = case.nodes
    inputs = (source, *node.inputs[1:])
    return Node(name, node.op, inputs, node.dtype, node.constants, node.attributes)


def chain(rng: np.random.Generator, depth: int = 2) -> Graph:
    """A graph of linear (int16), layernorm, linear, ... , argmax."""
    nodes, source = [], "x"
    for i in range(depth):
        nodes.append(layer(rng, f"linear{i}", source, "linear", k=WIDTH, n=WIDTH, y="int16"))
        nodes.append(layer(rng, f"norm{i}", f"linear{i}", "layernorm", d=WIDTH))
        source = f"norm{i}"
    nodes.append(layer(rng, "output", source, "linear", k=WIDTH, n=11, y="int16"))
    nodes.append(Node("ids", "argmax", ("output",), "int16"))
    return Graph("chain", (Value("x", "int8", (WIDTH,)),), tuple(nodes), ("ids",))


def loads(program: Program, node: str, target: Target) -> list[Resolved]:
    """Return the LOADs of a node to a memory."""
    return [i for i in trace(program.words, program.arguments)
            if i.queue is Queue.LOAD and i.control["target"] == target and program.node_at(i.position) == node]


@pytest.mark.parametrize("machine", list(cases.MACHINES))
def test_chain(machine):
    cases.check(chain(np.random.default_rng(0), 3), machine, 37)


def test_row_wise_nodes_read_the_scratchpad_of_the_product():
    program = cases.check(chain(np.random.default_rng(0)), "16x16", 40)
    for node in ("norm1", "ids"):
        assert loads(program, node, Target.SCRATCHPAD) == []
    assert len(loads(program, "norm1", Target.PARAMETER)) == 1
    assert loads(program, "norm0", Target.SCRATCHPAD), "the first product starts on single columns"


def test_row_wise_nodes_alone_when_the_scratchpad_is_small():
    machine = MachineConfig(rows=16, columns=16, scratchpad_bytes=2048)
    program = cases.check(chain(np.random.default_rng(0)), machine, 40)
    assert loads(program, "norm1", Target.SCRATCHPAD)


def test_weights_of_later_layers_come_early_and_once():
    program = cases.check(chain(np.random.default_rng(0)), "16x16", 80)
    last_words = {region.node: region.stop for region in program.regions}
    for node, before, tiles in (("linear1", "norm0", 2), ("output", "norm1", 1)):
        weight_loads = loads(program, node, Target.WEIGHT)
        assert weight_loads[0].position < last_words[before]
        assert sum(i.operands["segment_bytes"] for i in weight_loads) == tiles * 2 * 16 * 16


def test_weights_loaded_early_give_way():
    """The weight memory holds one layer and a bit: what is loaded ahead must not starve what comes first."""
    for words in (3, 4, 5, 6, 8):
        machine = MachineConfig(rows=8, columns=8, weight_sram_bytes=words * 8 * 16)
        cases.check(chain(np.random.default_rng(words)), machine, 50)


def test_every_constant_is_read_once_per_column_group():
    """A product whose weights fit reads each weight byte once, however many rows it has."""
    case = cases.linear(np.random.default_rng(0), 64, 48)
    program = cases.check(case, "16x16", 300)
    assert sum(i.operands["segment_bytes"] for i in loads(program, "y", Target.WEIGHT)) == 64 * 48
