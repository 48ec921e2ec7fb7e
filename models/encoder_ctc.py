"""Transformer encoder with CTC over words, in torch: the float model that gets quantized.

Structure: Bie et al. 2019 (arXiv 1911.03604), section 2: convolutions in place of positional encodings;
layers with LayerNorm in front (Xiong et al. 2020); CTC (Graves et al. 2006) in place of the decoder.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from phonolith.models.config import EncoderConfig
from phonolith.models.features import FeatureParameters
from phonolith.models.layers import CTCModel, drop


class Attention(nn.Module):
    """Multi-head self-attention without positions: [B, T', width] -> the same."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (self._split(linear(x)) for linear in (self.query, self.key, self.value))
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(context.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """[B, T', width] -> [B, heads, T', width / heads]."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class Layer(nn.Module):
    """Attention and feed-forward block, each with LayerNorm in front and a residual around it."""

    def __init__(self, config: EncoderConfig, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.ffn_norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, config.ffn)
        self.contract = nn.Linear(config.ffn, config.width)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self._drop(self.attention(self.attention_norm(x), mask))
        return x + self._drop(self.contract(F.relu(self.expand(self.ffn_norm(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return drop(x, self.dropout, self.training)


class EncoderCTC(CTCModel):
    """A stack of Transformer layers; only the convolutions tell frames' order. `dropout`: on residual branches."""

    def __init__(self, config: EncoderConfig, dropout: float, features: FeatureParameters):
        super().__init__(config, features)
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.tokens)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.front_end(features)
        for layer in self.layers:
            x = layer(x, mask)
        return self.output(self.norm(x))
