"""What follows from the format of a node's constant weights: bits, zero points, blocks (``docs/graph.md``, "Weights").

A weight matrix is codes q ``[N, K]``, K the inner dimension (of ``conv2d`` kernel height, width, channels, flattened).
A code stands for ``(q << zero_shift) + zero`` steps of its channel, or of its channel's block along K.
"""

from dataclasses import dataclass

import numpy as np

from phonolith.compiler.ir import Node

BITS = (1, 2, 4, 8)
BLOCKS = (32, 64, 128, 256)
ZERO_SHIFTS = (0, 7)
ZEROS = (-255, 255)
# Operators whose weights may have other formats than 8 bits per channel, symmetric.
LOW_BIT_OPERATORS = ("linear", "conv2d")
# Sums of blocks are added in steps of 2**-8 of the output.
BLOCK_STEP_BITS = 8
SCHEMES = ("symmetric", "asymmetric")
# One scale for a whole tensor, one per channel, or one per channel and block of so many inner steps.
SCHEME_NAMES = ("tensor", *(scheme + block for scheme in SCHEMES for block in ("", *(f"-{each}" for each in BLOCKS))))


@dataclass(frozen=True)
class WeightFormat:
    """How the weights of one node are stored.

    ``bits`` per code, ``channels`` N, ``depth`` K; ``zero_shift`` is None for symmetric weights; ``block`` is None for
    one scale per channel, else the attribute, which may exceed ``depth``.
    """

    bits: int
    channels: int
    depth: int
    zero_shift: int | None = None
    block: int | None = None

    @property
    def asymmetric(self) -> bool:
        """Whether the weights have zero points: then sums of the input's rows are needed, too."""
        return self.zero_shift is not None

    @property
    def blocked(self) -> bool:
        """Whether scales (and zero points) are per channel and block."""
        return self.block is not None

    @property
    def block_depth(self) -> int:
        """Inner steps of every block but the last, which may be shorter: at most K."""
        return min(self.block or self.depth, self.depth)

    @property
    def n_blocks(self) -> int:
        """Blocks along K; 1 without blocks."""
        return -(-self.depth // self.block_depth)

    @property
    def factor_shape(self) -> tuple[int, ...]:
        """Shape of ``multiplier``, ``shift`` and ``zero``."""
        return (self.channels, self.n_blocks) if self.blocked else (self.channels,)

    @property
    def row_bytes(self) -> int:
        """Bytes of the packed codes of one channel, the last one padded with zero bits."""
        return -(-self.depth * self.bits // 8)

    def blocks(self) -> list[slice]:
        """Return the inner steps of each block."""
        starts = range(0, self.depth, self.block_depth)
        return [slice(start, min(start + self.block_depth, self.depth)) for start in starts]


def weight_format(node: Node) -> WeightFormat:
    """Return the format of the weights of a ``linear``, ``conv2d`` or ``depthwise_conv1d`` node."""
    weight, attributes = node.constants["weight"], node.attributes
    return WeightFormat(attributes.get("bits", 8), len(weight), weight.size // len(weight),
                        attributes.get("zero_shift"), attributes.get("block"))


def code_range(bits: int) -> tuple[int, int]:
    """Return the lowest and highest code of ``bits`` bits."""
    return -(1 << bits - 1), (1 << bits - 1) - 1


def weight_codes(node: Node) -> np.ndarray:
    """Return the codes of a node's weights, int8 ``[N, K]``."""
    return node.constants["weight"].reshape(len(node.constants["weight"]), -1)


def effective_weights(node: Node) -> np.ndarray:
    """Return ``(q << zero_shift) + zero``, int64 ``[N, K]``: what the inputs are multiplied with in effect."""
    return decode(weight_codes(node), weight_format(node), node.constants.get("zero"))


def decode(codes: np.ndarray, form: WeightFormat, zero: np.ndarray | None = None) -> np.ndarray:
    """Return :func:`effective_weights` of codes ``[N, K]`` and zeros of ``form.factor_shape``."""
    codes = codes.astype(np.int64)
    if form.zero_shift is None or zero is None:
        return codes
    per_block = zero.astype(np.int64).reshape(form.channels, form.n_blocks)
    return (codes << form.zero_shift) + np.repeat(per_block, form.block_depth, axis=1)[:, : form.depth]


def scheme_name(node: Node) -> str:
    """Return the scheme of a node's weights: of :data:`SCHEME_NAMES`, by its constants.

    1-bit weights whose zeros are all half a step stand for two opposite values: symmetric.
    """
    form, zero = weight_format(node), node.constants.get("zero")
    if form.channels > 1 and not form.blocked and _all_equal(node, ("multiplier", "shift", "zero")):
        return "tensor"
    halves = form.bits == 1 and zero is not None and bool((2 * zero == 1 << (form.zero_shift or 0)).all())
    return SCHEMES[form.asymmetric and not halves] + (f"-{form.block}" if form.blocked else "")


def _all_equal(node: Node, roles: tuple[str, ...]) -> bool:
    constants = [node.constants[role] for role in roles if role in node.constants]
    return all((constant == constant.flat[0]).all() for constant in constants)


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack int8 codes ``[N, K]`` into uint8 ``[N, ceil(K * bits / 8)]``, two's complement, lowest bits first.

    Code k is in bits ``bits * (k mod 8 / bits)`` and up of byte ``k * bits // 8``; bits beyond K are zero.
    ValueError when a code does not fit.
    """
    low, high = code_range(bits)
    if codes.size and not low <= codes.min() <= codes.max() <= high:
        raise ValueError(f"codes {codes.min()} .. {codes.max()} do not fit {bits} bits")
    per_byte = 8 // bits
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per_byte))).view(np.uint8) & np.uint8((1 << bits) - 1)
    places = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    return np.bitwise_or.reduce(padded.reshape(len(codes), -1, per_byte) << places, axis=-1)


def unpack_codes(packed: np.ndarray, bits: int, depth: int) -> np.ndarray:
    """Return the int8 codes ``[N, depth]`` that :func:`pack_codes` packed; ValueError when their number differs."""
    if packed.shape[-1] != -(-depth * bits // 8):
        raise ValueError(f"{packed.shape[-1]} bytes per channel are not {depth} codes of {bits} bits")
    places = np.arange(8 // bits, dtype=np.uint8) * np.uint8(bits)
    fields = (packed[..., None] >> places).reshape(len(packed), -1)[:, :depth]
    # The shift to the top of the byte and back spreads the sign.
    return (fields << np.uint8(8 - bits)).view(np.int8) >> (8 - bits)
