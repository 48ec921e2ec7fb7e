"""The shape of a Conformer, read from a SPEC.toml. Never needs torch."""

from dataclasses import dataclass
from typing import ClassVar

from phonolith.models.config import ModelConfig

POSITIONS = ("relative", "absolute", "none")
KERNELS = range(3, 34)
WORD_PIECES = 1024
EMBEDDING = 320


def transducer_parameters(encoder_width: int, lstm_width: int) -> int:
    """Weights of the transducer decoder that the paper's models end with: prediction and joint network.

    The paper gives one LSTM layer, its width (320, 640, 640) and 1,024 word pieces (section 3, table 1). What it
    leaves open was chosen so that all three published totals come out: an embedding of 320; an LSTM with one bias
    vector; a joint network that projects both sides, with biases, to max(320, encoder width) and from there to
    word pieces.
    """
    joint = max(EMBEDDING, encoder_width)
    prediction = WORD_PIECES * EMBEDDING + 4 * (EMBEDDING + lstm_width + 1) * lstm_width
    return prediction + (encoder_width + 1) * joint + (lstm_width + 1) * joint + (joint + 1) * WORD_PIECES


@dataclass(frozen=True, kw_only=True)
class ConformerConfig(ModelConfig):
    """A Conformer encoder (Gulati et al. 2020, arXiv 2005.08100) with a CTC output layer.

    Parameters
    ----------
    kernel : taps of the depthwise convolutions, 3 to 33, odd or even.
    positions : how attention knows where a frame is: "relative" (Transformer-XL, as in the paper), "absolute"
        (sinusoids added to the front end's output) or "none".
    chunk : 0: every frame attends to all frames. N: a frame of chunk i (N output frames) attends to the frames
        of chunks i - left .. i, and depthwise convolutions are causal: a streaming model.
    left : chunks of left context, 0 if chunk is 0.
    transducer : width of the LSTM of the decoder that the paper puts in place of CTC; it is counted
        (`counts`), never built. 0: none.
    """

    family: ClassVar[str] = "conformer-ctc"
    table: ClassVar[str] = "conformer"

    strides: tuple[int, ...] = (2, 2)
    width: int = 64
    heads: int = 4
    ffn: int = 256
    kernel: int = 15
    positions: str = "relative"
    chunk: int = 0
    left: int = 0
    transducer: int = 0

    def check_family(self) -> None:
        if type(self.kernel) is not int or self.kernel not in KERNELS:
            raise self.bad(f"kernel must be an integer of {KERNELS[0]} to {KERNELS[-1]}, not {self.kernel!r}")
        if self.positions not in POSITIONS:
            raise self.bad(f"positions must be one of {', '.join(POSITIONS)}, not {self.positions!r}")
        for name in ("chunk", "left", "transducer"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise self.bad(f"{name} must be an integer of at least 0, not {value!r}")
        if self.left and not self.chunk:
            raise self.bad(f"left must be 0 where chunk is 0, not {self.left}")

    @property
    def streaming(self) -> bool:
        """Whether attention is chunked; convolutions and features are then causal."""
        return self.chunk > 0

    @property
    def layer_parameters(self) -> int:
        """Weights, biases and normalization factors of one block (running statistics are not counted)."""
        d, h = self.width, self.ffn
        half_step = 2 * d + (d + 1) * h + (h + 1) * d
        attention = 2 * d + 4 * (d + 1) * d + (d * d + 2 * d if self.positions == "relative" else 0)
        convolution = 2 * d + (d + 1) * 2 * d + self.kernel * d + 2 * d + (d + 1) * d
        return 2 * half_step + attention + convolution + 2 * d

    @property
    def encoder_parameters(self) -> int:
        """All but the CTC output layer: what the paper's table 1 calls the encoder."""
        return self.front_end_parameters + self.layers * self.layer_parameters

    @property
    def parameters(self) -> int:
        """Weights and biases of the whole model."""
        return self.encoder_parameters + (self.width + 1) * self.tokens

    @property
    def counts(self) -> dict[str, int]:
        """Parameters by part, and the total of the published model where the paper's decoder is asked for."""
        counts = {"encoder": self.encoder_parameters, "ctc": self.parameters - self.encoder_parameters}
        if self.transducer:
            decoder = transducer_parameters(self.width, self.transducer)
            counts |= {"transducer": decoder, "encoder_and_transducer": self.encoder_parameters + decoder}
        return counts
