"""Ranges of float tensors over a calibration set, and the clip that quantizes them best."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from phonolith.compiler.float_graph import FloatGraph, evaluate
from phonolith.hw.errors import PhonolithError

SAMPLES_PER_UTTERANCE = 4096
CLIPS = ("max", "percentile", "mse", "clip")
PERCENTILE = 99.99
CANDIDATES = np.linspace(0.3, 1.0, 36)


@dataclass(frozen=True)
class Observed:
    """What one tensor was seen to be: its largest magnitude and a sample of its magnitudes."""

    maximum: float
    samples: np.ndarray

    def clip(self, method: str, levels: int) -> float:
        """Return the magnitude that the largest of ``levels`` steps should stand for.

        ``max``: the largest seen. ``percentile``: the 99.99th. ``mse``: the clip between 0.3 and 1 times the
        largest that minimises the mean squared error of rounding and clipping. ``clip``: the mean absolute one.
        """
        if self.maximum == 0:
            return 1.0
        if method == "max":
            return self.maximum
        if method == "percentile":
            return max(float(np.percentile(self.samples, PERCENTILE)), self.maximum * 1e-3)
        power = 2 if method == "mse" else 1
        errors = [_error(self.samples, c * self.maximum, levels, power) for c in CANDIDATES]
        return float(CANDIDATES[int(np.argmin(errors))] * self.maximum)


def _error(samples: np.ndarray, clip: float, levels: int, power: int) -> float:
    step = np.float32(clip / levels)
    quantized = np.minimum(np.rint(samples / step), levels) * step
    return float(np.mean(np.abs(samples - quantized) ** power))


def observe(graph: FloatGraph, calibration: Iterable[np.ndarray], seed: int = 0) -> dict[str, Observed]:
    """Run ``graph`` on float32 ``[T, ..]`` arrays and return the range of the input and every node.

    PhonolithError when there is no array, or a value is not finite.
    """
    rng = np.random.default_rng(seed)
    maxima: dict[str, float] = {}
    samples: dict[str, list[np.ndarray]] = {}
    for features in calibration:
        with np.errstate(over="ignore", invalid="ignore"):  # reported below, with the tensor's name
            values = evaluate(graph, features)
        for name, value in values.items():
            magnitudes = np.abs(value).ravel()
            maxima[name] = float(np.maximum(maxima.get(name, 0.0), magnitudes.max()))  # keeps a NaN
            picked = rng.integers(magnitudes.size, size=min(SAMPLES_PER_UTTERANCE, magnitudes.size))
            samples.setdefault(name, []).append(magnitudes[picked])
    if not maxima:
        raise PhonolithError("calibration", "there is nothing to calibrate with.", "Give an utterance or more.")
    broken = [name for name, maximum in maxima.items() if not np.isfinite(maximum)]
    if broken:
        remedy = "Give finite inputs." if broken[0] == graph.input else "Train the float model again."
        raise PhonolithError("calibration", f"the values of {broken[0]!r} are not finite.", remedy)
    return {name: Observed(maxima[name], np.concatenate(samples[name])) for name in maxima}
