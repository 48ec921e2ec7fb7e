"""The shape of an encoder, read from a SPEC.toml. Never needs torch."""

import dataclasses
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from phonolith.hw.errors import PhonolithError
from phonolith.models.data import DIGITS

# int8 weights, packed, and activations share 32 bits of addresses; images are simulated in memory.
MAX_PARAMETERS = 1 << 28
LEAST = {"mels": 3, "channels": 1, "width": 16, "layers": 1, "heads": 1, "ffn": 1}


@dataclass(frozen=True)
class EncoderConfig:
    """A Transformer encoder with a CTC output layer behind a convolutional front end.

    Parameters
    ----------
    mels : feature bins per frame.
    channels : output channels of every convolution.
    strides : one per unpadded 3x3 convolution, 1 or 2, in time and frequency alike.
    width : d, the width of the residual stream.
    layers, heads : Transformer layers, attention heads per layer; the head width is width / heads, >= 16.
    ffn : hidden width of the feed-forward blocks.
    vocabulary : words; token 0 is the blank, word i has token i + 1.

    Raises PhonolithError if a value is impossible or the model would exceed MAX_PARAMETERS.
    """

    mels: int = 40
    channels: int = 32
    strides: tuple[int, ...] = (2, 2, 1, 1)
    width: int = 96
    layers: int = 4
    heads: int = 3
    ffn: int = 384
    vocabulary: tuple[str, ...] = DIGITS

    def __post_init__(self):
        for name, least in LEAST.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise _bad(f"encoder.{name} must be an integer of at least {least}, not {value!r}")
        self._check_strides()
        if self.width % self.heads or self.width // self.heads < 16:
            raise _bad(f"encoder.width {self.width} with {self.heads} heads: the head width must be a whole "
                       "number of at least 16")
        self._check_vocabulary()
        if self.parameters > MAX_PARAMETERS:
            raise _bad(f"the encoder would have {self.parameters} parameters, more than {MAX_PARAMETERS}")

    def _check_strides(self):
        if not self.strides or not all(type(stride) is int and stride in (1, 2) for stride in self.strides):
            raise _bad(f"encoder.strides must be a list of 1s and 2s, not {self.strides!r}")
        if self.bins < 1:
            raise _bad(f"encoder.mels {self.mels} leaves nothing after convolutions of strides "
                       f"{list(self.strides)}")

    def _check_vocabulary(self):
        words = self.vocabulary
        if not words or not all(isinstance(word, str) and word for word in words):
            raise _bad(f"encoder.vocabulary must be a list of words, not {words!r}")
        if len(set(words)) != len(words):
            raise _bad(f"encoder.vocabulary names a word twice: {words!r}")

    @property
    def bins(self) -> int:
        """Frequency bins that the last convolution leaves."""
        return self.convolved(self.mels)

    @property
    def min_frames(self) -> int:
        """Feature frames that give one output frame."""
        frames = 1
        for stride in reversed(self.strides):
            frames = (frames - 1) * stride + 3
        return frames

    def convolved(self, size: int) -> int:
        """What the front end leaves of `size` frames or bins: T' of T (0 or less: nothing)."""
        for stride in self.strides:
            size = (size - 3) // stride + 1
        return size

    @property
    def tokens(self) -> int:
        """Output classes: the blank and the words."""
        return 1 + len(self.vocabulary)

    @property
    def parameters(self) -> int:
        """Weights and biases of the whole model."""
        d, c, h = self.width, self.channels, self.ffn
        front = (9 + 1) * c + (len(self.strides) - 1) * (9 * c + 1) * c + (self.bins * c + 1) * d
        layer = 4 * (d + 1) * d + (d + 1) * h + (h + 1) * d + 4 * d
        return front + self.layers * layer + 2 * d + (d + 1) * self.tokens

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Check and build. Unknown keys and impossible values raise PhonolithError."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise _bad(f"encoder.{unknown[0]} is not an option; there are {', '.join(sorted(known))}")
        lists = {name: values[name] for name in ("strides", "vocabulary") if name in values}
        for name, value in lists.items():
            if not isinstance(value, (list, tuple)):
                raise _bad(f"encoder.{name} must be a list, not {value!r}")
        return cls(**{**values, **{name: tuple(value) for name, value in lists.items()}})

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Read the table `[encoder]` of a SPEC.toml; absent keys keep their defaults."""
        try:
            spec = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PhonolithError("spec", f"{path}: not a readable TOML file ({error})",
                                 "start from models/encoder-ctc.toml") from error
        table = spec.get("encoder")
        if not isinstance(table, dict):
            raise PhonolithError("spec", f"{path}: there is no table [encoder]",
                                 "start from models/encoder-ctc.toml")
        return cls.from_dict(table)


def _bad(message: str) -> PhonolithError:
    return PhonolithError("spec", message, "change that value in the [encoder] table of the SPEC.toml")
