"""Constants in the byte order that LOAD expects (``docs/isa.md``)."""

import numpy as np

from phonolith.compiler.weight_formats import pack_codes
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig


def tile_words(k: int, config: MachineConfig) -> int:
    """Return the words per bank of ``k`` bytes."""
    return -(-k // config.word_bytes)


def stored_bits(bits: int, config: MachineConfig) -> int:
    """Return the bits in which a machine stores weights of ``bits`` bits: more if its words do not divide into steps.

    A step takes 8 / bits activations, and a word of them must hold a whole number of steps.
    """
    return next(wider for wider in (1, 2, 4, 8) if wider >= bits and config.word_bytes % (8 // wider) == 0)


def step_count(k: int, bits: int) -> int:
    """Return the steps that the array takes for ``k`` products with weights of ``bits`` bits, a byte of them each."""
    return -(-k * bits // 8)


def weights(weight: np.ndarray, config: MachineConfig, bits: int = 8) -> np.ndarray:
    """Pack int8 codes ``[N, K]`` as uint8 ``[tiles, words, C, WB]``: k-slice major, column minor; ``bits`` per code.

    Columns and k values beyond N and K are zero.
    """
    weight = pack_codes(weight, bits)
    columns, depth = weight.shape
    tiles, words = -(-columns // config.columns), tile_words(depth, config)
    padded = np.zeros((tiles * config.columns, words * config.word_bytes), np.uint8)
    padded[:columns, :depth] = weight
    split = padded.reshape(tiles, config.columns, words, config.word_bytes)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3))


def parameters(bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, zero: np.ndarray | int = 0) -> np.ndarray:
    """Pack per-column bias, multiplier, shift and zero, int32 of one shape, as uint8 ``[.., 8]``."""
    factor = np.zeros_like(multiplier, dtype=np.int64)
    for name, part in (("multiplier", multiplier), ("shift", shift), ("zero", np.asarray(zero))):
        low, bits = isa.PARAMETER_FACTOR[name]
        factor |= (part.astype(np.int64) & (1 << bits) - 1) << low
    words = np.stack([bias.astype(np.int64), factor], axis=-1)
    return words.astype(np.uint32).astype("<u4").view(np.uint8)


def block_parameters(bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, zero: np.ndarray | int,
                     config: MachineConfig) -> np.ndarray:
    """Pack the parameters of blocks, int32 ``[N, blocks]``, as uint8 ``[tiles, blocks, C, 8]``; ``bias`` is ``[N]``.

    The bias is added with the first block, and half a step of the result with it: the sum of blocks is shifted without
    rounding.
    """
    channels, blocks = multiplier.shape
    biases = np.zeros((channels, blocks), np.int64)
    biases[:, 0] = bias.astype(np.int64) + (1 << isa.PARTIAL_SHIFT - 1)
    packed = parameters(biases, multiplier, shift, zero)
    padded = np.pad(packed, ((0, -channels % config.columns), (0, 0), (0, 0)))
    return np.ascontiguousarray(padded.reshape(-1, config.columns, blocks, 8).transpose(0, 2, 1, 3))
