"""The verifier of constant weights: bits, zero points, blocks (``docs/graph.md``, "Weights")."""

from phonolith.compiler.ir import Node
from phonolith.compiler.shapes import require
from phonolith.compiler.weight_formats import BITS, BLOCKS, ZERO_SHIFTS, ZEROS, code_range, weight_format

# Constants with one element per channel, or per channel and block.
FACTORS = ("multiplier", "shift", "zero")
# Codes of 1 bit are 0 and -1, what the array counts are 0 and 1: zeros and multipliers change their signs on the way.
SINGLE_BIT_MULTIPLIERS = (-65535, 65535)


def check_weight_attributes(node: Node) -> None:
    """Refuse bits, blocks and zero shifts that do not exist, and those that lack what they need."""
    bits, block, zero_shift = (node.attributes.get(name) for name in ("bits", "block", "zero_shift"))
    _check_choice(node, "bits", bits, BITS)
    _check_choice(node, "block", block, BLOCKS)
    low, high = ZERO_SHIFTS
    _check_choice(node, "zero_shift", zero_shift, tuple(range(low, high + 1)))
    has_zero = "zero" in node.constants
    require(has_zero or zero_shift is None, node, f"zero_shift is {zero_shift}, but it has no zero",
            "Give a zero per channel, or per channel and block; symmetric weights have neither.")
    require(not has_zero or zero_shift is not None, node, "it has a zero, but no zero_shift",
            f"Give a zero_shift of {low} .. {high}.")
    require(bits != 1 or has_zero, node, "its weights have 1 bit, but no zero",
            "Give zero and zero_shift: zero 1 and zero_shift 1 make codes -1 and 0 stand for -1/2 and 1/2.")


def check_weight_constants(node: Node) -> None:
    """Refuse codes and zeros out of range, and factors of other shapes than the format's."""
    form = weight_format(node)
    _check_limits(node, "weight", code_range(form.bits), f"it has {form.bits} bits")
    layout = f"{form.n_blocks} blocks of {form.block}" if form.blocked else "no blocks"
    for role in FACTORS[: 2 + form.asymmetric]:
        shape = node.constants[role].shape
        require(shape == form.factor_shape, node,
                f"{role} has shape {shape} for {form.channels} channels and {layout}", f"Make it {form.factor_shape}.")
    if form.asymmetric:
        _check_limits(node, "zero", ZEROS, "it has 9 bits")
    if form.bits == 1:
        _check_limits(node, "multiplier", SINGLE_BIT_MULTIPLIERS, "weights of 1 bit change its sign")


def _check_choice(node: Node, name: str, value, choices: tuple[int, ...]) -> None:
    known = value is None or (type(value) is int and value in choices)
    require(known, node, f"{name} is {value!r}", f"Choose one of {', '.join(map(str, choices))}, or leave it out.")


def _check_limits(node: Node, role: str, limits: tuple[int, int], what: str) -> None:
    low, high = int(node.constants[role].min()), int(node.constants[role].max())
    inside = limits[0] <= low and high <= limits[1]
    require(inside, node, f"{role} reaches {low} .. {high}, outside {limits[0]} .. {limits[1]}: {what}",
            "Clip it, or choose more bits or a coarser scale.")
