"""Post-training quantization: types, scales, and integer results close to the float model's."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.calibrate import CLIPS, Observed, observe
from phonolith.compiler.float_graph import FloatGraph, FloatNode, evaluate
from phonolith.compiler.float_passes import fuse_relu, simplify
from phonolith.compiler.integerize import MAX_FRAMES
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.quantization import Quantization, layer_schemes
from phonolith.compiler.quantize import noise_features, prepare, quantize
from phonolith.compiler.tensor_types import ScaleRule, assign_dtypes, choose_types
from phonolith.compiler.weight_quantizer import SCHEMES, WIDTHS, WeightScheme, quantize_weight
from phonolith.hw.errors import PhonolithError
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.recognise import quantize_features

WIDTH, HIDDEN, TOKENS, HEADS, MELS = 24, 40, 7, 2, 16


def dense(rng, name: str, source: str, inputs: int, outputs: int) -> FloatNode:
    constants = {
        "weight": (rng.standard_normal((outputs, inputs)) / np.sqrt(inputs)).astype(np.float32),
        "bias": (0.1 * rng.standard_normal(outputs)).astype(np.float32),
    }
    return FloatNode(name, "linear", (source,), constants)


def norm(rng, name: str, source: str) -> FloatNode:
    gamma = rng.uniform(-1.5, 1.5, WIDTH).astype(np.float32)
    beta = (0.2 * rng.standard_normal(WIDTH)).astype(np.float32)
    return FloatNode(name, "layernorm", (source,), {"gamma": gamma, "beta": beta}, {"epsilon": 1e-5})


def function(name: str, source: str, kind: str) -> FloatNode:
    return FloatNode(name, "function", (source,), {}, {"function": kind})


def encoder(activation: str = "relu", post_norm: bool = False) -> FloatGraph:
    """A convolution, one attention layer with a fused projection, one feed-forward layer, an output layer."""
    rng = np.random.default_rng(0)
    kernel = (rng.standard_normal((4, 3, 3, 1)) / 3).astype(np.float32)
    conv = {"weight": kernel, "bias": np.zeros(4, np.float32)}
    head = {"heads": HEADS}
    attended = "post" if post_norm else "sum1"
    nodes = [
        FloatNode("image", "reshape", ("features",), {}, {"tail": [MELS, 1]}),
        FloatNode("conv", "conv2d", ("image",), conv, {"stride": [2, 2], "padding": [0, 0]}),
        function("conv.relu", "conv", "relu"),
        FloatNode("flat", "reshape", ("conv.relu",), {}, {"tail": [28]}),
        dense(rng, "embed", "flat", 28, WIDTH),
        norm(rng, "norm1", "embed"),
        dense(rng, "qkv", "norm1", WIDTH, 3 * WIDTH),
        *(FloatNode(n, "slice", ("qkv",), {}, {"start": i * WIDTH, "stop": (i + 1) * WIDTH})
          for i, n in enumerate("qkv")),
        FloatNode("scores", "scores", ("q", "k"), {}, head),
        FloatNode("softmax", "softmax", ("scores",), {}, {"scale": 0.5}),
        FloatNode("context", "context", ("softmax", "v"), {}, head),
        dense(rng, "out", "context", WIDTH, WIDTH),
        FloatNode("sum1", "add", ("embed", "out")),
        *([norm(rng, "post", "sum1")] if post_norm else []),
        norm(rng, "norm2", attended),
        dense(rng, "expand", "norm2", WIDTH, HIDDEN),
        function("act", "expand", activation),
        dense(rng, "contract", "act", HIDDEN, WIDTH),
        FloatNode("sum2", "add", (attended, "contract")),
        norm(rng, "norm3", "sum2"),
        dense(rng, "logits", "norm3", WIDTH, TOKENS),
        FloatNode("ids", "argmax", ("logits",)),
    ]  # fmt: skip
    names = {node.name for node in nodes}
    assert len(names) == len(nodes)
    return FloatGraph("tiny", "features", (MELS,), tuple(nodes), "ids")


def integer_and_float(graph: FloatGraph, **options):
    """Return the integer graph, its values, and the float model's values, on one utterance not calibrated with."""
    quantized = quantize(graph, noise_features(8, MELS, 0, 60), Quantization(**options))
    x = noise_features(1, MELS, 99, 80)[0]
    integers = interpret(quantized, {"features": quantize_features(quantized, x)})
    return quantized, integers, evaluate(fuse_relu(graph), x)


