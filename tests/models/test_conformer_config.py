"""The Conformer's shape, its SPEC.toml, and its parameters."""

from dataclasses import replace
from pathlib import Path

import pytest

from phonolith.hw.errors import PhonolithError
from phonolith.models import config as module
from phonolith.models.config import EncoderConfig
from phonolith.models.conformer_config import ConformerConfig
from phonolith.models.families import read_spec

FOLDER = Path(module.__file__).parent


def test_shipped_specs():
    assert read_spec(FOLDER / "conformer-ctc.toml") == ConformerConfig()
    assert read_spec(FOLDER / "conformer-ctc-stream.toml") == ConformerConfig(chunk=16, left=3)
    assert read_spec(FOLDER / "encoder-ctc.toml") == EncoderConfig()


@pytest.mark.parametrize(("size", "encoder", "whole"), [("s", 8.7, 10.3), ("m", 27.3, 30.7), ("l", 114.8, 118.8)])
def test_published_totals(size, encoder, whole):
    """Gulati et al. 2020, table 1."""
    counts = read_spec(FOLDER / f"conformer-{size}.toml").counts
    assert round(counts["encoder"] / 1e6, 1) == encoder
    assert round(counts["encoder_and_transducer"] / 1e6, 1) == whole


def test_dict_round_trip():
    config = ConformerConfig(width=48, heads=3, kernel=8, positions="none", chunk=5, left=2, vocabulary=("on",))
    assert ConformerConfig.from_dict(config.as_dict()) == config


@pytest.mark.parametrize(("text", "message"), [
    ("kernel = 2", "conformer.kernel must be an integer of 3 to 33, not 2"),
    ("kernel = 34", "conformer.kernel must be an integer of 3 to 33, not 34"),
    ("kernel = 5.0", "conformer.kernel must be an integer"),
    ('positions = "rotary"', "conformer.positions must be one of relative, absolute, none, not 'rotary'"),
    ("chunk = -1", "conformer.chunk must be an integer of at least 0, not -1"),
    ("chunk = true", "conformer.chunk must be"),
    ("chunk = 4\nleft = 1.5", "conformer.left must be"),
    ("left = 2", "conformer.left must be 0 where chunk is 0, not 2"),
    ("transducer = -1", "conformer.transducer must be"),
    ("width = 32\nheads = 4", "conformer.width 32 with 4 heads"),
    ("layers = 0", "conformer.layers must be an integer of at least 1, not 0"),
    ("width = 4096\nlayers = 9", r"conformer.layers 9 of width 4096: the model would have \d+ parameters"),
    ("kernels = 4", "conformer.kernels is not an option; there are channels, chunk"),
    ("strides = [3]", "conformer.strides must be a list of 1s and 2s")])
def test_bad_specs(tmp_path, text, message):
    path = tmp_path / "spec.toml"
    path.write_text(f"[conformer]\n{text}\n")
    with pytest.raises(PhonolithError, match=message) as caught:
        read_spec(path)
    assert caught.value.kind == "spec" and caught.value.remedy


@pytest.mark.parametrize(("text", "message"), [
    ("[decoder]\nwidth = 3", r"there is none of the tables \[encoder\], \[conformer\]"),
    ("[encoder]\n[conformer]", r"there are several tables \[encoder\], \[conformer\]"),
    ("encoder = 3", r"no table \[encoder\]"),
    ("[encoder", "not a readable TOML file")])
def test_files_that_are_no_spec(tmp_path, text, message):
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(PhonolithError, match=message):
        read_spec(path)


@pytest.mark.parametrize("change", [
    {}, {"kernel": 4}, {"positions": "absolute"}, {"positions": "none", "ffn": 48}, {"chunk": 4, "left": 1},
    {"strides": (2, 1, 2), "mels": 30}, {"width": 36, "heads": 2, "layers": 3}])
def test_parameters_are_counted_as_torch_does(change):
    pytest.importorskip("torch", reason="float models need torch (make setup EXTRAS=train)")
    from phonolith.models.families import random_model

    config = replace(ConformerConfig(channels=4, width=32, heads=2, layers=1, ffn=64), **change)
    assert sum(p.numel() for p in random_model(config, 0).parameters()) == config.parameters
    assert config.counts == {"encoder": config.encoder_parameters, "ctc": (config.width + 1) * 11}
