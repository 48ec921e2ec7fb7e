"""The model families: which class and which SPEC.toml table each has. Imports torch only to build a model."""

import os
from typing import TYPE_CHECKING

from phonolith.hw.errors import PhonolithError
from phonolith.models.config import EncoderConfig, ModelConfig, read_toml
from phonolith.models.conformer_config import ConformerConfig
from phonolith.models.features import FeatureParameters
from phonolith.models.normalization import RunningNormalization

if TYPE_CHECKING:
    from phonolith.models.layers import CTCModel

CONFIGS: dict[str, type[ModelConfig]] = {config.family: config for config in (EncoderConfig, ConformerConfig)}
"""Family to configuration class."""


def read_spec(path: str | os.PathLike[str]) -> ModelConfig:
    """Read the one model table of a SPEC.toml: `[encoder]` or `[conformer]`.

    Raises PhonolithError if the file cannot be read, has none or several of them, or a value is impossible.
    """
    present = [config for config in CONFIGS.values() if config.table in read_toml(path)]
    if len(present) != 1:
        tables = ", ".join(f"[{config.table}]" for config in present or CONFIGS.values())
        found = "there are several tables" if present else "there is none of the tables"
        raise PhonolithError("spec", f"{path}: {found} {tables}",
                             "start from models/encoder-ctc.toml or models/conformer-ctc.toml")
    return present[0].from_toml(path)


def default_features(config: ModelConfig) -> FeatureParameters:
    """How features are computed for a model that no data was measured for."""
    if config.streaming:
        return FeatureParameters(RunningNormalization.assumed(config.mels), config.min_frames, config.mels)
    return FeatureParameters(min_frames=config.min_frames, mels=config.mels)


def build(config: ModelConfig, dropout: float = 0.0, features: FeatureParameters | None = None) -> "CTCModel":
    """A freshly initialized model of the configuration's family. Needs torch."""
    from phonolith.models.conformer import ConformerCTC
    from phonolith.models.encoder_ctc import EncoderCTC

    features = features or default_features(config)
    if isinstance(config, ConformerConfig):
        return ConformerCTC(config, dropout, features)
    assert isinstance(config, EncoderConfig)
    return EncoderCTC(config, dropout, features)


def random_model(config: ModelConfig, seed: int) -> "CTCModel":
    """An untrained model in evaluation mode; its weights depend on `config` and `seed` only. Needs torch."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(config).eval()
