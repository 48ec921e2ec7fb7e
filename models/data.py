"""Recordings of single words, and strings of them: the speech task of the project. Never needs torch.

A dataset is a folder searched recursively for `{digit}_{speaker}_{take}.wav` (the Free Spoken Digit
Dataset's names) or a manifest CSV with the columns `path,text,speaker,split`.
"""

import csv
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phonolith.hw.errors import PhonolithError
from phonolith.models.features import SAMPLE_RATE, load_wav

GENERATOR_VERSION = 1
"""Changes whenever the same seed would give other strings."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAIN_SPEAKERS = ("george", "jackson", "lucas", "nicolas", "yweweler")
"""The only speakers of the public dataset that training may hear: any other is somebody's test set."""
TEST_TAKES = range(0, 5)
"""The dataset's official test takes; training never opens them."""
MIN_WORDS, MAX_WORDS = 3, 7
GAP_SECONDS = (0.02, 0.3)
GAIN_DB = 3.0

_NAME = re.compile(r"^(\d)_([^_]+)_(\d+)\.wav$")


@dataclass(frozen=True)
class Recording:
    """One recorded item. `take` is -1 and `split` is `train` or `test` in a manifest; `split` of a folder's
    recording follows from its take and speaker."""

    path: Path
    words: tuple[str, ...]
    speaker: str
    take: int
    split: str


@dataclass(frozen=True)
class SpeechString:
    """Some recordings of one speaker joined up: float32 samples [N] at 8 kHz and the words said."""

    samples: np.ndarray
    words: tuple[str, ...]
    speaker: str


def find_recordings(data: str | os.PathLike[str]) -> tuple[Recording, ...]:
    """All recordings of a folder or manifest, in a fixed order; opens no audio file.

    Raises PhonolithError if there is no such folder or file, or if nothing in it is a recording.
    """
    root = Path(data)
    if root.is_dir():
        found = [recording_from_name(path) for path in sorted(root.rglob("*.wav"))]
        recordings = tuple(recording for recording in found if recording is not None)
    elif root.is_file():
        recordings = _from_manifest(root)
    else:
        raise PhonolithError("data", f"{root}: no such folder or manifest",
                             "give a folder of {digit}_{speaker}_{take}.wav or a CSV path,text,speaker,split")
    if not recordings:
        raise PhonolithError("data", f"{root}: no recordings found",
                             "files must be named {digit}_{speaker}_{take}.wav, or listed in a manifest CSV")
    return recordings


def recording_from_name(path: Path) -> Recording | None:
    """The recording that a path named {digit}_{speaker}_{take}.wav stands for; None for other names."""
    match = _NAME.match(path.name)
    if match is None:
        return None
    speaker, take = match[2], int(match[3])
    training = speaker in TRAIN_SPEAKERS and take not in TEST_TAKES
    return Recording(path, (DIGITS[int(match[1])],), speaker, take, "train" if training else "test")


def _from_manifest(manifest: Path) -> tuple[Recording, ...]:
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = {"path", "text", "speaker", "split"} - set(rows.fieldnames or ())
        if missing:
            raise PhonolithError("data", f"{manifest}: column {sorted(missing)[0]!r} is missing",
                                 "the header of a manifest is path,text,speaker,split")
        return tuple(_from_row(manifest, number, row) for number, row in enumerate(rows, 2))


def _from_row(manifest: Path, number: int, row: dict[str, str]) -> Recording:
    words = tuple((row["text"] or "").lower().split())
    split = (row["split"] or "").strip()
    if not words or split not in ("train", "test"):
        raise PhonolithError("data", f"{manifest}, line {number}: text {row['text']!r}, split {split!r}",
                             "every line needs some text and a split that is train or test")
    return Recording(manifest.parent / row["path"], words, row["speaker"], -1, split)


def vocabulary_of(recordings: Iterable[Recording]) -> tuple[str, ...]:
    """The ten digits in numerical order if nothing else is said, otherwise all words sorted."""
    words = {word for recording in recordings for word in recording.words}
    return DIGITS if words <= set(DIGITS) else tuple(sorted(words))


def training_recordings(data: str | os.PathLike[str]) -> tuple[Recording, ...]:
    """What training may open: the split `train`, which excludes `TEST_TAKES` and unknown speakers."""
    chosen = tuple(recording for recording in find_recordings(data) if recording.split == "train")
    if not chosen:
        raise PhonolithError("data", f"{data}: no recordings for training",
                             f"training needs takes from 5 on by one of {', '.join(TRAIN_SPEAKERS)}, "
                             "or manifest lines whose split is train")
    return chosen


