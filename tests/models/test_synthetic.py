"""Synthetic voices and the clips made with them."""

import numpy as np
import pytest

from phonolith.hw.errors import PhonolithError
from phonolith.models import synthetic
from phonolith.models.data import StringMaker


@pytest.fixture
def espeak():
    pytest.importorskip("espeakng_loader", reason="synthetic voices need espeakng-loader")


def test_held_out_voices_share_nothing_with_training():
    training, held_out = synthetic.training_voices(500, 0), synthetic.held_out_voices(200, 0)
    for part in ("language", "variant", "rate"):
        assert not {getattr(voice, part) for voice in training} & {getattr(voice, part) for voice in held_out}


def test_voices_are_seeded():
    assert synthetic.training_voices(20, 1) == synthetic.training_voices(20, 1)
    assert synthetic.training_voices(20, 1) != synthetic.training_voices(20, 2)


def test_say(espeak):
    voice = synthetic.Voice("en-us", "m1", 180, 50)
    samples = synthetic.say("seven", voice)
    assert samples.dtype == np.float32 and 0.2 < len(samples) / 8000 < 0.8
    assert 0.3 < np.abs(samples).max() < 0.7
    assert len(synthetic.say("seven", synthetic.Voice("en-us", "m1", 130, 50))) > len(samples)


def test_every_accent_and_variant_exists(espeak):
    for language in synthetic.LANGUAGES + synthetic.HELD_OUT_LANGUAGES:
        assert len(synthetic.say("two", synthetic.Voice(language, "m1", 180, 50))) > 800
    for variant in synthetic.VARIANTS + synthetic.HELD_OUT_VARIANTS:
        assert len(synthetic.say("two", synthetic.Voice("en-us", variant, 180, 50))) > 800


def test_bad_voice_and_silent_text(espeak):
    with pytest.raises(PhonolithError, match=r"no voice xx-nowhere\+m1"):
        synthetic.say("two", synthetic.Voice("xx-nowhere", "m1", 180, 50))
    with pytest.raises(PhonolithError, match="says nothing"):
        synthetic.say(" ", synthetic.Voice("en-us", "m1", 180, 50))


def test_words_fit_the_string_maker(espeak):
    words = synthetic.SyntheticWords(synthetic.training_voices(2, 0), ("one", "two"))
    assert len(words.recordings) == 4
    string = StringMaker(words.recordings, 0, load=words.load).string(0)
    assert set(string.words) <= {"one", "two"} and len(string.samples) > 1500


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    synthetic._engine.cache_clear()
    assert not synthetic.available()
    with pytest.raises(PhonolithError, match="espeakng-loader") as caught:
        synthetic.say("one", synthetic.Voice("en-us", "m1", 180, 50))
    assert "EXTRAS=train" in caught.value.remedy
