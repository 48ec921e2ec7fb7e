"""The model file: round trip, and one clear error for every way it can be wrong."""

import json

import numpy as np
import pytest
import safetensors.numpy

from phonolith.compiler import model_file
from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.errors import PhonolithError


@pytest.fixture
def graph() -> Graph:
    return random_graph(15)[0]


@pytest.fixture
def path(graph, tmp_path):
    file = tmp_path / "model.safetensors"
    model_file.save(file, graph)
    return file


def failure(action) -> PhonolithError:
    with pytest.raises(PhonolithError) as caught:
        action()
    assert caught.value.remedy
    return caught.value


def rewrite(path, tensors=None, **header):
    """Write the file again with other tensors or metadata, keeping the stored hash."""
    old = safetensors.numpy.load_file(path)
    metadata = model_file.read_header(path) | header
    path.write_bytes(safetensors.numpy.save(old | (tensors or {}), metadata))


def assert_equal(a: Graph, b: Graph) -> None:
    assert model_file.graph_to_json(a) == model_file.graph_to_json(b)
    for left, right in zip(a.nodes, b.nodes, strict=True):
        for role, constant in left.constants.items():
            assert constant.dtype == right.constants[role].dtype
            assert (constant == right.constants[role]).all()


@pytest.mark.parametrize("seed", range(10))
def test_round_trip(seed, tmp_path):
    graph = random_graph(seed)[0]
    for number, version in enumerate((graph, lower_graph(graph))):
        file = tmp_path / f"{number}.safetensors"
        model_file.save(file, version)
        assert_equal(model_file.load(file), version)


@pytest.mark.parametrize("seed", range(12))
def test_round_trip_of_weights_of_few_bits(seed, tmp_path):
    graph, file = random_graph(seed, bits="any")[0], tmp_path / "model.safetensors"
    model_file.save(file, graph)
    assert_equal(model_file.load(file), graph)
    stored = safetensors.numpy.load_file(file)
    for node in graph.nodes:
        bits = node.attributes.get("bits", 8)
        if bits < 8:
            codes = node.constants["weight"].reshape(len(node.constants["weight"]), -1)
            assert stored[f"{node.name}/weight"].dtype == np.uint8
            assert stored[f"{node.name}/weight"].shape == (len(codes), -(-codes.shape[1] * bits // 8))


def test_plain_weights_are_stored_as_ever():
    """The hash of a shipped file is over the JSON that the loaded graph has."""
    path = model_file.resolve("encoder-ctc-w8")
    assert model_file.graph_to_json(model_file.load(path)) == model_file.read_header(path)["graph"]


def test_packed_weights_of_another_length_are_damage(tmp_path):
    graph, file = random_graph(0, bits=4)[0], tmp_path / "model.safetensors"
    model_file.save(file, graph)
    tensors, header = safetensors.numpy.load_file(file), model_file.read_header(file)
    name = next(name for name in tensors if name.endswith("/weight"))
    tensors[name] = np.ascontiguousarray(tensors[name][:, 1:])
    rewrite(file, tensors, sha256=model_file.digest(header["graph"], tensors))
    assert failure(lambda: model_file.load(file)).kind == "corrupt-model"


def test_metadata_survives(tmp_path):
    graph = Graph("g", (Value("x", "int8", (3,), 0.02),), (Node("y", "argmax", ("x",), "int16"),), ("y",),
                  {"vocabulary": ["one", "zwölf"], "scales": {"x": 0.1}})  # fmt: skip
    model_file.save(tmp_path / "g.safetensors", graph)
    loaded = model_file.load(tmp_path / "g.safetensors")
    assert loaded.metadata == graph.metadata and loaded.inputs == graph.inputs


def test_same_graph_same_bytes(graph, path, tmp_path):
    model_file.save(tmp_path / "again.safetensors", model_file.load(path))
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_changed_weight_is_found(path):
    tensors = safetensors.numpy.load_file(path)
    name = next(name for name in tensors if name.endswith("/weight"))
    tensors[name].flat[0] ^= 1
    rewrite(path, tensors)
    error = failure(lambda: model_file.load(path))
    assert error.kind == "corrupt-model" and "does not match its hash" in error.message


def test_a_changed_graph_is_found(path):
    document = json.loads(model_file.read_header(path)["graph"])
    document["nodes"][0]["name"] += "x"
    rewrite(path, graph=json.dumps(document))
    assert failure(lambda: model_file.load(path)).kind == "corrupt-model"


def test_a_truncated_file_is_corrupt(path):
    path.write_bytes(path.read_bytes()[:-100])
    assert failure(lambda: model_file.load(path)).kind == "corrupt-model"


def test_another_version_is_refused(path):
    rewrite(path, version="7")
    error = failure(lambda: model_file.load(path))
    assert error.kind == "model-version" and "version 7; this is version 1" in error.message


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"\xff" * 64, safetensors.numpy.save({})])
def test_other_files_are_no_models(tmp_path, content):
    file = tmp_path / "other.safetensors"
    file.write_bytes(content)
    error = failure(lambda: model_file.load(file))
    assert error.kind == "not-a-model" and str(file) in error.message


def test_unknown_operator_is_named(tmp_path, graph):
    strange = graph.with_nodes([*graph.nodes, Node("odd", "fold", (graph.nodes[-1].name,), "int8")])
    model_file.save(tmp_path / "g.safetensors", strange)
    error = failure(lambda: model_file.load(tmp_path / "g.safetensors"))
    assert error.kind == "unsupported-operator"
    assert "node 'odd'" in error.message and "'fold'" in error.message and "linear" in error.remedy


def test_unknown_model_lists_what_is_shipped(monkeypatch, tmp_path, graph):
    monkeypatch.setattr(model_file, "checkpoints_folder", lambda: tmp_path)
    model_file.save(tmp_path / "tiny-w8.safetensors", graph)
    (tmp_path / "float.safetensors").write_bytes(safetensors.numpy.save({}))
    assert model_file.resolve("tiny-w8") == tmp_path / "tiny-w8.safetensors"
    error = failure(lambda: model_file.resolve("huge"))
    assert error.kind == "unknown-model" and "'huge'" in error.message
    assert error.remedy.endswith("shipped models: tiny-w8.")


def test_a_path_wins(path):
    assert model_file.resolve(path) == path
    assert failure(lambda: model_file.load(path.with_name("none"))).kind == "unknown-model"


def test_nothing_half_written(monkeypatch, tmp_path, graph):
    def fail(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_file.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        model_file.save(tmp_path / "model.safetensors", graph)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder(tmp_path, graph):
    error = failure(lambda: model_file.save(tmp_path / "no" / "model.safetensors", graph))
    assert error.kind == "cannot-write"


def test_digest_sees_names_dtypes_and_shapes():
    a = np.zeros(4, np.int8)
    variants = [{"a": a}, {"b": a}, {"a": a.view(np.uint8)}, {"a": a.reshape(2, 2)}]
    assert len({model_file.digest("{}", tensors) for tensors in variants}) == 4
