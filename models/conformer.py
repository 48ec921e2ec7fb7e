"""Conformer with CTC over words, in torch: the float model that gets quantized.

Structure: Gulati et al. 2020 (arXiv 2005.08100), section 2: half-step feed-forward blocks around attention and a
convolution module; relative positions as in Transformer-XL. Streaming: attention in chunks with limited left
context, causal convolutions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phonolith.models.attention import plain_attention, relative_attention, with_positions
from phonolith.models.conformer_config import ConformerConfig
from phonolith.models.features import FeatureParameters
from phonolith.models.layers import CTCModel, drop


class FeedForward(nn.Module):
    """LayerNorm, Linear, SiLU, Linear: [B, T, d] -> the same."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, config.ffn)
        self.contract = nn.Linear(config.ffn, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.silu(self.expand(self.norm(x))))


class SelfAttention(nn.Module):
    """LayerNorm, then multi-head self-attention: [B, T, d] -> the same."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        if config.positions == "relative":
            self.position = nn.Linear(width, width, bias=False)
            self.content_bias = nn.Parameter(torch.zeros(width))
            self.position_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm(x)
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.training or mask is not None:
            return self.output(self._trained(query, key, value, mask))
        return self.output(self._exported(query, key, value))

    def _trained(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attention with gradients and a padding mask."""
        span = (self.config.heads, self.config.chunk, self.config.left, mask)
        if self.config.positions != "relative":
            return plain_attention(query, key, value, *span)
        return relative_attention(query, key, value, self.position.weight, self.content_bias, self.position_bias,
                                  *span)

    def _exported(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The same through operators that stay whole in an exported graph."""
        span = (self.config.heads, self.config.chunk, self.config.left)
        if self.config.positions == "relative":
            return torch.ops.phonolith.relative_attention(
                query, key, value, self.position.weight, self.content_bias, self.position_bias, *span)
        if self.config.chunk:
            return torch.ops.phonolith.chunked_attention(query, key, value, *span)
        return plain_attention(query, key, value, *span)


class ConvolutionModule(nn.Module):
    """LayerNorm, pointwise, GLU, depthwise over time, BatchNorm, SiLU, pointwise: [B, T, d] -> the same.

    The depthwise convolution pads with zeros: kernel - 1 frames on the left if causal, otherwise
    (kernel - 1) // 2 on the left and the rest on the right. It has no bias: BatchNorm's follows.
    """

    def __init__(self, config: ConformerConfig):
        super().__init__()
        width, reach = config.width, config.kernel - 1
        left = reach if config.streaming else reach // 2
        self.padding = (left, reach - left)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, config.kernel, groups=width, bias=False)
        self.batch_norm = nn.BatchNorm1d(width)
        self.contract = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = F.glu(self.expand(self.norm(x)), dim=-1)
        if mask is not None:
            # Past an utterance's end the convolution reads zeros, as it does without a batch around it.
            x = x * mask[:, 0, 0, :, None]
        x = self.depthwise(F.pad(x.transpose(1, 2), self.padding))
        return self.contract(F.silu(self.batch_norm(x)).transpose(1, 2))


class Block(nn.Module):
    """One Conformer block (section 2.4 of the paper): [B, T, d] -> the same."""

    def __init__(self, config: ConformerConfig, dropout: float):
        super().__init__()
        self.first_ffn = FeedForward(config)
        self.attention = SelfAttention(config)
        self.convolution = ConvolutionModule(config)
        self.second_ffn = FeedForward(config)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + 0.5 * self._drop(self.first_ffn(x))
        x = x + self._drop(self.attention(x, mask))
        x = x + self._drop(self.convolution(x, mask))
        x = x + 0.5 * self._drop(self.second_ffn(x))
        return self.norm(x)

    def _drop(self, x: Tensor) -> Tensor:
        return drop(x, self.dropout, self.training)


class ConformerCTC(CTCModel):
    """A stack of Conformer blocks; `dropout` acts on residual branches only."""

    def __init__(self, config: ConformerConfig, dropout: float, features: FeatureParameters):
        super().__init__(config, features)
        self.absolute = config.positions == "absolute"
        self.layers = nn.ModuleList(Block(config, dropout) for _ in range(config.layers))
        self.output = nn.Linear(config.width, config.tokens)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.front_end(features)
        if self.absolute:
            x = with_positions(x) if self.training else torch.ops.phonolith.add_positions(x)
        for layer in self.layers:
            x = layer(x, mask)
        return self.output(x)
