"""Audio in, log-mel features out: everything the host does before the accelerator starts.

Needs numpy, soundfile and soxr, never torch. All results are deterministic functions of the samples.
"""

import os
import warnings
from functools import lru_cache

import numpy as np
import soundfile
import soxr

from phonolith.hw.errors import PhonolithError

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
FLOOR = 1e-6
"""Energies below this fraction (-60 dB) of the utterance's loudest filter output are raised to it."""


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


@lru_cache(maxsize=1)
def mel_filters() -> np.ndarray:
    """Triangular filters, float64 [40, 129], equally spaced in mel = 2595 log10(1 + f/700), peak 1."""
    def mel(hertz: float) -> float:
        return 2595.0 * np.log10(1.0 + hertz / 700.0)

    edges = 700.0 * (10.0 ** (np.linspace(mel(LOW_HZ), mel(HIGH_HZ), MELS + 2) / 2595.0) - 1.0)
    bins = np.arange(FFT // 2 + 1)[:, None] * (SAMPLE_RATE / FFT)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.ascontiguousarray(np.maximum(0.0, np.minimum(rising, falling)).T)


def frame_count(samples: int) -> int:
    """Feature frames of an utterance of that many samples (whole windows only)."""
    return max(0, 1 + (samples - WINDOW) // HOP)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Natural logarithm of the mel energies -> float64 [T, 40], T = 1 + (N - 200) // 80.

    Periodic Hann window, power spectrum of a 256-point FFT, 40 filters from 60 to 3900 Hz, floored at
    `FLOOR` times the utterance's largest energy.
    """
    signal = np.asarray(samples, np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)
    spectrum = np.fft.rfft(frames * window, FFT)
    # Not a matrix product: its bits, and its speed on a busy machine, would depend on BLAS and its threads.
    energies = np.einsum("tf,mf->tm", spectrum.real**2 + spectrum.imag**2, mel_filters())
    return np.log(np.maximum(energies, max(FLOOR * energies.max(), 1e-12)))


def features(samples: np.ndarray, name: str = "the utterance") -> np.ndarray:
    """Normalised log-mel features of mono 8 kHz samples [N] -> float32 [T, 40].

    The mean of every mel bin over the utterance is removed, then one standard deviation over all bins and
    frames is divided out (a silent utterance gives zeros).

    Raises
    ------
    PhonolithError
        Fewer than `MIN_FRAMES` frames (1960 samples, 245 ms). The message calls the audio `name`.
    """
    if frame_count(len(samples)) < MIN_FRAMES:
        needed = WINDOW + (MIN_FRAMES - 1) * HOP
        raise PhonolithError(
            "audio", f"{name}: {len(samples)} samples ({1000 * len(samples) / SAMPLE_RATE:.0f} ms at 8 kHz) "
            f"are too short: the front end needs {needed} ({1000 * needed // SAMPLE_RATE} ms)",
            "give a longer recording")
    logs = log_mel(samples)
    centred = logs - logs.mean(axis=0)
    return (centred / max(float(centred.std()), 1e-3)).astype(np.float32)


def wav_features(path: str | os.PathLike[str]) -> np.ndarray:
    """`load_wav` then `features`; float32 [T, 40]."""
    return features(load_wav(path), str(path))
