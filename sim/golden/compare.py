"""Compare the interpretations of two graphs."""

from dataclasses import dataclass

import numpy as np

from phonolith.compiler.ir import Graph
from phonolith.sim.golden.interpret import interpret


@dataclass(frozen=True)
class Difference:
    """First element at which two tensors differ; index () when dtypes or shapes do."""

    tensor: str
    index: tuple[int, ...]
    expected: int | str
    actual: int | str


def compare_tensors(name: str, expected: np.ndarray, actual: np.ndarray) -> Difference | None:
    """Return the first difference in row-major order, or None."""
    if expected.dtype != actual.dtype or expected.shape != actual.shape:
        return Difference(name, (), f"{expected.dtype} {expected.shape}", f"{actual.dtype} {actual.shape}")
    where = np.argwhere(expected != actual)
    if not len(where):
        return None
    index = tuple(int(i) for i in where[0])
    return Difference(name, index, int(expected[index]), int(actual[index]))


def compare_graphs(before: Graph, after: Graph, inputs: dict[str, np.ndarray]) -> list[Difference]:
    """Return one difference for each tensor of ``after`` that is not bit for bit that of ``before``.

    Passes may remove tensors, never rename or add them; the graph outputs must survive.
    """
    expected, actual = interpret(before, inputs), interpret(after, inputs)
    lost = [name for name in before.outputs if name not in actual and name in expected]
    differences = [Difference(name, (), "an output", "missing") for name in lost]
    for name, tensor in actual.items():
        if name not in expected:
            differences.append(Difference(name, (), "no such tensor", str(tensor.shape)))
        elif difference := compare_tensors(name, expected[name], tensor):
            differences.append(difference)
    return differences
