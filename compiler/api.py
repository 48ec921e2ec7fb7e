"""A torch module of your own, in one call: import, quantize, compile."""

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from phonolith.compiler.frontend import import_module
from phonolith.compiler.integerize import MAX_FRAMES
from phonolith.compiler.ir import DTYPES, Graph
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.program import Program
from phonolith.compiler.quantization import Quantization
from phonolith.compiler.quantize import quantize
from phonolith.compiler.weight_quantizer import WeightScheme
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError

FACTORY = "package.module:factory"


@dataclass(frozen=True)
class Compiled:
    """A module as integers and as a program.

    Parameters
    ----------
    graph : Graph
        The quantized model: any machine's, any length's. ``model_file.save`` writes it.
    program : Program
        For one machine and inputs of at most as many frames as the example.
    """

    graph: Graph
    program: Program

    def inputs(self, features: Any) -> dict[str, np.ndarray]:
        """Return what the golden model and the program take for ``features``, float ``[T, F]`` or ``[1, T, F]``."""
        (value,) = self.graph.inputs
        limits = np.iinfo(DTYPES[value.dtype])
        steps = np.rint(sequence(features).astype(np.float64) / value.scale)
        return {value.name: np.clip(steps, limits.min, limits.max).astype(DTYPES[value.dtype])}


def compile(module: Any, example_inputs: Any, calibration: Iterable[Any], config: MachineConfig | None = None, *,
            bits: int = 8, scheme: str = "symmetric", block: str | int = "channel", clip_search: bool = False,
            power_of_two: bool = False, clip: str = "max", softmax_bits: int = 8, kv_bits: int = 8,
            max_frames: int = MAX_FRAMES, layer_bits: Mapping[str, int] | None = None,
            name: str | None = None) -> Compiled:
    """Quantize and compile a ``torch.nn.Module``.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor ``[1, T, F]``; returns ``[1, T', N]`` scores or ``[1, T']`` ids. ``phonolith ops`` lists what
        it may use.
    example_inputs : torch.Tensor, or a tuple or list of one
        ``[1, T, F]``; the program is for at most T frames.
    calibration : iterable of tensors or arrays ``[T, F]`` or ``[1, T, F]``
        Representative inputs, of any lengths.
    config : MachineConfig, optional
        The machine; the default one without it.
    bits, scheme, block, clip_search, power_of_two
        Of weights: :class:`phonolith.compiler.weight_quantizer.WeightScheme`; ``block`` is its group.
    clip, softmax_bits, kv_bits, max_frames, layer_bits
        Of :class:`phonolith.compiler.quantization.Quantization`.
    name : str, optional
        Of the model; the module's class by default.

    Raises
    ------
    PhonolithError
        ``unsupported-operator`` with operator and source line, ``export-failed`` (control flow that depends on values,
        with its line), ``input-shape``, ``input-too-long``, ``option``, ``calibration``, ``does-not-fit``.
    """
    example = single(example_inputs)
    weights = WeightScheme(bits, scheme, block, clip_search, power_of_two)
    options = Quantization(weights, layer_bits or {}, clip, softmax_bits, kv_bits, max_frames)
    graph = quantize(import_module(module, example, name or type(module).__name__),
                     [sequence(each).astype(np.float32) for each in calibration], options)
    return Compiled(graph, compile_graph(graph, config or MachineConfig(), int(example.shape[1])))


def single(example_inputs: Any) -> Any:
    """Return the one example tensor ``[1, T, F]``."""
    examples = list(example_inputs) if isinstance(example_inputs, tuple | list) else [example_inputs]
    if len(examples) != 1 or getattr(examples[0], "ndim", 0) != 3 or examples[0].shape[0] != 1:
        shapes = [list(getattr(each, "shape", ())) for each in examples]
        raise PhonolithError("input-shape", f"example inputs must be one tensor [1, T, F], not {shapes}.",
                             "Wrap the module so that it takes features alone.")
    return examples[0]


def sequence(features: Any) -> np.ndarray:
    """Return features as an array ``[T, F]``, a batch dimension of one removed."""
    array = np.asarray(features.detach() if hasattr(features, "detach") else features)
    array = array[0] if array.ndim == 3 and len(array) == 1 else array
    if array.ndim != 2:
        raise PhonolithError("input-shape", f"features must be [T, F] or [1, T, F], not {list(array.shape)}.",
                             "Give one utterance at a time.")
    return array


def call_factory(spec: str) -> tuple[Any, Any, Any]:
    """Call ``package.module:factory``; return what it returns: module, example inputs, calibration.

    Modules are looked for in the current folder, too. PhonolithError ``factory`` when there is none, or it returns
    something else.
    """
    path, _, attribute = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        factory = getattr(importlib.import_module(path), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not f"{path}.".startswith(f"{error.name}."):
            raise
        raise PhonolithError("factory", f"there is no {spec}: {error}.",
                             f"Give {FACTORY}; the current folder is searched, too.") from None
    made = factory()
    if not isinstance(made, tuple) or len(made) != 3:
        raise PhonolithError("factory", f"{spec} returned {type(made).__name__}, not three things.",
                             "Return (module, example_inputs, calibration).")
    return made
