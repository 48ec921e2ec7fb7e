"""``quantize``: a float checkpoint in few bits, by name of scheme; what cannot be is one line."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch (make setup EXTRAS=train)")

import soundfile  # noqa: E402

from phonolith.cli.main import run  # noqa: E402
from phonolith.compiler import model_file  # noqa: E402
from phonolith.compiler.inspect import inspect  # noqa: E402
from phonolith.models import synthetic, train  # noqa: E402
from phonolith.models.checkpoint import save_model  # noqa: E402
from phonolith.models.conformer_config import ConformerConfig  # noqa: E402
from phonolith.models.families import random_model  # noqa: E402

CONFIG = ConformerConfig(channels=4, width=32, heads=2, layers=1, ffn=64, kernel=5, vocabulary=("zero", "one"))
INNER = ("first_ffn.expand", "attention.key", "convolution.expand.1", "second_ffn.contract")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two "digits" that are tones; training takes batches of two strings and no synthetic voices."""
    monkeypatch.setattr(synthetic, "available", lambda: False)
    monkeypatch.setattr(train.Batches.next, "__defaults__", (2,))
    folder = tmp_path / "recordings"
    folder.mkdir()
    for digit in range(2):
        for take in range(5, 8):
            times = np.arange(2400 + 100 * take) / 8000
            soundfile.write(folder / f"{digit}_george_{take}.wav",
                            0.3 * np.sin(2 * np.pi * (400 + 700 * digit) * times), 8000)
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    """A random float checkpoint."""
    path = tmp_path / "float.safetensors"
    save_model(random_model(CONFIG, 0), path)
    return path


@pytest.fixture
def quantize(data, checkpoint, tmp_path, capfd):
    """Run ``quantize`` with options: (exit code, its one object, the model file)."""
    def call(*options: object, model=checkpoint, recordings=data):
        output = tmp_path / "quantized.safetensors"
        words = ["quantize", model, "--data", recordings, "--strings", 2, *options, "-o", output, "--json"]
        code = run([str(word) for word in words])
        return code, json.loads(capfd.readouterr().out), output

    return call


@pytest.mark.parametrize(("options", "bits", "scheme", "block"), [
    ((), 8, None, None),
    (("--bits", 4, "--clip-search", "--calibrate", "percentile"), 4, None, None),
    (("--bits", 2, "--scheme", "asymmetric", "--block", 32, "--kv-bits", 4), 2, "asymmetric", 32),
    (("--bits", 1, "--block", "tensor", "--power-of-two", "--calibrate", "mse"), 1, "asymmetric", None),
])
def test_schemes(quantize, options, bits, scheme, block):
    code, result, output = quantize(*options)
    graph = model_file.load(output)
    assert code == 0 and result["bits"] == bits and graph.metadata["bits"] == bits
    for name in INNER:
        attributes = graph.node(f"layers.0.{name}").attributes
        assert attributes.get("bits", 8) == bits and attributes.get("block") == block
        assert ("zero_shift" in attributes) == (scheme == "asymmetric")
    assert all("bits" not in graph.node(name).attributes for name in ("front_end.project", "output"))
    dtype = "int4" if "--kv-bits" in options else "int8"
    assert graph.node("layers.0.attention.key").dtype == graph.node("layers.0.attention.value").dtype == dtype
    command = graph.metadata["provenance"]["command"]
    assert all(str(word) in command for word in options)


def test_training_first(quantize):
    code, result, output = quantize("--bits", 1, "--train-steps", 2, "--learning-rate", 1e-4, "--train-activations",
                                    "--layer", "output=4")
    graph = model_file.load(output)
    assert code == 0 and result["train_steps"] == 2 and result["layer_bits"] == {"output": 4}
    assert graph.node("output").attributes["bits"] == 4
    assert graph.metadata["provenance"]["command"].endswith(
        "--bits 1 --layer output=4 --train-steps 2 --learning-rate 0.0001 --train-activations")
    untrained = quantize("--bits", 1)[2]
    weights = [model_file.load(path).node("layers.0.attention.key").constants["weight"] for path in (output, untrained)]
    assert weights[0].shape == weights[1].shape


@pytest.mark.parametrize("unit", ["bytes", "cycles"])
def test_budgets(quantize, unit):
    code, result, output = quantize(f"--budget-{unit}", 1)
    assert code == 1 and result["error"]["kind"] == "budget" and not output.exists()
    least = int(result["error"]["remedy"].split()[2])
    code, result, output = quantize(f"--budget-{unit}", least + (3000 if unit == "bytes" else 300), "--clip-search")
    assert code == 0 and len(set(result["layer_bits"].values())) > 1
    if unit == "bytes":
        assert inspect(model_file.load(output))["constant_bytes"] <= least + 3000


@pytest.mark.parametrize(("options", "kind", "message"), [
    (("--bits", 3), "option", "weights of 3 bits are not supported."),
    (("--scheme", "ternary"), "option", "there is no scheme 'ternary'."),
    (("--block", 48), "option", "weights cannot share scales by 48."),
    (("--block", "row"), "option", "weights cannot share scales by 'row'."),
    (("--calibrate", "best"), "option", "there is no clip 'best'."),
    (("--kv-bits", 2), "option", "keys and values of 2 bits are not supported."),
    (("--kv-bits", 4, "--softmax-bits", 16), "option", "values of 4 bits do not go with exponentials of 16."),
    (("--layer", "layers.0.depth=4"), "option", "there is no layer 'layers.0.depth' with weights."),
    (("--layer", "layers.0.convolution.depthwise=4"), "option", "layer 'layers.0.convolution.depthwise' is a depthwise "
     "convolution: its weights have 8 bits."),
    (("--layer", "output"), "usage", "'output' is not NAME=BITS, like output=4."),
    (("--calibrate", 0), "usage", "there is nothing to calibrate with: give a string or more."),
    (("--budget-bytes", 9, "--budget-cycles", 9), "usage", "--budget-bytes and --budget-cycles exclude each other."),
])
def test_what_cannot_be(quantize, options, kind, message):
    code, result, output = quantize(*options)
    assert code != 0 and result["error"]["kind"] == kind and message in result["error"]["message"]
    assert not output.exists()


def test_no_recordings(quantize, tmp_path):
    (tmp_path / "empty").mkdir()
    code, result, output = quantize(recordings=tmp_path / "empty")
    assert code == 1 and "no recordings" in result["error"]["message"] and not output.exists()


@pytest.mark.parametrize("steps", [0, 2])
def test_weights_that_are_no_numbers(quantize, tmp_path, steps):
    model = random_model(CONFIG, 0)
    with torch.no_grad():
        model.get_submodule("layers.0.attention.key").weight[3, 4] = float("nan")
    save_model(model, tmp_path / "broken.safetensors")
    code, result, output = quantize("--train-steps", steps, model=tmp_path / "broken.safetensors")
    assert code == 1 and result["error"]["kind"] == "weights" and not output.exists()
    assert result["error"]["message"] == "the weight of layer 'layers.0.attention.key' is not finite."


def test_a_folder_that_is_not_there(quantize, monkeypatch, checkpoint, data, capfd):
    code = run(["quantize", str(checkpoint), "--data", str(data), "-o", "/dev/null/quantized.safetensors", "--json"])
    assert code == 1 and json.loads(capfd.readouterr().out)["error"]["kind"] == "cannot-write"
