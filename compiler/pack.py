"""Constants in the byte order that LOAD expects (``docs/isa.md``)."""

import numpy as np

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig


def tile_words(k: int, config: MachineConfig) -> int:
    """Return the words per bank of ``k`` bytes."""
    return -(-k // config.word_bytes)


def weights(weight: np.ndarray, config: MachineConfig) -> np.ndarray:
    """Pack an int8 weight ``[N, K]`` as uint8 ``[tiles, ceil(K/WB), C, WB]``: k-slice major, column minor.

    Columns and k values beyond N and K are zero.
    """
    columns, depth = weight.shape
    tiles, words = -(-columns // config.columns), tile_words(depth, config)
    padded = np.zeros((tiles * config.columns, words * config.word_bytes), np.int8)
    padded[:columns, :depth] = weight
    split = padded.reshape(tiles, config.columns, words, config.word_bytes)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3)).view(np.uint8)


def parameters(bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Pack per-column bias, multiplier and shift, int32 ``[N]``, as uint8 ``[N, 8]``."""
    mask = (1 << isa.MULTIPLIER_BITS) - 1
    factor = multiplier.astype(np.int64) & mask | shift.astype(np.int64) << isa.MULTIPLIER_BITS
    words = np.stack([bias.astype(np.int64), factor], axis=1)
    return words.astype("<i4").view(np.uint8)
