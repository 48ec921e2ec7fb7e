"""torch modules become float graphs that compute the same; anything else is refused by name and place."""

import math

import numpy as np
import pytest

from phonolith.compiler.float_graph import FloatGraph, evaluate
from phonolith.compiler.float_passes import fuse_relu
from phonolith.hw.errors import PhonolithError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  (after the skip)
from torch.nn import functional as F  # noqa: E402

from phonolith.compiler.frontend import import_module  # noqa: E402
from phonolith.compiler.torch_operators import supported_operators  # noqa: E402

WIDTH, HEADS = 12, 3


class Attended(nn.Module):
    """A linear layer, attention in one of several spellings, a residual, a norm, an output layer."""

    def __init__(self, spelling):
        super().__init__()
        self.embed = nn.Linear(10, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.separate = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, 5)
        self.spelling = spelling

    def forward(self, x):
        x = self.embed(x)
        return self.output(self.norm(x + self.spelling(self, x)))


def split(x):
    return x.view(x.shape[0], x.shape[1], HEADS, WIDTH // HEADS).transpose(1, 2)


def merge(x):
    return x.transpose(1, 2).reshape(x.shape[0], -1, WIDTH)


def three_linears_sdpa(self, x):
    return merge(F.scaled_dot_product_attention(*(split(linear(x)) for linear in self.separate)))


def chunked(self, x):
    q, k, v = (split(part) for part in self.qkv(x).chunk(3, dim=-1))
    return merge(F.scaled_dot_product_attention(q, k, v, scale=0.3))


def matmul_softmax(self, x):
    q, k, v = (split(part) for part in self.qkv(x).split(WIDTH, dim=2))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return merge(torch.matmul(scores.softmax(dim=-1), v))


def permuted(self, x):
    qkv = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    weights = F.softmax((q * 0.5) @ k.mT, dim=-1)
    return (weights @ v).permute(0, 2, 1, 3).flatten(2)


def sliced(self, x):
    qkv = self.qkv(x)
    q, k, v = (split(qkv[..., i * WIDTH : (i + 1) * WIDTH]) for i in range(3))
    return merge(F.scaled_dot_product_attention(q, k, v))


def selected(self, x):
    qkv = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, HEADS, -1)
    return merge(F.scaled_dot_product_attention(*(qkv[:, :, i].transpose(1, 2) for i in range(3))))


def single_head(self, x):
    q, k, v = (linear(x) for linear in self.separate)
    return torch.bmm(F.softmax(torch.bmm(q, k.transpose(1, 2)), dim=2), v)


SPELLINGS = [three_linears_sdpa, chunked, matmul_softmax, permuted, sliced, selected, single_head]


def imported(module, frames: int = 23, width: int = 10) -> FloatGraph:
    torch.manual_seed(0)
    return import_module(module, torch.zeros(1, frames, width))


def assert_same(module, frames: int, width: int = 10) -> FloatGraph:
    """The graph, imported at 23 frames, computes what the module does at ``frames``."""
    graph = imported(module, width=width)
    x = np.random.default_rng(0).standard_normal((frames, width)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)[None])[0].numpy()
    for version in (graph, fuse_relu(graph)):
        values = evaluate(version, x)
        (scores,) = version.nodes[-1].inputs
        np.testing.assert_allclose(values[scores], expected, atol=2e-5)
        assert (values[version.output] == expected.argmax(axis=-1)).all()
    return graph


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_attention_spellings(spelling):
    graph = assert_same(Attended(spelling).eval(), 31)
    ops = [node.op for node in graph.nodes]
    assert ops.count("scores") == ops.count("softmax") == ops.count("context") == ops.count("add") == 1


class Convolved(nn.Module):
    """Convolutions whose output is flattened channel major or frequency major."""

    def __init__(self, channel_major: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, stride=2)
        self.conv2 = nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), bias=False)
        self.project = nn.Linear(6 * 4, 8)
        self.channel_major = channel_major

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x.unsqueeze(1)))))
        x = x.transpose(1, 2) if self.channel_major else x.permute(0, 2, 3, 1)
        return self.project(x.flatten(2))


@pytest.mark.parametrize("channel_major", [True, False])
def test_convolutions_in_both_orders(channel_major):
    graph = assert_same(Convolved(channel_major).eval(), 40, width=18)
    assert [n.op for n in fuse_relu(graph).nodes if n.op != "reshape"] == ["conv2d", "conv2d", "linear", "argmax"]


class FeedForward(nn.Module):
    """Dropout, an activation, and an argmax written by the module itself."""

    def __init__(self, activation):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 20), activation, nn.Dropout(0.5), nn.Linear(20, 4))

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.Sigmoid(), nn.Tanh()]
)
def test_activations(activation):
    assert_same(FeedForward(activation).eval(), 9)


