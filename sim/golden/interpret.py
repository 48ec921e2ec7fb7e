"""Interpret an integer graph with the golden operators."""

import numpy as np

from phonolith.compiler.ir import DTYPE_RANGES, DTYPES, Graph, Node, Value
from phonolith.sim.golden.ops import OPERATORS


def check_input(value: Value, array: np.ndarray) -> np.ndarray:
    """Return ``array``; ValueError unless it has dtype, range and tail of the graph input ``value``."""
    if array.dtype != DTYPES[value.dtype] or array.shape[1:] != tuple(value.tail):
        raise ValueError(
            f"input {value.name!r} must be {value.dtype} [T, {', '.join(map(str, value.tail))}], "
            f"not {array.dtype} {list(array.shape)}"
        )
    low, high = DTYPE_RANGES[value.dtype]
    if array.size and not (low <= array.min() and array.max() <= high):
        raise ValueError(f"input {value.name!r} reaches {array.min()} .. {array.max()}; "
                         f"{value.dtype} is {low} .. {high}")
    return array


def apply(node: Node, arguments: list[np.ndarray]) -> np.ndarray:
    """Return the output of ``node`` for its input tensors; ValueError for an unknown operator."""
    if node.op not in OPERATORS:
        raise ValueError(f"node {node.name!r}: unknown operator {node.op!r}")
    try:
        return OPERATORS[node.op](*arguments, dtype=node.dtype, **node.constants, **node.attributes)
    except OverflowError as error:
        raise OverflowError(f"node {node.name!r} ({node.op}): {error}") from None


def interpret(graph: Graph, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every node's output by name, for ``inputs`` by name (integer arrays ``[T, *tail]``)."""
    values = {value.name: check_input(value, inputs[value.name]) for value in graph.inputs}
    outputs = {}
    for node in graph.nodes:
        outputs[node.name] = apply(node, [values[name] for name in node.inputs])
        values[node.name] = outputs[node.name]
    return outputs
