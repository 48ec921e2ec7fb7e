"""Post-training quantization: float graph and calibration data in, integer graph out."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from phonolith.compiler.calibrate import observe
from phonolith.compiler.float_graph import FloatGraph
from phonolith.compiler.float_passes import simplify, split_keys
from phonolith.compiler.integerize import MAX_FRAMES, Integerizer
from phonolith.compiler.ir import Graph
from phonolith.compiler.mixed_precision import (
    Budget,
    NodeCost,
    assign_bits,
    check_budget,
    layer_costs,
    node_bytes,
    sensitivities,
)
from phonolith.compiler.model_file import save
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.quantization import Quantization, inner_linears, layer_schemes, module_quantizers
from phonolith.compiler.tensor_types import choose_types
from phonolith.compiler.weight_quantizer import WIDTHS
from phonolith.hw.errors import PhonolithError
from phonolith.models.config import ModelConfig
from phonolith.models.data import GENERATOR_VERSION, StringMaker, training_recordings
from phonolith.models.families import random_model, read_spec
from phonolith.models.features import FeatureParameters, features

# Calibration strings are not those that training saw first.
CALIBRATION_SEED = 20_000
EXAMPLE_FRAMES = 64
# Of the utterance that a budget is for; and the strings that sensitivities are measured on.
BUDGET_FRAMES = 100
MEASURED_STRINGS = 12
# Of training with rounded weights.
LEARNING_RATE = 1e-3


def quantize(
    graph: FloatGraph,
    calibration: Iterable[np.ndarray],
    options: Quantization | None = None,
    name: str | None = None,
    metadata: dict | None = None,
) -> Graph:
    """Return the integer graph of ``graph``.

    Parameters
    ----------
    calibration : float32 arrays ``[T, *tail]``, representative inputs.
    options : widths, schemes, and how ranges are chosen; 8 bits by default.
    name, metadata : of the graph; ``input_scale`` and ``scales`` are added.

    Raises PhonolithError: ``option`` for layers that there are not, ``weights`` for such that are not finite,
    ``calibration``, and those of the passes.
    """
    options = options or Quantization()
    graph = prepare(graph, options)
    schemes = layer_schemes(graph, options)
    observed = observe(graph, calibration)
    types = choose_types(graph, observed, options.rule, options.kv_bits)
    integers = Integerizer(graph, types, observed, options.rule, schemes, options.softmax_bits, options.max_frames)
    result = integers.run(name or graph.name, metadata or {})
    lower_graph(result)
    return result


def prepare(graph: FloatGraph, options: Quantization) -> FloatGraph:
    """Return the float graph whose nodes become integer nodes."""
    graph = simplify(graph)
    return split_keys(graph) if options.kv_bits == 4 else graph


def calibration_features(data: str | os.PathLike[str], strings: int, seed: int,
                         parameters: FeatureParameters) -> list[np.ndarray]:
    """Return the features of strings of training recordings, every other one with 20 dB of noise."""
    recordings = training_recordings(data)
    makers = [StringMaker(recordings, CALIBRATION_SEED + seed, snr) for snr in (None, 20.0)]
    return [features(makers[i % 2].string(i).samples, parameters=parameters) for i in range(strings)]


def noise_features(strings: int, mels: int, seed: int, frames: int = 200) -> list[np.ndarray]:
    """Return features of no speech: noise smoothed over 50 ms, unit variance; for random weights."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((strings, frames + 4, mels))
    smooth = np.lib.stride_tricks.sliding_window_view(noise, 5, axis=1).sum(axis=-1)
    return list((smooth / smooth.std()).astype(np.float32))


def import_encoder(model, name: str) -> FloatGraph:
    """Return the float graph of a torch model of one of ``models/families.py``."""
    import torch

    from phonolith.compiler.frontend import import_module

    return import_module(model, torch.zeros(1, EXAMPLE_FRAMES, model.config.mels), name)


def encoder_metadata(config: ModelConfig, parameters: FeatureParameters, provenance: dict, bits: int = 8) -> dict:
    """Return the metadata of a model file: what the host must know, and what the model is."""
    return {"vocabulary": list(config.vocabulary), "features": parameters.as_dict(), "family": config.family,
            "parameters": config.counts, "bits": bits, "provenance": provenance}


@dataclass(frozen=True)
class FineTuning:
    """Training of the float model with fake-quantized weights, before it is quantized.

    Parameters
    ----------
    steps : of training; 0 for none.
    activations : round what the layers read, too.
    learning_rate : at its highest.
    """

    steps: int = 0
    activations: bool = False
    learning_rate: float = LEARNING_RATE

    def flags(self) -> str:
        """Return it as options of ``phonolith quantize``."""
        if not self.steps:
            return ""
        rate = f" --learning-rate {self.learning_rate:g}" if self.learning_rate != LEARNING_RATE else ""
        return f"--train-steps {self.steps}{rate}{' --train-activations' if self.activations else ''}"


