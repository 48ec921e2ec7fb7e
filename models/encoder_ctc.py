"""Transformer encoder with CTC over words, in torch: the float model that gets quantized.

Structure: Bie et al. 2019 (arXiv 1911.03604), section 2: convolutions in place of positional encodings;
layers with LayerNorm in front (Xiong et al. 2020); CTC (Graves et al. 2006) in place of the decoder.
"""

import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from phonolith.hw.errors import PhonolithError
from phonolith.models.config import EncoderConfig

FORMAT = "phonolith-encoder-ctc-1"


class FrontEnd(nn.Module):
    """Unpadded 3x3 convolutions, then a projection: [B, T, mels] -> [B, T', width].

    The projection's input index is f * channels + c. The convolutions are all that tells frames' order.
    """

    def __init__(self, config: EncoderConfig):
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
        # Not nn.Dropout: that would leave an operator in the exported graph.
        return F.dropout(x, self.dropout) if self.training else x


class EncoderCTC(nn.Module):
    """float32 features [B, T, mels] -> logits [B, T', tokens]; `dropout` acts on residual branches only."""

    def __init__(self, config: EncoderConfig, dropout: float = 0.0):
        super().__init__()
        self.config = config
        self.front_end = FrontEnd(config)
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.tokens)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask`, bool [B, 1, 1, T'], is true on frames of the utterance; only padded batches need it."""
        x = self.front_end(features)
        for layer in self.layers:
            x = layer(x, mask)
        return self.output(self.norm(x))


def random_encoder(config: EncoderConfig, seed: int) -> EncoderCTC:
    """An untrained model in evaluation mode; its weights depend on `config` and `seed` only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EncoderCTC(config).eval()


def save_encoder(model: EncoderCTC, path: str | os.PathLike[str]) -> None:
    """Write a float checkpoint: one safetensors file whose metadata holds the configuration as JSON.

    A file of that name is replaced only when the new one is complete.
    """
    target = Path(path)
    # One key only: safetensors writes several in no fixed order, and equal models should be equal files.
    metadata = {"phonolith": json.dumps({"format": FORMAT, "config": model.config.as_dict()})}
    content = save({name: value.contiguous() for name, value in model.state_dict().items()}, metadata)
    try:
        write_whole(target, content)
    except OSError as error:
        raise PhonolithError("cannot-write", f"cannot write {target}: {error.strerror}",
                             "free some space there, or choose another folder") from error


def write_whole(target: Path, content: bytes) -> None:
    """Write a file by one rename; nothing stays of one that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint that could not be written, before the work that leads to it."""
    target = Path(path)
    try:
        write_whole(target.with_name(f".{target.name}.probe"), b"")
    except OSError as error:
        raise PhonolithError("cannot-write", f"cannot write {target}: {error.strerror}",
                             "choose a folder that you may write to") from error
    target.with_name(f".{target.name}.probe").unlink()


def load_encoder(path: str | os.PathLike[str]) -> EncoderCTC:
    """Read a float checkpoint; the model is in evaluation mode.

    Raises PhonolithError if the file is missing, damaged, or no checkpoint of this family.
    """
    if not Path(path).is_file():
        raise PhonolithError("model", f"{path}: no such checkpoint", "make one with phonolith train")
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get("phonolith", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise PhonolithError("model", f"{path}: not a safetensors file ({error})",
                             "make a checkpoint with phonolith train") from error
    if metadata.get("format") != FORMAT:
        raise PhonolithError("model", f"{path}: format {metadata.get('format')!r} is not a float checkpoint",
                             f"give a file of format {FORMAT}, as phonolith train writes it")
    model = EncoderCTC(EncoderConfig.from_dict(metadata["config"]))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise PhonolithError("model", f"{path}: tensors do not fit the configuration ({error})",
                             "make the checkpoint again with phonolith train") from error
    return model.eval()
