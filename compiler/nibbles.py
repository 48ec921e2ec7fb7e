"""How tensors of 4 bits are stored: two columns or rows to a byte, as the product behind needs them, or plain bytes.

A product of run-time operands takes weights of 4 bits in pairs along its inner dimension (docs/decisions/0018). Where
that cannot be had, values of 4 bits lie in bytes of their own and are weights of 8 bits.
"""

from collections.abc import Iterator

from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.lower.blocked import turned_steps
from phonolith.compiler.shapes import Shape
from phonolith.compiler.views import Pairs
from phonolith.hw.config import MachineConfig

Use = tuple[Node, int, int]


def pairs_of(graph: Graph, tensor: Value | Node, shapes: dict[str, Shape], config: MachineConfig,
             turned: bool) -> Pairs | None:
    """Return which values of a graph input or a node's result share a byte; None for bytes.

    ``turned``: the node's rows come out of blocks of steps, as many at a time as LOAD turns.
    """
    if tensor.dtype != "int4" or config.word_bytes % 2:
        return None
    wanted = {pairs_for(use, shapes, config) for use in uses(graph, tensor.name)}
    pairs = wanted.pop() if len(wanted) == 1 else None
    if pairs is Pairs.ROWS and turned and turned_steps(config) % 2:
        return None
    return pairs


def uses(graph: Graph, name: str, start: int = 0) -> Iterator[Use]:
    """Yield who reads a tensor, through slices: the node, the number of its input, and the first column."""
    for node in graph.consumers(name):
        if node.op == "slice":
            yield from uses(graph, node.name, start + node.attributes["start"])
        else:
            yield from ((node, number, start) for number, read in enumerate(node.inputs) if read == name)


def pairs_for(use: Use, shapes: dict[str, Shape], config: MachineConfig) -> Pairs | None:
    """Return what one reader needs, if a machine can store it: each head and chunk of rows has to begin a byte."""
    node, number, start = use
    attention = node.op == "attention"
    keys = number == 1 if attention else node.attributes["transpose_b"]
    if not keys:
        fits = config.rows % 2 == 0 and node.attributes.get("chunk", 0) % 2 == 0
        return Pairs.ROWS if fits else None
    heads = node.attributes["scores"].get("heads", 1) if attention else node.attributes.get("heads", 1)
    depth = shapes[node.inputs[number]][1] // heads
    fits = config.columns % 2 == 0 and start % 2 == 0 and (heads == 1 or depth % 2 == 0)
    return Pairs.COLUMNS if fits else None
