"""The shapes of the model families, read from a SPEC.toml. Never needs torch."""

import dataclasses
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from phonolith.hw.errors import PhonolithError
from phonolith.models.data import DIGITS

# int8 weights, packed, and activations share 32 bits of addresses; images are simulated in memory.
MAX_PARAMETERS = 1 << 28


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What all families share: a convolutional front end, layers of width d, and a CTC output over words.

    Parameters
    ----------
    mels : feature bins per frame.
    channels : output channels of every convolution.
    strides : one per unpadded 3x3 convolution, 1 or 2, in time and frequency alike.
    width : d, the width of the residual stream.
    layers, heads : layers, attention heads per layer; the head width is width / heads, >= 16.
    ffn : hidden width of the feed-forward blocks.
    vocabulary : words; token 0 is the blank, word i has token i + 1.

    `family` names the model's class (models/families.py), `table` its table in a SPEC.toml.

    Raises PhonolithError if a value is impossible or the model would exceed MAX_PARAMETERS.
    """

    family: ClassVar[str]
    table: ClassVar[str]
    least: ClassVar[dict[str, int]] = {"mels": 3, "channels": 1, "width": 16, "layers": 1, "heads": 1, "ffn": 1}

    mels: int = 40
    channels: int = 32
    strides: tuple[int, ...]
    width: int
    layers: int = 4
    heads: int
    ffn: int
    vocabulary: tuple[str, ...] = DIGITS

    def __post_init__(self):
        for name, least in self.least.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise self.bad(f"{name} must be an integer of at least {least}, not {value!r}")
        self._check_strides()
        if self.width % self.heads or self.width // self.heads < 16:
            raise self.bad(f"width {self.width} with {self.heads} heads: the head width must be a whole "
                           "number of at least 16")
        self._check_vocabulary()
        self.check_family()
        if self.parameters > MAX_PARAMETERS:
            raise self.bad(f"layers {self.layers} of width {self.width}: the model would have {self.parameters} "
                           f"parameters, more than {MAX_PARAMETERS}")

    def _check_strides(self):
        if not self.strides or not all(type(stride) is int and stride in (1, 2) for stride in self.strides):
            raise self.bad(f"strides must be a list of 1s and 2s, not {self.strides!r}")
        if self.bins < 1:
            raise self.bad(f"mels {self.mels} leaves nothing after convolutions of strides {list(self.strides)}")

    def _check_vocabulary(self):
        words = self.vocabulary
        if not words or not all(isinstance(word, str) and word for word in words):
            raise self.bad(f"vocabulary must be a list of words, not {words!r}")
        if len(set(words)) != len(words):
            raise self.bad(f"vocabulary names a word twice: {words!r}")

    def check_family(self) -> None:
        """Raise PhonolithError if one of the family's own values is impossible."""

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
    def streaming(self) -> bool:
        """Whether the model hears its audio piece by piece; its features must then be causal."""
        return False

    @property
    def front_end_parameters(self) -> int:
        """Weights and biases of the convolutions and of the projection to the residual stream."""
        c = self.channels
        return (9 + 1) * c + (len(self.strides) - 1) * (9 * c + 1) * c + (self.bins * c + 1) * self.width

    @property
    def parameters(self) -> int:
        """Weights and biases of the whole model."""
        raise NotImplementedError

    @property
    def counts(self) -> dict[str, int]:
        """Parameters by part."""
        return {"encoder": self.parameters}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Check and build. Unknown keys and impossible values raise PhonolithError."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise cls.bad(f"{unknown[0]} is not an option; there are {', '.join(sorted(known))}")
        lists = {name: values[name] for name in ("strides", "vocabulary") if name in values}
        for name, value in lists.items():
            if not isinstance(value, (list, tuple)):
                raise cls.bad(f"{name} must be a list, not {value!r}")
        return cls(**{**values, **{name: tuple(value) for name, value in lists.items()}})

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Read the family's table of a SPEC.toml; absent keys keep their defaults."""
        table = read_toml(path).get(cls.table)
        if not isinstance(table, dict):
            raise PhonolithError("spec", f"{path}: there is no table [{cls.table}]",
                                 f"start from models/{cls.family}.toml")
        return cls.from_dict(table)

    @classmethod
    def bad(cls, message: str) -> PhonolithError:
        """The error for a value of this family's table."""
        return PhonolithError("spec", f"{cls.table}.{message}",
                              f"change that value in the [{cls.table}] table of the SPEC.toml")


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a SPEC.toml. Raises PhonolithError if it cannot be read."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PhonolithError("spec", f"{path}: not a readable TOML file ({error})",
                             "start from models/encoder-ctc.toml") from error


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(ModelConfig):
    """A Transformer encoder with a CTC output layer behind a convolutional front end."""

    family: ClassVar[str] = "encoder-ctc"
    table: ClassVar[str] = "encoder"

    strides: tuple[int, ...] = (2, 2, 1, 1)
    width: int = 96
    heads: int = 3
    ffn: int = 384

    @property
    def parameters(self) -> int:
        """Weights and biases of the whole model."""
        d, h = self.width, self.ffn
        layer = 4 * (d + 1) * d + (d + 1) * h + (h + 1) * d + 4 * d
        return self.front_end_parameters + self.layers * layer + 2 * d + (d + 1) * self.tokens
