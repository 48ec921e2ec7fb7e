"""From float operators to integer operators, once the dtype and scale of every tensor are chosen."""

import math
from collections.abc import Mapping

import numpy as np

from phonolith.compiler.calibrate import Observed
from phonolith.compiler.fixed_point import (
    encode_inverse_sqrt,
    encode_multiplier,
    encode_multipliers,
    encode_reciprocal,
    exponential_table,
    far_offset,
    wide_exponential_tables,
)
from phonolith.compiler.float_graph import FloatGraph, FloatNode
from phonolith.compiler.float_kernels import FUNCTIONS
from phonolith.compiler.ir import DTYPES, Graph, Node, Value
from phonolith.compiler.position_tables import absolute_rows, int16_steps, relative_tables
from phonolith.compiler.tensor_types import (
    LEVELS,
    WANTS,
    ScaleRule,
    TensorTypes,
    factor_scale,
    satisfies,
)
from phonolith.compiler.weight_quantizer import BIAS_LIMIT, QuantizedWeight, WeightScheme, quantize_weight

# Partial sums of blocks, and with them the bias, are in steps of 1/256 of the output's.
BLOCK_STEPS = 256
# LayerNorm's normalised rows are int16 in steps of 2**-10: standard deviations up to 32.
NORMAL_STEPS = 1024
# The exponentials of 8 bits end with the smallest that rounds to 1 of 255, those of 16 bits with that of 65535.
EXPONENT_STEP = math.log(510) / 255
WIDE_EXPONENT_STEP = math.log(2 * 65535) / 509
SOFTMAX_BITS = (8, 16)
# Frames behind the front end that tables of positions are made for without further notice: 20 s of 40 ms.
MAX_FRAMES = 512


