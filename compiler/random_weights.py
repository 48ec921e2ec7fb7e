"""Random weights of few bits, with zero points and blocks, for random graphs.

Scales are chosen from an estimate of each channel's (and block's) sums, so that outputs neither vanish nor saturate.
"""

from dataclasses import dataclass

import numpy as np

from phonolith.compiler.fixed_point import encode_multipliers
from phonolith.compiler.weight_formats import (
    BITS,
    BLOCK_STEP_BITS,
    SCHEME_NAMES,
    SCHEMES,
    ZEROS,
    WeightFormat,
    code_range,
    decode,
)
from phonolith.hw.errors import PhonolithError

# Mean of an operand in units of its root mean square, and how far from it the mean may be.
MEAN = {"int8": (0.0, 0.1), "uint8": (0.7, 0.2)}
SUM_LIMIT = 1 << 30
SIGNS = (1, -1, 0)
SIGN_ODDS = (0.92, 0.05, 0.03)


@dataclass(frozen=True)
class WeightChoice:
    """Which weights to draw.

    ``bits``: one of :data:`BITS`, "any" of them, or None: 8, or any if there is a ``scheme``. ``scheme``: one of
    :data:`SCHEME_NAMES`, or None: any if there are ``bits``, else that of plain 8-bit weights. PhonolithError
    ``option`` for others.
    """

    bits: int | str | None = None
    scheme: str | None = None

    def __post_init__(self):
        if self.bits not in (None, "any", *BITS):
            raise PhonolithError("option", f"there are no random weights of {self.bits} bits.",
                                 f"Choose --bits {', '.join(map(str, BITS))} or any.")
        if self.scheme not in (None, *SCHEME_NAMES):
            raise PhonolithError("option", f"there is no scheme {self.scheme!r}.",
                                 f"Choose --scheme {', '.join(SCHEME_NAMES)}.")

    @property
    def plain(self) -> bool:
        """Whether all weights have 8 bits, one scale per channel, and no zero."""
        return self.bits is None and self.scheme is None

    def draw(self, rng: np.random.Generator) -> tuple[int, str]:
        """Return bits and scheme of one operator."""
        bits = self.bits if isinstance(self.bits, int) else int(rng.choice(BITS))
        return bits, self.scheme or str(rng.choice(SCHEME_NAMES))


def draw_weights(rng: np.random.Generator, choice: WeightChoice, channels: int, kernel: tuple[int, ...],
                 x: tuple[str, float], target: float) -> tuple[dict, dict]:
    """Return constants and attributes of a product with weights ``[channels, *kernel]``.

    ``x``: dtype and root mean square of the operand; ``target``: the output's.
    """
    bits, scheme = choice.draw(rng)
    per_tensor = scheme == "tensor"
    scheme = str(rng.choice(SCHEMES)) if per_tensor else scheme
    form = draw_format(rng, bits, scheme, channels, int(np.prod(kernel)))
    low, high = code_range(bits)
    codes = rng.integers(low, high + 1, (channels, form.depth)).astype(np.int8)
    zero = draw_zeros(rng, form, scheme.startswith("asymmetric"), per_tensor)
    shares, means = estimate_sums(form, decode(codes, form, zero), *x)
    step = (1 << BLOCK_STEP_BITS) / np.sqrt(form.n_blocks) if form.blocked else 1
    if per_tensor:
        shares = np.full_like(shares, shares.mean())
    multiplier, shift = draw_factors(rng, target * step / np.maximum(shares, 64), per_tensor)
    constants = {"weight": codes.reshape(channels, *kernel), "multiplier": multiplier, "shift": shift,
                 "bias": draw_bias(rng, form, shares, means, target, multiplier / np.exp2(shift))}
    zeros = {} if zero is None else {"zero": zero}
    return constants | zeros, attributes_of(form)


