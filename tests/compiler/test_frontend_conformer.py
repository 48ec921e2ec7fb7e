"""Convolutions over time, BatchNorm, gates, half steps and positions: imported, simplified, quantized."""

from collections import Counter

import numpy as np
import pytest

from phonolith.compiler.float_graph import FloatGraph, evaluate
from phonolith.compiler.float_passes import simplify
from phonolith.compiler.quantize import noise_features, quantize
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_iss, first_difference, make_case
from phonolith.sim.recognise import quantize_features

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402  (after the skip)
from torch.nn import functional as F  # noqa: E402

from phonolith.compiler.api import compile  # noqa: E402
from phonolith.compiler.frontend import import_module  # noqa: E402

CONFIG = MachineConfig.load(array="8x8")
WIDTH = 12


class Wrapped(nn.Module):
    """``body`` between a linear layer and an output layer, in [B, T, C]."""

    def __init__(self, body, **parts):
        super().__init__()
        self.embed, self.output = nn.Linear(10, WIDTH), nn.Linear(WIDTH, 5)
        for name, part in parts.items():
            setattr(self, name, part)
        self.body = body

    def forward(self, x):
        return self.output(self.body(self, self.embed(x)))


def batch_norm(channels: int = WIDTH) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(channels)
    nn.init.uniform_(norm.running_var, 0.1, 2.0)
    for vector in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(vector)
    return norm


def depthwise(kernel: int, **options) -> nn.Conv1d:
    return nn.Conv1d(WIDTH, WIDTH, kernel, groups=WIDTH, **options)


def convolution_module(self, x):
    x = F.glu(self.expand(x), dim=-1)
    x = self.conv(F.pad(x.transpose(1, 2), self.pads))
    return F.silu(self.norm(x)).transpose(1, 2)


def channels_first(self, x):
    x = F.glu(self.expand(x.transpose(1, 2)), dim=1)
    return F.silu(self.norm(self.conv(x))).mT + x.mT