def relative_error(quantized, integers, floats, name: str) -> float:
    real = integers[name] * np.asarray(quantized.metadata["scales"][name])
    return float(np.sqrt(np.mean((real - floats[name]) ** 2) / np.mean(floats[name] ** 2)))


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "sigmoid", "tanh"])
def test_integer_model_is_close_to_the_float_model(clip, activation):
    quantized, integers, floats = integer_and_float(encoder(activation), clip=clip)
    bound = 0.1 if clip == "clip" else 0.05  # which gives less weight to the few large values
    for name in ("conv", "embed", "norm1", "context", "sum1", "contract", "sum2", "logits"):
        assert relative_error(quantized, integers, floats, name) < bound, name
    assert np.corrcoef(integers["logits"].ravel(), floats["logits"].ravel())[0, 1] > 0.998
    assert (integers["ids"] == floats["ids"]).mean() > 0.9
    assert integers["ids"].dtype == np.int16


def test_exponentials_of_16_bits():
    errors = {}
    for bits in (8, 16):
        quantized, integers, floats = integer_and_float(encoder(), softmax_bits=bits)
        errors[bits] = relative_error(quantized, integers, floats, "context")
        (attention,) = (node for node in lower_graph(quantized).nodes if node.op == "attention")
        assert attention.attributes["context"].get("wide", False) == (bits == 16)
    assert errors[16] < 0.05 and errors[16] < errors[8] + 0.002


def test_post_norm_streams_are_rescaled_where_bytes_are_read():
    quantized, integers, floats = integer_and_float(encoder(post_norm=True))
    assert quantized.node("post").dtype == "int16"
    assert relative_error(quantized, integers, floats, "logits") < 0.05


def test_dtypes():
    quantized = quantize(encoder(), noise_features(2, MELS, 0, 40))
    dtypes = {node.name: node.dtype for node in quantized.nodes}
    assert dtypes["conv"] == dtypes["flat"] == dtypes["expand"] == dtypes["softmax"] == "uint8"
    assert dtypes["norm1"] == dtypes["qkv"] == dtypes["q"] == dtypes["context"] == "int8"
    stream = ("embed", "out", "sum1", "contract", "sum2")
    assert {dtypes[name] for name in (*stream, "scores", "logits")} == {"int16"}
    scales = quantized.metadata["scales"]
    assert len({scales[name] for name in stream}) == 1
    assert "act" not in dtypes and "conv.relu" not in dtypes


def test_parts_of_a_fused_projection_have_their_own_scales():
    graph = fuse_relu(encoder())
    observed = observe(graph, noise_features(2, MELS, 0, 40))
    types = choose_types(graph, observed, ScaleRule())
    parts = [types.scales[name] for name in "qkv"]
    assert np.array_equal(types.scales["qkv"], np.repeat(parts, WIDTH)) and len(set(parts)) == 3


def test_a_one_sided_table_is_uint8():
    dtypes = assign_dtypes(fuse_relu(encoder("sigmoid")))
    assert dtypes["expand"] == "int8" and dtypes["act"] == "uint8"
    assert assign_dtypes(fuse_relu(encoder("gelu")))["act"] == "int8"


def test_lowered_graph_has_fused_residuals_and_attention():
    lowered = lower_graph(quantize(encoder(), noise_features(2, MELS, 0, 40)))
    ops = [node.op for node in lowered.nodes]
    assert ops.count("attention") == 1 and "add" not in ops and "softmax_exp" not in ops
    assert len(lowered.node("sum2").inputs) == 2


def test_a_dead_channel_with_a_large_bias():
    graph = encoder()
    for node in graph.nodes:
        if node.name == "contract":
            node.constants["weight"][3] = 0
            node.constants["bias"][3] = 2.0
            node.constants["weight"][4] *= 1e-12
    quantized, integers, floats = integer_and_float(graph)
    scale = quantized.metadata["scales"]["contract"]
    assert np.allclose(integers["contract"][:, 3] * scale, floats["contract"][:, 3], atol=0.01)
    assert np.allclose(integers["contract"][:, 4] * scale, floats["contract"][:, 4], atol=0.01)