class Computed(nn.Module):
    """Weights that the module computes from its parameters, and a matrix on the right of ``@``."""

    def __init__(self):
        super().__init__()
        self.direction = nn.Parameter(torch.randn(6, 10))
        self.gain = nn.Parameter(torch.rand(6, 1))
        self.matrix = nn.Parameter(torch.randn(6, 4))

    def forward(self, x):
        weight = self.direction / self.direction.norm(dim=1, keepdim=True) * self.gain
        return F.relu(F.linear(x, weight)) @ self.matrix


def test_computed_weights_are_folded():
    graph = assert_same(Computed().eval(), 9)
    assert [node.op for node in graph.nodes] == ["linear", "function", "linear", "argmax"]


def test_names_and_places():
    graph = imported(Attended(chunked))
    names = [node.name for node in graph.nodes]
    assert names[:2] == ["embed", "qkv"] and names[-2:] == ["output", "output.argmax"]
    softmax = next(node for node in graph.nodes if node.op == "softmax")
    assert "module (top)" in softmax.source and "test_frontend.py:" in softmax.source


def test_a_module_may_end_with_its_own_argmax():
    class Ids(Attended):
        def forward(self, x):
            return super().forward(x).argmax(-1)

    graph = imported(Ids(chunked))
    assert [node.op for node in graph.nodes].count("argmax") == 1


def broken(body):
    """Return a module whose block ``inner`` runs ``body``."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(10, 12)
            self.conv = nn.Conv2d(2, 4, 3, groups=2)

        def forward(self, x):
            return body(self, x)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            return self.inner(x)

    return Outer()


REFUSED = {
    "aten.cumsum.default": (lambda self, x: x.cumsum(1), ""),
    "aten.mul.Tensor": (lambda self, x: x * x[:, :, :1], "only the product of two tensors of one shape"),
    "aten.add.Tensor": (lambda self, x: x + x[:, :, :1], "only the sum of two tensors of one shape"),
    "aten.conv2d.default": (lambda self, x: self.conv(torch.stack([x, x], 1)), ""),
    "aten.softmax.int": (lambda self, x: x.softmax(-1) + x, "only the softmax of attention scores"),
    "aten.slice.Tensor": (lambda self, x: x[:, :, ::2], "it takes every 2th element"),
    "aten.scaled_dot_product_attention.default": (
        lambda self, x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
        "masks and grouped queries",
    ),
    "aten.matmul.default": (lambda self, x: self.linear.weight @ x.mT, "one operand is a constant"),
    "aten.linear.default": (lambda self, x: F.linear(x, x[0]), "its weight depends on the input"),
}


@pytest.mark.parametrize("operator", REFUSED)
def test_refused_operators_are_named_with_their_place(operator):
    body, reason = REFUSED[operator]
    with pytest.raises(PhonolithError) as caught:
        imported(broken(body))
    error = caught.value
    assert error.kind == "unsupported-operator" and reason in error.message
    if operator != "aten.conv2d.default":  # the stack in front of it is refused first
        assert f"operator {operator} in module inner" in error.message
    assert "test_frontend.py:" in error.message
    assert "conv2d" in error.remedy and "scaled_dot_product_attention" in error.remedy


def test_data_dependent_control_flow_is_refused():
    with pytest.raises(PhonolithError) as caught:
        imported(broken(lambda self, x: x if x.sum() > 0 else self.linear(x)))
    line = test_data_dependent_control_flow_is_refused.__code__.co_firstlineno + 2
    message = caught.value.message
    assert caught.value.kind == "export-failed" and "cannot trace Outer, module inner, " in message
    assert f"test_frontend.py:{line}: control flow depends on the input's values" in message
    assert "without data-dependent control flow" in caught.value.remedy


def test_loops_over_values_are_refused():
    def repeat(self, x):
        for _ in range(int(x.abs().max().item())):
            x = x + x
        return x

    with pytest.raises(PhonolithError, match=r"module inner, .*test_frontend.py:\d+: control flow depends"):
        imported(broken(repeat))


@pytest.mark.parametrize("shape", [(23, 10), (2, 23, 10), (1, 1, 10)])
def test_example_input_must_be_one_utterance(shape):
    with pytest.raises(PhonolithError) as caught:
        import_module(nn.Linear(10, 4), torch.zeros(shape))
    assert caught.value.kind == "export-failed" and "[1, T, features]" in caught.value.remedy


def test_supported_operators_are_named_as_torch_names_them():
    assert {"linear", "conv2d", "gelu", "layer_norm", "softmax", "chunk"} <= set(supported_operators())
