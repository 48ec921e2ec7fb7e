"""The Transformer encoder, against a numpy version of its own."""

import pytest

torch = pytest.importorskip("torch", reason="the float model needs torch (make setup EXTRAS=train)")

import numpy as np  # noqa: E402

from phonolith.models.config import EncoderConfig  # noqa: E402
from phonolith.models.families import random_model  # noqa: E402

SMALL = EncoderConfig(channels=4, width=32, heads=2, layers=2, ffn=48)


def numpy_forward(weights, x, heads, strides):
    """Features [T, mels] -> logits, straight from the definition."""
    def conv(x, number, stride):
        name = f"convolutions.{number}"
        kernel = weights[f"front_end.{name}.weight"]
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
        out = np.einsum("ctfij,ocij->otf", windows, kernel)
        return np.maximum(out + weights[f"front_end.{name}.bias"][:, None, None], 0)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return (centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weights[f"{name}.weight"]
                + weights[f"{name}.bias"])

    def attention(x, name):
        query, key, value = (np.split(linear(x, f"{name}.{part}"), heads, axis=1)
                             for part in ("query", "key", "value"))
        contexts = []
        for q, k, v in zip(query, key, value, strict=True):
            scores = np.exp(q @ k.T / np.sqrt(q.shape[1]))
            contexts.append(scores / scores.sum(1, keepdims=True) @ v)
        return linear(np.concatenate(contexts, axis=1), f"{name}.output")

    maps = x[None]
    for number, stride in enumerate(strides):
        maps = conv(maps, number, stride)                   # [C, T', F']
    # Index f * channels + c: frequency major, channel minor.
    y = linear(maps.transpose(1, 2, 0).reshape(maps.shape[1], -1), "front_end.project")
    for number in range(sum(name.endswith("expand.weight") for name in weights)):
        layer = f"layers.{number}"
        y = y + attention(norm(y, f"{layer}.attention_norm"), f"{layer}.attention")
        hidden = np.maximum(linear(norm(y, f"{layer}.ffn_norm"), f"{layer}.expand"), 0)
        y = y + linear(hidden, f"{layer}.contract")
    return linear(norm(y, "norm"), "output")


@pytest.mark.parametrize("frames", [23, 24, 26, 27, 60])
def test_forward_equals_numpy(frames):
    model = random_model(SMALL, 3)
    x = np.random.default_rng(frames).standard_normal((frames, 40)).astype(np.float32)
    expected = numpy_forward({name: value.double().numpy() for name, value in model.state_dict().items()},
                             x.astype(np.float64), SMALL.heads, SMALL.strides)
    with torch.inference_mode():
        actual = model(torch.from_numpy(x)[None])[0].numpy()
    assert actual.shape == (SMALL.convolved(frames), 11)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_parameter_count_is_the_formula():
    for config in (SMALL, EncoderConfig()):
        assert sum(p.numel() for p in random_model(config, 0).parameters()) == config.parameters


def test_random_weights_depend_on_the_seed_only():
    torch.manual_seed(1)
    a, b, c = random_model(SMALL, 5), random_model(SMALL, 5), random_model(SMALL, 6)
    assert torch.equal(a.output.weight, b.output.weight)
    assert not torch.equal(a.output.weight, c.output.weight)


def test_mask_hides_padding():
    model = random_model(SMALL, 0)
    x = torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (0, 0, 0, 24))
    mask = (torch.arange(SMALL.convolved(64)) < SMALL.convolved(40))[None, None, None]
    with torch.inference_mode():
        torch.testing.assert_close(model(padded, mask)[:, :SMALL.convolved(40)], model(x), atol=1e-5, rtol=0)


# torch warns about its own internals while it exports.
@pytest.mark.filterwarnings("default")
def test_export_uses_plain_operators():
    program = torch.export.export(random_model(SMALL, 0), (torch.zeros(1, 60, 40),))
    used = {str(node.target).removeprefix("aten.").split(".")[0] for node in program.graph.nodes
            if node.op == "call_function"}
    assert used <= {"conv2d", "relu", "permute", "transpose", "unsqueeze", "flatten", "reshape", "view",
                    "linear", "layer_norm", "scaled_dot_product_attention", "add"}
