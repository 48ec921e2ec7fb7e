"""``verify``: golden model = instruction-set simulator = RTL, on every tensor."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from phonolith.compiler import model_file
from phonolith.compiler.ir import Graph
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.models.data import StringMaker, evaluation_recordings
from phonolith.models.features import features, wav_features
from phonolith.sim.coverage import Coverage
from phonolith.sim.iss import Machine
from phonolith.sim.ladder import Case, execute_rtl, first_difference, machine, make_case
from phonolith.sim.recognise import quantize_features

RUNGS = ("golden", "iss", "rtl")
RTL_CYCLES = 2_000_000_000

Inputs = dict[str, np.ndarray]


def verify_cases(cases: Iterable[tuple[str, Graph, Inputs]], config: MachineConfig,
                 rungs: Sequence[str] = RUNGS) -> dict:
    """Run named (graph, inputs) on the chosen rungs and compare all tensors with the golden model.

    Returns the contract's keys: checked, failed, coverage, first_difference (with the case's name), and
    tensors_compared.
    """
    coverage = Coverage()
    checked = failed = tensors = 0
    difference = None
    for name, graph, inputs in cases:
        case = make_case(graph, inputs, config)
        found = climb(case, config, rungs, coverage)
        checked += 1
        tensors += len(case.expected)
        if found:
            failed += 1
            difference = difference or {"case": name, **found}
    return {"checked": checked, "failed": failed, "tensors_compared": tensors, "rungs": list(rungs),
            "coverage": coverage.as_dict(), "first_difference": difference}


def climb(case: Case, config: MachineConfig, rungs: Sequence[str], coverage: Coverage) -> dict | None:
    """Compare one case rung by rung; return the first difference."""
    simulator = Machine(case.program.words, case.image.copy(), config, on_retire=coverage.retire)
    simulator.run()
    if "iss" in rungs:
        difference = first_difference(case, "iss", simulator.state.dram)
        if difference:
            return difference
    if "rtl" not in rungs:
        return None
    result = execute_rtl(case.program, case.image, machine(config), log_writes=True, max_cycles=RTL_CYCLES)
    coverage.stall(result.engines)
    return first_difference(case, "rtl", result.image, result.writes)


def verify_utterances(paths: Sequence[str | os.PathLike], model: str, config: MachineConfig,
                      rungs: Sequence[str] = RUNGS) -> dict:
    """Verify a model on audio files, or on int8 or float features in ``.npy`` files."""
    graph = model_file.load(model_file.resolve(model))
    cases = ((Path(path).name, graph, read_inputs(graph, Path(path))) for path in paths)
    return verify_cases(cases, config, rungs)


def read_inputs(graph: Graph, path: Path) -> Inputs:
    """Return a graph's inputs from a recording or a features file."""
    (value,) = graph.inputs
    if path.suffix != ".npy":
        return {value.name: quantize_features(graph, wav_features(path))}
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise PhonolithError("audio", f"cannot read features from {path}: {error}.",
                             f"Give a .npy file of int8 or float {[-1, *value.tail]} features.") from error
    if array.shape[1:] != tuple(value.tail) or array.dtype.kind not in "if" or array.size == 0:
        raise PhonolithError("audio", f"{path} holds {array.dtype} {list(array.shape)}.",
                             f"Features must be int8 (in steps of the model's scale) or float {[-1, *value.tail]}.")
    return {value.name: array if array.dtype == np.int8 else quantize_features(graph, array)}


def verify_strings(data: str | os.PathLike, strings: int, model: str, config: MachineConfig,
                   rungs: Sequence[str] = RUNGS, seed: int = 0) -> dict:
    """Verify a model on digit strings made of the test takes of a recordings folder."""
    graph = model_file.load(model_file.resolve(model))
    return verify_cases(string_cases(graph, data, strings, seed), config, rungs)


def string_cases(graph: Graph, data: str | os.PathLike, strings: int, seed: int) -> Iterator[tuple[str, Graph, Inputs]]:
    """Yield test strings of a recordings folder as cases."""
    for string in StringMaker(evaluation_recordings(data), seed).strings(strings):
        frames = quantize_features(graph, features(string.samples))
        yield " ".join(string.words), graph, {graph.inputs[0].name: frames}


def verify_random(kind: str, count: int, config: MachineConfig, seed: int = 0,
                  rungs: Sequence[str] = RUNGS) -> dict:
    """Verify ``count`` random integer graphs, with seeds from ``seed`` on."""
    if kind != "graph":
        raise ValueError(f"kind must be 'graph', not {kind!r}")
    cases = ((f"seed {each}", *random_graph(each)) for each in range(seed, seed + count))
    return verify_cases(cases, config, rungs)
