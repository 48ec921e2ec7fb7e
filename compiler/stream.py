"""Streams: one program per chunk of an utterance, its state in DRAM (``docs/streaming.md``).

A chunk is a short utterance whose tensors have some rows of the chunk before in front of them. How many of these there
are grows over the first chunks, so there is a program for every number of chunks of context; all have their tensors in
the same places, and share their constants.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from phonolith.compiler.allocate import Dram
from phonolith.compiler.counts import Count, Size
from phonolith.compiler.ir import Graph, Node
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.copy import copy_tensor
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.pipeline import finish, place_tensors, set_length
from phonolith.compiler.program import Program
from phonolith.compiler.rhythm import Rhythm, rhythm_of
from phonolith.compiler.schedule import emit_nodes
from phonolith.compiler.shapes import infer_shapes
from phonolith.compiler.views import Pairs, View
from phonolith.hw.config import MachineConfig


@dataclass(frozen=True)
class Chunk:
    """One chunk of an utterance: ``frames`` input frames from number ``first`` on, and its program, set to them."""

    number: int
    first: int
    frames: int
    program: Program


@dataclass(frozen=True)
class Stream:
    """A model that runs chunk by chunk on one DRAM image.

    Attributes
    ----------
    graphs : tuple of Graph
        The lowered graph of each program: with 0, 1, 2, ... chunks of context.
    programs : tuple of Program
        All of one size, with the constants of all.
    rhythm : Rhythm
    """

    graphs: tuple[Graph, ...]
    programs: tuple[Program, ...]
    rhythm: Rhythm

    def chunks(self, frames: int) -> Iterator[Chunk]:
        """Yield the chunks of an utterance of ``frames`` input frames; PhonolithError ``input-too-short``."""
        infer_shapes(self.graphs[0], frames)
        rhythm = self.rhythm
        for number in range(rhythm.chunks(frames)):
            context, first = min(number, rhythm.left), number * rhythm.step
            count = min(frames - first, rhythm.frames)
            yield Chunk(number, first, count, set_length(self.programs[context], self.graphs[context], count))

    def rows(self, chunk: Chunk, name: str) -> slice:
        """Return which rows of a whole utterance's tensor a chunk's tensor holds."""
        start = chunk.first // self.rhythm.rates[name]
        return slice(start, start + chunk.program.tensors[name].shape[0])

    def image(self, canary_seed: int | None = None) -> np.ndarray:
        """Return the DRAM image before the first chunk, without input; see :meth:`Program.image`."""
        return replace(self.programs[0], inputs={}, unfolded=()).image({}, canary_seed)


class StreamLowering(Lowering):
    """State of code generation for one of a stream's programs: constants of the others need not be there again."""

    def __init__(self, config: MachineConfig, known: dict[bytes, int]):
        super().__init__(config, {}, Dram())
        self.known = known

    def constant(self, data: np.ndarray) -> int:
        content = data.tobytes()
        if content not in self.known:
            self.known[content] = super().constant(data)
        return self.known[content]


def compile_stream(graph: Graph, config: MachineConfig) -> Stream:
    """Compile ``graph`` to run chunk by chunk.

    Raises the PhonolithErrors of :func:`phonolith.compiler.pipeline.compile_graph` and ``not-streamable``.
    """
    lowered = lower_graph(graph)
    rhythm = rhythm_of(lowered)
    graphs = tuple(with_context(lowered, context) for context in range(rhythm.left + 1))
    known: dict[bytes, int] = {}
    programs: list[Program] = []
    for variant in graphs:
        programs.append(compile_chunk(variant, rhythm, config, known, programs[-1].size if programs else 0))
    constants = tuple(constant for program in programs for constant in program.constants)
    zeros = tuple(dict.fromkeys(interval for program in programs for interval in program.zeros))
    return Stream(graphs, tuple(replace(program, size=programs[-1].size, constants=constants, zeros=zeros)
                                for program in programs), rhythm)


def with_context(graph: Graph, context: int) -> Graph:
    """Return a lowered graph whose attention sees ``context`` chunks in front of its first row, if it may."""

    def changed(node: Node) -> Node:
        if node.op != "attention":
            return node
        before = min(context, node.attributes.get("left", 0)) * node.attributes["chunk"]
        return replace(node, attributes=node.attributes | {"before": before})

    return graph.with_nodes(changed(node) for node in graph.nodes)


def compile_chunk(graph: Graph, rhythm: Rhythm, config: MachineConfig, known: dict[bytes, int], behind: int) -> Program:
    """Return the program of a chunk; what it does not share with others lies at DRAM address ``behind`` or later."""
    ctx = StreamLowering(config, known)
    shapes = infer_shapes(graph, Count(Size(rhythm.frames)))
    place_tensors(ctx, graph, shapes, rhythm.history)
    ctx.dram.size = max(ctx.dram.size, behind)
    emit_nodes(ctx, graph, shapes)
    keep_history(ctx, rhythm)
    return finish(ctx, graph, shapes, rhythm.frames)


def keep_history(ctx: Lowering, rhythm: Rhythm) -> None:
    """Move the last rows of each tensor that is looked back at to where the next chunk looks for them."""
    ctx.emitter.owner = "HISTORY"
    for name, rows in rhythm.history.items():
        tensor = ctx.views[name].as_bytes()
        together = 2 if getattr(ctx.views[name], "pairs", None) == Pairs.ROWS else 1
        pitch, size = tensor.strides[0], math.prod(tensor.shape[1:]) * tensor.itemsize
        history = View(tensor.address - rows // together * pitch, (rows // together, size), (pitch, 1), "int8")
        ctx.temporaries.append(history)
        copy_tensor(ctx, replace(history, address=history.address + rhythm.chunk // together * pitch), history)
