"""Float checkpoints of every family."""

import resource

import pytest

torch = pytest.importorskip("torch", reason="float models need torch (make setup EXTRAS=train)")

import json  # noqa: E402

import numpy as np  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from phonolith.hw.errors import PhonolithError  # noqa: E402
from phonolith.models.checkpoint import check_writable, load_model, save_model  # noqa: E402
from phonolith.models.config import EncoderConfig  # noqa: E402
from phonolith.models.conformer_config import ConformerConfig  # noqa: E402
from phonolith.models.families import build, random_model  # noqa: E402
from phonolith.models.features import FeatureParameters  # noqa: E402
from phonolith.models.normalization import RunningNormalization  # noqa: E402

SMALL = EncoderConfig(channels=4, width=32, heads=2, layers=2, ffn=48)
CONFORMER = ConformerConfig(channels=4, width=32, heads=2, layers=1, ffn=48, kernel=4, chunk=4, left=1)


@pytest.mark.parametrize("config", [SMALL, CONFORMER], ids=lambda config: config.family)
def test_checkpoint_round_trip(config, tmp_path):
    model = random_model(config, 1)
    save_model(model, tmp_path / "new" / "m.safetensors")
    loaded = load_model(tmp_path / "new" / "m.safetensors")
    assert type(loaded) is type(model) and not loaded.training
    assert loaded.config == config and loaded.features == model.features
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.safetensors"]


def test_measured_features_are_kept(tmp_path):
    measured = FeatureParameters(RunningNormalization((-1.5,) * 40, 2.5, 1e-4, 30.0), CONFORMER.min_frames)
    save_model(build(CONFORMER, features=measured), tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors").features == measured


def test_a_checkpoint_that_says_nothing_of_features(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(random_model(SMALL, 1), path)
    with safe_open(path, "np") as file:
        description = json.loads(file.metadata()["phonolith"])
    del description["features"]
    save_file(load_file(path), path, {"phonolith": json.dumps(description)})
    assert load_model(path).features == FeatureParameters()


def test_bad_checkpoints(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(PhonolithError, match="no such checkpoint"):
        load_model(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(PhonolithError, match="not a safetensors file"):
        load_model(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(PhonolithError, match="is not a float checkpoint"):
        load_model(path)
    save_model(random_model(SMALL, 1), path)
    header = path.read_bytes()
    path.write_bytes(header[: len(header) // 2])
    with pytest.raises(PhonolithError, match="m.safetensors"):
        load_model(path)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "m.safetensors"
    check_writable(path)
    assert list(tmp_path.iterdir()) == []
    save_model(random_model(SMALL, 1), path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(PhonolithError, match=r"cannot write .*m\.safetensors: File too large"):
            save_model(random_model(SMALL, 2), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_training_first_sees_whether_it_can_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PhonolithError, match=r"cannot write .*file/m\.safetensors"):
        check_writable(tmp_path / "file" / "m.safetensors")
