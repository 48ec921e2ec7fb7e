"""Token ids to words, and how many of them are wrong. numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLANK = 0
"""CTC's blank has id 0; word i of a vocabulary has id i + 1."""


def collapse(ids: Sequence[int] | np.ndarray) -> list[int]:
    """Merge runs of equal ids, then drop blanks (Graves et al. 2006, section 3.1)."""
    sequence = np.asarray(ids, dtype=np.int64)
    starts = np.ones(len(sequence), dtype=bool)
    starts[1:] = sequence[1:] != sequence[:-1]
    return sequence[starts & (sequence != BLANK)].tolist()


def words(ids: Sequence[int] | np.ndarray, vocabulary: Sequence[str]) -> list[str]:
    """The words that one id per frame spells; `vocabulary` excludes the blank."""
    return [vocabulary[token - 1] for token in collapse(ids)]


def edit_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Levenshtein distance: substitutions, insertions and deletions cost 1 each."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, actual in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(diagonal + (expected != actual), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@dataclass(frozen=True)
class WordErrors:
    """Word error rate of a test: fractions, with a 95 % bootstrap interval over strings."""

    wer: float
    wer_low: float
    wer_high: float
    words: int
    strings: int

    def __str__(self) -> str:
        return (f"WER {100 * self.wer:.2f} % (95 %: {100 * self.wer_low:.2f}..{100 * self.wer_high:.2f}), "
                f"{self.words} words in {self.strings} strings")


def word_errors(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]],
                resamples: int = 2000, seed: int = 0) -> WordErrors:
    """Errors summed over all strings / words summed over all strings.

    The interval is the percentile bootstrap (Bisani and Ney 2004) that draws whole strings with replacement,
    because errors within a string depend on each other. Raises ValueError if the lists differ in length or
    hold no reference word.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    lengths = np.array([len(reference) for reference in references], dtype=np.int64)
    if lengths.sum() == 0:
        raise ValueError("a word error rate needs at least one reference word")
    errors = np.array([edit_distance(*pair) for pair in zip(references, hypotheses, strict=True)])
    draws = np.random.default_rng(seed).integers(len(errors), size=(resamples, len(errors)))
    rates = errors[draws].sum(axis=1) / np.maximum(1, lengths[draws].sum(axis=1))
    low, high = np.percentile(rates, [2.5, 97.5])
    return WordErrors(float(errors.sum() / lengths.sum()), float(low), float(high),
                      int(lengths.sum()), len(errors))
