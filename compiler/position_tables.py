"""Tables of positions: constants that the integer graph holds in place of the float model's sinusoids."""

import numpy as np

from phonolith.compiler.fixed_point import encode_multiplier
from phonolith.compiler.float_graph import FloatNode
from phonolith.models.positions import absolute_sinusoids, relative_sinusoids

LEVELS = 127
INT16 = np.iinfo(np.int16)


def int16_steps(rows: np.ndarray, scale: float) -> np.ndarray:
    """Return the **rows** of ``add_rows`` in steps of ``scale``."""
    return np.clip(np.rint(rows / scale), INT16.min, INT16.max).astype(np.int16)


def absolute_rows(longest: int, width: int, scale: float) -> np.ndarray:
    """Return sinusoids of ``longest`` frames as the **rows** of ``add_rows``."""
    return int16_steps(absolute_sinusoids(longest, width), scale)


def relative_tables(attention: FloatNode, longest: int, query_scale: float, score_scale: float) -> tuple[dict, dict]:
    """Return the constants **positions** and **position_bias** of an ``attention``, and its ``position_scores``.

    Row n of ``position_weight``'s product with the sinusoids is for offset ``n - (longest - 1)``. Attention over chunks
    needs no offsets beyond them, whatever ``longest`` is.

    Parameters
    ----------
    attention : with position_weight ``[H*D, H*D]`` and position_bias ``[H*D]``.
    query_scale, score_scale : of the int8 queries and the int16 scores.
    """
    heads, chunk, left = (attention.attributes[name] for name in ("heads", "chunk", "left"))
    longest = (left + 1) * chunk or longest
    weight, bias = (attention.constants[role].astype(np.float64) for role in ("position_weight", "position_bias"))
    positions = relative_sinusoids(longest, len(weight)).astype(np.float64) @ weight.T
    scale = (np.abs(positions).max() or 1.0) / LEVELS
    by_head = (positions * bias).reshape(len(positions), heads, -1).sum(axis=2).T
    multiplier, shift = encode_multiplier(query_scale * scale / score_scale)
    constants = {
        "positions": np.rint(positions / scale).astype(np.int8),
        "position_bias": np.rint(by_head / (query_scale * scale)).astype(np.int32),
    }
    return constants, {"multiplier": multiplier, "shift": shift}