def conformer_parts(kernel: int, pads=None):
    return {"expand": nn.Linear(WIDTH, 2 * WIDTH), "conv": depthwise(kernel, bias=False), "norm": batch_norm(),
            "pads": pads or ((kernel - 1) // 2, kernel // 2)}


BODIES = {
    "odd kernel": (convolution_module, lambda: conformer_parts(15)),
    "even kernel": (convolution_module, lambda: conformer_parts(4)),
    "causal": (convolution_module, lambda: conformer_parts(33, (32, 0))),
    "one tap": (convolution_module, lambda: conformer_parts(1)),
    "channels first": (channels_first, lambda: {
        "expand": nn.Conv1d(WIDTH, 2 * WIDTH, 1), "conv": depthwise(4, padding="same"), "norm": batch_norm()}),
    "half step": (lambda self, x: x + 0.5 * self.narrow(F.silu(self.wide(x))), lambda: {
        "wide": nn.Linear(WIDTH, 20), "narrow": nn.Linear(20, WIDTH)}),
    "half of the stream": (lambda self, x: 0.5 * x + self.narrow(x) / -4, lambda: {"narrow": nn.Linear(WIDTH, WIDTH)}),
    "norm without a product": (lambda self, x: self.norm(F.relu(x).mT).mT, lambda: {"norm": batch_norm()}),
    "norm of a shared product": (lambda self, x: self.norm(x.mT).mT + x, lambda: {"norm": batch_norm()}),
    "two norms": (lambda self, x: self.second(self.norm(self.conv(x.mT))).mT + x, lambda: {
        "norm": batch_norm(), "second": batch_norm(), "conv": depthwise(3, padding=1)}),
    "all channels": (lambda self, x: F.relu(self.conv(x.mT)).mT, lambda: {
        "conv": nn.Conv1d(WIDTH, WIDTH, 5, padding=2, stride=2)}),
    "causal, all channels": (lambda self, x: self.conv(F.pad(x.mT, (4, 0))).mT, lambda: {
        "conv": nn.Conv1d(WIDTH, WIDTH, 5)}),
    "more behind than before": (lambda self, x: self.conv(F.pad(x.mT, (1, 4))).mT, lambda: {
        "conv": nn.Conv1d(WIDTH, WIDTH, 4, stride=2, padding=1)}),
    "layer scale": (lambda self, x: x - self.gain * self.inner(x), lambda: {
        "gain": nn.Parameter(torch.randn(WIDTH)), "inner": nn.Linear(WIDTH, WIDTH)}),
    "learned positions": (lambda self, x: x + self.positions[:, : x.shape[1]], lambda: {
        "positions": nn.Parameter(torch.randn(1, 51, WIDTH))}),
    "swish by hand": (lambda self, x: torch.sigmoid(x) * x, dict),
    "post norm": (lambda self, x: self.norm(x + self.inner(x)) + x, lambda: {
        "norm": nn.LayerNorm(WIDTH), "inner": nn.Linear(WIDTH, WIDTH)}),
}


def imported(module, frames: int = 51) -> FloatGraph:
    return import_module(module.eval(), torch.zeros(1, frames, 10))


def made(name: str) -> nn.Module:
    body, parts = BODIES[name]
    torch.manual_seed(0)
    return Wrapped(body, **parts()).eval()


def expected(module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(x)[None])[0].numpy()


@pytest.mark.parametrize("name", BODIES)
def test_imported_and_simplified_modules_compute_the_same(name):
    module, x = made(name), noise_features(1, 10, 1, 51)[0]
    graph = imported(module)
    for version in (graph, simplify(graph)):
        np.testing.assert_allclose(evaluate(version, x)["output"], expected(module, x), atol=3e-5)


@pytest.mark.parametrize("name", BODIES)
def test_integers_are_close_and_compiled(name):
    module, x = made(name), noise_features(1, 10, 1, 51)[0]
    compiled = compile(module, torch.zeros(1, 51, 10), noise_features(8, 10, 0, 51), CONFIG)
    case = make_case(compiled.graph, compiled.inputs(x), CONFIG, compiled.program)
    real, wanted = case.expected["output"] * compiled.graph.metadata["scales"]["output"], expected(module, x)
    assert np.sqrt(np.mean((real - wanted) ** 2) / np.mean(wanted**2)) < 0.04
    assert first_difference(case, "iss", execute_iss(case, CONFIG)) is None


@pytest.mark.parametrize("activation", [
    nn.ReLU6(), nn.Hardtanh(-2, 3), nn.Hardsigmoid(), nn.Hardswish(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.Softplus(2),
    nn.Mish(), nn.SiLU(inplace=True)])
def test_activations_are_tables(activation):
    torch.manual_seed(0)
    module, x = Wrapped(lambda self, x: activation(3 * x)).eval(), noise_features(1, 10, 1, 51)[0]
    graph = imported(module)
    np.testing.assert_allclose(evaluate(graph, x)["output"], expected(module, x), atol=1e-5)
    assert "table" in [node.op for node in quantize(graph, [x]).nodes]


@pytest.mark.parametrize("last", [nn.LogSoftmax(-1), nn.Softmax(2)])
def test_a_softmax_of_the_output_changes_no_id(last):
    module = nn.Sequential(nn.Linear(10, 5), last)
    assert [node.op for node in imported(module).nodes] == ["linear", "argmax"]
    with pytest.raises(PhonolithError, match="only the softmax of attention scores|log_softmax"):
        imported(nn.Sequential(nn.Linear(10, 5), type(last)(1)))


def test_learned_positions_bound_the_frames():
    graph = imported(made("learned positions"))
    with pytest.raises(PhonolithError, match="60 frames meet a constant of 51 rows") as caught:
        quantize(graph, noise_features(1, 10, 0, 60))
    assert caught.value.kind == "input-too-long"


def ops(name: str) -> Counter:
    return Counter(node.op for node in simplify(imported(made(name))).nodes)


@pytest.mark.parametrize("name", ["odd kernel", "even kernel", "causal", "one tap"])
def test_a_convolution_module_is_products_and_functions(name):
    assert ops(name) == {"linear": 4, "function": 2, "multiply": 1, "depthwise": 1, "argmax": 1}


def test_what_cannot_be_folded_stays_a_small_operator():
    assert ops("half step") == {"linear": 4, "function": 1, "add": 1, "argmax": 1}
    assert ops("half of the stream") == {"linear": 3, "scaled": 1, "add": 1, "argmax": 1}
    assert ops("norm without a product") == {"linear": 2, "depthwise": 1, "argmax": 1}
    assert ops("norm of a shared product") == {"linear": 2, "depthwise": 1, "add": 1, "argmax": 1}
    assert ops("two norms") == {"linear": 2, "depthwise": 1, "add": 1, "argmax": 1}


def test_a_gate_is_one_shift():
    """The value's scale is chosen so that no rescale is needed, and close to the finest one."""
    graph = quantize(imported(made("odd kernel")), noise_features(8, 10, 0, 60))
    (node,) = (node for node in graph.nodes if node.op == "multiply")
    value, gate = node.inputs
    assert value == "expand.0" and graph.node(gate).inputs == ("expand.1",)
    dtypes = {each.name: each.dtype for each in graph.nodes}
    assert (dtypes[value], dtypes[gate], node.dtype) == ("int16", "uint8", "int8")
    scales = graph.metadata["scales"]
    assert scales[value] * scales[gate] * 2 ** node.attributes["shift"] == pytest.approx(scales[node.name])
    assert "rescale" not in [each.op for each in graph.nodes]
    x = noise_features(1, 10, 1, 51)[0]
    peak = np.abs(interpret(graph, {"features": quantize_features(graph, x)})[value].astype(int)).max()
    assert 3000 < peak < 32767


def refused(body, **parts) -> PhonolithError:
    torch.manual_seed(0)
    with pytest.raises(PhonolithError) as caught:
        simplify(imported(Wrapped(body, **parts)))
    assert caught.value.kind == "unsupported-operator" and "test_frontend_conformer.py:" in caught.value.message
    return caught.value


@pytest.mark.parametrize(("body", "parts", "message"), [
    (lambda self, x: self.conv(x.mT).mT, {"conv": depthwise(3, stride=2)}, "with a stride or several outputs"),
    (lambda self, x: self.conv(x.mT).mT, {"conv": nn.Conv1d(WIDTH, WIDTH, 3, groups=3)}, "groups of several channels"),
    (lambda self, x: self.conv(x.mT).mT, {"conv": depthwise(3, dilation=2)}, "dilation"),
    (lambda self, x: x + self.embed.weight[:, :3].T[:, None], {}, "of one number, or of one per column"),
    (lambda self, x: self.conv(x.mT).mT, {"conv": depthwise(51)}, "it leaves 1 frame of the example input"),
    (lambda self, x: self.conv(x), {"conv": nn.Conv1d(51, 51, 3, padding=1, groups=51)}, "its input is not [1, C, T]"),
    (lambda self, x: F.pad(x, (2, -2)), {}, "only zeros around time"),
    (lambda self, x: F.pad(x.mT, (1, 1), value=1.0).mT, {}, "only zeros around time"),
    (lambda self, x: F.relu(F.pad(x.mT, (1, 1))).mT, {}, "does not feed convolutions over time alone"),
    (lambda self, x: F.pad(x.mT, (-1, -1)).mT, {}, "it removes frames"),
    (lambda self, x: self.norm(x), {"norm": nn.BatchNorm1d(51)}, "over channels that are last in memory"),
    (lambda self, x: x * x.mean(), {}, "aten.mean"),
])
def test_refused_uses_are_named(body, parts, message):
    assert message in refused(body, **parts).message
