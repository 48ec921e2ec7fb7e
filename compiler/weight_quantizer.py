"""Float weights as codes of 8, 4, 2 or 1 bit, with a scale and, if asymmetric, a zero point per group.

A weight w becomes ``scale * (code + zero / 2**zero_shift)`` (``docs/quantization.md``, "Weights"). The zero point is
chosen on its grid first and codes are rounded to it, so that its rounding makes no error of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phonolith.hw.errors import PhonolithError

WIDTHS = (8, 4, 2, 1)
BLOCKS = (32, 64, 128, 256)
GROUPS = ("tensor", "channel")
SCHEMES = ("symmetric", "asymmetric")
# Largest bias in steps of the products, and largest sum: what is left of int32 is the products'.
BIAS_LIMIT = 1 << 28
SUM_LIMIT = (1 << 31) - 1 - BIAS_LIMIT
ZERO_MAX, ZERO_SHIFT_MAX = 255, 7
BYTE_MAX = 255
NEARLY_ZERO = 2.0**-64
Rounding = Callable[[np.ndarray], np.ndarray] | None
CLIP_FACTORS = np.linspace(1.0, 0.2, 17)


@dataclass(frozen=True)
class WeightScheme:
    """How the weights of a layer become codes.

    Parameters
    ----------
    bits : width of a code, one of :data:`WIDTHS`.
    scheme : one of :data:`SCHEMES`; asymmetric groups have a zero point, at 1 bit the mean.
    group : what shares a scale: "tensor", "channel", or a block of so many weights along K, one of :data:`BLOCKS`.
    clip_search : clip each group's range by the factor that minimises its L1 error; 1 bit has no range to clip.
    power_of_two : round scales to powers of two, up or down, whichever makes the smaller L1 error.

    Raises PhonolithError ``option`` for anything else.
    """

    bits: int = 8
    scheme: str = "symmetric"
    group: str | int = "channel"
    clip_search: bool = False
    power_of_two: bool = False

    def __post_init__(self):
        if self.bits not in WIDTHS:
            raise _option(f"weights of {self.bits} bits are not supported", "--bits 8, 4, 2 or 1")
        if self.scheme not in SCHEMES:
            raise _option(f"there is no scheme {self.scheme!r}", f"--scheme {' or '.join(SCHEMES)}")
        if self.group not in (*GROUPS, *BLOCKS):
            raise _option(f"weights cannot share scales by {self.group!r}",
                          f"--block {', '.join(map(str, (*GROUPS, *BLOCKS)))}")

    @property
    def block(self) -> int | None:
        """Weights per block, or None without blocks."""
        return self.group if isinstance(self.group, int) else None

    @property
    def has_zero(self) -> bool:
        """Whether codes are relative to a zero point: always at 1 bit, which has no code for 0."""
        return self.bits == 1 or self.scheme == "asymmetric"

    @property
    def codes(self) -> tuple[int, int]:
        """The lowest and highest code; those of 8 symmetric bits are symmetric, too."""
        half = 1 << self.bits - 1
        return (1 - half if self.bits == 8 and not self.has_zero else -half), half - 1


@dataclass(frozen=True)
class QuantizedWeight:
    """Codes and what they stand for; J groups are the blocks of a row, 1 without blocks.

    Parameters
    ----------
    codes : int8 ``[N, K]``.
    scale : float64 ``[N, J]``.
    zero : int32 ``[N, J]``, in steps of ``2**-zero_shift`` of a code; 0 for a scheme without.
    zero_shift : 0 .. 7.
    block : weights per group, or None for whole rows.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    zero_shift: int
    block: int | None

    def values(self) -> np.ndarray:
        """Return the weights that the codes stand for, float64 ``[N, K]``."""
        columns = np.arange(self.codes.shape[1]) // (self.block or self.codes.shape[1])
        return self.scale[:, columns] * (self.codes + self.zero[:, columns] / (1 << self.zero_shift))


def quantize_weight(weight: np.ndarray, scheme: WeightScheme, offset: np.ndarray | None = None) -> QuantizedWeight:
    """Return ``weight`` in codes.

    Parameters
    ----------
    weight : float ``[N, K]``, finite.
    offset : the layer's bias, float ``[N]``, in real weights times input steps. Groups that are no blocks add it to
        their sums of products: where tiny weights meet a large one, they get coarser, so that it fits int32.
    """
    weight = np.asarray(weight, np.float64)
    parts = _groups(weight, scheme)
    scales, centres = (np.concatenate(each, axis=1) for each in zip(*(_best_range(p, scheme) for p in parts),
                                                                    strict=True))
    zero_shift = _zero_shift(centres / scales, weight.shape[1], scheme)
    if offset is not None and scheme.block is None:
        scales = np.maximum(scales, _coarsest_needed(offset, zero_shift, scheme).reshape(len(scales), -1))
    zeros = _zeros(centres / scales, zero_shift)
    codes = [_codes(part, scales[:, [j]], zeros[:, [j]] / (1 << zero_shift), scheme) for j, part in enumerate(parts)]
    rows = (len(weight), -1)
    scales, zeros = (np.broadcast_to(each, (len(weight), each.shape[1])).copy() if len(each) == 1 else each
                     for each in (scales, zeros))
    return QuantizedWeight(np.concatenate(codes, axis=1).reshape(rows).astype(np.int8), scales, zeros, zero_shift,
                           scheme.block)


