"""Catalogue of the integer graph's operators: what each takes, names and yields (``docs/graph.md``)."""

from dataclasses import dataclass, field

BYTES = ("int8", "uint8")
# What a product of run-time operands takes as its second: that of the columns, as weights are.
COLUMNS = ("int8", "int4")
ANY = ("int8", "uint8", "int16")


@dataclass(frozen=True)
class Operator:
    """Signature of an operator.

    ``inputs`` lists the dtypes allowed for each input, ``outputs`` those of the result (empty: that of
    the first input), ``constants`` the dtype of each constant by role ("output": the node's dtype),
    ``optional`` the names of attributes that may be absent, ``optional_constants`` are like ``constants``
    but may be absent, ``optional_inputs`` says how many trailing inputs may be.
    """

    summary: str
    inputs: tuple[tuple[str, ...], ...]
    outputs: tuple[str, ...] = ANY
    constants: dict[str, str] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    optional_constants: dict[str, str] = field(default_factory=dict)
    optional_inputs: int = 0


CHANNEL_CONSTANTS = {"weight": "int8", "bias": "int32", "multiplier": "int32", "shift": "int32"}
# Weights of fewer bits, of a zero point, of scales per block of the inner dimension (docs/graph.md, "Weights").
WEIGHT_ATTRIBUTES = ("bits", "zero_shift", "block")
WEIGHT_CONSTANTS = {"zero": "int32"}
# A table fused into the product in front of it, and the dtype of the bytes that index it.
FUSED_TABLE = {"optional": ("table_dtype",), "optional_constants": {"table": "output"}}
LOW_BIT = {"optional": (*FUSED_TABLE["optional"], *WEIGHT_ATTRIBUTES),
           "optional_constants": FUSED_TABLE["optional_constants"] | WEIGHT_CONSTANTS}

OPERATORS = {
    "linear": Operator(
        "matrix product with constant weights, bias, per-channel requantization, optional residual",
        (BYTES, ("int16",)),
        outputs=(*ANY, "int4"),
        constants=CHANNEL_CONSTANTS,
        optional_inputs=1,
        **LOW_BIT,
    ),
    "conv2d": Operator(
        "two-dimensional convolution over time and frequency, channels last",
        (BYTES,),
        constants=CHANNEL_CONSTANTS,
        attributes=("stride", "padding"),
        **LOW_BIT,
    ),
    "depthwise_conv1d": Operator(
        "convolution over time of each column with a kernel of its own",
        (BYTES,),
        constants=CHANNEL_CONSTANTS,
        attributes=("padding",),
        **FUSED_TABLE,
    ),
    "matmul": Operator(
        "product of two run-time operands, optionally multi-head, optionally divided by row sums",
        (BYTES, COLUMNS),
        attributes=("shift", "transpose_b"),
        optional=("multiplier", "numerator", "normalize", "heads", "wide"),
    ),
    "softmax_exp": Operator(
        "exponentials relative to the row maximum, by table",
        (("int16",),),
        outputs=("uint8",),
        constants={"table": "uint8"},
        attributes=("multiplier", "shift"),
        optional=("offset",),
    ),
    "attention": Operator(
        "softmax(q k^T) v, optionally with relative positions, optionally over chunks of the rows",
        (("int8",), COLUMNS, COLUMNS),
        constants={"table": "uint8"},
        attributes=("scores", "exp", "context"),
        optional=("position_scores", "chunk", "left"),
        optional_constants={"positions": "int8", "position_bias": "int32"},
    ),
    "layernorm": Operator(
        "layer normalization over the last axis",
        (("int16",),),
        constants={"gamma": "int32", "gamma_shift": "int32", "beta": "int32"},
        attributes=("mean_multiplier", "mean_shift", "numerator", "shift", "epsilon"),
    ),
    "add": Operator("saturating sum of two tensors of one scale", (("int16",),) * 2, outputs=("int16",)),
    "add_rows": Operator(
        "saturating sum of each row and a constant row of its own",
        (("int16",),),
        outputs=("int16",),
        constants={"rows": "int16"},
    ),
    "multiply": Operator(
        "product of two tensors, element by element",
        (("int16",), ANY),
        attributes=("shift",),
    ),
    "rescale": Operator("change of scale and dtype", (ANY,), attributes=("multiplier", "shift")),
    "table": Operator(
        "any function of one 8-bit value (GELU, SiLU, sigmoid, tanh, ReLU)",
        (BYTES,),
        outputs=BYTES,
        constants={"table": "output"},
    ),
    "argmax": Operator("index of the row maximum", (("int8", "int16"),), outputs=("int16",)),
    "slice": Operator(
        "view of columns start .. stop of the last axis", ((*ANY, "int4"),), (), attributes=("start", "stop")
    ),
    "reshape": Operator("view with other dimensions after time", (ANY,), (), attributes=("tail",)),
}


def supported_operators() -> list[str]:
    """Return the operators a model file may hold, by name."""
    return sorted(OPERATORS)
