"""Shape inference for integer graphs, for one number of frames."""

import math
from collections.abc import Iterator

from phonolith.compiler.counts import Stride, convolved
from phonolith.compiler.ir import Graph, Node
from phonolith.hw.errors import PhonolithError

MAX_FRAMES = 16384
# Exponentials of 16 bits: high bytes, low bytes, and those too small for a high byte.
PLANES = 3
Shape = tuple[int, ...]


REPORT = "docs/graph.md defines the operators; if a quantizer made this graph, report it."


def invalid_graph(node: Node, reason: str, remedy: str = REPORT) -> PhonolithError:
    """Return the error for a node that breaks the rules of ``docs/graph.md``."""
    return PhonolithError("invalid-graph", f"node {node.name!r} ({node.op}): {reason}.", remedy)


def require(condition: bool, node: Node, reason: str, remedy: str = REPORT) -> None:
    """Raise the error of :func:`invalid_graph` unless ``condition``."""
    if not condition:
        raise invalid_graph(node, reason, remedy)


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
    time, frequency = (convolved(size, Stride(k, step, 2 * pad)) for size, k, step, pad in steps)
    require(frequency > 0, node, f"the kernel is wider than the input's {x[1]} frequencies")
    return (time, frequency, channels)


def _depthwise_conv1d(node: Node, x: Shape) -> Shape:
    require(len(x) == 2, node, f"the input must be [T, C], not {x}")
    channels, kernel = node.constants["weight"].shape
    require(x[1] == channels, node, f"the weight takes {channels} columns, the input has {x[1]}")
    return (convolved(x[0], Stride(kernel, 1, sum(node.attributes["padding"]))), channels)


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
    local = "positions" in node.constants or node.attributes.get("chunk")
    require(q[0] == k[0] or not local, node, f"positions and chunks need as many keys as queries, not {k} and {q}")
    heads = node.attributes["scores"].get("heads", 1)
    require(q[1] % heads == 0 and v[1] % heads == 0, node, f"{q} does not divide into {heads} heads")
    if "positions" in node.constants:
        _position_shapes(node, heads, q[1])
    return (q[0], v[1])


def _position_shapes(node: Node, heads: int, width: int) -> None:
    positions, bias = (node.constants[role].shape for role in ("positions", "position_bias"))
    require(positions[1] == width, node, f"positions have {positions[1]} columns, the queries {width}")
    wanted = (heads, positions[0])
    require(bias == wanted, node, f"position_bias has shape {bias}, not {wanted}")


def visible_chunks(frames: int, chunk: int = 0, left: int = 0, before: int = 0) -> Iterator[tuple[slice, slice]]:
    """Yield the rows of each chunk and the rows that they attend to: their chunk and ``left`` chunks before it.

    With ``chunk`` 0 there is one of all ``frames``. ``before``: rows in front of the first one, numbered -1, -2, ...
    """
    step = chunk or max(frames, 1)
    for start in range(0, frames, step):
        stop = min(start + step, frames)
        yield slice(start, stop), slice(max(start - left * step, -before), stop)


def _softmax_exp(node: Node, x: Shape) -> Shape:
    return (PLANES, *x) if "offset" in node.attributes else x


def _add(node: Node, a: Shape, b: Shape) -> Shape:
    require(a == b, node, f"the operands are {a} and {b}")
    return a


def _add_rows(node: Node, x: Shape) -> Shape:
    columns = node.constants["rows"].shape[1]
    require(len(x) == 2 and x[1] == columns, node, f"its rows have {columns} columns, the input is {x}")
    return x


def _multiply(node: Node, a: Shape, b: Shape) -> Shape:
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
    "depthwise_conv1d": _depthwise_conv1d,
    "matmul": _matmul,
    "attention": _attention,
    "add": _add,
    "add_rows": _add_rows,
    "multiply": _multiply,
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

    Raises PhonolithError ``input-too-short`` when a tensor would have no frame, ``input-too-long`` when one has more
    than a table of positions, ``invalid-graph`` when shapes do not fit together.
    """
    shapes, empty = _shapes_until_empty(graph, max(frames, 0)) if frames > 0 else ({}, True)
    if empty is not None:
        raise PhonolithError(
            "input-too-short",
            f"{frames} frames of input leave nothing after the front end of {graph.name!r}.",
            f"Give at least {minimum_frames(graph)} frames.",
        )
    for node in graph.nodes:
        limit = row_limit(node)
        if limit and shapes[node.name][0] > limit:
            raise PhonolithError(
                "input-too-long",
                f"{frames} frames of input are {shapes[node.name][0]} at node {node.name!r} ({node.op}) of "
                f"{graph.name!r}, whose positions are for at most {limit}.",
                f"Give at most {longest_frames(graph, frames)} frames, or quantize the model again with "
                f"--max-frames {shapes[node.name][0]}.",
            )
    return shapes


def row_limit(node: Node) -> int | None:
    """Return the most rows that the positions of a node are for; None when it works on any number.

    Attention over chunks sees no offsets beyond its chunk and those before it.
    """
    if node.op == "add_rows":
        return len(node.constants["rows"])
    if "positions" not in node.constants:
        return None
    limit, attributes = (len(node.constants["positions"]) + 1) // 2, node.attributes
    reach = (attributes.get("left", 0) + 1) * attributes.get("chunk", 0)
    return None if 0 < reach <= limit else limit


def longest_frames(graph: Graph, most: int = MAX_FRAMES) -> int:
    """Return the most input frames, up to ``most``, that no table of positions is too short for."""
    limits = {node.name: row_limit(node) for node in graph.nodes}

    def fits(frames: int) -> bool:
        shapes, _ = _shapes_until_empty(graph, frames)
        return all(shapes[name][0] <= limit for name, limit in limits.items() if limit and name in shapes)

    low, high = (most, most) if fits(most) else (0, most - 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
