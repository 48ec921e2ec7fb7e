"""Training: what it hears, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (make setup EXTRAS=train)")

import soundfile  # noqa: E402

from phonolith.hw.errors import PhonolithError  # noqa: E402
from phonolith.models import synthetic, train  # noqa: E402
from phonolith.models.checkpoint import load_model  # noqa: E402
from phonolith.models.config import EncoderConfig  # noqa: E402
from phonolith.models.conformer_config import ConformerConfig  # noqa: E402
from phonolith.models.families import build, default_features  # noqa: E402
from phonolith.models.features import FeatureParameters, features  # noqa: E402
from phonolith.models.normalization import RunningNormalization  # noqa: E402

TINY = EncoderConfig(channels=8, width=32, heads=2, layers=1, ffn=64)
CONFORMER = ConformerConfig(channels=8, width=32, heads=2, layers=1, ffn=64, kernel=5)
STREAMING = replace(CONFORMER, chunk=4, left=1)
FAMILIES = pytest.mark.parametrize("config", [TINY, CONFORMER, STREAMING], ids=["encoder", "conformer", "streaming"])


@pytest.fixture
def folder(tmp_path):
    """Three "digits" that are tones, by one of the speakers training may hear."""
    for digit in range(3):
        for take in range(3, 8):
            times = np.arange(2400 + 100 * take) / 8000
            soundfile.write(tmp_path / f"{digit}_george_{take}.wav",
                            0.3 * np.sin(2 * np.pi * (400 + 700 * digit) * times), 8000)
    return tmp_path


@pytest.fixture
def no_synthetic_voices(monkeypatch):
    monkeypatch.setattr(synthetic, "available", lambda: False)


@pytest.mark.parametrize("config", [TINY, STREAMING], ids=["encoder", "streaming"])
def test_training_reduces_the_loss(config, folder, no_synthetic_voices, monkeypatch):
    monkeypatch.setattr(train.Batches.next, "__defaults__", (4,))
    lines = []
    torch.manual_seed(0)
    model = build(config)
    batches = train.make_batches(folder, config.vocabulary, 0, default_features(config), lines.append)
    losses = train.optimize(model, batches, 60, lines.append)
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    assert lines[0].startswith("espeakng-loader is not installed")
    assert lines[-1].startswith("step 60/60: loss")


@FAMILIES
def test_train_writes_a_checkpoint_and_is_repeatable(config, folder, tmp_path, no_synthetic_voices):
    lines = []
    outputs = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for output in outputs:
        train.train(config, folder, output, steps=2, seed=3, log=lines.append)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert load_model(outputs[0]).config == config


def test_train_opens_only_what_it_may(folder, tmp_path, no_synthetic_voices, monkeypatch):
    opened = []
    read = soundfile.read
    monkeypatch.setattr(soundfile, "read", lambda path, **options: (opened.append(path.name),
                                                                    read(path, **options))[1])
    train.train(TINY, folder, tmp_path / "m.safetensors", steps=2, log=lambda line: None)
    assert opened and all(int(name[:-4].split("_")[2]) >= 5 for name in opened)


def test_a_streaming_models_features_are_measured(folder):
    parameters = train.feature_parameters(STREAMING, folder, 0)
    assert isinstance(parameters.normalization, RunningNormalization) and parameters.min_frames == 7
    recordings = train.training_recordings(folder)
    frames = np.concatenate([features(string.samples, parameters=parameters)
                             for string in train.StringMaker(recordings, 5).strings(20)])
    assert abs(frames.mean()) < 0.3 and 0.7 < frames.std() < 1.4
    assert train.feature_parameters(TINY, folder, 0) == FeatureParameters()


def test_no_data_leaves_no_checkpoint(tmp_path):
    soundfile.write(tmp_path / "1_theo_9.wav", np.ones(900), 8000)
    with pytest.raises(PhonolithError, match="no recordings for training"):
        train.train(TINY, tmp_path, tmp_path / "m.safetensors", steps=1)
    assert not (tmp_path / "m.safetensors").exists()


def test_learning_rate_warms_up_then_decays():
    factors = [train.learning_rate_factor(step, 1000) for step in range(1000)]
    assert factors[0] == 0.01 and factors[99] == 1.0
    assert all(a >= b for a, b in zip(factors[100:], factors[101:], strict=False)) and factors[-1] < 1e-4


@FAMILIES
def test_padding_does_not_change_the_loss(config):
    rng = np.random.default_rng(0)
    model = build(config).eval()
    examples = [(rng.standard_normal((frames, 40)).astype(np.float32), [1, 2]) for frames in (40, 90)]
    with torch.inference_mode():
        together = train.ctc_loss(model, train.collate(examples)).item()
        apart = np.mean([train.ctc_loss(model, train.collate([example])).item() for example in examples])
    assert together == pytest.approx(apart, abs=1e-5)


def test_masks_are_zeros_and_leave_the_input_alone():
    frames = np.ones((100, 40), np.float32)
    masked = train.mask_spectrum(frames, np.random.default_rng(1))
    assert frames.all() and set(np.unique(masked)) == {0.0, 1.0}
    assert masked.mean() > 0.4
    assert train.mask_spectrum(np.ones((7, 40), np.float32), np.random.default_rng(1)).shape == (7, 40)
