"""Synthetic voices: eSpeak NG through ctypes, from the optional package `espeakng-loader`.

Voices that training may use and voices that only tests and demo clips use differ in accent, variant *and*
speaking rate: see `training_voices` and `held_out_voices`.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from phonolith.hw.errors import PhonolithError
from phonolith.models.data import Recording
from phonolith.models.features import SAMPLE_RATE, resample

LANGUAGES = ("en-us", "en-gb-x-rp", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
HELD_OUT_LANGUAGES = ("en-gb-scotland", "en-us-nyc")
VARIANTS = (
    "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky",
    "Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "Reed", "Storm", "adam", "anika", "antonio",
    "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "f1", "f2", "f4", "f5",
    "grandma", "gustave", "ian", "iven", "john", "klatt", "klatt2", "klatt4", "linda", "m1", "m2", "m4",
    "m5", "m6", "m8", "marcelo", "max", "michel", "norbert", "pablo", "paul", "pedro", "quincy", "rob",
    "sandro", "shelby", "steph", "travis", "zac",
)
HELD_OUT_VARIANTS = (
    "f3", "m3", "m7", "grandpa", "kaukovalta", "klatt3", "miguel", "robert", "steph2", "victor",
)
RATES = (130, 150, 165, 180, 200, 225, 250)
HELD_OUT_RATES = (140, 172, 190, 210)
"""Words per minute."""

_RETRIEVAL, _NOT_CHANGED = 1, 0
_UTF8 = 1
_RATE, _PITCH = 1, 3
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """An eSpeak voice: `language+variant`, rate in words per minute, pitch 0..100."""

    language: str
    variant: str
    rate: int
    pitch: int

    def __str__(self) -> str:
        return f"{self.language}+{self.variant} rate {self.rate} pitch {self.pitch}"


def training_voices(count: int, seed: int) -> tuple[Voice, ...]:
    """`count` random voices from the accents, variants and rates that training may use."""
    return _draw(count, seed, LANGUAGES, VARIANTS, RATES)


def held_out_voices(count: int, seed: int) -> tuple[Voice, ...]:
    """`count` random voices that share neither accent, variant nor rate with any training voice."""
    return _draw(count, seed, HELD_OUT_LANGUAGES, HELD_OUT_VARIANTS, HELD_OUT_RATES)


def _draw(count: int, seed: int, languages: Sequence[str], variants: Sequence[str],
          rates: Sequence[int]) -> tuple[Voice, ...]:
    rng = np.random.default_rng(seed)

    def index(choices: Sequence) -> int:
        return int(rng.integers(len(choices)))

    return tuple(Voice(languages[index(languages)], variants[index(variants)], rates[index(rates)],
                       int(rng.integers(10, 91))) for _ in range(count))


def available() -> bool:
    """Whether the optional package is installed."""
    try:
        import espeakng_loader  # noqa: F401
    except ImportError:
        return False
    return True


class _Engine:
    """The library's one global synthesizer, in retrieval mode (samples come to a callback)."""

    def __init__(self):
        try:
            import espeakng_loader
        except ImportError as error:
            raise PhonolithError("missing-tool", "synthetic voices need the package espeakng-loader",
                                 "run make setup EXTRAS=train") from error
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(Path(espeakng_loader.get_data_path()).parent).encode()
        self.rate = self._library.espeak_Initialize(_RETRIEVAL, 0, data, 0)
        if self.rate <= 0:
            raise PhonolithError("missing-tool", f"espeak-ng does not start (code {self.rate})",
                                 "install espeakng-loader again")
        self._chunks: list[np.ndarray] = []
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count: int, _events) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: Voice) -> np.ndarray:
        name = f"{voice.language}+{voice.variant}"
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise PhonolithError("voice", f"espeak-ng has no voice {name}", "choose another voice")
        self._library.espeak_SetParameter(_RATE, voice.rate, _NOT_CHANGED)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, _NOT_CHANGED)
        self._chunks = []
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)


@lru_cache(maxsize=1)
def _engine() -> _Engine:
    return _Engine()


def say(text: str, voice: Voice) -> np.ndarray:
    """`text` spoken by `voice`: float32 samples [N] at 8 kHz, peak 0.5, at most 20 ms of silence at the ends.

    Raises PhonolithError without espeakng-loader, for an unknown voice, or if nothing is audible.
    """
    engine = _engine()
    raw = engine.say(text, voice)
    peak = float(np.abs(raw.astype(np.float32)).max()) if raw.size else 0.0
    if peak == 0.0:
        raise PhonolithError("voice", f"{voice} says nothing for {text!r}", "choose another voice")
    samples = resample(raw.astype(np.float32) * (0.5 / peak), engine.rate, SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    margin = SAMPLE_RATE // 50
    return samples[max(0, loud[0] - margin): loud[-1] + margin]


class SyntheticWords:
    """Every word of a vocabulary by every voice, spoken when first asked for.

    `recordings` and `load` fit `data.StringMaker`: the recordings' paths name a voice and a word and are
    never opened.
    """

    def __init__(self, voices: Sequence[Voice], vocabulary: Sequence[str]):
        self._spoken = {Path(f"synthetic/{number}/{word}"): (word, voice)
                        for number, voice in enumerate(voices) for word in vocabulary}
        self.recordings = tuple(Recording(path, (word,), str(voice), -1, "synthetic")
                                for path, (word, voice) in self._spoken.items())

    def load(self, path: Path) -> np.ndarray:
        """The samples of one of `recordings`."""
        return say(*self._spoken[path])
