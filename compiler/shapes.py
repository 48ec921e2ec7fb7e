"""Shape inference for integer graphs, for one number of frames."""

import math

from phonolith.compiler.ir import Graph, Node
from phonolith.hw.errors import PhonolithError

MAX_FRAMES = 16384
# Exponentials of 16 bits: high bytes, low bytes, and those too small for a high byte.
PLANES = 3
Shape = tuple[int, ...]


def invalid_graph(node: Node, reason: str) -> PhonolithError:
    """Return the error for a node that breaks the rules of ``docs/graph.md``."""
    return PhonolithError(
        "invalid-graph",
        f"node {node.name!r} ({node.op}): {reason}.",
        "docs/graph.md defines the operators; if a quantizer made this graph, report it.",
    )


def require(condition: bool, node: Node, reason: str) -> None:
    """Raise the error of :func:`invalid_graph` unless ``condition``."""
    if not condition:
        raise invalid_graph(node, reason)


def _linear(node: Node, x: Shape, residual: Shape | None = None) -> Shape:
    channels, depth = node.constants["weight"].shape
    require(x[-1] == depth, node, f"the weight takes {depth} columns, the input has {x[-1]}")
    y = (*x[:-1], channels)
    require(residual in (None, y), node, f"the residual is {residual}, the product {y}")
    return y


def _conv2d(node: Node, x: Shape) -> Shape:
    require(len(x) == 3, node, f"the input must be [T, F, C], not {x}")
    channels, *kernel, depth = node.constants["weight"].shape
    require(x[2] == depth, node, f"the weight takes {depth} channels, the input has {x[2]}")
    steps = zip(x[:2], kernel, node.attributes["stride"], node.attributes["padding"], strict=True)
    time, frequency = ((size + 2 * pad - k) // stride + 1 for size, k, stride, pad in steps)
    require(frequency > 0, node, f"the kernel is wider than the input's {x[1]} frequencies")
    return (time, frequency, channels)


def _matmul(node: Node, a: Shape, b: Shape) -> Shape:
    heads, transpose = node.attributes.get("heads"), node.attributes["transpose_b"]
    if node.attributes.get("wide"):
        require(a[0] == PLANES, node, f"wide needs {PLANES} planes, not {a}")
        a = a[1:]
    multi_head_a = heads is not None and not transpose
    require(len(a) == (3 if multi_head_a else 2) and len(b) == 2, node, f"the operands are {a} and {b}")
    inner = b[1] if transpose else b[0]
    require(a[-1] == inner, node, f"the inner dimensions of {a} and {b} differ")
    if heads is None:
        return (a[0], b[0] if transpose else b[1])
    require(b[1] % heads == 0, node, f"{b[1]} columns do not divide into {heads} heads")
    require(transpose or a[0] == heads, node, f"the weights have {a[0]} heads, not {heads}")
    return (heads, a[0], b[0]) if transpose else (a[1], b[1])


def _attention(node: Node, q: Shape, k: Shape, v: Shape) -> Shape:
    require(q[1] == k[1] and k[0] == v[0], node, f"the operands are {q}, {k} and {v}")
    heads = node.attributes["scores"].get("heads", 1)
    require(q[1] % heads == 0 and v[1] % heads == 0, node, f"{q} does not divide into {heads} heads")
    return (q[0], v[1])


def _softmax_exp(node: Node, x: Shape) -> Shape:
    return (PLANES, *x) if "offset" in node.attributes else x


def _add(node: Node, a: Shape, b: Shape) -> Shape:
    require(a == b, node, f"the operands are {a} and {b}")
    return a


def _layernorm(node: Node, x: Shape) -> Shape:
    width = len(node.constants["gamma"])
    require(x[-1] == width, node, f"gamma has {width} elements, the input {x[-1]} columns")
    return x


def _slice(node: Node, x: Shape) -> Shape:
    start, stop = node.attributes["start"], node.attributes["stop"]
    require(0 <= start < stop <= x[-1], node, f"columns {start} .. {stop} of {x[-1]}")
    return (*x[:-1], stop - start)


def _reshape(node: Node, x: Shape) -> Shape:
    tail = tuple(node.attributes["tail"])
    require(math.prod(tail) == math.prod(x[1:]), node, f"{x[1:]} cannot become {tail}")
    return (x[0], *tail)


RULES = {
    "linear": _linear,
    "conv2d": _conv2d,
    "matmul": _matmul,
    "attention": _attention,
    "add": _add,
    "layernorm": _layernorm,
    "slice": _slice,
    "reshape": _reshape,
    "argmax": lambda node, x: x[:-1],
    "softmax_exp": _softmax_exp,
    "rescale": lambda node, x: x,
    "table": lambda node, x: x,
}


def _shapes_until_empty(graph: Graph, frames: int) -> tuple[dict[str, Shape], Node | None]:
    """Return the shapes, and the first node whose output has no frame left (None when all have one)."""
    shapes: dict[str, Shape] = {value.name: (frames, *value.tail) for value in graph.inputs}
    for node in graph.nodes:
        shape = RULES[node.op](node, *(shapes[name] for name in node.inputs))
        if min(shape) < 1:
            return shapes, node
        shapes[node.name] = shape
    return shapes, None


def minimum_frames(graph: Graph) -> int:
    """Return the fewest input frames for which every tensor has at least one frame."""
    for frames in range(1, MAX_FRAMES + 1):
        if _shapes_until_empty(graph, frames)[1] is None:
            return frames
    raise PhonolithError("invalid-graph", f"{graph.name!r} has no output at {MAX_FRAMES} frames.", "Check its strides.")


def check_frames(graph: Graph, frames: int) -> None:
    """Refuse more input frames than sums are proved for: PhonolithError ``input-too-long``."""
    if frames > MAX_FRAMES:
        raise PhonolithError(
            "input-too-long",
            f"{frames} frames of input for {graph.name!r}: sums over time are proved for at most {MAX_FRAMES}.",
            "Split the recording.",
        )


def infer_shapes(graph: Graph, frames: int) -> dict[str, Shape]:
    """Return the shape of every graph input and node when all inputs have ``frames`` frames.

    Raises PhonolithError ``input-too-short`` when a tensor would have no frame, ``invalid-graph`` when
    shapes do not fit together.
    """
    shapes, empty = _shapes_until_empty(graph, max(frames, 0)) if frames > 0 else ({}, True)
    if empty is not None:
        raise PhonolithError(
            "input-too-short",
            f"{frames} frames of input leave nothing after the front end of {graph.name!r}.",
            f"Give at least {minimum_frames(graph)} frames.",
        )
    return shapes
