"""The whole way from a quantized graph to a program."""

from phonolith.compiler.allocate import Dram
from phonolith.compiler.inspect import node_macs
from phonolith.compiler.ir import Graph, Node
from phonolith.compiler.lower import LOWERINGS
from phonolith.compiler.lower.context import Lowering, place
from phonolith.compiler.lower.copy import copy_tensor
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.program import Program, Region
from phonolith.compiler.shapes import Shape, infer_shapes
from phonolith.compiler.synchronize import synchronize
from phonolith.compiler.views import View
from phonolith.hw.config import MachineConfig

VIEWS = ("slice", "reshape")
Frames = dict[str, tuple[int, int]]


def compile_graph(graph: Graph, config: MachineConfig, frames: int) -> Program:
    """Compile ``graph`` for inputs of ``frames`` time steps.

    Raises the PhonolithErrors of the passes, ``input-too-short``, ``does-not-fit`` (a node needs more on-chip
    memory than there is) and ``unsupported-operator``.
    """
    lowered = lower_graph(graph)  # check, prove sums, fuse
    return generate(lowered, infer_shapes(lowered, frames), config)


def generate(graph: Graph, shapes: dict[str, Shape], config: MachineConfig) -> Program:
    """Return the program of a lowered graph whose inputs and nodes have ``shapes``."""
    ctx = Lowering(config, {}, Dram())
    place_tensors(ctx, graph, shapes)  # where inputs and results are in DRAM
    starts = [len(ctx.emitter)]
    for node in graph.nodes:
        lower_node(ctx, node, shapes[node.name])  # instructions without semaphores
        starts.append(len(ctx.emitter))
    ctx.emitter.end()
    unordered, positions = ctx.emitter.assemble(config)
    words = synchronize(unordered, config)  # semaphores and fences
    regions = tuple(Region(node.name, node.op, positions[start], positions[stop], node_macs(node, shapes))
                    for node, start, stop in zip(graph.nodes, starts, starts[1:], strict=False))
    inputs = {value.name: ctx.views[value.name] for value in graph.inputs}
    tensors = {node.name: ctx.views[node.name] for node in graph.nodes}
    return Program(
        config_hash=config.hash, name=graph.name, words=words, constants=tuple(ctx.constants), inputs=inputs,
        tensors=tensors, outputs=graph.outputs, size=ctx.dram.size, regions=regions,
        temporaries=tuple(ctx.temporaries), zeros=tuple(ctx.dram.zeros), metadata=graph.metadata)


def place_tensors(ctx: Lowering, graph: Graph, shapes: dict[str, Shape]) -> None:
    """Allocate graph inputs and node results, framed by zeros where a convolution pads them."""
    frames = conv_frames(graph)
    dtypes = {value.name: value.dtype for value in graph.inputs}
    dtypes |= {node.name: node.dtype for node in graph.nodes if node.op not in VIEWS}
    for name, dtype in dtypes.items():
        ctx.views[name] = place(ctx.dram, shapes[name], dtype, ctx.config, *frames.get(name, (0, 0)))


def conv_frames(graph: Graph) -> Frames:
    """Return rows and bytes of zeros around each tensor, by the name of the tensor that is stored."""
    frames: Frames = {}
    makers = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        if node.op != "conv2d" or not any(node.attributes["padding"]):
            continue
        root = node.inputs[0]
        while root in makers and makers[root].op == "reshape":
            root = makers[root].inputs[0]
        pad_t, pad_f = node.attributes["padding"]
        rows, size = frames.get(root, (0, 0))
        frames[root] = (max(rows, pad_t), max(size, pad_f * node.constants["weight"].shape[-1]))
    return frames


def lower_node(ctx: Lowering, node: Node, shape: Shape) -> None:
    """Emit a node's instructions, or make its view."""
    ctx.node = node
    if node.op == "slice":
        x = ctx.views[node.inputs[0]]
        ctx.views[node.name] = x.slice(node.attributes["start"], node.attributes["stop"])
    elif node.op == "reshape":
        ctx.views[node.name] = reshaped(ctx, ctx.views[node.inputs[0]], shape)
    else:
        LOWERINGS[node.op](ctx, node)
    if node.op not in VIEWS or ctx.made.intersection(node.inputs):
        ctx.made.add(node.name)


def reshaped(ctx: Lowering, x: View, shape: Shape) -> View:
    """Return a view of ``x`` with other dimensions, of a contiguous copy if need be."""
    view = x.reshape(shape)
    if view is not None:
        return view
    copy = ctx.temporary(x)
    copy_tensor(ctx, x, copy)
    view = copy.reshape(shape)
    assert view is not None
    return view
