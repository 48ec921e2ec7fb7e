"""Sinusoids that tell attention where frames are. numpy only: the compiler makes tables of them, too."""

import numpy as np


def sinusoids(positions: np.ndarray, width: int) -> np.ndarray:
    """Sinusoids of integer positions [n] (they may be negative) -> float32 [n, width].

    Column 2i is sin(position / 10000**(2i / width)), column 2i + 1 the cosine of the same angle (Vaswani et al.
    2017, section 3.5); an odd width ends with a sine.
    """
    rates = 10000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.asarray(positions, np.float64)[:, None] * rates
    pairs = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return pairs.reshape(len(pairs), -1)[:, :width].astype(np.float32)


def absolute_sinusoids(frames: int, width: int) -> np.ndarray:
    """Sinusoids of frames 0 .. frames - 1, float32 [frames, width]."""
    return sinusoids(np.arange(frames), width)


def relative_sinusoids(maximum: int, width: int) -> np.ndarray:
    """Sinusoids of all offsets between `maximum` frames, float32 [2 * maximum - 1, width].

    Row n is for offset n - (maximum - 1), which is key frame minus query frame (Dai et al. 2019, appendix B,
    has query minus key). A table of a smaller maximum is the middle of this one.
    """
    return sinusoids(np.arange(1 - maximum, maximum), width)
