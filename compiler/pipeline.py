"""The whole way from a quantized graph to a program."""

from dataclasses import replace
from itertools import accumulate

import numpy as np

from phonolith.compiler.allocate import Dram
from phonolith.compiler.assembler import Item, assemble
from phonolith.compiler.counts import Count, Size
from phonolith.compiler.inspect import node_mac_bits, node_macs
from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.lower.context import Lowering, place, place_blocked, place_channels, place_nibbles
from phonolith.compiler.lower.depthwise import is_banded
from phonolith.compiler.nibbles import pairs_of
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.prefetch import VIEWS
from phonolith.compiler.program import Program, Region
from phonolith.compiler.registers import with_registers
from phonolith.compiler.schedule import emit_nodes
from phonolith.compiler.shapes import Shape, check_frames, infer_shapes
from phonolith.compiler.synchronize import synchronize
from phonolith.compiler.views import BlockedView, View
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError

Frames = dict[str, tuple[int, int]]
# Where a program goes on that has nothing to do.
END = "end"


def compile_graph(graph: Graph, config: MachineConfig, frames: int) -> Program:
    """Compile ``graph`` for inputs of at most ``frames`` time steps; the result is set to inputs of just as many.

    Raises the PhonolithErrors of the passes, ``input-too-short``, ``input-too-long``, ``does-not-fit`` (a node needs
    more on-chip memory than there is) and ``unsupported-operator``.
    """
    check_frames(graph, frames)
    lowered = lower_graph(graph)  # check, prove sums, fuse
    return generate(lowered, infer_shapes(lowered, Count(Size(frames))), config, frames)


def generate(graph: Graph, shapes: dict[str, Shape], config: MachineConfig, frames: int | None = None) -> Program:
    """Return the program of a lowered graph whose inputs and nodes have ``shapes``.

    ``frames``: the length of inputs that is the program's argument; without it, all counts in ``shapes`` are fixed.
    """
    return finish(emit(graph, shapes, config), graph, shapes, frames)


def finish(ctx: Lowering, graph: Graph, shapes: dict[str, Shape], frames: int | None = None) -> Program:
    """Return the program of what has been emitted: instructions without semaphores."""
    config = ctx.config
    ctx.emitter.owner = "END"
    ctx.emitter.label(END)
    ctx.emitter.end()
    unordered, positions = assemble_counts(ctx.emitter.items, config)
    words = synchronize(unordered, config, () if frames is None else (frames,))  # semaphores and fences
    inputs = {value.name: ctx.views[value.name].longest() for value in graph.inputs}
    tensors = {node.name: ctx.views[node.name].longest() for node in graph.nodes}
    return Program(
        config_hash=config.hash, name=graph.name, words=words, constants=tuple(ctx.constants), inputs=inputs,
        frames=frames, length=frames,
        tensors=tensors, outputs=graph.outputs, size=ctx.dram.size,
        regions=regions(graph, shapes, ctx.emitter.owners, positions), unfolded=tuple(ctx.unfolded),
        temporaries=tuple(view.longest() for view in ctx.temporaries), zeros=tuple(ctx.dram.zeros),
        metadata=graph.metadata)


def for_frames(program: Program, graph: Graph, frames: int) -> Program:
    """Return a program set to inputs of ``frames`` time steps; its words and memory stay the same.

    Raises PhonolithError: ``wrong-program`` if it was not compiled from ``graph``, ``input-too-long`` if the inputs it
    was compiled for are shorter, ``input-too-short``.
    """
    lowered = lower_graph(graph)
    if [node.name for node in lowered.nodes] != [region.node for region in program.regions] or program.frames is None:
        raise PhonolithError("wrong-program", f"program {program.name!r} does not compute model {graph.name!r}.",
                             "Compile it from this model, or choose the model it was compiled from.")
    if frames > program.frames:
        raise PhonolithError(
            "input-too-long", f"{frames} frames of input; program {program.name!r} was compiled for at most "
            f"{program.frames}.", f"Compile it with --frames {frames} or more.")
    return set_length(program, lowered, frames)


def set_length(program: Program, lowered: Graph, frames: int) -> Program:
    """Return the program of a lowered graph set to inputs of ``frames`` time steps, at most those it is made for."""
    shapes = infer_shapes(lowered, frames)
    dtypes = dtypes_of(lowered)
    regions = tuple(replace(region, macs=node_macs(node, shapes), mac_bits=node_mac_bits(node, shapes, dtypes))
                    for region, node in zip(program.regions, lowered.nodes, strict=True))
    return replace(program, length=frames, regions=regions, inputs=with_shapes(program.inputs, shapes),
                   tensors=with_shapes(program.tensors, shapes))


def with_shapes(views: dict[str, View], shapes: dict[str, Shape]) -> dict[str, View]:
    """Return tensors of other sizes in the same places."""
    return {name: replace(view, shape=shapes[name]) for name, view in views.items()}


def emit(graph: Graph, shapes: dict[str, Shape], config: MachineConfig) -> Lowering:
    """Return the state after the instructions of all nodes."""
    ctx = Lowering(config, {}, Dram())
    place_tensors(ctx, graph, shapes)  # where inputs and results are in DRAM
    emit_nodes(ctx, graph, shapes)
    return ctx


