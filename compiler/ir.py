"""The integer graph: the seam between quantizers, compiler, golden model and simulators.

Operators and their exact integer semantics are listed in ``docs/graph.md``; the golden model
(:mod:`phonolith.sim.golden`) is their executable definition.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

# numpy's type of each dtype; values of int4 are held in bytes.
DTYPES = {"int4": np.int8, "int8": np.int8, "uint8": np.uint8, "int16": np.int16, "int32": np.int32}
# Lowest and highest value of each dtype.
DTYPE_RANGES = {"int4": (-8, 7), "int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767),
                "int32": (-(1 << 31), (1 << 31) - 1)}
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Value:
    """A graph input: ``[T, *tail]`` elements of ``dtype``; one step is worth ``scale`` (float)."""

    name: str
    dtype: str
    tail: tuple[int, ...]
    scale: float = 1.0


@dataclass(frozen=True)
class Node:
    """One operator; its single output carries the node's name.

    ``inputs`` name graph inputs or earlier nodes; ``constants`` are integer arrays by role
    (``weight``, ``bias``, ...); ``attributes`` are JSON scalars, strings, lists of integers.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    dtype: str
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order. ``metadata`` is JSON: vocabulary, features, provenance, scales."""

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    metadata: dict = field(default_factory=dict)

    def node(self, name: str) -> Node:
        """Return the node called ``name``; KeyError when there is none."""
        return next_or_key_error((n for n in self.nodes if n.name == name), name)

    def consumers(self, name: str) -> list[Node]:
        """Return the nodes that read value ``name``, in order."""
        return [n for n in self.nodes if name in n.inputs]

    def is_only_read_by(self, name: str, reader: Node) -> bool:
        """Tell whether ``reader`` is the one node that reads value ``name``, and ``name`` no graph output."""
        return name not in self.outputs and [n.name for n in self.consumers(name)] == [reader.name]

    def with_nodes(self, nodes) -> "Graph":
        """Return a copy of the graph with other nodes."""
        return replace(self, nodes=tuple(nodes))


def next_or_key_error(items: Iterator, name: str):
    """Return the first item; KeyError naming ``name`` when there is none."""
    for item in items:
        return item
    raise KeyError(name)
