"""Word error rate over generated strings."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from phonolith.hw.errors import PhonolithError
from phonolith.models import data
from phonolith.models.evaluate import evaluate, evaluate_float, load_float
from phonolith.models.features import FeatureParameters, features
from phonolith.models.normalization import RunningNormalization


@pytest.fixture
def folder(tmp_path):
    """One speaker whose digits are noise bursts."""
    rng = np.random.default_rng(0)
    for digit in range(10):
        soundfile.write(tmp_path / f"{digit}_george_0.wav", 0.1 * rng.standard_normal(1500), 8000)
    return tmp_path


def oracle(folder, count, seed, snr=None):
    """A recogniser that knows the answers by their features."""
    maker = data.StringMaker(data.evaluation_recordings(folder), seed, snr)
    answers = {features(string.samples).tobytes(): string.words for string in maker.strings(count)}
    return lambda frames: answers[frames.tobytes()]


def test_an_oracle_makes_no_errors(folder):
    result = evaluate(oracle(folder, 20, 3, 10.0), folder, strings=20, seed=3, snr=10.0)
    assert result.errors.wer == 0.0
    assert set(result.as_dict()) == {"wer", "wer_low", "wer_high", "words", "strings", "seconds"}
    assert result.errors.words == sum(map(len, result.references)) and result.errors.strings == 20


def test_silence_is_all_deletions(folder):
    assert evaluate(lambda frames: [], folder, strings=5).errors.wer == 1.0


def test_a_recogniser_gets_its_own_features(folder):
    parameters = FeatureParameters(RunningNormalization.assumed(40), min_frames=7)
    heard = []
    evaluate(lambda frames: heard.append(frames) or [], folder, strings=2, parameters=parameters)
    strings = data.StringMaker(data.evaluation_recordings(folder)).strings(2)
    for frames, string in zip(heard, strings, strict=True):
        np.testing.assert_array_equal(frames, features(string.samples, parameters=parameters))


def test_at_least_one_string(folder):
    with pytest.raises(PhonolithError, match="at least 1, not 0"):
        evaluate(lambda frames: [], folder, strings=0)


def test_nothing_here_imports_torch():
    code = ("import sys; from phonolith.models import conformer_config, data, decode, evaluate, families, positions;"
            "from phonolith.models import features, synthetic;"
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_torch_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PhonolithError, match="need torch") as caught:
        load_float("any.safetensors")
    assert "EXTRAS=train" in caught.value.remedy


@pytest.mark.parametrize(("name", "bar"), [("encoder-ctc", 0.06), ("conformer-ctc", 0.015),
                                           ("conformer-ctc-stream", 0.03)])
def test_shipped_float_models_meet_the_bar(name, bar, fsdd, repository):
    pytest.importorskip("torch", reason="float models need torch (make setup EXTRAS=train)")
    checkpoint = repository / "models" / "checkpoints" / f"{name}.safetensors"
    assert checkpoint.stat().st_size <= 2_000_000
    result = evaluate_float(checkpoint, fsdd, strings=200, seed=0)
    assert result.errors.wer <= bar, str(result.errors)
