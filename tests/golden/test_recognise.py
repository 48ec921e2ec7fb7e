"""The host's part: features to int8, ids to words; and the shipped model on real recordings."""

import numpy as np
import pytest

from phonolith.compiler import model_file
from phonolith.compiler.ir import Graph, Node, Value
from phonolith.hw.errors import PhonolithError
from phonolith.models.evaluate import evaluate
from phonolith.sim.recognise import feature_parameters, golden_recogniser, quantize_features, transcript

GRAPH = Graph(
    "g",
    (Value("x", "int8", (3,), 0.5),),
    (Node("ids", "argmax", ("x",), "int16"),),
    ("ids",),
    {"vocabulary": ["yes", "no"]},
)


def test_features_are_rounded_to_even_and_saturated():
    steps = quantize_features(GRAPH, np.array([[0.25, 0.75, -0.3], [1000, -1000, 0]], np.float32))
    assert steps.tolist() == [[0, 2, -1], [127, -128, 0]] and steps.dtype == np.int8


def test_recogniser_collapses_ids():
    rows = [[9, 0, 0], [0, 9, 0], [0, 9, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9], [9, 9, 9]]
    assert golden_recogniser(GRAPH)(np.array(rows, np.float32)) == ["yes", "yes", "no"]


def test_a_model_without_words_cannot_spell():
    with pytest.raises(PhonolithError, match="model 'g' has no vocabulary"):
        transcript(Graph("g", (), (), ()), np.array([1]))


@pytest.mark.parametrize(("frames", "kind", "remedy"), [
    (6, "input-too-short", "Give at least 7 frames."),
    (2055, "input-too-long", "Give at most 2054 frames, or quantize the model again with --max-frames 513.")])
def test_inputs_that_a_model_is_not_for(frames, kind, remedy):
    recognise = golden_recogniser(model_file.load(model_file.resolve("conformer-ctc-w8")))
    with pytest.raises(PhonolithError) as caught:
        recognise(np.zeros((frames, 40), np.float32))
    assert (caught.value.kind, caught.value.remedy) == (kind, remedy)


@pytest.mark.parametrize(("name", "limit"), [
    ("encoder-ctc-w8", 0.06), ("conformer-ctc-w8", 0.01), ("conformer-ctc-stream-w8", 0.02),
    ("conformer-ctc-w4", 0.01), ("conformer-ctc-w2", 0.015), ("conformer-ctc-w1", 0.03)])
def test_shipped_model_hears_real_recordings(fsdd, name, limit):
    graph = model_file.load(model_file.resolve(name))
    found = evaluate(golden_recogniser(graph), fsdd, strings=100, parameters=feature_parameters(graph))
    assert found.errors.wer <= limit
