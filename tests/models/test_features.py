"""Audio loading and log-mel features."""

import wave

import numpy as np
import pytest
import soundfile

from phonolith.hw.errors import PhonolithError
from phonolith.models import features as F
from phonolith.models.normalization import FLOOR, log_energies


def tone(seconds=0.5, hertz=1000.0, rate=8000, level=0.3):
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def reference_log_mel(samples):
    """Slow textbook version: explicit DFT sums, triangles drawn point by point."""
    def mel(f):
        return 2595 * np.log10(1 + f / 700)

    points = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(mel(60), mel(3900), 42)]
    rows = []
    for start in range(0, len(samples) - 200 + 1, 80):
        frame = [samples[start + n] * (0.5 - 0.5 * np.cos(2 * np.pi * n / 200)) for n in range(200)]
        power = [abs(sum(x * np.exp(-2j * np.pi * k * n / 256) for n, x in enumerate(frame))) ** 2
                 for k in range(129)]
        rows.append([sum(p * np.interp(31.25 * k, points[m:m + 3], [0, 1, 0]) for k, p in enumerate(power))
                     for m in range(40)])
    energies = np.array(rows)
    return np.log(np.maximum(energies, 1e-6 * energies.max()))


def log_mel(samples):
    energies = F.mel_energies(samples)
    return log_energies(energies, FLOOR * energies.max())


def test_log_mel_equals_the_textbook():
    samples = np.random.default_rng(1).standard_normal(400) * 0.1
    np.testing.assert_allclose(log_mel(samples), reference_log_mel(samples), atol=1e-9)


def test_a_tone_is_loudest_in_its_bin():
    loudest = log_mel(tone(hertz=1000.0)).mean(axis=0).argmax()
    centres = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([60, 3900]) / 700)), 42) / 2595) - 1)
    assert loudest == np.abs(centres[1:-1] - 1000.0).argmin()


def test_every_filter_covers_a_frequency():
    assert (F.mel_filters().max(axis=1) > 0.3).all()


def test_features_are_normalised_deterministic_and_gain_free():
    samples = np.random.default_rng(2).standard_normal(8000).astype(np.float32) * 0.1
    frames = F.features(samples)
    assert frames.dtype == np.float32 and frames.shape == (98, 40)
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(frames.std(), 1, atol=1e-5)
    np.testing.assert_array_equal(frames, F.features(samples.copy()))
    np.testing.assert_allclose(frames, F.features(samples * np.float32(0.25)), atol=1e-4)


def test_silence_gives_zeros():
    np.testing.assert_allclose(F.features(np.zeros(4000, np.float32)), 0, atol=1e-9)


@pytest.mark.parametrize(("samples", "frames"), [(1960, 23), (2039, 23), (2040, 24)])
def test_frame_count(samples, frames):
    assert F.frame_count(samples) == frames == len(F.features(np.ones(samples, np.float32)))


def test_too_short_says_how_much_is_needed():
    with pytest.raises(PhonolithError, match=r"x\.wav: 1959 samples \(245 ms.*needs 1960") as caught:
        F.features(np.zeros(1959, np.float32), "x.wav")
    assert caught.value.kind == "audio" and caught.value.remedy


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE", "PCM_U8"])
def test_sample_formats(tmp_path, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), 8000, subtype=subtype)
    np.testing.assert_allclose(F.load_wav(path), tone(), atol=0.01 if subtype == "PCM_U8" else 1e-4)


def test_stereo_is_averaged(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([tone(), 0 * tone()], axis=1), 8000, subtype="FLOAT")
    np.testing.assert_allclose(F.load_wav(path), tone() / 2, atol=1e-6)


def test_other_rates_are_resampled_and_said(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(rate=44100), 44100, subtype="FLOAT")
    with pytest.warns(UserWarning, match="resampled from 44100 Hz to 8000 Hz"):
        samples = F.load_wav(path)
    assert abs(len(samples) - 4000) <= 1
    np.testing.assert_allclose(samples[200:3800], tone()[200:3800], atol=5e-3)


def empty(path):
    path.write_bytes(b"")


def no_samples(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)


def garbage(path):
    path.write_bytes(b"RIFF\x10\x00\x00\x00not a wave file at all")


def not_finite(path):
    soundfile.write(path, np.full(1000, np.nan), 8000, subtype="FLOAT")


@pytest.mark.parametrize(("make", "message"), [
    (empty, "is empty"), (no_samples, "holds no samples"), (garbage, "not a readable audio file"),
    (not_finite, "not finite"), (lambda path: None, "no such file")])
def test_bad_files_name_themselves_and_a_remedy(tmp_path, make, message):
    path = tmp_path / "bad.wav"
    make(path)
    with pytest.raises(PhonolithError, match=message) as caught:
        F.load_wav(path)
    assert "bad.wav" in caught.value.message and caught.value.remedy


def test_a_truncated_file_is_refused_or_shorter(tmp_path):
    whole, cut = tmp_path / "whole.wav", tmp_path / "cut.wav"
    soundfile.write(whole, tone(), 8000, subtype="PCM_16")
    cut.write_bytes(whole.read_bytes()[:44 + 3000])
    assert len(F.load_wav(cut)) == 1500
