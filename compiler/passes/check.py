"""The verifier of integer graphs: names, dtypes, constants, attributes and shapes."""

import numpy as np

from phonolith.compiler.ir import DTYPES, Graph, Node
from phonolith.compiler.model_file import check_operators
from phonolith.compiler.operators import ANY, BYTES, OPERATORS, Operator
from phonolith.compiler.passes.check_weights import FACTORS, check_weight_attributes, check_weight_constants
from phonolith.compiler.shapes import PLANES, infer_shapes, minimum_frames, require
from phonolith.compiler.weight_formats import LOW_BIT_OPERATORS
from phonolith.hw.errors import PhonolithError

# Closed ranges of constants and scalar attributes by name.
RANGES = {
    "multiplier": (-65536, 65535),
    "gamma": (-65536, 65535),
    "shift": (0, 47),
    "gamma_shift": (0, 47),
    "mean_multiplier": (0, 65535),
    "mean_shift": (0, 47),
    "numerator": (1 << 15, (1 << 16) - 1),
    "beta": (-(1 << 16), (1 << 16) - 1),
    "epsilon": (0, (1 << 31) - 1),
    "offset": (0, (1 << 16) - 1),
}
# What `shift` may be where it is the h of a reciprocal or an inverse square root.
ROW_FACTOR_SHIFT = (0, 63)
# The high bytes of exponentials are scaled with a shift this much smaller.
WIDE_SHIFT = 8


def check(graph: Graph) -> Graph:
    """Return ``graph`` unchanged; PhonolithError naming the first node that breaks a rule."""
    check_operators(graph)
    _check_inputs(graph)
    dtypes = {value.name: value.dtype for value in graph.inputs}
    for node in graph.nodes:
        require(node.name not in dtypes, node, "its name is used twice")
        missing = [name for name in node.inputs if name not in dtypes]
        require(not missing, node, f"it reads {missing}, which nothing before it makes")
        _check_dtypes(node, OPERATORS[node.op], [dtypes[name] for name in node.inputs])
        _check_wide_operands(node, [dtypes[name] for name in node.inputs])
        if node.op in LOW_BIT_OPERATORS:
            check_weight_attributes(node)
        _check_constants(node, OPERATORS[node.op])
        _check_attributes(node, OPERATORS[node.op])
        dtypes[node.name] = node.dtype
    _check_outputs(graph, dtypes)
    infer_shapes(graph, minimum_frames(graph))
    return graph


def _check_inputs(graph: Graph) -> None:
    for value in graph.inputs:
        if value.dtype not in (*ANY, "int4"):
            raise PhonolithError("invalid-graph", f"input {value.name!r} is {value.dtype}.",
                                 f"Make it one of {', '.join((*ANY, 'int4'))}.")


def _check_outputs(graph: Graph, dtypes: dict[str, str]) -> None:
    missing = [name for name in graph.outputs if name not in dtypes]
    if missing or not graph.outputs:
        raise PhonolithError(
            "invalid-graph", f"graph {graph.name!r}: nothing makes the outputs {missing}.", "Name a node."
        )


def _check_dtypes(node: Node, operator: Operator, dtypes: list[str]) -> None:
    most, fewest = len(operator.inputs), len(operator.inputs) - operator.optional_inputs
    require(fewest <= len(dtypes) <= most, node, f"it takes {most} inputs, not {len(dtypes)}")
    for position, (dtype, allowed) in enumerate(zip(dtypes, operator.inputs, strict=False)):
        require(dtype in allowed, node, f"input {position} is {dtype}, not one of {', '.join(allowed)}")
    allowed = operator.outputs or dtypes[:1]
    require(node.dtype in allowed, node, f"its output is {node.dtype}, not one of {', '.join(allowed)}")
    require(len(dtypes) < 2 or node.op != "linear" or node.dtype == "int16", node, "a residual needs int16")


