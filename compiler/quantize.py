"""Post-training quantization: float graph and calibration data in, integer graph out."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from phonolith.compiler.calibrate import CLIPS, observe
from phonolith.compiler.float_graph import FloatGraph
from phonolith.compiler.float_passes import simplify
from phonolith.compiler.integerize import MAX_FRAMES, SOFTMAX_BITS, Integerizer
from phonolith.compiler.ir import Graph
from phonolith.compiler.model_file import save
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.tensor_types import choose_types
from phonolith.hw.errors import PhonolithError
from phonolith.models.config import ModelConfig
from phonolith.models.data import GENERATOR_VERSION, StringMaker, training_recordings
from phonolith.models.families import random_model, read_spec
from phonolith.models.features import FeatureParameters, features

# Calibration strings are not those that training saw first.
CALIBRATION_SEED = 20_000
EXAMPLE_FRAMES = 64


def quantize(
    graph: FloatGraph,
    calibration: Iterable[np.ndarray],
    bits: int = 8,
    clip: str = "max",
    name: str | None = None,
    metadata: dict | None = None,
    softmax_bits: int = 8,
    max_frames: int = MAX_FRAMES,
) -> Graph:
    """Return the integer graph of ``graph``.

    Parameters
    ----------
    calibration : float32 arrays ``[T, *tail]``, representative inputs.
    bits : width of weights and activations; 8.
    clip : how int8 ranges are chosen, one of :data:`phonolith.compiler.calibrate.CLIPS`.
    name, metadata : of the graph; ``input_scale`` and ``scales`` are added.
    softmax_bits : width of the softmax's exponentials; 8, or 16 for long rows (docs/decisions/0005).
    max_frames : frames behind the front end that the model's tables of positions shall last for, if it has any.

    Raises PhonolithError: ``option`` for other widths or clips, ``calibration``, and those of the passes.
    """
    if bits != 8:
        raise PhonolithError("option", f"weights of {bits} bits are not supported.", "Choose --bits 8.")
    if softmax_bits not in SOFTMAX_BITS:
        raise PhonolithError("option", f"exponentials of {softmax_bits} bits are not supported.",
                             "Choose --softmax-bits 8 or 16.")
    if max_frames < 1:
        raise PhonolithError("option", f"positions of {max_frames} frames are none.", "Choose --max-frames 1 or more.")
    if clip not in CLIPS:
        raise PhonolithError("option", f"there is no clip {clip!r}.", f"Choose one of {', '.join(CLIPS)}.")
    graph = simplify(graph)
    observed = observe(graph, calibration)
    types = choose_types(graph, observed, clip)
    integers = Integerizer(graph, types, observed, clip, softmax_bits, max_frames)
    result = integers.run(name or graph.name, metadata or {})
    lower_graph(result)
    return result


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


def encoder_metadata(config: ModelConfig, parameters: FeatureParameters, provenance: dict) -> dict:
    """Return the metadata of a model file: what the host must know, and what the model is."""
    return {"vocabulary": list(config.vocabulary), "features": parameters.as_dict(), "family": config.family,
            "parameters": config.counts, "bits": 8, "provenance": provenance}


def quantize_checkpoint(
    checkpoint: str | os.PathLike[str],
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    calibrate: int = 64,
    seed: int = 0,
    bits: int = 8,
    clip: str = "max",
    softmax_bits: int = 8,
    max_frames: int = MAX_FRAMES,
) -> dict:
    """Quantize a float checkpoint with training recordings and write the model file. Needs torch.

    Returns model, output, bits, softmax_bits, clip, calibration strings, nodes, bytes, seconds.
    """
    from phonolith.models.checkpoint import load_model

    started = time.perf_counter()
    model, name = load_model(checkpoint), Path(output).stem
    options = "" if softmax_bits == 8 else f" --softmax-bits {softmax_bits}"
    options += "" if max_frames == MAX_FRAMES else f" --max-frames {max_frames}"
    provenance = {
        "checkpoint": Path(checkpoint).name,
        "command": f"phonolith quantize {Path(checkpoint).name} --calibrate {calibrate} --seed {seed}{options}",
        "calibration": f"{calibrate} strings of training recordings, generator {GENERATOR_VERSION}",
        "clip": clip,
    }
    graph = quantize(
        import_encoder(model, name),
        calibration_features(data, calibrate, seed, model.features),
        bits,
        clip,
        metadata=encoder_metadata(model.config, model.features, provenance),
        softmax_bits=softmax_bits,
        max_frames=max_frames,
    )
    save(output, graph)
    chosen = {"softmax_bits": softmax_bits, "clip": clip, "calibrate": calibrate}
    return summary(graph, output) | chosen | seconds_since(started)


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
        metadata=encoder_metadata(config, model.features, provenance),
        max_frames=max_frames,
    )
    save(output, graph)
    return summary(graph, output) | {"parameters": config.parameters} | seconds_since(started)


def summary(graph: Graph, output: str | os.PathLike[str]) -> dict:
    """Return the common part of what the commands report."""
    return {
        "model": graph.name,
        "output": str(output),
        "bits": 8,
        "nodes": len(graph.nodes),
        "bytes": Path(output).stat().st_size,
    }


def seconds_since(started: float) -> dict:
    """Return the time a command took, as a result's key."""
    return {"seconds": round(time.perf_counter() - started, 2)}
