"""Word error rate of a recogniser on connected-word strings of test recordings.

Never needs torch, except to load and run float models, where it is imported when called.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phonolith.hw.errors import PhonolithError
from phonolith.models.data import DIGITS, SpeechString, StringMaker, evaluation_recordings
from phonolith.models.decode import WordErrors, word_errors, words
from phonolith.models.features import BY_UTTERANCE, FeatureParameters, features
from phonolith.models.synthetic import SyntheticWords, held_out_voices

if TYPE_CHECKING:
    from phonolith.models.layers import CTCModel

Recogniser = Callable[[np.ndarray], Sequence[str]]
"""float32 features [T, mels] -> the words heard."""


@dataclass(frozen=True)
class Evaluation:
    """What was said and heard, and the errors counted over all strings."""

    errors: WordErrors
    references: tuple[tuple[str, ...], ...]
    hypotheses: tuple[tuple[str, ...], ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The keys of `phonolith evaluate --json`: wer, wer_low, wer_high, words, strings, seconds."""
        return {**asdict(self.errors), "seconds": self.seconds}


def score(recognise: Recogniser, strings: Iterable[SpeechString],
          parameters: FeatureParameters = BY_UTTERANCE) -> Evaluation:
    """Recognise every string and count the errors."""
    started = time.perf_counter()
    pairs = [(string.words, tuple(recognise(features(string.samples, parameters=parameters))))
             for string in strings]
    references, hypotheses = (tuple(side) for side in zip(*pairs, strict=True))
    return Evaluation(word_errors(references, hypotheses), references, hypotheses,
                      time.perf_counter() - started)


def evaluate(recognise: Recogniser, data_dir: str | os.PathLike[str], strings: int = 500, seed: int = 0,
             speakers: Sequence[str] | None = None, takes: str = "0-4",
             snr: float | None = None,
             parameters: FeatureParameters = BY_UTTERANCE) -> Evaluation:
    """Score `recognise` on `strings` seeded strings of the test recordings.

    Parameters
    ----------
    data_dir : folder or manifest, see `models.data`.
    speakers, takes : which recordings; default: the official test takes of the five known speakers.
    snr : dB of added coloured noise; None for none.
    parameters : how the recogniser's features are computed.

    The same arguments give the same strings to every recogniser. Raises PhonolithError if `strings` < 1 or no
    recording fits.
    """
    if strings < 1:
        raise PhonolithError("option", f"strings must be at least 1, not {strings}", "choose --strings 500")
    maker = StringMaker(evaluation_recordings(data_dir, speakers, takes), seed, snr)
    return score(recognise, maker.strings(strings), parameters)


def evaluate_synthetic(recognise: Recogniser, strings: int = 500, seed: int = 0,
                       snr: float | None = None,
                       parameters: FeatureParameters = BY_UTTERANCE) -> Evaluation:
    """Score `recognise` on strings by 100 synthetic voices that training never used.

    Raises PhonolithError without espeakng-loader.
    """
    words_said = SyntheticWords(held_out_voices(100, seed), DIGITS)
    maker = StringMaker(words_said.recordings, seed, snr, words_said.load)
    return score(recognise, maker.strings(strings), parameters)


def load_float(checkpoint: str | os.PathLike[str]) -> "CTCModel":
    """The model of a checkpoint, on one thread. Needs torch: PhonolithError `missing-tool` without it."""
    try:
        import torch
    except ImportError as error:
        raise PhonolithError("missing-tool", "float models need torch",
                             "run make setup EXTRAS=train") from error
    from phonolith.models.checkpoint import load_model
    torch.set_num_threads(1)
    return load_model(checkpoint)


def float_recogniser(model: "CTCModel") -> Recogniser:
    """A float model as a recogniser (greedy CTC)."""
    import torch

    def recognise(frames: np.ndarray) -> Sequence[str]:
        with torch.inference_mode():
            logits = model(torch.from_numpy(frames)[None])[0]
        return words(logits.argmax(dim=-1).numpy(), model.config.vocabulary)

    return recognise


def evaluate_float(checkpoint: str | os.PathLike[str], data_dir: str | os.PathLike[str], strings: int = 500,
                   seed: int = 0, speakers: Sequence[str] | None = None, takes: str = "0-4",
                   snr: float | None = None) -> Evaluation:
    """`evaluate` of a float checkpoint, with its own features."""
    model = load_float(checkpoint)
    return evaluate(float_recogniser(model), data_dir, strings, seed, speakers, takes, snr, model.features)
