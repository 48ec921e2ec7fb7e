"""The shape of an encoder, read from a SPEC.toml. Never needs torch."""

import dataclasses
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from phonolith.hw.errors import PhonolithError
from phonolith.models.data import DIGITS

MAX_PARAMETERS = 1_000_000
LEAST = {"mels": 7, "channels": 1, "width": 16, "layers": 1, "heads": 1, "ffn": 1}


@dataclass(frozen=True)
class EncoderConfig:
    """A Transformer encoder with a CTC output layer behind a two-convolution front end.

    Parameters
    ----------
    mels : feature bins per frame.
    channels : output channels of both convolutions.
    width : d, the width of the residual stream.
    layers, heads : Transformer layers, attention heads per layer; the head width is width / heads, >= 16.
    ffn : hidden width of the feed-forward blocks.
    vocabulary : words; token 0 is the blank, word i has token i + 1.

    Raises PhonolithError if a value is impossible or the model would exceed a million parameters.
    """

    mels: int = 40
    channels: int = 32
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
        if self.width % self.heads or self.width // self.heads < 16:
            raise _bad(f"encoder.width {self.width} with {self.heads} heads: the head width must be a whole "
                       "number of at least 16")
        self._check_vocabulary()
        if self.parameters > MAX_PARAMETERS:
            raise _bad(f"the encoder would have {self.parameters} parameters, more than {MAX_PARAMETERS}")

    def _check_vocabulary(self):
        words = self.vocabulary
        if not words or not all(isinstance(word, str) and word for word in words):
            raise _bad(f"encoder.vocabulary must be a list of words, not {words!r}")
        if len(set(words)) != len(words):
            raise _bad(f"encoder.vocabulary names a word twice: {words!r}")

    @property
    def bins(self) -> int:
        """Frequency bins that the second convolution leaves."""
        return convolved(convolved(self.mels))

    @property
    def tokens(self) -> int:
        """Output classes: the blank and the words."""
        return 1 + len(self.vocabulary)

    @property
    def parameters(self) -> int:
        """Weights and biases of the whole model."""
        d, c, h = self.width, self.channels, self.ffn
        front = (9 * c + c) + (9 * c * c + c) + (self.bins * c + 1) * d
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
        words = values.get("vocabulary", DIGITS)
        if not isinstance(words, (list, tuple)):
            raise _bad(f"encoder.vocabulary must be a list of words, not {words!r}")
        return cls(**{**values, "vocabulary": tuple(words)})

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


def convolved(size: int) -> int:
    """What an unpadded convolution with a kernel of 3 and a stride of 2 leaves of `size`."""
    return (size - 3) // 2 + 1


def _bad(message: str) -> PhonolithError:
    return PhonolithError("spec", message, "change that value in the [encoder] table of the SPEC.toml")