def with_rounded_weights(graph: FloatGraph, options: Quantization) -> FloatGraph:
    """Return the simplified float graph whose weights are what their codes stand for."""
    graph = prepare(graph, options)
    schemes = layer_schemes(graph, options)

    def rounded(node: FloatNode) -> FloatNode:
        if node.name not in schemes:
            return node
        weight = node.constants["weight"]
        values = quantize_weight(weight.reshape(len(weight), -1), schemes[node.name]).values()
        return replace(node, constants=node.constants | {"weight": values.reshape(weight.shape).astype(np.float32)})

    return replace(graph, nodes=tuple(rounded(node) for node in graph.nodes))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("group", ["tensor", "channel", 32])
@pytest.mark.parametrize("bits", WIDTHS)
def test_schemes_of_weights(bits, scheme, group):
    """The integer model computes what the float model with rounded weights does."""
    options = Quantization(WeightScheme(bits, scheme, group, clip_search=bits > 1), {"conv": bits, "logits": bits})
    quantized = quantize(encoder(), noise_features(8, MELS, 0, 60), options)
    x = noise_features(1, MELS, 99, 80)[0]
    integers = interpret(quantized, {"features": quantize_features(quantized, x)})
    floats = evaluate(with_rounded_weights(encoder(), options), x)
    for name in ("conv", "embed", "context", "sum1", "contract", "sum2", "logits"):
        assert relative_error(quantized, integers, floats, name) < 0.08, name
    for name, low in (("conv", True), ("embed", False), ("qkv", True), ("contract", True), ("logits", True)):
        attributes = quantized.node(name).attributes
        assert attributes.get("bits", 8) == (bits if low else 8)
        assert attributes.get("block") == (group if low and group == 32 else None)
        assert ("zero_shift" in attributes) == (low and (bits == 1 or scheme == "asymmetric"))


def test_which_layers_have_few_bits():
    graph = prepare(encoder(), Quantization())
    schemes = layer_schemes(graph, Quantization(WeightScheme(2), {"out": 4}))
    assert {name: scheme.bits for name, scheme in schemes.items()} == {
        "conv": 8, "embed": 8, "qkv": 2, "out": 4, "expand": 2, "contract": 2, "logits": 8}


def test_powers_of_two():
    quantized, integers, floats = integer_and_float(encoder("silu"), weights=WeightScheme(power_of_two=True))
    products = [node for node in quantized.nodes if "weight" in node.constants]
    assert all(set(np.unique(node.constants["multiplier"])) <= {1 << 15} for node in products)
    assert relative_error(quantized, integers, floats, "logits") < 0.1


@pytest.mark.parametrize("clip", CLIPS)
def test_keys_and_values_of_4_bits(clip):
    quantized, integers, floats = integer_and_float(encoder(), kv_bits=4, clip=clip)
    dtypes = {node.name: node.dtype for node in quantized.nodes}
    assert dtypes["qkv.0"] == "int8" and dtypes["qkv.1"] == dtypes["qkv.2"] == "int4"
    for name in ("qkv.1", "qkv.2"):
        assert integers[name].min() >= -8 and integers[name].max() <= 7
    assert relative_error(quantized, integers, floats | {"qkv.1": floats["k"]}, "qkv.1") < 0.25
    assert relative_error(quantized, integers, floats, "logits") < 0.25


def test_keys_that_no_linear_layer_makes():
    graph = encoder()
    nodes = [replace(node, inputs=("q", "norm1")) if node.name == "scores" else node for node in graph.nodes]
    with pytest.raises(PhonolithError, match="keys or values 'norm1' cannot have 4 bits"):
        quantize(replace(graph, nodes=tuple(nodes)), noise_features(1, MELS, 0, 40), Quantization(kv_bits=4))


