"""CTC collapse and word error rate."""

import pytest

from phonolith.models import decode


@pytest.mark.parametrize(("ids", "expected"), [
    ([], []), ([0, 0, 0], []), ([1], [1]), ([1, 1, 1], [1]), ([1, 0, 1], [1, 1]),
    ([0, 2, 2, 0, 0, 3, 3, 2, 0], [2, 3, 2])])
def test_collapse(ids, expected):
    assert decode.collapse(ids) == expected


def test_words_skip_the_blank():
    assert decode.words([1, 1, 0, 2], ["zero", "one"]) == ["zero", "one"]


@pytest.mark.parametrize(("reference", "hypothesis", "distance"), [
    ("abc", "abc", 0), ("abc", "", 3), ("", "ab", 2), ("abc", "axc", 1), ("abc", "bc", 1), ("abc", "xabc", 1),
    ("kitten", "sitting", 3)])
def test_edit_distance(reference, hypothesis, distance):
    assert decode.edit_distance(reference, hypothesis) == distance


def test_word_errors_count_words_not_strings():
    errors = decode.word_errors(["ab", "cdef"], ["ax", "cdef"])
    assert (errors.wer, errors.words, errors.strings) == (1 / 6, 6, 2)
    assert errors.wer_low == 0.0 and errors.wer_high == 0.5


def test_interval_narrows_with_more_strings_and_is_repeatable():
    def errors(strings):
        return decode.word_errors(["abcde"] * strings, ["abcde", "abcdx"] * (strings // 2))

    few, many = errors(20), errors(2000)
    assert few.wer_low < few.wer < few.wer_high
    assert many.wer_high - many.wer_low < 0.3 * (few.wer_high - few.wer_low)
    assert few == errors(20)


def test_lists_must_match():
    with pytest.raises(ValueError, match="2 references but 1 hypotheses"):
        decode.word_errors(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="at least one reference word"):
        decode.word_errors([""], ["a"])
