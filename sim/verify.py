"""``verify``: golden model = instruction-set simulator = RTL, on every tensor."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from phonolith.compiler import model_file
from phonolith.compiler.disassembler import disassemble
from phonolith.compiler.ir import Graph
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.random_conformers import ALL_BLOCKS, random_conformer
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.models.data import StringMaker, evaluation_recordings
from phonolith.models.features import features, wav_features
from phonolith.sim.coverage import Coverage
from phonolith.sim.iss import Machine
from phonolith.sim.ladder import Case, execute_rtl, first_difference, machine, make_case
from phonolith.sim.program_case import ProgramCase
from phonolith.sim.program_check import check, describe_difference
from phonolith.sim.random_programs import random_program
from phonolith.sim.recognise import feature_parameters, quantize_features
from phonolith.sim.rtl.run import RtlMachine
from phonolith.sim.shrink import Shrinker

RUNGS = ("golden", "iss", "rtl")
WAVES_AROUND = 200
RTL_CYCLES = 2_000_000_000
SHRINK_SECONDS = 120.0

Inputs = dict[str, np.ndarray]


def verify_cases(cases: Iterable[tuple[str, Graph, Inputs]], config: MachineConfig,
                 rungs: Sequence[str] = RUNGS, stalls: bool = False, waves: Path | None = None) -> dict:
    """Run named (graph, inputs) on the chosen rungs and compare all tensors with the golden model.

    With ``stalls`` the RTL's AXI channels are held up at random, each case in its own way. Returns the contract's keys:
    checked, failed, coverage, first_difference (with the case's name), and tensors_compared. ``waves`` is the VCD file
    for the cycles around the first difference, should it be on RTL.
    """
    coverage = Coverage()
    checked = failed = tensors = 0
    difference = None
    for name, graph, inputs in cases:
        for node in lower_graph(graph).nodes:
            coverage.node(node)
        case = make_case(graph, inputs, config)
        stalls_seed = checked if stalls else None
        found = climb(case, config, rungs, coverage, stalls_seed)
        if found and waves and not difference and found["cycle"] is not None:
            found |= {"waves": str(waves), "waves_cycles": record(case, config, found["cycle"], waves, stalls_seed)}
        checked += 1
        tensors += len(case.expected)
        if found:
            failed += 1
            difference = difference or {"case": name, **found}
    return {"checked": checked, "failed": failed, "tensors_compared": tensors, "rungs": list(rungs),
            "coverage": coverage.as_dict(), "first_difference": difference}


def climb(case: Case, config: MachineConfig, rungs: Sequence[str], coverage: Coverage,
          stalls_seed: int | None = None) -> dict | None:
    """Compare one case rung by rung; return the first difference."""
    simulator = Machine(case.program.words, case.image.copy(), config, case.program.arguments, coverage.retire)
    simulator.run()
    if "iss" in rungs:
        difference = first_difference(case, "iss", simulator.state.dram)
        if difference:
            return difference
    if "rtl" not in rungs:
        return None
    result = execute_rtl(case.program, case.image, machine(config), log_writes=True, max_cycles=RTL_CYCLES,
                         stalls_seed=stalls_seed)
    coverage.stall(result.engines)
    return first_difference(case, "rtl", result.image, result.writes)


def record(case: Case, config: MachineConfig, cycle: int, path: Path, stalls_seed: int | None = None) -> list[int]:
    """Run a case again and write the waveforms around a cycle; return the first and the last cycle shown."""
    window = max(cycle - WAVES_AROUND, 0), cycle + WAVES_AROUND
    watched = RtlMachine(config, waves=path, window=window)
    execute_rtl(case.program, case.image, watched, max_cycles=RTL_CYCLES, stalls_seed=stalls_seed)
    watched.close()
    return list(window)


def verify_utterances(paths: Sequence[str | os.PathLike], model: str, config: MachineConfig,
                      rungs: Sequence[str] = RUNGS, waves: Path | None = None) -> dict:
    """Verify a model on audio files, or on int8 or float features in ``.npy`` files."""
    return verify_cases(utterance_cases(paths, model), config, rungs, waves=waves)


def utterance_cases(paths: Sequence[str | os.PathLike], model: str) -> Iterator[tuple[str, Graph, Inputs]]:
    """Yield audio or features files as cases."""
    graph = model_file.load(model_file.resolve(model))
    for path in map(Path, paths):
        yield path.name, graph, read_inputs(graph, path)


def read_inputs(graph: Graph, path: Path) -> Inputs:
    """Return a graph's inputs from a recording or a features file."""
    (value,) = graph.inputs
    if path.suffix != ".npy":
        return {value.name: quantize_features(graph, wav_features(path, feature_parameters(graph)))}
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
                   rungs: Sequence[str] = RUNGS, seed: int = 0, waves: Path | None = None) -> dict:
    """Verify a model on digit strings made of the test takes of a recordings folder."""
    return verify_cases(string_cases(data, strings, model, seed), config, rungs, waves=waves)