def _check_wide_operands(node: Node, dtypes: list[str]) -> None:
    """Exponentials in planes of bytes weigh values of bytes."""
    exp = node.attributes.get("exp")
    wide = node.attributes.get("wide") or (isinstance(exp, dict) and "offset" in exp)
    require(not wide or dtypes[-1] != "int4", node, f"input {len(dtypes) - 1} is int4, beside exponentials of 16 bits",
            "Make it int8, or use exponentials of 8 bits.")


def _check_constants(node: Node, operator: Operator) -> None:
    roles = operator.constants | {r: d for r, d in operator.optional_constants.items() if r in node.constants}
    given, expected = sorted(node.constants), sorted(roles)
    require(given == expected, node, f"its constants are {given}, not {expected}")
    for role, dtype in roles.items():
        constant, wanted = node.constants[role], node.dtype if dtype == "output" else dtype
        require(constant.dtype == DTYPES[wanted], node, f"{role} is {constant.dtype}, not {wanted}")
        if role in RANGES:
            _check_range(node, role, constant, RANGES[role])
    _check_lengths(node)


def _check_lengths(node: Node) -> None:
    """Every per-channel constant has one element per output channel; tables have 256, one per plane of exponentials.

    Constants with a row per frame or offset have two dimensions.
    """
    if "table" in node.constants:
        exp = node.attributes.get("exp", node.attributes)
        shape, wanted = node.constants["table"].shape, (PLANES, 256) if "offset" in exp else (256,)
        require(shape == wanted, node, f"its table has shape {shape}, not {wanted}")
    for role in ("rows", "positions", "position_bias"):
        constant = node.constants.get(role, np.zeros((1, 1)))
        require(constant.ndim == 2 and constant.size > 0, node, f"{role} has shape {constant.shape}")
    leading = next((node.constants[role] for role in ("weight", "gamma") if role in node.constants), None)
    if leading is None:
        return
    rank = {"linear": 2, "conv2d": 4, "depthwise_conv1d": 2, "layernorm": 1}[node.op]
    require(leading.ndim == rank and leading.size > 0, node, f"its weight has shape {leading.shape}")
    if node.op in LOW_BIT_OPERATORS:
        check_weight_constants(node)
    per_block = FACTORS if node.op in LOW_BIT_OPERATORS else ()
    for role, constant in node.constants.items():
        fits = role in ("weight", "table", *per_block) or constant.shape == (len(leading),)
        require(fits, node, f"{role} has shape {constant.shape} for {len(leading)} channels")


def _check_range(node: Node, name: str, value, limits: tuple[int, int]) -> None:
    low, high = np.min(value), np.max(value)
    inside = limits[0] <= low and high <= limits[1]
    require(inside, node, f"{name} reaches {low} .. {high}, outside {limits[0]} .. {limits[1]}")


def _check_attributes(node: Node, operator: Operator) -> None:
    required, given = set(operator.attributes), set(node.attributes)
    require(required <= given, node, f"it lacks {', '.join(sorted(required - given))}")
    unknown = given - required - set(operator.optional)
    require(not unknown, node, f"it has unknown attributes {', '.join(sorted(unknown))}")
    if node.op == "attention":
        return _check_attention(node)
    _check_scalars(node, {name: node.attributes[name] for name in RANGES if name in node.attributes})
    CHECKS.get(node.op, lambda node: None)(node)


def _check_scalars(node: Node, scalars: dict[str, int]) -> None:
    for name, value in scalars.items():
        require(isinstance(value, int), node, f"{name} is {value!r}, not an integer")
        row_factor = name == "shift" and "numerator" in scalars
        _check_range(node, name, value, ROW_FACTOR_SHIFT if row_factor else RANGES[name])


