"""Make the demo clips: `python -m phonolith.models.make_clips [DIR]`. Needs espeakng-loader.

Every clip is connected digits by a synthetic voice held out from training (accent, variant and rate), 8 kHz
16-bit mono. `transcripts.csv` beside them is a manifest in the format of `models.data`.
"""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from phonolith.models.data import add_noise, join
from phonolith.models.features import SAMPLE_RATE
from phonolith.models.synthetic import Voice, say

FOLDER = Path(__file__).parent / "clips"
ROOM_NOISE_DB = 35.0
"""Signal to noise; as quiet as a good microphone, so that pauses are not digital zeros."""


@dataclass(frozen=True)
class Clip:
    """Words, and the held-out voice that says them. `number` seeds pauses, gains and noise."""

    number: int
    text: str
    voice: Voice

    @property
    def name(self) -> str:
        return "_".join(self.text.split()) + ".wav"

    def samples(self) -> np.ndarray:
        """float32 [N] at 8 kHz."""
        rng = np.random.default_rng(self.number)
        spoken = join([say(word, self.voice) for word in self.text.split()], rng)
        return add_noise(spoken, ROOM_NOISE_DB, 1.0, rng)


CLIPS = (
    Clip(1, "seven three one", Voice("en-us-nyc", "m3", 172, 40)),
    Clip(2, "two zero four nine", Voice("en-us-nyc", "f3", 140, 55)),
    Clip(3, "five eight six one three", Voice("en-us-nyc", "steph2", 190, 50)),
    Clip(4, "nine zero two seven four six", Voice("en-us-nyc", "victor", 190, 30)),
)


def write_clips(folder: Path) -> None:
    """Write every clip and the manifest into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip in CLIPS:
        soundfile.write(folder / clip.name, clip.samples(), SAMPLE_RATE, subtype="PCM_16")
    with (folder / "transcripts.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "text", "speaker", "split"])
        rows.writerows([clip.name, clip.text, f"espeak-ng {clip.voice}", "test"] for clip in CLIPS)


if __name__ == "__main__":
    write_clips(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