def test_clip_methods():
    samples = np.abs(np.random.default_rng(0).standard_normal(100000)).astype(np.float32)
    outlier = Observed(50.0, np.append(samples, np.float32(50.0)))
    assert outlier.clip("max", 127) == 50.0
    assert outlier.clip("percentile", 127) < 6
    assert outlier.clip("mse", 127) < 50
    assert Observed(0.0, samples[:0]).clip("mse", 127) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kv_bits": 2}, "keys and values of 2 bits are not supported"),
     ({"kv_bits": 4, "softmax_bits": 16}, "values of 4 bits do not go with exponentials of 16"),
     ({"layer_bits": {"embedd": 4}}, "there is no layer 'embedd' with weights"),
     ({"layer_bits": {"embed": 5}}, "weights of 5 bits are not supported"),
     ({"clip": "best"}, "there is no clip 'best'"),
     ({"softmax_bits": 12}, "exponentials of 12 bits are not supported"),
     ({"max_frames": 0}, "positions of 0 frames are none")],
)
def test_options_are_refused(options, message):
    with pytest.raises(PhonolithError, match=message) as caught:
        quantize(encoder(), noise_features(1, MELS, 0, 40), Quantization(**options))
    assert caught.value.kind == "option"


@pytest.mark.parametrize("role", ["weight", "bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(role, value):
    graph = encoder()
    next(node for node in graph.nodes if node.name == "expand").constants[role][3] = value
    with pytest.raises(PhonolithError, match=f"the {role} of layer 'expand' is not finite") as caught:
        quantize(graph, noise_features(1, MELS, 0, 40))
    assert caught.value.kind == "weights"


def test_calibration_is_needed():
    with pytest.raises(PhonolithError, match="nothing to calibrate with"):
        quantize(encoder(), [])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_no_numbers(value):
    features = noise_features(1, MELS, 0, 40)[0]
    features[3, 2] = value
    with pytest.raises(PhonolithError, match="'features' are not finite") as caught:
        quantize(encoder(), [features])
    assert (caught.value.kind, caught.value.remedy) == ("calibration", "Give finite inputs.")


def test_values_that_overflow():
    graph = encoder()
    next(node for node in graph.nodes if node.name == "expand").constants["weight"] *= 1e38
    with pytest.raises(PhonolithError, match="'norm3' are not finite") as caught:
        quantize(graph, noise_features(1, MELS, 0, 40))
    assert caught.value.remedy == "Train the float model again."


def test_features_are_rounded_and_saturated():
    graph = quantize(encoder(), noise_features(1, MELS, 0, 40))
    scale = graph.inputs[0].scale
    steps = quantize_features(graph, np.full((1, MELS), 1.0) * scale * np.linspace(-200, 200, MELS))
    assert steps.dtype == np.int8 and steps.min() == -128 and steps.max() == 127


@pytest.fixture(scope="module")
def model():
    """The shipped model's structure, small, with random weights."""
    pytest.importorskip("torch")
    from phonolith.models.config import EncoderConfig
    from phonolith.models.families import random_model

    return random_model(EncoderConfig(channels=4, width=32, layers=2, heads=2, ffn=48), 1)


def test_logits(model):
    import torch

    from phonolith.compiler.quantize import import_encoder

    graph = quantize(import_encoder(model, "tiny"), noise_features(8, 40, 0))
    x = noise_features(1, 40, 5, 90)[0]
    with torch.no_grad():
        expected = model(torch.from_numpy(x)[None])[0].numpy()
    integers = interpret(graph, {"features": quantize_features(graph, x)})
    assert integers["output"].shape == expected.shape
    assert np.corrcoef(integers["output"].ravel(), expected.ravel())[0, 1] > 0.999


def test_new_model(tmp_path):
    pytest.importorskip("torch")
    from phonolith.compiler.model_file import load
    from phonolith.compiler.quantize import new_model

    spec = tmp_path / "spec.toml"
    spec.write_text("[encoder]\nwidth = 32\nheads = 2\nlayers = 1\nchannels = 4\nffn = 32\n")
    result = new_model(spec, 3, tmp_path / "a.safetensors")
    graph = load(tmp_path / "a.safetensors")
    assert result["bytes"] == (tmp_path / "a.safetensors").stat().st_size
    assert graph.name == "a" and graph.metadata["vocabulary"][0] == "zero"
    assert new_model(spec, 4, tmp_path / "c.safetensors")["parameters"] == result["parameters"]
    assert (tmp_path / "c.safetensors").read_bytes() != (tmp_path / "a.safetensors").read_bytes()


def test_new_streaming_conformer(tmp_path):
    pytest.importorskip("torch")
    from phonolith.compiler.inspect import inspect
    from phonolith.compiler.model_file import load
    from phonolith.compiler.quantize import new_model
    from phonolith.models.families import read_spec
    from phonolith.models.features import FeatureStream
    from phonolith.sim.recognise import feature_parameters

    spec = tmp_path / "spec.toml"
    spec.write_text("[conformer]\nwidth = 32\nheads = 2\nlayers = 1\nchannels = 4\nffn = 32\n"
                    "chunk = 4\nleft = 1\ntransducer = 16\n")
    new_model(spec, 3, tmp_path / "a.safetensors")
    graph = load(tmp_path / "a.safetensors")
    assert graph.metadata["family"] == "conformer-ctc"
    counts = read_spec(spec).counts
    assert inspect(graph, 100)["parameters"] == counts
    assert counts["encoder_and_transducer"] == counts["encoder"] + counts["transducer"]
    frames = FeatureStream(feature_parameters(graph)).push(np.zeros(2000, np.float32))
    assert frames.shape == (23, 40)


def test_checkpoint(model, fsdd, tmp_path):
    from phonolith.compiler.model_file import load
    from phonolith.compiler.quantize import quantize_checkpoint
    from phonolith.models.checkpoint import save_model

    save_model(model, tmp_path / "float.safetensors")
    result = quantize_checkpoint(tmp_path / "float.safetensors", fsdd, tmp_path / "w8.safetensors", calibrate=3)
    graph = load(tmp_path / "w8.safetensors")
    assert result["calibrate"] == 3 and graph.metadata["provenance"]["checkpoint"] == "float.safetensors"
    assert graph.metadata["features"]["mels"] == 40


CONFORMER = """[conformer]
mels = 40
channels = 4
width = 32
layers = 2
heads = 2
ffn = 48
kernel = 7
"""


@pytest.mark.parametrize("more", ["", "positions = 'absolute'\n", "chunk = 6\nleft = 2\n",
                                  "positions = 'none'\nchunk = 6\n"])
def test_conformers(more, tmp_path):
    """Checkpoints of every kind of Conformer become integers that compute nearly the same."""
    torch = pytest.importorskip("torch")
    from phonolith.compiler.quantize import import_encoder
    from phonolith.models.families import random_model, read_spec

    (tmp_path / "spec.toml").write_text(CONFORMER + more)
    model = random_model(read_spec(tmp_path / "spec.toml"), 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_bias"):
                parameter.normal_(0, 0.3)
        x = noise_features(1, 40, 5, 130)[0]
        expected = model(torch.from_numpy(x)[None])[0].numpy()
    graph = import_encoder(model, "tiny")
    np.testing.assert_allclose(evaluate(simplify(graph), x)["output"], expected, atol=1e-5)
    for bits in (8, 16):
        quantized = quantize(graph, noise_features(8, 40, 0), Quantization(softmax_bits=bits, max_frames=40))
        integers = interpret(quantized, {"features": quantize_features(quantized, x)})
        real = integers["output"] * quantized.metadata["scales"]["output"]
        assert np.sqrt(np.mean((real - expected) ** 2) / np.mean(expected**2)) < 0.04


@pytest.mark.parametrize(("more", "bounded"), [
    ("", True), ("positions = 'absolute'\n", True), ("chunk = 4\nleft = 1\n", False)])
def test_new_conformers_last_for_max_frames(more, bounded, tmp_path):
    pytest.importorskip("torch")
    from phonolith.compiler.model_file import load
    from phonolith.compiler.quantize import new_model
    from phonolith.compiler.shapes import infer_shapes

    (tmp_path / "spec.toml").write_text(CONFORMER + more)
    result = new_model(tmp_path / "spec.toml", 3, tmp_path / "a.safetensors", max_frames=40)
    graph = load(tmp_path / "a.safetensors")
    assert graph.metadata["family"] == "conformer-ctc" and result["parameters"] == sum(
        graph.metadata["parameters"][part] for part in ("encoder", "ctc"))
    assert infer_shapes(graph, 163)["output"][0] == 40
    if not bounded:
        assert infer_shapes(graph, 1000)
        return
    with pytest.raises(PhonolithError, match="167 frames of input are 41 at node .* at most 40") as caught:
        infer_shapes(graph, 167)
    assert caught.value.remedy == "Give at most 166 frames, or quantize the model again with --max-frames 41."


def test_default_of_max_frames():
    from phonolith.cli.common import DEFAULT_MAX_FRAMES

    assert DEFAULT_MAX_FRAMES == MAX_FRAMES