def parse_takes(text: str) -> tuple[int, ...]:
    """`"0-4"` or `"0,3,7-9"` to take numbers. Raises PhonolithError on anything else."""
    takes: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise PhonolithError("option", f"takes {text!r} are not numbers and ranges", "write them as 0-4")
        takes.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(takes)


def evaluation_recordings(data: str | os.PathLike[str], speakers: Sequence[str] | None = None,
                    takes: str = "0-4") -> tuple[Recording, ...]:
    """Recordings to evaluate on: these takes of these speakers (default: the five known ones).

    A manifest's lines have no takes: those whose split is `test` count, of all speakers by default.
    """
    wanted = parse_takes(takes)
    chosen = tuple(
        recording for recording in find_recordings(data)
        if (recording.take in wanted if recording.take >= 0 else recording.split == "test")
        and (recording.speaker in (speakers or TRAIN_SPEAKERS)
             or (recording.take < 0 and not speakers)))
    if not chosen:
        raise PhonolithError("data", f"{data}: no recordings of takes {takes} by "
                             f"{', '.join(speakers or TRAIN_SPEAKERS)}", "choose other --takes or --speakers")
    return chosen


def coloured_noise(count: int, tilt: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise float64 [count] of unit power that falls as 1/f**tilt (0 white, 1 pink, 2 brown)."""
    size = 1 << (count - 1).bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.maximum(np.arange(len(spectrum)), len(spectrum) / 100.0)
    noise = np.fft.irfft(spectrum * frequency ** (-tilt / 2.0), size)[:count]
    return noise / max(float(np.sqrt(np.mean(noise**2))), 1e-12)


def add_noise(samples: np.ndarray, snr: float, tilt: float, rng: np.random.Generator) -> np.ndarray:
    """Samples plus coloured noise at `snr` dB, relative to the whole string's mean power; float32 [N]."""
    level = np.sqrt(np.mean(np.square(samples, dtype=np.float64)) * 10.0 ** (-snr / 10.0))
    return (samples + level * coloured_noise(len(samples), tilt, rng)).astype(np.float32)


def join(pieces: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Pieces with a gain of +-3 dB each, and silences of 0.02..0.3 s before, between and after; float32."""
    parts: list[np.ndarray] = []
    for piece in pieces:
        parts.append(_silence(rng))
        parts.append(piece * np.float32(10.0 ** (rng.uniform(-GAIN_DB, GAIN_DB) / 20.0)))
    return np.concatenate([*parts, _silence(rng)]).astype(np.float32)


def _silence(rng: np.random.Generator) -> np.ndarray:
    return np.zeros(int(rng.uniform(*GAP_SECONDS) * SAMPLE_RATE), np.float32)


class StringMaker:
    """Seeded generator of connected-word strings (the contract's speech task).

    String `index` depends on the seed, the index, the recordings and `GENERATOR_VERSION` only, so a longer
    list starts with the shorter one. A speaker is drawn first, then 3-7 of its recordings.

    Parameters
    ----------
    recordings : the items to draw from.
    seed : any non-negative integer.
    snr : dB of noise with a random spectral tilt (white to brown), or None for none.
    load : opens a recording's path; replaced where the samples come from elsewhere.

    Raises PhonolithError if `seed` is negative.
    """

    def __init__(self, recordings: Sequence[Recording], seed: int = 0, snr: float | None = None,
                 load: Callable[[Path], np.ndarray] = load_wav):
        if seed < 0:
            raise PhonolithError("option", f"seed must not be negative, not {seed}", "choose --seed 0")
        self._by_speaker: dict[str, list[Recording]] = {}
        for recording in recordings:
            self._by_speaker.setdefault(recording.speaker, []).append(recording)
        self._speakers = sorted(self._by_speaker)
        self._seed, self._snr, self._load = seed, snr, load
        self._cache: dict[Path, np.ndarray] = {}

    def string(self, index: int) -> SpeechString:
        """String number `index` >= 0."""
        rng = np.random.default_rng([GENERATOR_VERSION, self._seed, index])
        speaker = self._speakers[rng.integers(len(self._speakers))]
        pool = self._by_speaker[speaker]
        count = rng.integers(MIN_WORDS, MAX_WORDS + 1)
        items = [pool[rng.integers(len(pool))] for _ in range(count)]
        samples = join([self._samples(item.path) for item in items], rng)
        if self._snr is not None:
            samples = add_noise(samples, self._snr, rng.uniform(0.0, 2.0), rng)
        return SpeechString(samples, tuple(word for item in items for word in item.words), speaker)

    def strings(self, count: int) -> Iterable[SpeechString]:
        """Strings 0 .. count - 1, one at a time."""
        return (self.string(index) for index in range(count))

    def _samples(self, path: Path) -> np.ndarray:
        if path not in self._cache:
            self._cache[path] = self._load(path)
        return self._cache[path]