def quantize_checkpoint(
    checkpoint: str | os.PathLike[str],
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    calibrate: int = 64,
    seed: int = 0,
    options: Quantization | None = None,
    training: FineTuning | None = None,
    budget: Budget | None = None,
    cost: NodeCost = node_bytes,
) -> dict:
    """Quantize a float checkpoint with training recordings and write the model file. Needs torch.

    With a budget, in units of ``cost``, the width of every layer is chosen first (:func:`assign`); with training, the
    float model then learns to live with the widths.

    Returns model, output, bits, scheme, block, clip, softmax_bits, kv_bits, calibration strings, training steps, nodes,
    bytes, seconds; with a budget layer_bits.
    """
    from phonolith.models.checkpoint import check_writable, load_model

    started = time.perf_counter()
    check_writable(output)
    options, training = options or Quantization(), training or FineTuning()
    model, name = load_model(checkpoint), Path(output).stem
    calibration = calibration_features(data, calibrate, seed, model.features)
    flags = " ".join(filter(None, (options.flags(), budget.flags() if budget else "", training.flags())))
    if budget:
        options = assign(import_encoder(model, name), calibration, options, budget, cost)
    if training.steps:
        train_quantized(model, options, data, seed, training)
    provenance = {
        "checkpoint": Path(checkpoint).name,
        "command": f"phonolith quantize {Path(checkpoint).name} --strings {calibrate} --seed {seed} {flags}".rstrip(),
        "calibration": f"{calibrate} strings of training recordings, generator {GENERATOR_VERSION}",
        "clip": options.clip,
    }
    graph = quantize(import_encoder(model, name), calibration, options,
                     metadata=encoder_metadata(model.config, model.features, provenance, options.weights.bits))
    save(output, graph)
    weights = options.weights
    chosen = {"bits": weights.bits, "scheme": weights.scheme, "block": weights.group, "clip": options.clip,
              "softmax_bits": options.softmax_bits, "kv_bits": options.kv_bits, "calibrate": calibrate,
              "train_steps": training.steps}
    chosen |= {"layer_bits": dict(options.layer_bits)} if options.layer_bits else {}
    return summary(graph, output) | chosen | seconds_since(started)


def assign(graph: FloatGraph, calibration: Sequence[np.ndarray], options: Quantization, budget: Budget,
           cost: NodeCost) -> Quantization:
    """Return ``options`` with a width for every linear layer between the first and the last that has none yet.

    Those that disturb the float model's scores least, on some of the calibration strings, among those that a budget
    affords. Costs are those of an utterance of :data:`BUDGET_FRAMES`.
    """
    prepared = prepare(graph, options)
    layers = [name for name in inner_linears(prepared) if name not in options.layer_bits]
    uniform = {bits: replace(options, weights=replace(options.weights, bits=bits)) for bits in WIDTHS}
    graphs = {bits: quantize(graph, calibration[:1], each) for bits, each in uniform.items()}
    costs, others = layer_costs(graphs, layers, cost, BUDGET_FRAMES)
    check_budget(costs, budget, others)  # before the long part
    measured = sensitivities(prepared, layers, options.weights, calibration[:MEASURED_STRINGS])
    chosen = assign_bits(measured, costs, budget, others)
    return replace(options, layer_bits={**options.layer_bits, **chosen})


def train_quantized(model, options: Quantization, data: str | os.PathLike[str], seed: int,
                    training: FineTuning) -> None:
    """Train a torch model in place with the weights of ``options`` fake-quantized."""
    from phonolith.models.fake_quantize import fine_tune

    weights = module_quantizers(prepare(import_encoder(model, "model"), options), options, dict(model.named_modules()))
    fine_tune(model, weights, data, training.steps, seed, training.activations, training.learning_rate)


def new_model(spec: str | os.PathLike[str], seed: int, output: str | os.PathLike[str],
              max_frames: int = MAX_FRAMES) -> dict:
    """Write a quantized model of the sizes in SPEC.toml with random weights, calibrated on noise. Needs torch.

    Returns model, output, bits, nodes, bytes, parameters, seconds.
    """
    started = time.perf_counter()
    config = read_spec(spec)
    try:
        model = random_model(config, seed)
    except ImportError as error:
        raise PhonolithError("missing-tool", "random weights need torch.", "Run make setup EXTRAS=train.") from error
    provenance = {"command": f"phonolith new-model {Path(spec).name} --random-weights {seed}"}
    graph = quantize(
        import_encoder(model, Path(output).stem),
        noise_features(8, config.mels, seed),
        Quantization(max_frames=max_frames),
        metadata=encoder_metadata(config, model.features, provenance),
    )
    save(output, graph)
    return summary(graph, output) | {"parameters": config.parameters} | seconds_since(started)


def summary(graph: Graph, output: str | os.PathLike[str]) -> dict:
    """Return the common part of what the commands report."""
    return {
        "model": graph.name,
        "output": str(output),
        "bits": graph.metadata.get("bits", 8),
        "nodes": len(graph.nodes),
        "bytes": Path(output).stat().st_size,
    }


def seconds_since(started: float) -> dict:
    """Return the time a command took, as a result's key."""
    return {"seconds": round(time.perf_counter() - started, 2)}
