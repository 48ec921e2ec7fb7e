"""A model chunk by chunk on one DRAM image, each chunk against the rows of the same model run whole."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from phonolith.compiler.ir import Graph
from phonolith.compiler.stream import Chunk, Stream
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import CANARY_SEED, Case

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class ChunkRun(Generic[Outcome]):
    """One chunk: what was to be computed, and what running it returned."""

    chunk: Chunk
    case: Case
    outcome: Outcome


def run_chunks(stream: Stream, graph: Graph, inputs: dict[str, np.ndarray],
               execute: Callable[[Case], tuple[np.ndarray, Outcome]]) -> Iterator[ChunkRun[Outcome]]:
    """Run an utterance; only input, program and its argument change between chunks.

    ``execute`` runs a case and returns the DRAM image that it leaves, and anything else. The golden model interprets
    ``graph``, as it stands in the file, on the whole utterance. PhonolithError ``input-too-short``.
    """
    chunks = list(stream.chunks(len(next(iter(inputs.values())))))
    values = interpret(graph, inputs)
    image = stream.image(CANARY_SEED)
    for chunk in chunks:
        image = image.copy()
        chunk.program.put_inputs(image, {name: x[chunk.first:][:chunk.frames] for name, x in inputs.items()})
        expected = {name: values[name][stream.rows(chunk, name)] for name in chunk.program.tensors}
        case = Case(chunk.program, image, expected)
        after, outcome = execute(case)
        yield ChunkRun(chunk, case, outcome)
        image = after[:len(image)]
