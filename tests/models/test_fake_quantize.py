"""Training with rounded weights: what the forward pass sees is what the quantizer will make of the trained weights."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (make setup EXTRAS=train)")

import soundfile  # noqa: E402

from phonolith.compiler.float_passes import simplify  # noqa: E402
from phonolith.compiler.quantization import Quantization, module_quantizers, rounded_weights  # noqa: E402
from phonolith.compiler.quantize import (  # noqa: E402
    FineTuning,
    import_encoder,
    noise_features,
    quantize,
    train_quantized,
)
from phonolith.compiler.weight_quantizer import SCHEMES, WIDTHS, WeightScheme, quantize_weight  # noqa: E402
from phonolith.hw.errors import PhonolithError  # noqa: E402
from phonolith.models import synthetic, train  # noqa: E402
from phonolith.models.conformer_config import ConformerConfig  # noqa: E402
from phonolith.models.fake_quantize import FakeActivation, FakeQuantized, FakeWeight, fine_tune  # noqa: E402
from phonolith.models.families import random_model  # noqa: E402

CONFIG = ConformerConfig(channels=8, width=32, heads=2, layers=2, ffn=64, kernel=5)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two "digits" that are tones, by a speaker whom training may hear; four strings in a batch, none synthetic."""
    monkeypatch.setattr(synthetic, "available", lambda: False)
    monkeypatch.setattr(train.Batches.next, "__defaults__", (4,))
    for digit in range(2):
        for take in range(3, 8):
            times = np.arange(2400 + 100 * take) / 8000
            soundfile.write(tmp_path / f"{digit}_george_{take}.wav",
                            0.3 * np.sin(2 * np.pi * (400 + 700 * digit) * times), 8000)
    return tmp_path


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("group", ["tensor", "channel", 32])
@pytest.mark.parametrize("bits", WIDTHS)
def test_the_forward_pass_sees_what_codes_stand_for(bits, scheme, group):
    chosen = WeightScheme(bits, scheme, group, clip_search=True)
    layer = torch.nn.Linear(70, 6)
    weight = layer.weight.detach().numpy().copy()
    with FakeQuantized(layer, {"": partial(rounded_weights, schemes=[(6, chosen)])}):
        seen = layer.weight.detach().numpy()
    made = quantize_weight(weight, chosen)
    columns = np.arange(70) // (made.block or 70)
    expected = made.scale[:, columns] * (made.codes + made.zero[:, columns] / 2.0**made.zero_shift)
    np.testing.assert_array_equal(seen, expected.astype(np.float32))
    np.testing.assert_array_equal(layer.weight.detach().numpy(), weight)


def test_gradients_go_straight_through():
    weight = torch.randn(4, 8, requires_grad=True)
    fake = FakeWeight(lambda array: np.round(array))
    (fake(weight) * torch.arange(8.0)).sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, torch.arange(8.0).expand(4, 8))


def test_activations_keep_the_largest_range_of_training():
    module, hook = torch.nn.Linear(3, 3), FakeActivation()
    (seen,) = hook(module, (torch.tensor([12.7, 0.149, -0.26]),))
    np.testing.assert_allclose(seen.numpy(), [12.7, 0.1, -0.3], atol=1e-5)
    module.eval()
    (seen,) = hook(module, (torch.tensor([40.0, -40.0, 0.06]),))
    np.testing.assert_allclose(seen.numpy(), [12.7, -12.8, 0.1], atol=1e-5)
    x = torch.randn(3, requires_grad=True)
    hook(module, (x,))[0].sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.ones(3))


@pytest.mark.parametrize(("bits", "scheme", "group", "activations"), [
    (2, "symmetric", "channel", False), (1, "asymmetric", 32, True), (4, "asymmetric", "tensor", False)])
def test_trained_weights_have_the_codes_that_training_saw(folder, bits, scheme, group, activations):
    model = random_model(CONFIG, 0)
    options = Quantization(WeightScheme(bits, scheme, group, clip_search=True))
    before = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    train_quantized(model, options, folder, 0, FineTuning(2, activations))
    assert set(model.state_dict()) == set(before)
    assert not torch.equal(model.layers[0].first_ffn.expand.weight, before["layers.0.first_ffn.expand.weight"])
    float_graph = import_encoder(model, "tiny")
    graph = quantize(float_graph, noise_features(2, 40, 0), options)
    weights = module_quantizers(simplify(float_graph), options, dict(model.named_modules()))
    assert len(weights) == 2 * 10 and "output" not in weights and "front_end.project" not in weights
    for name, factor in (("first_ffn.expand", 1), ("first_ffn.contract", 0.5), ("attention.key", 1),
                         ("convolution.expand", 1)):
        module = f"layers.1.{name}"
        trained = model.get_submodule(module).weight.detach().numpy()
        parts = [node for node in graph.nodes if node.name in (module, f"{module}.0", f"{module}.1")]
        made = [quantize_weight(part * factor, options.weights).codes for part in np.split(trained, len(parts))]
        codes = np.concatenate([node.constants["weight"] for node in parts])
        np.testing.assert_array_equal(codes, np.concatenate(made))
        seen = weights[module](trained)
        values = [quantize_weight(part * factor, options.weights).values() for part in np.split(trained, len(parts))]
        np.testing.assert_allclose(seen * factor, np.concatenate(values), rtol=1e-6)


def test_convolutions_are_quantized_along_kernel_and_channels():
    weight = np.random.default_rng(0).standard_normal((6, 5, 3, 3)).astype(np.float32)
    scheme = WeightScheme(2, "asymmetric", 32)
    seen = rounded_weights(weight, [(6, scheme)])
    rows = quantize_weight(weight.transpose(0, 2, 3, 1).reshape(6, -1), scheme).values()
    np.testing.assert_array_equal(seen.transpose(0, 2, 3, 1).reshape(6, -1), rows)


def test_training_opens_only_what_it_may(folder, monkeypatch):
    opened = []
    read = soundfile.read
    monkeypatch.setattr(soundfile, "read", lambda path, **options: (opened.append(path.name),
                                                                    read(path, **options))[1])
    losses = fine_tune(random_model(CONFIG, 0), {}, folder, 2, log=lambda line: None)
    assert len(losses) == 2 and opened and all(int(name[:-4].split("_")[2]) >= 5 for name in opened)


def test_layers_that_there_are_not():
    with pytest.raises(PhonolithError, match="the model has no layer 'layers.9' with weights"):
        FakeQuantized(random_model(CONFIG, 0), {"layers.9": lambda weight: weight})
