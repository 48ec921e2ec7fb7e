"""Finding recordings, the split rule, and the string generator."""

import numpy as np
import pytest
import soundfile

from phonolith.hw.errors import PhonolithError
from phonolith.models import data


@pytest.fixture
def folder(tmp_path):
    """Recordings of our own making, whose constant level tells them apart."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for digit in range(3):
        for speaker in ("george", "lucas", "theo"):
            for take in (0, 4, 5, 6):
                level = 0.1 * (1 + digit)
                soundfile.write(tmp_path / "deep" / "er" / f"{digit}_{speaker}_{take}.wav",
                                np.full(1000, level), 8000)
    (tmp_path / "notes.wav").write_bytes(b"not a recording")
    return tmp_path


def write_manifest(path, lines, header="path,text,speaker,split"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_folder_is_searched_recursively_by_name(folder):
    found = data.find_recordings(folder)
    assert len(found) == 36
    assert found[0].words == ("zero",) and found[0].speaker == "george" and found[0].take == 0


def test_training_never_opens_test_takes_or_other_speakers(folder):
    opened = []
    maker = data.StringMaker(data.training_recordings(folder), 0,
                             load=lambda path: (opened.append(path.name), np.zeros(900, np.float32))[1])
    for _ in maker.strings(200):
        pass
    assert set(opened) == {f"{digit}_{speaker}_{take}.wav" for digit in range(3)
                           for speaker in ("george", "lucas") for take in (5, 6)}


def test_split_rule_on_the_real_dataset(fsdd):
    chosen = data.training_recordings(fsdd)
    assert len(chosen) == 2250
    assert all(item.take >= 5 and item.speaker in data.TRAIN_SPEAKERS for item in chosen)
    assert not {item.path for item in chosen} & {item.path for item in data.evaluation_recordings(fsdd)}


def test_unlisted_speakers_are_test_material_on_request(folder):
    assert {item.speaker for item in data.evaluation_recordings(folder)} == {"george", "lucas"}
    others = data.evaluation_recordings(folder, speakers=["theo"], takes="0-6")
    assert {(item.speaker, item.take) for item in others} == {("theo", take) for take in (0, 4, 5, 6)}


def test_manifest(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(900, 0.1), 8000)
    lines = ["a.wav,Lights on,anna,train", "b.wav,lights off,bert,test"]
    manifest = write_manifest(tmp_path / "m.csv", lines)
    train, test = data.training_recordings(manifest), data.evaluation_recordings(manifest)
    assert [item.words for item in train] == [("lights", "on")]
    assert train[0].path == tmp_path / "a.wav"
    assert [item.speaker for item in test] == ["bert"]
    assert data.vocabulary_of(train + test) == ("lights", "off", "on")


def test_digits_keep_their_order():
    recordings = [data.Recording(None, (word,), "x", 0, "test") for word in ("nine", "one")]
    assert data.vocabulary_of(recordings) == data.DIGITS


@pytest.mark.parametrize(("lines", "header", "message"), [
    ([], "path,text,speaker", "column 'split' is missing"),
    (["a.wav,,x,train"], "path,text,speaker,split", "line 2"),
    (["a.wav,one,x,dev"], "path,text,speaker,split", "split 'dev'"),
    ([], "path,text,speaker,split", "no recordings found")])
def test_bad_manifests(tmp_path, lines, header, message):
    with pytest.raises(PhonolithError, match=message):
        data.find_recordings(write_manifest(tmp_path / "m.csv", lines, header))


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(PhonolithError, match="no such folder"):
        data.find_recordings(tmp_path / "nowhere")
    with pytest.raises(PhonolithError, match="no recordings found"):
        data.find_recordings(tmp_path)


@pytest.mark.parametrize(("text", "takes"), [("0-4", (0, 1, 2, 3, 4)), ("3", (3,)), ("0, 7-8", (0, 7, 8))])
def test_takes(text, takes):
    assert data.parse_takes(text) == takes


def test_bad_takes():
    with pytest.raises(PhonolithError, match="'a-b'"):
        data.parse_takes("a-b")


def test_strings_are_seeded_and_independent_of_their_number(folder):
    def made(seed, count):
        return list(data.StringMaker(data.evaluation_recordings(folder), seed, snr=10.0).strings(count))

    few, many, other = made(1, 3), made(1, 6), made(2, 3)
    for a, b in zip(few, many, strict=False):
        assert a.words == b.words
        np.testing.assert_array_equal(a.samples, b.samples)
    assert [a.words for a in few] != [b.words for b in other]


PINNED = [("george", "two two zero zero two", 12847), ("lucas", "two zero two two one zero", 15195)]


def test_generator_version_pins_the_strings(folder):
    """If this fails, the generator changed: raise GENERATOR_VERSION and write the new strings here."""
    maker = data.StringMaker(data.evaluation_recordings(folder), 0)
    assert data.GENERATOR_VERSION == 1
    assert [(item.speaker, " ".join(item.words), len(item.samples)) for item in maker.strings(2)] == PINNED


def test_negative_seed():
    with pytest.raises(PhonolithError, match="not -1"):
        data.StringMaker([], -1)


def test_strings_follow_the_contract(folder):
    for string in data.StringMaker(data.evaluation_recordings(folder), 3).strings(100):
        assert 3 <= len(string.words) <= 7
        edges = np.flatnonzero(np.diff(np.concatenate([[0], string.samples != 0, [0]])))
        starts, ends = edges[::2], edges[1::2]
        assert len(starts) == len(string.words) and (ends - starts == 1000).all()
        gaps = np.diff(np.concatenate([[0], edges, [len(string.samples)]]))[::2]
        assert gaps.min() >= 160 and gaps.max() <= 2400
        levels = 20 * np.log10([string.samples[start] for start in starts])
        nominal = 20 * np.log10([0.1 * (1 + data.DIGITS.index(word)) for word in string.words])
        assert (np.abs(levels - nominal) <= 3.01).all()


@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_noise_has_the_ratio_asked_for(snr):
    clean = np.sin(np.arange(20000) * 0.3).astype(np.float32)
    noisy = data.add_noise(clean, snr, 1.0, np.random.default_rng(0))
    measured = 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2))
    assert abs(measured - snr) < 0.1


def test_tilt_lowers_high_frequencies():
    noise = data.coloured_noise(16384, 2.0, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert power[1000:2000].sum() > 10 * power[5000:6000].sum()