class Integerizer:
    """Builds the integer nodes of a float graph.

    Parameters
    ----------
    graph : the float graph, ReLUs fused.
    types : dtype and scale of each of its tensors.
    observed, rule : for tensors that are rescaled to a second type.
    schemes : of each product's weights, by name.
    softmax_bits : width of exponentials, one of :data:`SOFTMAX_BITS`.
    max_frames : rows that tables of positions are made for.
    """

    def __init__(self, graph: FloatGraph, types: TensorTypes, observed: dict[str, Observed], rule: ScaleRule,
                 schemes: Mapping[str, WeightScheme], softmax_bits: int = 8, max_frames: int = MAX_FRAMES):
        self.graph, self.types, self.observed, self.rule, self.schemes = graph, types, observed, rule, schemes
        self.wide, self.max_frames = softmax_bits == 16, max_frames
        self.nodes: list[Node] = []
        self.converted: dict[tuple[str, str, float], str] = {}

    def run(self, name: str, metadata: dict) -> Graph:
        """Return the integer graph."""
        for node in self.graph.nodes:
            self.nodes.append(getattr(self, f"_{node.op}")(node))
        scale = float(self.types.scales[self.graph.input])
        value = Value(self.graph.input, "int8", self.graph.tail, scale)
        ids = {node.name for node in self.graph.nodes if node.op == "argmax"}
        scales = {n: np.asarray(s).tolist() for n, s in self.types.scales.items() if n not in ids}
        metadata = metadata | {"input_scale": scale, "scales": scales}
        return Graph(name, (value,), tuple(self.nodes), (self.graph.output,), metadata)

    def operand(self, node: FloatNode, position: int = 0, scale: float | None = None) -> tuple[str, str, float]:
        """Return (name, dtype, scale) of an operand in a type that ``node`` reads, rescaled if need be.

        ``scale`` asks for that scale; without it the tensor's own is kept.
        """
        name, want = node.inputs[position], WANTS[node.op][position]
        dtype, own = self.types.dtypes[name], self.types.scales[name]
        if satisfies(dtype, want) and (scale is None or scale == own):
            return name, dtype, float(own)
        dtype = want if want in LEVELS else "int8"
        target = scale or self._second_scale(name, dtype)
        return self._rescaled(name, dtype, target), dtype, target

    def _second_scale(self, name: str, dtype: str) -> float:
        if dtype == "int16":
            return self.rule.int16(self.observed[name].maximum)
        return self.rule.byte(self.observed[name], dtype)

    def _rescaled(self, name: str, dtype: str, scale: float) -> str:
        key = (name, dtype, scale)
        if key not in self.converted:
            number = sum(made[:2] == (name, dtype) for made in self.converted)
            self.converted[key] = f"{name}.{dtype}" + (f".{number + 1}" if number else "")
            multiplier, shift = encode_multiplier(float(self.types.scales[name]) / scale)
            attributes = {"multiplier": multiplier, "shift": shift}
            self.nodes.append(Node(self.converted[key], "rescale", (name,), dtype, {}, attributes))
        return self.converted[key]

    def _scale(self, node: FloatNode) -> float:
        return float(self.types.scales[node.name])

    def _node(self, node: FloatNode, op: str, inputs, constants=None, **attributes) -> Node:
        return Node(node.name, op, tuple(inputs), self.types.dtypes[node.name], constants or {}, attributes)

    def _product(self, node: FloatNode, op: str, **geometry) -> Node:
        """A product with constant weights: codes, and what turns sums of their products into the output's steps."""
        x, _, x_scale = self.operand(node)
        scheme, weight = self.schemes[node.name], node.constants["weight"]
        bias = node.constants["bias"].astype(np.float64)
        quantized = quantize_weight(weight.reshape(len(weight), -1), scheme, bias / x_scale)
        constants = self._block_constants if scheme.block else self._channel_constants
        zero, attributes = zero_points(quantized, scheme)
        factors = constants(quantized, bias, x_scale, self.types.scales[node.name])
        return self._node(node, op, (x,), {"weight": quantized.codes.reshape(weight.shape)} | factors | zero,
                          **geometry, **attributes)

    @staticmethod
    def _channel_constants(weight: QuantizedWeight, bias: np.ndarray, x_scale: float, y_scale) -> dict[str, np.ndarray]:
        """Bias in steps of the products, multipliers to the output's scale, all ``[N]``."""
        product_scale = x_scale * weight.scale[:, 0] / (1 << weight.zero_shift)
        multiplier, shift = encode_multipliers(product_scale / y_scale)
        return {"bias": np.rint(bias / product_scale).astype(np.int32), "multiplier": multiplier, "shift": shift}

    @staticmethod
    def _block_constants(weight: QuantizedWeight, bias: np.ndarray, x_scale: float, y_scale) -> dict[str, np.ndarray]:
        """Bias ``[N]`` in steps of partial sums, multipliers ``[N, blocks]`` to them."""
        steps = np.broadcast_to(np.asarray(y_scale) / BLOCK_STEPS, bias.shape)
        multiplier, shift = encode_multipliers(x_scale * weight.scale / (1 << weight.zero_shift) / steps[:, None])
        # A bias beyond the limit saturates the output with or without the clip.
        limited = np.clip(np.rint(bias / steps), -BIAS_LIMIT, BIAS_LIMIT)
        return {"bias": limited.astype(np.int32), "multiplier": multiplier, "shift": shift}

    def _linear(self, node: FloatNode) -> Node:
        return self._product(node, "linear")

    def _conv2d(self, node: FloatNode) -> Node:
        return self._product(node, "conv2d", **{name: node.attributes[name] for name in ("stride", "padding")})

    def _depthwise(self, node: FloatNode) -> Node:
        return self._product(node, "depthwise_conv1d", padding=list(node.attributes["padding"]))

    def _scaled(self, node: FloatNode) -> Node:
        x, _, scale = self.operand(node)
        factor = scale * node.attributes["factor"] / self._scale(node)
        multiplier, shift = encode_multiplier(abs(factor))
        return self._node(node, "rescale", (x,), multiplier=-multiplier if factor < 0 else multiplier, shift=shift)

    def _multiply(self, node: FloatNode) -> Node:
        """The first factor has a scale with which a shift makes the product's."""
        y, _, other = self.operand(node, 1)
        scale, shift = factor_scale(self._scale(node), other, self.rule.int16(self.observed[node.inputs[0]].maximum))
        return self._node(node, "multiply", (self.operand(node, 0, scale)[0], y), shift=shift)

    def _function(self, node: FloatNode) -> Node:
        """Entry i of the table is the function of the byte whose unsigned value is i."""
        x, dtype, scale = self.operand(node)
        steps = np.arange(256).astype(np.uint8).view(DTYPES[dtype]).astype(np.float64)
        function, arguments = FUNCTIONS[node.attributes["function"]], node.attributes.get("arguments", ())
        values = function(steps * scale, *arguments) / self.types.scales[node.name]
        y = DTYPES[self.types.dtypes[node.name]]
        table = np.clip(np.rint(values), np.iinfo(y).min, np.iinfo(y).max).astype(y)
        return self._node(node, "table", (x,), {"table": table})

    def _layernorm(self, node: FloatNode) -> Node:
        x, _, x_scale = self.operand(node)
        gamma, beta = (node.constants[role].astype(np.float64) for role in ("gamma", "beta"))
        width, y_scale = len(gamma), self._scale(node)
        multiplier, gamma_shift = encode_multipliers(np.abs(gamma) / (NORMAL_STEPS * y_scale))
        mean_multiplier, mean_shift = encode_multiplier(1 / width)
        numerator, shift = encode_inverse_sqrt(math.sqrt(width) * NORMAL_STEPS)
        constants = {
            "gamma": np.where(gamma < 0, -multiplier, multiplier).astype(np.int32),
            "gamma_shift": gamma_shift,
            "beta": np.rint(beta / y_scale).astype(np.int32),
        }
        epsilon = min(round(node.attributes["epsilon"] * width / x_scale**2), (1 << 31) - 1)
        return self._node(
            node, "layernorm", (x,), constants, mean_multiplier=mean_multiplier, mean_shift=mean_shift,
            numerator=numerator, shift=shift, epsilon=epsilon,
        )  # fmt: skip

    def _scores(self, node: FloatNode) -> Node:
        (q, _, q_scale), (k, _, k_scale) = self.operand(node, 0), self.operand(node, 1)
        multiplier, shift = encode_multiplier(q_scale * k_scale / self._scale(node))
        heads = node.attributes["heads"]
        return self._node(node, "matmul", (q, k), multiplier=multiplier, shift=shift, transpose_b=True, heads=heads)

    def _softmax(self, node: FloatNode) -> Node:
        x, _, scale = self.operand(node)
        attributes, table = self._exponential(scale * node.attributes["scale"])
        return self._node(node, "softmax_exp", (x,), table, **attributes)

    def _exponential(self, scale: float) -> tuple[dict, dict[str, np.ndarray]]:
        """Return attributes and table of exponentials of steps of ``scale``; the index counts down from the maximum."""
        step = WIDE_EXPONENT_STEP if self.wide else EXPONENT_STEP
        multiplier, shift = encode_multiplier(scale / step)
        table = wide_exponential_tables(step) if self.wide else exponential_table(step)
        wide = {"offset": far_offset(multiplier, shift)} if self.wide else {}
        return {"multiplier": multiplier, "shift": shift, **wide}, {"table": table}

    def _context(self, node: FloatNode) -> Node:
        weights, (v, _, v_scale) = node.inputs[0], self.operand(node, 1)
        return self._node(node, "matmul", (weights, v), **self._weighted_mean(node, v_scale))

    def _weighted_mean(self, node: FloatNode, v_scale: float) -> dict:
        """The division by the sum of exponentials and the output's scale are one factor per row."""
        numerator, shift = encode_reciprocal(v_scale / self._scale(node))
        wide = {"wide": True} if self.wide else {}
        return {"numerator": numerator, "shift": shift, "transpose_b": False, "normalize": True,
                "heads": node.attributes["heads"], **wide}

    def _attention(self, node: FloatNode) -> Node:
        """Both terms of the scores have the scale of their sum."""
        (q, _, q_scale), (k, _, k_scale), (v, _, v_scale) = (self.operand(node, position) for position in range(3))
        terms = [f"{node.name}.{part}" for part in ("scores", "position_scores", "sums")]
        scale = self.rule.int16(max(self.observed[term].maximum for term in terms if term in self.observed))
        multiplier, shift = encode_multiplier(q_scale * k_scale / scale)
        scores = {"multiplier": multiplier, "shift": shift, "transpose_b": True, "heads": node.attributes["heads"]}
        exp, constants = self._exponential(scale * node.attributes["scale"])
        chunks = {name: node.attributes[name] for name in ("chunk", "left") if node.attributes["chunk"]}
        if "position_weight" in node.constants:
            tables, factor = relative_tables(node, self.max_frames, q_scale, scale)
            constants, chunks = constants | tables, chunks | {"position_scores": factor}
        return self._node(node, "attention", (q, k, v), constants, scores=scores, exp=exp,
                          context=self._weighted_mean(node, v_scale), **chunks)

    def _add(self, node: FloatNode) -> Node:
        scale = self._scale(node)
        return self._node(node, "add", [self.operand(node, position, scale)[0] for position in (0, 1)])

    def _add_positions(self, node: FloatNode) -> Node:
        x, _, scale = self.operand(node, 0, self._scale(node))
        rows = absolute_rows(self.max_frames, node.attributes["width"], scale)
        return self._node(node, "add_rows", (x,), {"rows": rows})

    def _add_rows(self, node: FloatNode) -> Node:
        x, _, scale = self.operand(node, 0, self._scale(node))
        return self._node(node, "add_rows", (x,), {"rows": int16_steps(node.constants["rows"], scale)})

    def _argmax(self, node: FloatNode) -> Node:
        return self._node(node, "argmax", (self.operand(node)[0],))

    def _slice(self, node: FloatNode) -> Node:
        return self._node(node, "slice", node.inputs, **node.attributes)

    def _reshape(self, node: FloatNode) -> Node:
        return self._node(node, "reshape", node.inputs, tail=list(node.attributes["tail"]))


def zero_points(weight: QuantizedWeight, scheme: WeightScheme) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return the constant **zero**, ``[N]`` or ``[N, blocks]``, and the attributes that say how weights are coded."""
    attributes = {"bits": scheme.bits} if scheme.bits != 8 else {}
    attributes |= {"block": scheme.block} if scheme.block else {}
    if not scheme.has_zero:
        return {}, attributes
    return {"zero": weight.zero if scheme.block else weight.zero[:, 0]}, attributes | {"zero_shift": weight.zero_shift}
