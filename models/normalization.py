"""How log-mel frames become features: by the whole utterance, or by what was heard so far. numpy only."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from phonolith.hw.errors import PhonolithError

FLOOR = 1e-6
"""Energies below this fraction (-60 dB) of the loudest filter output are raised to it."""
LEAST_ENERGY = 1e-12


@dataclass(frozen=True)
class UtteranceNormalization:
    """Remove every bin's mean over the utterance, then divide by one standard deviation over bins and frames.

    Energies are floored at `FLOOR` times the utterance's largest. A silent utterance gives zeros.
    """

    def __call__(self, energies: np.ndarray) -> np.ndarray:
        """Mel energies float64 [T, bins] -> features float32 [T, bins]."""
        logs = log_energies(energies, FLOOR * energies.max())
        centred = logs - logs.mean(axis=0)
        return (centred / max(float(centred.std()), 1e-3)).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `normalization_from` reads them back."""
        return {"kind": "utterance"}


@dataclass(frozen=True)
class RunningNormalization:
    """Remove every bin's mean over the frames so far, then divide by a fixed standard deviation.

    The mean starts from fixed means that count for `weight` frames: after frames x_0 .. x_t it is
    (weight * means + x_0 + ... + x_t) / (weight + t + 1). Nothing depends on later frames.

    Parameters
    ----------
    means : natural logarithms of the energies that are expected before anything is heard, one per bin.
    deviation : the standard deviation to divide by, > 0.
    floor : energies below it are raised to it, > 0.
    weight : frames, > 0.

    Raises PhonolithError if a value is impossible.
    """

    means: tuple[float, ...]
    deviation: float
    floor: float
    weight: float

    def __post_init__(self):
        for name in ("deviation", "floor", "weight"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise _bad(f"{name} must be a positive number, not {value!r}")
        if not self.means or not np.isfinite(self.means).all():
            raise _bad(f"means must be finite numbers, not {self.means!r}")

    def __call__(self, energies: np.ndarray) -> np.ndarray:
        """Mel energies float64 [T, bins] of a stream's beginning -> features float32 [T, bins]."""
        return RunningNormalizer(self).push(energies)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `normalization_from` reads them back."""
        return {"kind": "running", **dataclasses.asdict(self), "means": list(self.means)}

    @classmethod
    def assumed(cls, bins: int) -> Self:
        """For models that no data was measured for: about what speech of moderate level has."""
        return cls(means=(-5.0,) * bins, deviation=2.7, floor=1e-4, weight=50.0)

    @classmethod
    def measured(cls, utterances: Iterable[np.ndarray], weight: float) -> Self:
        """Means, deviation and floor of mel energies, float64 [T, bins] each.

        The floor is `FLOOR` times the median of the utterances' largest energies.
        """
        energies = list(utterances)
        floor = FLOOR * float(np.median([each.max() for each in energies]))
        logs = [log_energies(each, floor) for each in energies]
        frames = np.concatenate(logs)
        centred = np.concatenate([each - each.mean(axis=0) for each in logs])
        means = tuple(round(float(mean), 3) for mean in frames.mean(axis=0))
        return cls(means, round(float(centred.std()), 3), float(f"{floor:.3g}"), weight)


class RunningNormalizer:
    """The state of a `RunningNormalization` between pieces of one stream."""

    def __init__(self, parameters: RunningNormalization):
        self._parameters = parameters
        self._sum = parameters.weight * np.array(parameters.means, np.float64)
        self._frames = 0

    def push(self, energies: np.ndarray) -> np.ndarray:
        """The stream's next mel energies, float64 [n, bins] -> their features, float32 [n, bins].

        However a stream is cut, its features are the same to the bit: the sum is taken frame by frame.
        """
        logs = log_energies(energies, self._parameters.floor)
        sums = np.cumsum(np.concatenate([self._sum[None], logs]), axis=0)[1:]
        counts = self._parameters.weight + self._frames + 1 + np.arange(len(logs))
        if len(logs):
            self._sum, self._frames = sums[-1], self._frames + len(logs)
        return ((logs - sums / counts[:, None]) / self._parameters.deviation).astype(np.float32)


Normalization = UtteranceNormalization | RunningNormalization


def normalization_from(values: dict[str, Any]) -> Normalization:
    """Read what `as_dict` wrote; {} is by utterance. Raises PhonolithError on unknown kinds and values."""
    options = {name: value for name, value in values.items() if name != "kind"}
    kind = values.get("kind", "utterance")
    try:
        if kind == "utterance":
            return UtteranceNormalization(**options)
        if kind == "running":
            return RunningNormalization(**{**options, "means": tuple(options.get("means", ()))})
    except TypeError as error:
        raise _bad(str(error)) from error
    raise _bad(f"there is no kind {kind!r}")


def log_energies(energies: np.ndarray, floor: float) -> np.ndarray:
    """Natural logarithm of mel energies [T, bins], those below `floor` (or `LEAST_ENERGY`) raised to it."""
    return np.log(np.maximum(energies, max(floor, LEAST_ENERGY)))


def _bad(message: str) -> PhonolithError:
    return PhonolithError("features", f"feature normalization: {message}",
                          "use the values that phonolith train stored in the model file")
