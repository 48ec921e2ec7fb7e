"""What the host does around an integer model: features to int8 by the model's scale, ids to words."""

from collections.abc import Callable

import numpy as np

from phonolith.compiler.ir import DTYPES, Graph
from phonolith.compiler.shapes import infer_shapes
from phonolith.hw.errors import PhonolithError
from phonolith.models.decode import words
from phonolith.models.features import FeatureParameters
from phonolith.sim.golden.interpret import interpret


def feature_parameters(graph: Graph) -> FeatureParameters:
    """Return how the model's features are computed; PhonolithError if they are none that we compute."""
    return FeatureParameters.from_dict(graph.metadata.get("features", {}))


def quantize_features(graph: Graph, features: np.ndarray) -> np.ndarray:
    """Return float features ``[T, mels]`` in steps of the graph's input scale, rounded and saturated.

    PhonolithError ``audio`` when one is not finite.
    """
    (value,) = graph.inputs
    broken = np.argwhere(~np.isfinite(features))
    if len(broken):
        raise PhonolithError("audio", f"feature {tuple(map(int, broken[0]))} is {features[tuple(broken[0])]}.",
                             "Give finite features: record or compute them again.")
    limits = np.iinfo(DTYPES[value.dtype])
    steps = np.rint(np.asarray(features, np.float64) / value.scale)
    return np.clip(steps, limits.min, limits.max).astype(DTYPES[value.dtype])


def transcript(graph: Graph, ids: np.ndarray) -> list[str]:
    """Return the words that one token id per frame ``[T']`` spells; PhonolithError without a vocabulary."""
    if not graph.metadata.get("vocabulary"):
        raise PhonolithError(
            "model", f"model {graph.name!r} has no vocabulary.", "Quantize a model that was trained to spell words."
        )
    return words(ids, graph.metadata["vocabulary"])


def golden_recogniser(graph: Graph) -> Callable[[np.ndarray], list[str]]:
    """Return the golden model of ``graph`` as a function from float32 features ``[T, mels]`` to words.

    The function raises PhonolithError ``input-too-short`` or ``input-too-long`` where the model says nothing.
    """
    (value,), (output,) = graph.inputs, graph.outputs

    def recognise(features: np.ndarray) -> list[str]:
        infer_shapes(graph, len(features))
        values = interpret(graph, {value.name: quantize_features(graph, features)})
        return transcript(graph, values[output])

    return recognise