def _option(message: str, choice: str) -> PhonolithError:
    return PhonolithError("option", f"{message}.", f"Choose {choice}.")


def _groups(weight: np.ndarray, scheme: WeightScheme) -> list[np.ndarray]:
    """Return matrices whose rows are groups: one per block, else one."""
    if scheme.group == "tensor":
        return [weight.reshape(1, -1)]
    step = scheme.block or weight.shape[1]
    return [weight[:, start : start + step] for start in range(0, weight.shape[1], step)]


def _best_range(rows: np.ndarray, scheme: WeightScheme) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and centre ``[G, 1]`` of each row: of all that the scheme allows those of the smallest L1 error."""
    factors = CLIP_FACTORS if scheme.clip_search and scheme.bits > 1 else (1.0,)
    roundings = (np.floor, np.ceil) if scheme.power_of_two else (None,)
    ranges = [_range(rows, scheme, factor, rounding) for factor in factors for rounding in roundings]
    if len(ranges) == 1:
        return ranges[0]
    errors = [np.abs(rows - _rounded(rows, *each, scheme)).sum(axis=1) for each in ranges]
    best = np.argmin(errors, axis=0)
    scale, centre = (np.stack(each)[best, np.arange(len(rows))] for each in zip(*ranges, strict=True))
    return scale, centre


def _range(rows: np.ndarray, scheme: WeightScheme, factor: float, rounding: Rounding) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and centre ``[G, 1]`` of each row: code q stands for ``scale * q + centre``.

    ``factor`` clips the range of 2 bits and more; ``rounding`` of its logarithm makes the scale a power of two. A scale
    is never so fine that a centre far from 0 has no zero point of 9 bits.
    """
    steps = (1 << scheme.bits) - 1
    mean = np.zeros((len(rows), 1))
    if scheme.bits == 1:
        mean = rows.mean(axis=1, keepdims=True) if scheme.scheme == "asymmetric" else mean
        scale = np.maximum(2 * np.abs(rows - mean).mean(axis=1, keepdims=True), np.abs(mean))
    elif scheme.scheme == "asymmetric":
        low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
        mean = (low + high) / 2
        scale = np.maximum((high - low) * factor, np.abs(mean)) / steps
    else:
        scale = np.abs(rows).max(axis=1, keepdims=True) * factor / (steps >> 1)
    # Without a code for 0, weights that are all 0 are as good as 0.
    scale = np.where(scale == 0, NEARLY_ZERO if scheme.has_zero else 1.0, scale)
    if rounding:
        scale = np.exp2(rounding(np.log2(scale)))
        scale = np.where(np.abs(mean) > ZERO_MAX * scale, 2 * scale, scale)
    # The codes' own centre is -1/2.
    return scale, mean + scale / 2 if scheme.has_zero else mean


def _rounded(rows: np.ndarray, scale: np.ndarray, centre: np.ndarray, scheme: WeightScheme) -> np.ndarray:
    return scale * _codes(rows, scale, centre / scale, scheme) + centre


def _codes(rows: np.ndarray, scale: np.ndarray, zero: np.ndarray, scheme: WeightScheme) -> np.ndarray:
    return np.clip(np.rint(rows / scale - zero), *scheme.codes)


def _zero_shift(centres: np.ndarray, inner: int, scheme: WeightScheme) -> int:
    """Return the finest grid on which all zero points have 9 bits and no sum can leave int32.

    ``centres`` are in codes; a sum runs over a block or ``inner`` weights.
    """
    if not scheme.has_zero:
        return 0
    if scheme.bits == 1 and scheme.scheme == "symmetric":
        return 1
    terms, largest = min(scheme.block or inner, inner), np.abs(centres).max()
    highest = 1 << scheme.bits - 1

    def fits(shift: int) -> bool:
        sums = terms * BYTE_MAX * ((highest << shift) + ZERO_MAX + 1)
        return np.rint(largest * (1 << shift)) <= ZERO_MAX and sums <= SUM_LIMIT

    return max((shift for shift in range(1, ZERO_SHIFT_MAX + 1) if fits(shift)), default=0)


def _zeros(centres: np.ndarray, zero_shift: int) -> np.ndarray:
    return np.clip(np.rint(centres * (1 << zero_shift)), -ZERO_MAX - 1, ZERO_MAX).astype(np.int32)


def _coarsest_needed(offset: np.ndarray, zero_shift: int, scheme: WeightScheme) -> np.ndarray:
    """Return the scale from which on a bias fits its share of int32, ``[N]``, or ``[1]`` for a tensor."""
    needed = np.abs(np.asarray(offset, np.float64)) * (1 << zero_shift) / BIAS_LIMIT
    if scheme.power_of_two:
        needed = np.exp2(np.ceil(np.log2(np.maximum(needed, np.finfo(np.float64).tiny))))
    return needed.max(keepdims=True) if scheme.group == "tensor" else needed
