"""Model files with numbers that are none: refused, with the place named."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler import model_file
from phonolith.hw.errors import PhonolithError
from tests.compiler import lowering_cases as cases

NAN, INFINITY = float("nan"), float("inf")


def stored(tmp_path, scale=1.0, metadata=None, **attributes):
    """Write a rescaling graph with its hash right and some numbers wrong; return the path."""
    graph = cases.rescale(np.random.default_rng(0), 4, "int8", "int8")
    node = replace(graph.nodes[0], attributes=graph.nodes[0].attributes | attributes)
    value = replace(graph.inputs[0], scale=scale)
    path = tmp_path / "model.safetensors"
    model_file.save(path, replace(graph, inputs=(value,), nodes=(node,), metadata=metadata or {}))
    return path


@pytest.mark.parametrize("scale", [NAN, INFINITY, -INFINITY, 0.0, -0.5])
def test_input_scales(tmp_path, scale):
    with pytest.raises(PhonolithError, match=r"model 'case', input 'x': scale is") as caught:
        model_file.load(stored(tmp_path, scale))
    assert caught.value.kind == "invalid-scale"


@pytest.mark.parametrize("number", [NAN, INFINITY])
def test_attributes_and_metadata(tmp_path, number):
    with pytest.raises(PhonolithError, match=r"node 'y': multiplier is (nan|inf); it must be finite"):
        model_file.load(stored(tmp_path, multiplier=number))
    with pytest.raises(PhonolithError, match=r"metadata: scales is (nan|inf); it must be finite"):
        model_file.load(stored(tmp_path, metadata={"scales": {"y": [1.0, number]}}))


def test_sound_numbers(tmp_path):
    assert model_file.load(stored(tmp_path, 0.25, {"scales": [1.0]})).inputs[0].scale == 0.25
