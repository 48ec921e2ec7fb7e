"""The demo clips: their format, their voices, and that the shipped model hears them right."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from phonolith.models import make_clips, synthetic
from phonolith.models.data import evaluation_recordings
from phonolith.models.evaluate import float_recogniser, load_float
from phonolith.models.features import wav_features


@pytest.fixture
def clips(repository):
    return evaluation_recordings(repository / "models" / "clips" / "transcripts.csv")


def test_clips_are_telephone_wavs(clips):
    assert 3 <= len(clips) <= 4
    for clip in clips:
        info = soundfile.info(clip.path)
        assert (info.samplerate, info.channels, info.subtype) == (8000, 1, "PCM_16")
        assert clip.path.stem == "_".join(clip.words)


def test_clips_are_in_voices_training_never_used():
    for clip in make_clips.CLIPS:
        assert clip.voice.language in synthetic.HELD_OUT_LANGUAGES
        assert clip.voice.variant in synthetic.HELD_OUT_VARIANTS
        assert clip.voice.rate in synthetic.HELD_OUT_RATES


def test_clips_can_be_made_again(clips, tmp_path):
    pytest.importorskip("espeakng_loader", reason="synthetic voices need espeakng-loader")
    make_clips.write_clips(tmp_path)
    assert (tmp_path / "transcripts.csv").read_text() == (clips[0].path.parent / "transcripts.csv").read_text()
    for clip in clips:
        # The synthesizer adds breath noise that differs from run to run.
        old, new = (wav_features(Path(folder) / clip.path.name) for folder in (clip.path.parent, tmp_path))
        assert abs(len(old) - len(new)) <= 2
        frames = min(len(old), len(new))
        assert np.abs(old[:frames] - new[:frames]).mean() < 0.15


def test_float_model_hears_the_clips(clips, repository):
    pytest.importorskip("torch", reason="the float model needs torch (make setup EXTRAS=train)")
    recognise = float_recogniser(load_float(repository / "models" / "checkpoints" / "encoder-ctc.safetensors"))
    for clip in clips:
        assert tuple(recognise(wav_features(clip.path))) == clip.words
