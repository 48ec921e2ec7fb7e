"""Parts that all model families are made of."""

import torch.nn.functional as F
from torch import Tensor, nn

from phonolith.models.config import ModelConfig
from phonolith.models.features import FeatureParameters


class FrontEnd(nn.Module):
    """Unpadded 3x3 convolutions, each with ReLU, then a projection: [B, T, mels] -> [B, T', width].

    The projection's input index is f * channels + c.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(config.channels if number else 1, config.channels, 3, stride=stride)
            for number, stride in enumerate(config.strides))
        self.project = nn.Linear(config.bins * config.channels, config.width)

    def forward(self, features: Tensor) -> Tensor:
        maps = features.unsqueeze(1)
        for convolution in self.convolutions:
            maps = F.relu(convolution(maps))
        return self.project(maps.permute(0, 2, 3, 1).flatten(2))


def drop(x: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout in training. Not nn.Dropout: that would leave an operator in the exported graph."""
    return F.dropout(x, rate) if training else x


class CTCModel(nn.Module):
    """A model of any family: float32 features [B, T, mels] -> logits [B, T', tokens].

    `features` says how its features are computed; checkpoints keep it. A family's `forward(features, mask)` takes
    a mask, bool [B, 1, 1, T'], true on frames of the utterance, or None where no batch is padded.
    """

    def __init__(self, config: ModelConfig, features: FeatureParameters):
        super().__init__()
        self.config = config
        self.features = features
        self.front_end = FrontEnd(config)
