"""What a quantizer is asked for, and which layer's weights get which scheme."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from phonolith.compiler.calibrate import CLIPS
from phonolith.compiler.float_graph import FloatGraph
from phonolith.compiler.float_passes import PRODUCTS
from phonolith.compiler.integerize import MAX_FRAMES, SOFTMAX_BITS
from phonolith.compiler.tensor_types import KV_BITS, ScaleRule
from phonolith.compiler.weight_quantizer import WeightScheme, quantize_weight
from phonolith.hw.errors import PhonolithError


@dataclass(frozen=True)
class Quantization:
    """How a float graph becomes integers.

    Parameters
    ----------
    weights : of the linear layers between the first and the last; all other weights have 8 bits.
    layer_bits : width by layer, for layers that shall have another. ``name`` stands for its parts ``name.0`` .., too.
    clip : how ranges of bytes are chosen, one of :data:`phonolith.compiler.calibrate.CLIPS`.
    softmax_bits : width of the softmax's exponentials; 8, or 16 for long rows (docs/decisions/0005).
    kv_bits : width of keys and values of attention; 8 or 4.
    max_frames : frames behind the front end that the model's tables of positions shall last for, if it has any.

    Raises PhonolithError ``option`` for values that are none of these.
    """

    weights: WeightScheme = field(default_factory=WeightScheme)
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    clip: str = "max"
    softmax_bits: int = 8
    kv_bits: int = 8
    max_frames: int = MAX_FRAMES

    def __post_init__(self):
        if self.softmax_bits not in SOFTMAX_BITS:
            raise PhonolithError("option", f"exponentials of {self.softmax_bits} bits are not supported.",
                                 "Choose --softmax-bits 8 or 16.")
        if self.kv_bits not in KV_BITS:
            raise PhonolithError("option", f"keys and values of {self.kv_bits} bits are not supported.",
                                 "Choose --kv-bits 8 or 4.")
        if self.kv_bits == 4 and self.softmax_bits == 16:
            raise PhonolithError("option", "values of 4 bits do not go with exponentials of 16.",
                                 "Choose --softmax-bits 8 or --kv-bits 8.")
        if self.max_frames < 1:
            raise PhonolithError("option", f"positions of {self.max_frames} frames are none.",
                                 "Choose --max-frames 1 or more.")
        if self.clip not in CLIPS:
            raise PhonolithError("option", f"there is no clip {self.clip!r}.", f"Choose one of {', '.join(CLIPS)}.")

    @property
    def rule(self) -> ScaleRule:
        """How ranges of activations become scales."""
        return ScaleRule(self.clip, self.weights.power_of_two)

    def flags(self) -> str:
        """Return what differs from the defaults as options of ``phonolith quantize``."""
        weights = self.weights
        values = {"--bits": (weights.bits, 8), "--scheme": (weights.scheme, "symmetric"),
                  "--block": (weights.group, "channel"), "--calibrate": (self.clip, "max"),
                  "--softmax-bits": (self.softmax_bits, 8), "--kv-bits": (self.kv_bits, 8),
                  "--max-frames": (self.max_frames, MAX_FRAMES)}
        switches = {"--clip-search": weights.clip_search, "--power-of-two": weights.power_of_two}
        layers = (f"--layer {name}={bits}" for name, bits in self.layer_bits.items())
        return " ".join((*(f"{name} {value}" for name, (value, default) in values.items() if value != default),
                         *(name for name, is_on in switches.items() if is_on), *layers))


def inner_linears(graph: FloatGraph) -> list[str]:
    """Return the linear layers between the first, which ends the front end, and the last, which makes the scores."""
    return [node.name for node in graph.nodes if node.op == "linear"][1:-1]


def layer_schemes(graph: FloatGraph, options: Quantization) -> dict[str, WeightScheme]:
    """Return the scheme of every product's weights in a simplified graph.

    PhonolithError ``option`` for a width of a layer that there is not, or of a depthwise convolution;
    ``weights`` for weights that are not finite.
    """
    plain = WeightScheme(power_of_two=options.weights.power_of_two)
    products = {node.name: node for node in graph.nodes if node.op in PRODUCTS}
    check_weights(graph)
    schemes = dict.fromkeys(products, plain) | dict.fromkeys(inner_linears(graph), options.weights)
    for layer, bits in options.layer_bits.items():
        named = [name for name in products if name == layer or is_part(name, layer)]
        if not named:
            raise PhonolithError("option", f"there is no layer {layer!r} with weights.",
                                 f"Choose among {', '.join(products)}.")
        if bits != 8 and any(products[name].op == "depthwise" for name in named):
            raise PhonolithError("option", f"layer {layer!r} is a depthwise convolution: its weights have 8 bits.",
                                 "Leave it out.")
        schemes |= {name: replace(options.weights, bits=bits) for name in named if products[name].op != "depthwise"}
    return schemes


def is_part(name: str, layer: str) -> bool:
    """Tell whether ``name`` is ``layer`` with the number of a part behind it."""
    before, _, number = name.rpartition(".")
    return before == layer and number.isdecimal()


def check_weights(graph: FloatGraph) -> None:
    """Refuse weights and other constants that are not finite."""
    for node in graph.nodes:
        for role, constant in node.constants.items():
            if not np.isfinite(constant).all():
                raise PhonolithError("weights", f"the {role} of layer {node.name!r} is not finite.",
                                     "Train the float model again.")


def module_quantizers(graph: FloatGraph, options: Quantization,
                      modules: Container[str]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return, by torch module, what the codes of its weights stand for as a function of the weights.

    For the linear layers and convolutions of a prepared graph that have not the 8 bits of all others. ``modules`` are
    the names of modules; the parts of a layer that was split belong to one.
    """
    plain, parts = WeightScheme(power_of_two=options.weights.power_of_two), {}
    for name, scheme in layer_schemes(graph, options).items():
        if scheme != plain:
            module = name if name in modules else name.rpartition(".")[0]
            rows = next(len(node.constants["weight"]) for node in graph.nodes if node.name == name)
            parts.setdefault(module, []).append((rows, scheme))
    return {module: partial(rounded_weights, schemes=schemes) for module, schemes in parts.items()}


def rounded_weights(weight: np.ndarray, schemes: Sequence[tuple[int, WeightScheme]]) -> np.ndarray:
    """Return what the codes of ``weight`` stand for; ``schemes`` has the number of rows and the scheme of every part.

    Float ``[N, K]``, or ``[N, C, kh, kw]`` as torch has it: K runs over kernel positions, then channels.
    """
    last = np.moveaxis(weight, 1, -1)
    ends = np.cumsum([rows for rows, _ in schemes])[:-1]
    parts = [quantize_weight(part, scheme).values()
             for part, (_, scheme) in zip(np.split(last.reshape(len(weight), -1), ends), schemes, strict=True)]
    return np.moveaxis(np.concatenate(parts).reshape(last.shape), -1, 1)
