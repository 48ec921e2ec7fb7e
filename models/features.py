"""Audio in, log-mel features out: everything the host does before the accelerator starts.

Needs numpy, soundfile and soxr, never torch. All results are deterministic functions of the samples.
"""

import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import soundfile
import soxr

from phonolith.hw.errors import PhonolithError
from phonolith.models.normalization import (
    Normalization,
    RunningNormalization,
    RunningNormalizer,
    UtteranceNormalization,
    normalization_from,
)

SAMPLE_RATE = 8000
"""Hz; every model of the project hears telephone bandwidth."""
WINDOW = 200
"""Samples per frame: 25 ms."""
HOP = 80
"""Samples from one frame to the next: 10 ms."""
FFT = 256
MELS = 40
LOW_HZ, HIGH_HZ = 60.0, 3900.0
MIN_FRAMES = 23
"""Frames that four unpadded 3x3 convolutions (strides 2, 2, 1, 1) need for one output frame."""


@dataclass(frozen=True)
class FeatureParameters:
    """What turns samples into a model's features; model files hold it under "features".

    Parameters
    ----------
    normalization : by utterance, or running (models that hear a stream).
    min_frames : frames that the model's front end needs for one output frame.
    mels : bins per frame. Of more than 40, some low ones have no frequency of the FFT to themselves.
    """

    normalization: Normalization = UtteranceNormalization()
    min_frames: int = MIN_FRAMES
    mels: int = MELS

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the constants of this file; `from_dict` reads them back."""
        return {**_CONSTANTS, "mels": self.mels, "min_frames": self.min_frames,
                "normalization": self.normalization.as_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read a model file's "features"; absent keys have their defaults.

        Raises PhonolithError if the model wants features that this file does not compute.
        """
        for name, expected in _CONSTANTS.items():
            if values.get(name, expected) != expected:
                raise PhonolithError("features", f"the model's features have {name} {values[name]!r}, not {expected!r}",
                                     "use a model that phonolith train made, or give its features as an .npy file")
        return cls(normalization_from(values.get("normalization", {})), values.get("min_frames", MIN_FRAMES),
                   values.get("mels", MELS))


BY_UTTERANCE = FeatureParameters()
"""40 bins, normalized by utterance, at least `MIN_FRAMES` frames."""
_CONSTANTS = {"kind": "log-mel", "sample_rate": SAMPLE_RATE, "window": WINDOW, "hop": HOP, "fft": FFT,
              "low_hz": LOW_HZ, "high_hz": HIGH_HZ}