def assemble_counts(items: list[Item], config: MachineConfig) -> tuple[np.ndarray, list[int]]:
    """Encode a program whose operands may be counts; return its words and the first word of each item."""
    groups = list(with_registers(items, END))
    words, positions = assemble([item for group in groups for item in group], config)
    firsts = accumulate((len(group) for group in groups[:-1]), initial=0)
    return words, [positions[first] for first in firsts]


def place_tensors(ctx: Lowering, graph: Graph, shapes: dict[str, Shape],
                  history: dict[str, int] | None = None) -> None:
    """Allocate graph inputs and node results, framed by zeros where a convolution pads them.

    ``history``: rows in front of tensors that stay from run to run, zeros at first. What depthwise convolutions alone
    read of the host is stored channel by channel, what linear layers alone read of depthwise convolutions in blocks of
    steps, and tensors of 4 bits two to a byte.
    """
    frames = conv_frames(graph)
    for name, rows in (history or {}).items():
        framed, size = frames.get(name, (0, 0))
        frames[name] = (max(rows, framed), size)
    banded = {node.name for node in graph.nodes if node.op == "depthwise_conv1d" and is_banded(node, ctx.config)}
    ctx.inputs = {value.name for value in graph.inputs}
    for value in graph.inputs:
        rows, size = frames.get(value.name, (0, 0))
        if graph.consumers(value.name) and {node.name for node in graph.consumers(value.name)} <= banded:
            ctx.views[value.name] = place_channels(ctx.dram, shapes[value.name], value.dtype, ctx.config, rows)
        else:
            place_tensor(ctx, graph, value, shapes, (rows, size))
    for node in graph.nodes:
        if node.name in banded and reads_rows_only(graph, node.name):
            ctx.views[node.name] = place_blocked(ctx.dram, shapes[node.name], node.dtype, ctx.config)
        elif node.op not in VIEWS:
            turned = any(isinstance(ctx.views.get(name), BlockedView) for name in node.inputs)
            place_tensor(ctx, graph, node, shapes, frames.get(node.name, (0, 0)), turned)


def place_tensor(ctx: Lowering, graph: Graph, tensor: Value | Node, shapes: dict[str, Shape], frame: tuple[int, int],
                 turned: bool = False) -> None:
    """Allocate a tensor row by row, one of 4 bits two to a byte where its readers can have that.

    ``turned``: see :func:`pairs_of`.
    """
    shape = shapes[tensor.name]
    pairs = pairs_of(graph, tensor, shapes, ctx.config, turned)
    ctx.views[tensor.name] = (place_nibbles(ctx.dram, shape, ctx.config, pairs, frame[0]) if pairs else
                              place(ctx.dram, shape, tensor.dtype, ctx.config, *frame))


def reads_rows_only(graph: Graph, name: str) -> bool:
    """Tell whether linear layers alone read a tensor, as the rows of their product."""
    return all(node.op == "linear" and name not in node.inputs[1:] for node in graph.consumers(name))


def conv_frames(graph: Graph) -> Frames:
    """Return rows and bytes of zeros around each tensor, by the name of the tensor that is stored."""
    frames: Frames = {}
    for node in graph.nodes:
        if node.op not in ("conv2d", "depthwise_conv1d") or not any(node.attributes["padding"]):
            continue
        root = stored(graph, node.inputs[0], ("reshape",))
        rows, size = frames.get(root, (0, 0))
        if node.op == "conv2d":
            pad_t, pad_f = node.attributes["padding"]
            frames[root] = (max(rows, pad_t), max(size, pad_f * node.constants["weight"].shape[-1]))
        else:
            frames[root] = (max(rows, *node.attributes["padding"]), size)
    return frames


def stored(graph: Graph, name: str, views: tuple[str, ...] = VIEWS) -> str:
    """Return the tensor that ``name`` is a view of, through operators ``views``; itself if it is none."""
    makers = {node.name: node for node in graph.nodes}
    while name in makers and makers[name].op in views:
        name = makers[name].inputs[0]
    return name


def regions(graph: Graph, shapes: dict[str, Shape], owners: list[str], positions: list[int]) -> tuple[Region, ...]:
    """Return the word ranges of every node from the owners and first words of the emitted instructions."""
    edges = [0, *(i for i in range(1, len(owners)) if owners[i] != owners[i - 1]), len(owners) - 1]
    parts: dict[str, list[tuple[int, int]]] = {}
    for first, behind in zip(edges, edges[1:], strict=False):
        parts.setdefault(owners[first], []).append((positions[first], positions[behind]))
    dtypes = dtypes_of(graph)
    return tuple(Region(node.name, node.op, node_macs(node, shapes), node_mac_bits(node, shapes, dtypes),
                        tuple(parts.get(node.name, ()))) for node in graph.nodes)


def dtypes_of(graph: Graph) -> dict[str, str]:
    """Return the dtype of every tensor of a graph."""
    return {each.name: each.dtype for each in (*graph.inputs, *graph.nodes)}
