"""``simulate --stream``: one utterance chunk by chunk on the RTL, with the latency of every chunk."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from phonolith.compiler import model_file
from phonolith.compiler.ir import Graph
from phonolith.compiler.stream import compile_stream
from phonolith.hw.config import MachineConfig
from phonolith.models.clips import reference_words
from phonolith.models.features import HOP, SAMPLE_RATE, FeatureStream, load_wav
from phonolith.reports.simulation import costs
from phonolith.sim.ladder import Case, execute_rtl, first_difference, machine
from phonolith.sim.recognise import feature_parameters, quantize_features, transcript
from phonolith.sim.rtl.run import RunResult
from phonolith.sim.stream import ChunkRun, run_chunks
from phonolith.sim.verify import read_inputs

MS_PER_FRAME = 1e3 * HOP / SAMPLE_RATE
# Costs of chunks that add up.
SUMS = ("cycles", "macs", "mac_bits", "engines", "dram_bytes", "energy_uj", "energy_parts_uj", "latency_ms")
SAME = ("energy_note", "area_um2", "area_library", "version")


def simulate_stream(audio: str | os.PathLike, model: str, config: MachineConfig) -> dict:
    """Run ``audio`` through ``model`` chunk by chunk on the simulated RTL and price the run.

    Returns
    -------
    dict
        The keys of :func:`phonolith.reports.simulation.simulate`, for all chunks one after the other, and

        chunks : list of dict
            frames (of input), rows (of output), cycles, latency_ms (from the last frame's arrival to the last id),
            utilisation.
        max_latency_ms : float
        chunk_ms : float
            Of audio from one whole chunk to the next.

    Raises
    ------
    PhonolithError
        ``not-streamable``; ``features``, for a model that normalizes whole utterances; those of ``simulate``.
    """
    graph = model_file.load(model_file.resolve(model))
    stream = compile_stream(graph, config)
    inputs = stream_inputs(graph, Path(audio))
    rtl = machine(config)

    def execute(case: Case) -> tuple[np.ndarray, RunResult]:
        result = execute_rtl(case.program, case.image, rtl, log_writes=True)
        return result.image, result

    started = time.perf_counter()
    runs = list(run_chunks(stream, graph, inputs, execute))
    seconds = time.perf_counter() - started
    frames = len(inputs[graph.inputs[0].name])
    ids = [run.case.program.read(run.outcome.image, graph.outputs[0]) for run in runs]
    difference = first_different_chunk(runs)
    priced = [costs(run.case, run.outcome, config, run.chunk.frames) for run in runs]
    chunks = [described(run, cost, graph) for run, cost in zip(runs, priced, strict=True)]
    return {
        "transcript": " ".join(transcript(graph, np.concatenate(ids))),
        "reference": reference_words(Path(audio)),
        "model": graph.name,
        "frames": frames,
        "chunks": chunks,
        "max_latency_ms": max(chunk["latency_ms"] for chunk in chunks),
        "chunk_ms": stream.rhythm.step * MS_PER_FRAME,
        "bit_exact": difference is None,
        "first_difference": difference,
        "tensors_compared": sum(len(run.case.expected) for run in runs),
        "elements_compared": sum(tensor.size for run in runs for tensor in run.case.expected.values()),
        **total(priced, frames, config),
        "simulated_cycles_per_second": sum(run.outcome.cycles for run in runs)
        / max(sum(run.outcome.cpu_seconds for run in runs), 1e-9),
        "simulation_seconds": seconds,
    }


def stream_inputs(graph: Graph, path: Path) -> dict[str, np.ndarray]:
    """Return the inputs of a recording as a stream has them, or of a features file."""
    if path.suffix == ".npy":
        return read_inputs(graph, path)
    (value,) = graph.inputs
    heard = FeatureStream(feature_parameters(graph)).push(load_wav(path))
    return {value.name: quantize_features(graph, heard)}


def first_different_chunk(runs: list[ChunkRun[RunResult]]) -> dict | None:
    """Return the first difference from the golden model, with the number of its chunk."""
    for run in runs:
        found = first_difference(run.case, "rtl", run.outcome.image, run.outcome.writes)
        if found:
            return {"chunk": run.chunk.number, **found}
    return None


def described(run: ChunkRun[RunResult], cost: dict, graph: Graph) -> dict:
    """Return one chunk's line."""
    rows = run.case.program.tensors[graph.outputs[0]].shape[0]
    return {"frames": run.chunk.frames, "rows": rows,
            **{name: cost[name] for name in ("cycles", "latency_ms", "utilisation")}}


def total(priced: list[dict], frames: int, config: MachineConfig) -> dict:
    """Return the costs of all chunks, as if each began when the one before ended."""
    sums = {name: added([cost[name] for cost in priced]) for name in SUMS}
    return {
        **sums,
        "utilisation": sums["mac_bits"] / 8 / (config.rows * config.columns * sums["cycles"]),
        "layers": layers_of_all(priced),
        "real_time_factor": sums["latency_ms"] / (frames * MS_PER_FRAME),
        **{name: priced[0][name] for name in SAME},
    }


def added(values: list) -> Any:
    """Return the sum of numbers, or of dicts of them, key by key."""
    if isinstance(values[0], dict):
        return {name: added([value[name] for value in values]) for name in values[0]}
    return sum(values)


def layers_of_all(priced: list[dict]) -> list[dict]:
    """Return one dict per node: from its start in the first chunk to its end in the last."""
    before = sum(cost["cycles"] for cost in priced[:-1])
    return [{**same[0], "end": before + same[-1]["end"],
             **added([{name: layer[name] for name in ("macs", "array_busy")} for layer in same])}
            for same in zip(*(cost["layers"] for cost in priced), strict=True)]