def _check_attention(node: Node) -> None:
    """The parts of attention are checked as the operators that they are."""
    attributes, table = node.attributes, {"table": node.constants["table"]}
    for name in ("scores", "exp", "context"):
        require(isinstance(attributes[name], dict), node, f"{name} is {attributes[name]!r}")
    parts = (
        Node(node.name, "matmul", node.inputs[:2], "int16", {}, attributes["scores"]),
        Node(node.name, "softmax_exp", node.inputs[:1], "uint8", table, attributes["exp"]),
        Node(node.name, "matmul", node.inputs[:2], node.dtype, {}, attributes["context"]),
    )
    for part in parts:
        _check_attributes(part, OPERATORS[part.op])
    scores, context = attributes["scores"], attributes["context"]
    require(scores["transpose_b"] and not context["transpose_b"], node, "it transposes the wrong operand")
    require(context.get("normalize"), node, "its context is not normalized")
    require(scores.get("heads") == context.get("heads"), node, "scores and context differ in heads")
    require(("offset" in attributes["exp"]) == context.get("wide", False), node, "offset and wide need each other")
    _check_positions(node)
    _check_chunks(node)


def _check_positions(node: Node) -> None:
    """Positions come with a bias per head and offset, and a factor that brings them to the scale of the scores."""
    given = {name for name in ("positions", "position_bias") if name in node.constants}
    given |= {"position_scores"} & set(node.attributes)
    require(len(given) in (0, 3), node, f"of positions, position_bias and position_scores it has only {sorted(given)}")
    if not given:
        return
    offsets, factor = len(node.constants["positions"]), node.attributes["position_scores"]
    require(offsets % 2 == 1, node, f"positions have {offsets} rows, not 2 L - 1")
    require(isinstance(factor, dict) and factor.keys() == {"multiplier", "shift"}, node,
            f"position_scores is {factor!r}, not a multiplier and a shift")
    _check_scalars(node, factor)


def _check_chunks(node: Node) -> None:
    chunk, left = (node.attributes.get(name, 0) for name in ("chunk", "left"))
    for name, value in (("chunk", chunk), ("left", left)):
        require(type(value) is int and value >= 0, node, f"{name} is {value!r}")
    require(chunk > 0 or left == 0, node, f"left is {left} without chunks")


def _check_matmul(node: Node) -> None:
    heads = node.attributes.get("heads", 1)
    require(isinstance(heads, int) and heads > 0, node, f"heads is {heads!r}")
    normalize = node.attributes.get("normalize", False)
    require(not (normalize and node.attributes["transpose_b"]), node, "normalize needs transpose_b false")
    factor = "numerator" if normalize else "multiplier"
    require(factor in node.attributes, node, f"it lacks {factor}")
    if node.attributes.get("wide"):
        require(normalize, node, "wide needs normalize")
        require(node.dtype in BYTES, node, f"wide makes int8 or uint8, not {node.dtype}")
        require(node.attributes["shift"] >= WIDE_SHIFT, node, f"wide needs a shift of at least {WIDE_SHIFT}")


def _check_linear(node: Node) -> None:
    """Of a table and the dtype of its index there are both or none, and no residual besides."""
    index, fused = node.attributes.get("table_dtype"), "table" in node.constants
    require(fused == (index is not None), node, "table and table_dtype need each other")
    require(not fused or index in BYTES, node, f"table_dtype is {index!r}")
    require(not fused or len(node.inputs) == 1, node, "a table and a residual exclude each other")
    require(not fused or node.dtype in BYTES, node, f"its table makes int8 or uint8, not {node.dtype}")


def _check_conv2d(node: Node) -> None:
    _check_linear(node)
    for name, least in (("stride", 1), ("padding", 0)):
        _check_pair(node, name, least)


def _check_depthwise_conv1d(node: Node) -> None:
    _check_linear(node)
    _check_pair(node, "padding", 0)


def _check_pair(node: Node, name: str, least: int) -> None:
    pair = node.attributes[name]
    integers = isinstance(pair, list | tuple) and [type(each) for each in pair] == [int, int]
    require(integers and min(pair) >= least, node, f"{name} is {pair!r}")


def _check_softmax_exp(node: Node) -> None:
    require(node.attributes["multiplier"] >= 0, node, "its multiplier is negative")


CHECKS = {
    "matmul": _check_matmul,
    "linear": _check_linear,
    "conv2d": _check_conv2d,
    "depthwise_conv1d": _check_depthwise_conv1d,
    "softmax_exp": _check_softmax_exp,
}
