"""Running normalization: features that a stream can have, equal however it is cut."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonolith.hw.errors import PhonolithError
from phonolith.models.features import FeatureParameters, FeatureStream, features, mel_energies
from phonolith.models.normalization import (
    RunningNormalization,
    UtteranceNormalization,
    normalization_from,
)

RUNNING = RunningNormalization(tuple(np.linspace(-4, -7, 40)), 2.5, 1e-4, 30.0)
STREAM = FeatureParameters(RUNNING, min_frames=7)


def speech(samples, seed=0):
    """Noise whose loudness changes, after digital silence."""
    rng = np.random.default_rng(seed)
    loudness = np.repeat(rng.uniform(0, 0.3, samples // 400 + 1), 400)[:samples]
    loudness[:500] = 0
    return (loudness * rng.standard_normal(samples)).astype(np.float32)


def test_the_running_mean_is_the_definition():
    energies = mel_energies(speech(4000))
    expected, total = [], 30.0 * np.array(RUNNING.means)
    for number, row in enumerate(np.log(np.maximum(energies, 1e-4))):
        total = total + row
        expected.append((row - total / (30.0 + number + 1)) / 2.5)
    np.testing.assert_allclose(RUNNING(energies), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=12), st.integers(0, 5))
def test_a_stream_in_pieces_equals_the_whole(pieces, seed):
    samples = speech(6000, seed)
    stream, cuts = FeatureStream(STREAM), np.minimum(np.cumsum(pieces), len(samples)).astype(int)
    frames = [stream.push(piece) for piece in np.split(samples, cuts)]
    np.testing.assert_array_equal(np.concatenate(frames), features(samples, parameters=STREAM))


def test_later_audio_changes_nothing_before_it():
    early, late = speech(4000), speech(4000)
    late[2000:] *= 3
    a, b = (features(samples, parameters=STREAM) for samples in (early, late))
    whole = (2000 - 200) // 80 + 1
    np.testing.assert_array_equal(a[:whole], b[:whole])
    assert not np.array_equal(a[whole], b[whole])


def test_a_long_stream_forgets_the_assumed_means():
    frames = features(0.02 * speech(80_000)[500:], parameters=STREAM)
    assert abs(frames[-300:].mean()) < 0.3 < abs(frames[:10].mean())


def test_measured_is_what_the_data_has():
    energies = [mel_energies(speech(8000, seed)) for seed in range(5)]
    measured = RunningNormalization.measured(energies, 50.0)
    largest = sorted(each.max() for each in energies)[2]
    assert measured.weight == 50.0 and measured.floor == pytest.approx(1e-6 * largest, rel=1e-2)
    logs = np.log(np.maximum(np.concatenate(energies), measured.floor))
    np.testing.assert_allclose(measured.means, logs.mean(axis=0), atol=1e-3)


@pytest.mark.parametrize("normalization", [UtteranceNormalization(), RUNNING], ids=["utterance", "running"])
def test_dict_round_trip(normalization):
    assert normalization_from(normalization.as_dict()) == normalization
    parameters = FeatureParameters(normalization, 9, 80)
    assert FeatureParameters.from_dict(parameters.as_dict()) == parameters


def test_model_files_without_a_normalization():
    assert FeatureParameters.from_dict({"kind": "log-mel", "mels": 40, "hop": 80}) == FeatureParameters()


@pytest.mark.parametrize(("values", "message"), [
    ({"kind": "global"}, "there is no kind 'global'"),
    ({"kind": "running", "means": [0.0], "deviation": 1.0, "floor": 1e-4}, "weight"),
    ({**RUNNING.as_dict(), "deviation": 0}, "deviation must be a positive number, not 0"),
    ({**RUNNING.as_dict(), "means": []}, "means must be finite numbers"),
    ({**RUNNING.as_dict(), "means": [float("nan")]}, "means must be finite numbers"),
    ({"kind": "utterance", "weight": 3}, "weight")])
def test_bad_values(values, message):
    with pytest.raises(PhonolithError, match=message) as caught:
        normalization_from(values)
    assert caught.value.kind == "features" and caught.value.remedy


def test_bad_features():
    with pytest.raises(PhonolithError, match="hop 160, not 80"):
        FeatureParameters.from_dict({"hop": 160})
    with pytest.raises(PhonolithError, match="cannot be streamed"):
        FeatureStream(FeatureParameters())
    with pytest.raises(PhonolithError, match=r"front end needs 680 \(85 ms\)"):
        features(np.zeros(679, np.float32), parameters=STREAM)


def test_other_numbers_of_bins():
    parameters = replace(STREAM, normalization=RunningNormalization.assumed(80), mels=80)
    frames = features(speech(4000), parameters=parameters)
    assert frames.shape == (48, 80) and np.isfinite(frames).all()