def string_cases(data: str | os.PathLike, strings: int, model: str,
                 seed: int = 0) -> Iterator[tuple[str, Graph, Inputs]]:
    """Yield test strings of a recordings folder as cases."""
    graph = model_file.load(model_file.resolve(model))
    parameters = feature_parameters(graph)
    for string in StringMaker(evaluation_recordings(data), seed).strings(strings):
        frames = quantize_features(graph, features(string.samples, parameters=parameters))
        yield " ".join(string.words), graph, {graph.inputs[0].name: frames}


def verify_random(kind: str, count: int, config: MachineConfig, seed: int = 0, rungs: Sequence[str] = RUNGS,
                  stalls: bool = False, waves: Path | None = None, bits: int | str | None = "any",
                  scheme: str | None = None) -> dict:
    """Verify ``count`` random graphs, Conformers or instruction streams (``kind`` program), from ``seed`` on.

    ``bits`` and ``scheme`` are those of the weights of graphs and Conformers
    (:class:`phonolith.compiler.random_weights.WeightChoice`).
    """
    if kind == "program":
        return verify_programs(count, config, seed, stalls)
    return verify_cases(RANDOM_CASES[kind](count, seed, bits, scheme), config, rungs, stalls, waves)


def graph_cases(count: int, seed: int, bits: int | str | None = "any",
                scheme: str | None = None) -> Iterator[tuple[str, Graph, Inputs]]:
    """Yield random graphs with random inputs as cases."""
    for each in range(seed, seed + count):
        yield f"seed {each}", *random_graph(each, ALL_BLOCKS, bits, scheme)


def conformer_cases(count: int, seed: int, bits: int | str | None = "any",
                    scheme: str | None = None) -> Iterator[tuple[str, Graph, Inputs]]:
    """Yield random Conformers with random inputs as cases."""
    for each in range(seed, seed + count):
        yield f"seed {each}", *random_conformer(each, bits, scheme)


RANDOM_CASES = {"graph": graph_cases, "conformer": conformer_cases}


def verify_programs(count: int, config: MachineConfig, seed: int = 0, stalls: bool = False,
                    shrink_seconds: float = SHRINK_SECONDS) -> dict:
    """Run random programs on instruction-set simulator and RTL; compare all of DRAM and on-chip memory.

    Programs of odd seeds, with ``stalls`` all, meet random stalls on every AXI channel. The first that fails is reduced
    to its smallest. Returns the keys of :func:`verify_cases`, with ``memories_compared``; see :func:`describe_program`.
    """
    coverage, rtl = Coverage(), machine(config)
    failing = []
    for each in range(seed, seed + count):
        case, stalls_seed = random_program(each, config), each if stalls or each % 2 else None
        if check(case, rtl, stalls_seed, coverage):
            failing.append((case, stalls_seed))
    difference = None
    if failing:
        case, stalls_seed = failing[0]
        smallest = Shrinker(config, lambda smaller: check(smaller, rtl, stalls_seed) is not None,
                            shrink_seconds).shrink(case)
        difference = {"case": f"seed {case.seed}", "stalls_seed": stalls_seed,
                      **describe_program(case, rtl, stalls_seed),
                      "smallest": {**describe_program(smallest, rtl, stalls_seed),
                                   "program": disassemble(smallest.words)[1:]}}
    return {"checked": count, "failed": len(failing), "memories_compared": count * (1 + len(rtl.memories())),
            "rungs": ["iss", "rtl"], "coverage": coverage.as_dict(), "first_difference": difference}


def describe_program(case: ProgramCase, rtl: RtlMachine, stalls_seed: int | None) -> dict:
    """Return where a program's RTL first differs from the instruction-set simulator: the contract's keys."""
    found = check(case, rtl, stalls_seed, log_writes=True)
    return describe_difference(case, rtl.config, found) if found else {"rung": "rtl", "tensor": None}
