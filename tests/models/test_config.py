"""The encoder's shape and its SPEC.toml."""

from pathlib import Path

import pytest

from phonolith.hw.errors import PhonolithError
from phonolith.models import config as module
from phonolith.models.config import EncoderConfig
from phonolith.models.features import MIN_FRAMES

SHIPPED = Path(module.__file__).parent / "encoder-ctc.toml"


def test_shipped_spec_is_the_default():
    assert EncoderConfig.from_toml(SHIPPED) == EncoderConfig()
    assert EncoderConfig().bins == 5 and EncoderConfig().tokens == 11


def test_dict_round_trip():
    config = EncoderConfig(width=64, heads=4, layers=2, strides=(2, 1), vocabulary=("on", "off"))
    assert EncoderConfig.from_dict(config.as_dict()) == config


@pytest.mark.parametrize(("text", "message"), [
    ("[encoder]\nwidth = 90\nheads = 4", "width 90 with 4 heads"),
    ("[encoder]\nwidth = 96\nheads = 12", "head width"),
    ("[encoder]\nlayers = 0", "encoder.layers must be an integer of at least 1, not 0"),
    ("[encoder]\nlayers = true", "encoder.layers"),
    ("[encoder]\nmels = 2", "encoder.mels must be"),
    ("[encoder]\nmels = 22", "encoder.mels 22 leaves nothing"),
    ("[encoder]\nstrides = [2, 3]", "list of 1s and 2s"),
    ("[encoder]\nstrides = 2", "encoder.strides must be a list"),
    ("[encoder]\nlayers = 40000", "parameters, more than 268435456"),
    ("[encoder]\nlayer = 4", "encoder.layer is not an option"),
    ("[encoder]\nvocabulary = []", "encoder.vocabulary"),
    ('[encoder]\nvocabulary = "one two"', "encoder.vocabulary"),
    ('[encoder]\nvocabulary = ["a", "a"]', "names a word twice"),
    ("[decoder]", r"no table \[encoder\]"),
    ("[encoder", "not a readable TOML file")])
def test_bad_specs(tmp_path, text, message):
    path = tmp_path / "SPEC.toml"
    path.write_text(text)
    with pytest.raises(PhonolithError, match=message) as caught:
        EncoderConfig.from_toml(path)
    assert caught.value.remedy


@pytest.mark.parametrize("strides", [(2, 2), (2, 2, 1, 1), (1,), (2, 1, 2)])
def test_min_frames_give_one_output_frame(strides):
    config = EncoderConfig(strides=strides)
    assert config.convolved(config.min_frames) == 1
    assert config.convolved(config.min_frames - 1) == 0


def test_features_refuse_what_the_default_cannot_use():
    assert EncoderConfig().min_frames == MIN_FRAMES


def test_missing_spec(tmp_path):
    with pytest.raises(PhonolithError, match="nowhere.toml"):
        EncoderConfig.from_toml(tmp_path / "nowhere.toml")
