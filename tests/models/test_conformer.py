"""The Conformer against a numpy version of its own; its attention; what it may see; how it is exported."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="float models need torch (make setup EXTRAS=train)")

from phonolith.models.attention import chunk_mask, plain_attention, relative_attention, shift  # noqa: E402
from phonolith.models.conformer_config import ConformerConfig  # noqa: E402
from phonolith.models.families import random_model  # noqa: E402

SMALL = ConformerConfig(channels=4, width=32, heads=2, layers=2, ffn=48, kernel=5)
STREAMING = replace(SMALL, chunk=4, left=1)
VARIANTS = {
    "relative": SMALL, "even": replace(SMALL, kernel=8), "absolute": replace(SMALL, positions="absolute"),
    "none": replace(SMALL, positions="none", kernel=3), "streaming": STREAMING,
    "streaming-absolute": replace(STREAMING, positions="absolute", kernel=6, left=0),
}
EVERY_VARIANT = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def lively_model(config, seed=3):
    """A random model whose biases and running statistics are random, too."""
    model = random_model(config, seed)
    random = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=random)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(0.0, 0.3, generator=random)
    return model


class Numpy:
    """The model from its definition, in float64, one frame and one head at a time."""

    def __init__(self, model):
        self.config = model.config
        self.weights = {name: value.double().numpy() for name, value in model.state_dict().items()
                        if value.is_floating_point()}

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        return (centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * self.weights[f"{name}.weight"]
                + self.weights[f"{name}.bias"])

    def front_end(self, x):
        maps = x[None]
        for number, stride in enumerate(self.config.strides):
            kernel = self.weights[f"front_end.convolutions.{number}.weight"]
            windows = np.lib.stride_tricks.sliding_window_view(maps, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
            bias = self.weights[f"front_end.convolutions.{number}.bias"]
            maps = np.maximum(np.einsum("ctfij,ocij->otf", windows, kernel) + bias[:, None, None], 0)
        return self.linear(maps.transpose(1, 2, 0).reshape(maps.shape[1], -1), "front_end.project")

    def ffn(self, x, name):
        hidden = self.linear(self.norm(x, f"{name}.norm"), f"{name}.expand")
        return self.linear(hidden / (1 + np.exp(-hidden)), f"{name}.contract")

    def sinusoid(self, position):
        half = np.arange(0, self.config.width, 2)
        angles = position / 10000.0 ** (half / self.config.width)
        return np.stack([np.sin(angles), np.cos(angles)], axis=1).ravel()

    def sees(self, i, j):
        chunk, left = self.config.chunk, self.config.left
        return chunk == 0 or 0 <= i // chunk - j // chunk <= left

    def score(self, name, q, k, i, j, head):
        if self.config.positions != "relative":
            return q[i, head] @ k[j, head]
        u, v = (self.weights[f"{name}.{bias}_bias"][head] for bias in ("content", "position"))
        p = (self.sinusoid(j - i) @ self.weights[f"{name}.position.weight"].T)[head]
        return (q[i, head] + u) @ k[j, head] + (q[i, head] + v) @ p

    def attention(self, x, name):
        x = self.norm(x, f"{name}.norm")
        q, k, v = (self.linear(x, f"{name}.{part}") for part in ("query", "key", "value"))
        width, context = self.config.width // self.config.heads, np.zeros_like(x)
        for start in range(0, self.config.width, width):
            head = slice(start, start + width)
            for i in range(len(x)):
                seen = [j for j in range(len(x)) if self.sees(i, j)]
                scores = np.exp([self.score(name, q, k, i, j, head) / np.sqrt(width) for j in seen])
                context[i, head] = scores / scores.sum() @ v[seen, head]
        return self.linear(context, f"{name}.output")

    def convolution(self, x, name):
        gated = self.linear(self.norm(x, f"{name}.norm"), f"{name}.expand")
        value, gate = np.split(gated, 2, axis=1)
        kernel = self.weights[f"{name}.depthwise.weight"][:, 0]
        reach = self.config.kernel - 1
        left = reach if self.config.chunk else reach // 2
        padded = np.pad(value / (1 + np.exp(-gate)), ((left, reach - left), (0, 0)))
        y = np.stack([(padded[t:t + reach + 1] * kernel.T).sum(0) for t in range(len(x))])
        scale = self.weights[f"{name}.batch_norm.weight"]
        deviation = np.sqrt(self.weights[f"{name}.batch_norm.running_var"] + 1e-5)
        mean, bias = self.weights[f"{name}.batch_norm.running_mean"], self.weights[f"{name}.batch_norm.bias"]
        y = (y - mean) / deviation * scale + bias
        return self.linear(y / (1 + np.exp(-y)), f"{name}.contract")

    def __call__(self, features):
        x = self.front_end(features)
        if self.config.positions == "absolute":
            x = x + np.stack([self.sinusoid(t) for t in range(len(x))])
        for number in range(self.config.layers):
            name = f"layers.{number}"
            x = x + 0.5 * self.ffn(x, f"{name}.first_ffn")
            x = x + self.attention(x, f"{name}.attention")
            x = x + self.convolution(x, f"{name}.convolution")
            x = x + 0.5 * self.ffn(x, f"{name}.second_ffn")
            x = self.norm(x, f"{name}.norm")
        return self.linear(x, "output")


def noise(frames, batch=1):
    return torch.randn(batch, frames, 40, generator=torch.Generator().manual_seed(frames))


@EVERY_VARIANT
@pytest.mark.parametrize("frames", [7, 11, 60])
def test_forward_equals_numpy(config, frames):
    model, x = lively_model(config), noise(frames)
    with torch.inference_mode():
        actual = model(x)[0].numpy()
    assert actual.shape == (config.convolved(frames), 11)
    np.testing.assert_allclose(actual, Numpy(model)(x[0].double().numpy()), atol=2e-5)


@EVERY_VARIANT
def test_mask_hides_padding(config):
    model, x = lively_model(config), noise(60)
    padded = torch.nn.functional.pad(x, (0, 0, 0, 24), value=1.0)
    mask = (torch.arange(config.convolved(84)) < config.convolved(60))[None, None, None]
    with torch.inference_mode():
        torch.testing.assert_close(model(padded, mask)[:, :config.convolved(60)], model(x), atol=1e-5, rtol=0)


def test_a_mask_that_hides_nothing_gives_what_the_operators_give():
    for config in VARIANTS.values():
        model, x = lively_model(config), noise(60, batch=2)
        with torch.inference_mode():
            whole = model(x, torch.ones(2, 1, 1, config.convolved(60), dtype=torch.bool))
            torch.testing.assert_close(whole, model(x), atol=1e-5, rtol=0)


def test_rows_of_padding_have_finite_gradients():
    model, x = lively_model(STREAMING).train(), noise(100, batch=2)
    mask = (torch.arange(STREAMING.convolved(100)) < torch.tensor([[24], [3]]))[:, None, None]
    model(x, mask)[mask[:, 0, 0]].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_shift_takes_the_column_of_the_offset(frames):
    scores = torch.randn(2, frames, 2 * frames - 1)
    expected = [[[row[i, j - i + frames - 1].item() for j in range(frames)] for i in range(frames)] for row in scores]
    torch.testing.assert_close(shift(scores), torch.tensor(expected))


@pytest.mark.parametrize(("chunk", "left"), [(1, 0), (3, 1), (4, 2), (50, 0)])
def test_chunked_attention_is_full_attention_with_a_mask(chunk, left):
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 11, 32, generator=random).unbind()
    weight, (u, w) = torch.randn(32, 32, generator=random), torch.randn(2, 32, generator=random).unbind()
    seen = torch.tensor([[0 <= i // chunk - j // chunk <= left for j in range(11)] for i in range(11)])
    assert torch.equal(chunk_mask(11, chunk, left), seen)
    chunked = torch.ops.phonolith.relative_attention(q, k, v, weight, u, w, 2, chunk, left)
    torch.testing.assert_close(chunked, relative_attention(q, k, v, weight, u, w, 2, 0, 0, seen))
    chunked = torch.ops.phonolith.chunked_attention(q, k, v, 2, chunk, left)
    torch.testing.assert_close(chunked, plain_attention(q, k, v, 2, 0, 0, seen))


@pytest.mark.parametrize("config", [STREAMING, VARIANTS["streaming-absolute"]])
def test_a_chunk_does_not_depend_on_later_ones(config):
    model, x = lively_model(config), noise(100)
    changed = x.clone()
    changed[:, 70:] = 5.0
    with torch.inference_mode():
        before, after = model(x), model(changed)
    # Output frame t sees feature frames 4t .. 4t + 6; whole chunks of 4 before the change stay.
    same = (70 - 7) // 4 // config.chunk * config.chunk
    torch.testing.assert_close(before[:, :same], after[:, :same], atol=0, rtol=0)
    assert not torch.allclose(before[:, same:], after[:, same:])


def test_left_context_ends():
    """One layer sees left + 1 chunks and the reach of its convolution, nothing before."""
    config = replace(STREAMING, layers=1)
    model, x = lively_model(config), noise(120)
    changed = x.clone()
    changed[:, :40] = 5.0
    with torch.inference_mode():
        before, after = model(x), model(changed)
    # Output frames 0 .. 9 change; attention carries them to the end of chunk 3, the convolution 4 frames on.
    torch.testing.assert_close(before[:, 20:], after[:, 20:], atol=1e-5, rtol=0)
    assert not torch.allclose(before[:, 16:20], after[:, 16:20])


# torch warns about its own internals while it exports.
@pytest.mark.filterwarnings("default")
@EVERY_VARIANT
def test_export_shows_attention_as_one_node(config):
    program = torch.export.export(random_model(config, 0), (torch.zeros(1, 60, 40),))
    used = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    custom = {"relative": "phonolith.relative_attention.default", "absolute": "phonolith.chunked_attention.default",
              "none": "phonolith.chunked_attention.default"}[config.positions]
    if config.positions != "relative" and not config.chunk:
        custom = "aten.scaled_dot_product_attention.default"
    assert used.count(custom) == config.layers
    assert used.count("phonolith.add_positions.default") == (config.positions == "absolute")
    assert not any("softmax" in name or "dropout" in name for name in used)


def test_absolute_positions_are_added_once():
    x = torch.zeros(1, 3, 4)
    expected = [[np.sin(t), np.cos(t), np.sin(t / 100), np.cos(t / 100)] for t in range(3)]
    torch.testing.assert_close(torch.ops.phonolith.add_positions(x)[0], torch.tensor(expected, dtype=torch.float32))
