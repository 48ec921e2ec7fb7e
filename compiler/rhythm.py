"""What a graph needs to run chunk by chunk: how long chunks are, and what stays in memory from one to the next."""

import math
from dataclasses import dataclass
from functools import reduce

from phonolith.compiler.counts import Count, Size, Stride
from phonolith.compiler.ir import Graph, Node
from phonolith.compiler.pipeline import stored
from phonolith.compiler.shapes import MAX_FRAMES, Shape, infer_shapes
from phonolith.hw.errors import PhonolithError

# Operators that look back in time, beyond the rows that convolutions of the front end share.
STATEFUL = ("attention", "depthwise_conv1d")


@dataclass(frozen=True)
class Rhythm:
    """Chunks of a stream.

    Attributes
    ----------
    chunk : int
        Rows of attention in a chunk.
    left : int
        Chunks before it that any attention sees.
    rates : dict
        Input frames per row of every input and node.
    history : dict
        Rows in front of a chunk's own that a stored tensor keeps, by its name.
    strides : tuple of Stride
        Of the front end, from input frames to rows.
    """

    chunk: int
    left: int
    rates: dict[str, int]
    history: dict[str, int]
    strides: tuple[Stride, ...]

    @property
    def step(self) -> int:
        """Input frames from one chunk to the next."""
        return self.chunk * math.prod(stride.step for stride in self.strides)

    @property
    def frames(self) -> int:
        """Input frames that a whole chunk is computed from; those beyond ``step`` are the first of the next one."""
        return reduce(lambda rows, stride: (rows - 1) * stride.step + stride.kernel - stride.padding,
                      reversed(self.strides), self.chunk)

    def chunks(self, frames: int) -> int:
        """Return the chunks of an utterance of ``frames`` input frames, the last of which may be shorter."""
        rows = reduce(lambda count, stride: stride(count), self.strides, frames)
        return -(-rows // self.chunk)


def rhythm_of(graph: Graph) -> Rhythm:
    """Return how a lowered graph runs as a stream; PhonolithError ``not-streamable`` naming the node it cannot with."""
    for node in graph.nodes:
        check_node(graph, node)
    attentions = [node for node in graph.nodes if node.op == "attention"]
    if not attentions:
        raise PhonolithError("not-streamable", f"{graph.name!r} has no attention whose chunks a stream could follow.",
                             "Run it whole, or choose a streaming model.")
    chunk, left = (max(node.attributes.get(name, 0) for node in attentions) for name in ("chunk", "left"))
    for node in attentions:
        rows = node.attributes["chunk"]
        require(rows == chunk, node, f"its chunks have {rows} rows, others {chunk}")
    shapes = infer_shapes(graph, Count(Size(MAX_FRAMES)))
    strides = strides_of(shapes[attentions[0].name])
    for node in graph.nodes:
        own = strides_of(shapes[node.name])
        follows = own == strides if node.op in STATEFUL or node.name in graph.outputs else own == strides[:len(own)]
        require(follows, node, "its rows do not come in the rhythm of the attention's chunks")
    rates = {name: math.prod(stride.step for stride in strides_of(shape)) for name, shape in shapes.items()}
    return Rhythm(chunk, left, rates, histories(graph), strides)


def strides_of(shape: Shape) -> tuple[Stride, ...]:
    """Return the convolutions between the input and a tensor's rows."""
    assert isinstance(shape[0], Count)
    return shape[0].size.strides


def check_node(graph: Graph, node: Node) -> None:
    """Refuse what needs to know rows that come later, or all that have been."""
    attributes = node.attributes
    if node.op == "attention":
        require(attributes.get("chunk", 0) > 0, node, "it attends to the whole utterance, not to chunks")
        check_positions(node)
    elif node.op == "depthwise_conv1d":
        causal = [node.constants["weight"].shape[1] - 1, 0]
        require(list(attributes["padding"]) == causal, node, f"its padding is {attributes['padding']}, not {causal}: "
                                                             "it is not causal")
    elif node.op == "conv2d":
        require(attributes["padding"][0] == 0, node, "it is padded in time")
        require(not looks_back(graph, node), node, "it comes behind an operator that looks back in time")
    else:
        require(node.op != "matmul", node, "it multiplies all rows by all others")
        require(node.op != "add_rows", node, "its positions count from the beginning of the utterance")


def check_positions(node: Node) -> None:
    """Refuse a table of relative positions that ends before the first key that a chunk sees."""
    if "positions" in node.constants:
        longest = (len(node.constants["positions"]) + 1) // 2
        reach = (node.attributes.get("left", 0) + 1) * node.attributes["chunk"]
        require(reach <= longest, node, f"its positions are for {longest} rows; chunks see {reach}")


def looks_back(graph: Graph, node: Node) -> bool:
    """Tell whether a node depends on one that looks back in time."""
    reached = set(node.inputs)
    for before in reversed(graph.nodes):
        if before.name in reached:
            if before.op in STATEFUL:
                return True
            reached.update(before.inputs)
    return False


def histories(graph: Graph) -> dict[str, int]:
    """Return the rows that stored tensors must keep: keys and values, and inputs of depthwise convolutions."""
    rows: dict[str, int] = {}
    for node in graph.nodes:
        for name, count in looked_back_at(node):
            root = stored(graph, stored(graph, name, ("slice",)) if node.op == "attention" else name, ("reshape",))
            makers = [maker for maker in graph.nodes if maker.name == root]
            require(bool(makers), node, f"it looks back at the input {root!r} itself")
            require(makers[0].op != "slice", node, f"it looks back at {name!r}, a part of another tensor")
            rows[root] = max(rows.get(root, 0), count)
    return rows


def looked_back_at(node: Node) -> list[tuple[str, int]]:
    """Return what a node reads of earlier chunks: inputs, and how many rows of them."""
    if node.op == "attention":
        count = node.attributes.get("left", 0) * node.attributes["chunk"]
        return [(name, count) for name in node.inputs[1:] if count]
    if node.op == "depthwise_conv1d":
        count = node.constants["weight"].shape[1] - 1
        return [(node.inputs[0], count)] if count else []
    return []


def require(condition: bool, node: Node, reason: str) -> None:
    """Raise PhonolithError ``not-streamable`` unless ``condition``."""
    if not condition:
        raise PhonolithError("not-streamable", f"node {node.name!r} ({node.op}) cannot run chunk by chunk: {reason}.",
                             "Run the model whole, or choose a streaming model (docs/streaming.md).")