def load_wav(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one audio file as mono float32 samples [N] in -1..1 at 8 kHz.

    Any integer or float sample format is accepted; channels are averaged; another sample rate is
    resampled with a `UserWarning` that says so.

    Raises
    ------
    PhonolithError
        The file is missing, not audio, damaged, empty, or has samples that are not finite.
    """
    samples, rate = _read(path)
    if samples.size == 0:
        raise PhonolithError("audio", f"{path}: the file holds no samples", "record the utterance again")
    mono = samples.mean(axis=1, dtype=np.float64)
    if not np.isfinite(mono).all():
        raise PhonolithError("audio", f"{path}: the file holds samples that are not finite numbers",
                             "export it again as 16-bit PCM")
    if rate != SAMPLE_RATE:
        warnings.warn(f"{path}: resampled from {rate} Hz to {SAMPLE_RATE} Hz", stacklevel=2)
        mono = resample(mono, rate, SAMPLE_RATE)
    return mono.astype(np.float32)


def _read(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    if not os.path.isfile(path):
        raise PhonolithError("audio", f"{path}: no such file", "check the path of the WAV file")
    if os.path.getsize(path) == 0:
        raise PhonolithError("audio", f"{path}: the file is empty (0 bytes)", "record the utterance again")
    try:
        return soundfile.read(path, dtype="float64", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise PhonolithError("audio", f"{path}: not a readable audio file ({error})",
                             "give a WAV file, for example 8 kHz mono 16-bit PCM") from error


def resample(samples: np.ndarray, rate_from: float, rate_to: float) -> np.ndarray:
    """Band-limited resampling by libsoxr at high quality: float [N] -> float32 [about N * to / from]."""
    return soxr.resample(np.asarray(samples, np.float32), rate_from, rate_to)


@lru_cache(maxsize=4)
def mel_filters(mels: int = MELS) -> np.ndarray:
    """Triangular filters, float64 [mels, 129], equally spaced in mel = 2595 log10(1 + f/700), peak 1."""
    def mel(hertz: float) -> float:
        return 2595.0 * np.log10(1.0 + hertz / 700.0)

    edges = 700.0 * (10.0 ** (np.linspace(mel(LOW_HZ), mel(HIGH_HZ), mels + 2) / 2595.0) - 1.0)
    bins = np.arange(FFT // 2 + 1)[:, None] * (SAMPLE_RATE / FFT)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.ascontiguousarray(np.maximum(0.0, np.minimum(rising, falling)).T)


def frame_count(samples: int) -> int:
    """Feature frames of an utterance of that many samples (whole windows only)."""
    return max(0, 1 + (samples - WINDOW) // HOP)


def mel_energies(samples: np.ndarray, mels: int = MELS) -> np.ndarray:
    """Mel energies of all whole windows -> float64 [T, mels], T = 1 + (N - 200) // 80, at least 1 window.

    Periodic Hann window, power spectrum of a 256-point FFT, `mels` filters from 60 to 3900 Hz.
    """
    signal = np.asarray(samples, np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)
    spectrum = np.fft.rfft(frames * window, FFT)
    # Not a matrix product: its bits, and its speed on a busy machine, would depend on BLAS and its threads.
    return np.einsum("tf,mf->tm", spectrum.real**2 + spectrum.imag**2, mel_filters(mels))


def features(samples: np.ndarray, name: str = "the utterance",
             parameters: FeatureParameters = BY_UTTERANCE) -> np.ndarray:
    """Normalised log-mel features of mono 8 kHz samples [N] -> float32 [T, mels].

    Raises
    ------
    PhonolithError
        Fewer than `parameters.min_frames` frames. The message calls the audio `name`.
    """
    if frame_count(len(samples)) < parameters.min_frames:
        needed = WINDOW + (parameters.min_frames - 1) * HOP
        raise PhonolithError(
            "audio", f"{name}: {len(samples)} samples ({1000 * len(samples) / SAMPLE_RATE:.0f} ms at 8 kHz) "
            f"are too short: the front end needs {needed} ({1000 * needed // SAMPLE_RATE} ms)",
            "give a longer recording")
    return parameters.normalization(mel_energies(samples, parameters.mels))


class FeatureStream:
    """Features of a stream, computed as its samples arrive: equal to `features` of all of them, to the bit.

    Parameters
    ----------
    parameters : those of a model whose normalization is running.

    Raises PhonolithError for a model that normalizes whole utterances.
    """

    def __init__(self, parameters: FeatureParameters):
        if not isinstance(parameters.normalization, RunningNormalization):
            raise PhonolithError("features", "this model normalizes whole utterances: its features cannot be streamed",
                                 "choose a streaming model, such as conformer-ctc-stream-w8")
        self._normalizer = RunningNormalizer(parameters.normalization)
        self._mels = parameters.mels
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next samples [n], any n -> the features of all windows they complete, float32 [m, mels]."""
        heard = np.concatenate([self._rest, samples])
        count = frame_count(len(heard))
        self._rest = heard[count * HOP:]
        energies = mel_energies(heard, self._mels) if count else np.zeros((0, self._mels))
        return self._normalizer.push(energies)


def wav_features(path: str | os.PathLike[str], parameters: FeatureParameters = BY_UTTERANCE) -> np.ndarray:
    """`load_wav` then `features`; float32 [T, mels]."""
    return features(load_wav(path), str(path), parameters)
