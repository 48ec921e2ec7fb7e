"""``simulate --stream``: the contract's keys, summed, and those of every chunk."""

import json

import numpy as np
import pytest

from phonolith.cli.main import run
from phonolith.compiler import model_file
from phonolith.sim.golden.interpret import interpret

MODEL = "conformer-ctc-stream-w8"
CLIP = "models/clips/seven_three_one.wav"


@pytest.fixture
def simulate(capfd):
    """Run ``simulate --stream --json``: (exit code, its one object)."""
    def call(*arguments: object) -> tuple[int, dict]:
        code = run(["simulate", *map(str, arguments), "--stream", "--array", "8x8", "--json"])
        return code, json.loads(capfd.readouterr().out)

    return call


def test_a_recording(simulate, repository):
    code, found = simulate(repository / CLIP, "--model", MODEL)
    assert code == 0 and found["bit_exact"] and found["transcript"] == found["reference"]
    chunks = found["chunks"]
    assert [chunk["frames"] for chunk in chunks[:-1]] == [67] * (len(chunks) - 1) and chunks[-1]["frames"] <= 67
    assert sum(chunk["rows"] for chunk in chunks) == (found["frames"] - 3) // 4
    assert found["cycles"] == sum(chunk["cycles"] for chunk in chunks)
    assert found["max_latency_ms"] == max(chunk["latency_ms"] for chunk in chunks) < found["latency_ms"]
    assert found["chunk_ms"] == 640
    for engine in found["engines"].values():
        assert engine["busy"] + engine["idle"] + sum(engine["stalled"].values()) == found["cycles"]
    assert found["macs"] == sum(layer["macs"] for layer in found["layers"])
    assert all(0 <= layer["start"] <= layer["end"] <= found["cycles"] for layer in found["layers"])


def test_features_of_one_row_and_of_several_chunks(simulate, tmp_path):
    graph = model_file.load(model_file.resolve(MODEL))
    for frames, chunks in ((7, 1), (3 * 64 + 7, 4)):
        features = np.random.default_rng(0).integers(-128, 128, (frames, 40), np.int8)
        np.save(tmp_path / "x.npy", features)
        code, found = simulate(tmp_path / "x.npy", "--model", MODEL)
        assert code == 0 and found["bit_exact"] and len(found["chunks"]) == chunks
        ids = interpret(graph, {graph.inputs[0].name: features})[graph.outputs[0]]
        assert sum(chunk["rows"] for chunk in found["chunks"]) == len(ids)


def test_the_table_for_people(repository, capfd):
    assert run(["simulate", str(repository / CLIP), "--model", MODEL, "--stream", "--array", "8x8"]) == 0
    out = capfd.readouterr().out
    assert "seven three one" in out and "chunks of 640 ms" in out and "latency_ms" in out


def test_refused(simulate, repository, tmp_path):
    code, found = simulate(repository / CLIP, "--model", "encoder-ctc-w8")
    assert code == 1 and found["error"]["kind"] == "not-streamable" and "attention" in found["error"]["message"]
    np.save(tmp_path / "x.npy", np.zeros((6, 40), np.int8))
    code, found = simulate(tmp_path / "x.npy", "--model", MODEL)
    assert code == 1 and found["error"]["kind"] == "input-too-short" and "at least 7" in found["error"]["remedy"]
    code, found = simulate(repository / CLIP, "--model", MODEL, "--trace", tmp_path / "t.json")
    assert code == 2 and "--trace" in found["error"]["message"]