def draw_format(rng: np.random.Generator, bits: int, scheme: str, channels: int, depth: int) -> WeightFormat:
    """Return a format of a scheme; weights of 1 bit always have a zero.

    The shift of zeros is small enough for sums along ``depth`` to fit int32.
    """
    name, _, block = scheme.partition("-")
    form = WeightFormat(bits, channels, depth, None, int(block) if block else None)
    if name == "symmetric" and bits > 1:
        return form
    largest = SUM_LIMIT // (255 * depth << bits - 1)
    # Half a step, which the zeros of symmetric weights are, needs a shift.
    least = 0 if name == "asymmetric" else 1
    zero_shift = int(rng.integers(least, 8))
    while zero_shift > least and 1 << zero_shift > largest:
        zero_shift -= 1
    return WeightFormat(bits, channels, depth, zero_shift, form.block)


def draw_zeros(rng: np.random.Generator, form: WeightFormat, asymmetric: bool, equal: bool) -> np.ndarray | None:
    """Return zero points, int32, or None: around half a step, those of symmetric 1-bit weights exactly there."""
    if form.zero_shift is None:
        return None
    spread = (1 << form.bits) / 8 if asymmetric else 0
    zeros = np.rint((0.5 + rng.normal(0, spread, form.factor_shape)) * (1 << form.zero_shift))
    if asymmetric:
        anything = rng.integers(ZEROS[0], ZEROS[1] + 1, form.factor_shape)
        zeros = np.where(rng.random(form.factor_shape) < 0.05, anything, zeros)
    zeros = np.full_like(zeros, zeros.flat[0]) if equal else zeros
    return np.clip(zeros, *ZEROS).astype(np.int32)


def estimate_sums(form: WeightFormat, weight: np.ndarray, dtype: str, rms: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the spread and the mean of each factor's sums, float64 of ``form.factor_shape``."""
    starts = [block.start for block in form.blocks()] if form.blocked else [0]
    squares = np.add.reduceat(weight.astype(np.float64) ** 2, starts, axis=1)
    totals = np.add.reduceat(weight.astype(np.float64), starts, axis=1)
    mean, doubt = MEAN[dtype]
    spread = rms * np.sqrt(squares + (doubt * totals) ** 2)
    return spread.reshape(form.factor_shape), (mean * rms * totals).reshape(form.factor_shape)


def draw_factors(rng: np.random.Generator, factors: np.ndarray, equal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return multipliers and shifts close to ``factors``; sometimes powers of two, of few bits, negative or zero."""
    shape = factors.shape
    if rng.random() < 0.15:
        factors = np.exp2(np.rint(np.log2(factors)))
    multiplier, shift = encode_multipliers(factors.ravel())
    if equal:
        return multiplier.reshape(shape), shift.reshape(shape)
    dropped = np.where(rng.random(shift.shape) < 0.2, np.minimum(rng.integers(1, 13, shift.shape), shift), 0)
    signs = rng.choice(SIGNS, shift.shape, p=SIGN_ODDS)
    multiplier = (multiplier >> dropped) * signs
    return multiplier.astype(np.int32).reshape(shape), (shift - dropped).astype(np.int32).reshape(shape)


def draw_bias(rng: np.random.Generator, form: WeightFormat, shares: np.ndarray, means: np.ndarray, target: float,
              factors: np.ndarray) -> np.ndarray:
    """Return biases, int32 ``[N]``, that take the mean away, in steps of the sums or of 1/256 of the output."""
    if form.blocked:
        spread, mean = np.full(form.channels, target * (1 << BLOCK_STEP_BITS)), (means * factors).sum(axis=1)
    else:
        spread, mean = shares, means
    return np.rint(rng.normal(0, spread / 2) - mean).astype(np.int32)


def attributes_of(form: WeightFormat) -> dict:
    """Return the attributes of a format; what is plain is absent."""
    given = {"bits": form.bits if form.bits != 8 else None, "zero_shift": form.zero_shift, "block": form.block}
    return {name: value for name, value in given.items() if value is not None}
