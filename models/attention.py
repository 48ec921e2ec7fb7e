"""Attention of the Conformer, and its operators that torch.export shows as one node each.

Importing this file registers `torch.ops.phonolith.relative_attention`, `.chunked_attention` and
`.add_positions`. They compute what the functions below do, on modules in evaluation mode only: they have no
gradients.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from phonolith.models.positions import absolute_sinusoids, relative_sinusoids


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, d] -> [B, heads, T, d / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def chunk_mask(frames: int, chunk: int, left: int) -> Tensor:
    """Bool [frames, frames]: whether query frame i (row) may see key frame j.

    Frame i belongs to chunk i // chunk and sees the chunks from `left` before its own up to its own.
    """
    chunks = torch.arange(frames) // chunk
    behind = chunks[:, None] - chunks[None, :]
    return (behind >= 0) & (behind <= left)


def allowed(mask: Tensor | None, frames: int, chunk: int, left: int) -> Tensor | None:
    """Join a padding mask, bool [B, 1, 1, T] or None, with the chunks'; None if all may see all."""
    if chunk == 0:
        return mask
    chunks = chunk_mask(frames, chunk, left)
    return chunks if mask is None else chunks & mask


def shift(scores: Tensor) -> Tensor:
    """[..., T, 2T - 1], column n for offset n - (T - 1) -> [..., T, T], column j for offset j - i in row i."""
    frames = scores.shape[-2]
    # With one column of padding, element (i, j) of the result is T - 1 + i * (2T - 1) + j elements from the start.
    flat = F.pad(scores, (0, 1)).flatten(-2)[..., frames - 1:]
    return flat[..., :frames * (2 * frames - 1)].unflatten(-1, (frames, 2 * frames - 1))[..., :frames]


def relative_attention(query: Tensor, key: Tensor, value: Tensor, position_weight: Tensor, content_bias: Tensor,
                       position_bias: Tensor, heads: int, chunk: int, left: int,
                       mask: Tensor | None = None) -> Tensor:
    """Multi-head attention with relative positions (Dai et al. 2019, section 3.3, as in the Conformer).

    In every head, with u and v the biases and p(n) = relative_sinusoids row of offset n times
    position_weight transposed: score(i, j) = ((q_i + u) k_j + (q_i + v) p(j - i)) / sqrt(d / heads); softmax
    over the j that i may see; the weighted sum of values.

    Parameters
    ----------
    query, key, value : [B, T, d].
    position_weight : [d, d]; content_bias (u), position_bias (v) : [d].
    chunk, left : see `chunk_mask`; chunk 0 is full attention.
    mask : bool [B, 1, 1, T], true on frames of the utterance; for padded batches in training.

    Returns [B, T, d], heads side by side.
    """
    frames, width = query.shape[1:]
    offsets = torch.from_numpy(relative_sinusoids(frames, width)).to(query.dtype)
    position = F.linear(offsets, position_weight).unflatten(-1, (heads, -1)).transpose(0, 1)
    keys, values = split_heads(key, heads), split_heads(value, heads)
    content = split_heads(query + content_bias, heads) @ keys.transpose(-1, -2)
    relative = shift(split_heads(query + position_bias, heads) @ position.transpose(-1, -2))
    scores = (content + relative) / math.sqrt(width // heads)
    seen = allowed(mask, frames, chunk, left)
    if seen is not None:
        # Not -inf: a frame of padding may see nothing at all, and its gradients must stay numbers.
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    return (scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, chunk: int, left: int,
                    mask: Tensor | None = None) -> Tensor:
    """Multi-head scaled dot-product attention without positions; arguments as `relative_attention`."""
    seen = allowed(mask, query.shape[1], chunk, left)
    parts = (split_heads(each, heads) for each in (query, key, value))
    return F.scaled_dot_product_attention(*parts, attn_mask=seen).transpose(1, 2).flatten(2)


def with_positions(x: Tensor) -> Tensor:
    """x [B, T, d] plus `absolute_sinusoids` of its frames."""
    return x + torch.from_numpy(absolute_sinusoids(x.shape[1], x.shape[2])).to(x.dtype)


@torch.library.custom_op("phonolith::relative_attention", mutates_args=())
def relative_attention_operator(query: Tensor, key: Tensor, value: Tensor, position_weight: Tensor,
                                content_bias: Tensor, position_bias: Tensor, heads: int, chunk: int,
                                left: int) -> Tensor:
    """`relative_attention` as one operator."""
    return relative_attention(query, key, value, position_weight, content_bias, position_bias, heads, chunk,
                              left).contiguous()


@torch.library.custom_op("phonolith::chunked_attention", mutates_args=())
def chunked_attention_operator(query: Tensor, key: Tensor, value: Tensor, heads: int, chunk: int,
                               left: int) -> Tensor:
    """`plain_attention` in chunks as one operator."""
    return plain_attention(query, key, value, heads, chunk, left).contiguous()


@torch.library.custom_op("phonolith::add_positions", mutates_args=())
def add_positions_operator(x: Tensor) -> Tensor:
    """`with_positions` as one operator."""
    return with_positions(x)


# A decorated operator has no static type that shows `register_fake`; the functions below give their results' shapes.
@torch.library.register_fake("phonolith::relative_attention")
def _relative_shape(query, key, value, position_weight, content_bias, position_bias, heads, chunk, left):
    return query.new_empty(query.shape)


@torch.library.register_fake("phonolith::chunked_attention")
def _chunked_shape(query, key, value, heads, chunk, left):
    return query.new_empty(query.shape)


@torch.library.register_fake("phonolith::add_positions")
def _positions_shape(x):
    return x.new_empty(x.shape)
