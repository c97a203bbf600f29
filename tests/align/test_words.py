from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.align.words import ANY_SOUND, LEAST_S, align_words, estimated_words
from kikitori.search.ctc.best_path import collapse
from tests.align.test_ctc import random_log_probs
from tests.tiny import tiny_bpe, tiny_units

UNITS = tiny_units()
FRAME = 0.04


def posteriors(path: list[str], sure: float = 0.9) -> np.ndarray:
    """Log-probabilities of frames that write these labels, `-` for blank."""
    blank = UNITS.size
    labels = [blank if name == "-" else UNITS.special_id(name) for name in path]
    values = np.full((len(path), blank + 1), np.log((1.0 - sure) / blank), np.float32)
    values[np.arange(len(path)), labels] = np.log(sure)
    return values


def align(path, text, **more):
    arguments = {"seconds": FRAME * len(path), "seconds_per_frame": FRAME, **more}
    return align_words(posteriors(path), text, UNITS, "en", **arguments)


def check(words, text, seconds):
    assert [word.word for word in words] == text.split()
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert all(a <= b + 1e-9 for a, b in pairwise(edges))
    assert all(word.end > word.start for word in words)
    if words:
        assert edges[0] >= 0.0
        assert edges[-1] <= seconds + 1e-9


def brute_force(log_probs, labels):
    """Frames of each label on the best of all paths."""
    blank = log_probs.shape[1] - 1
    paths = [p for p in product(range(blank + 1), repeat=len(log_probs)) if collapse(list(p), blank) == labels]
    best = max(paths, key=lambda path: sum(float(log_probs[n, label]) for n, label in enumerate(path)))
    spans, before = [], blank
    for frame, label in enumerate(best):
        if label != blank and label != before:
            spans.append([frame, frame + 1])
        elif label != blank:
            spans[-1][1] = frame + 1
        before = label
    return spans


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["a b", "b", "a 7", "a b a", "7 b"]))
def test_words_are_where_the_best_of_all_paths_writes_them(seed, text):
    """Over three labels and six frames; 7 is a word that they cannot spell."""

    class Letters:
        def encode_with_places(self, text):
            return [("ab ".index(c), place) for place, c in enumerate(text) if c in "ab"]

    log_probs = random_log_probs(6, 3, seed)
    sound = log_probs[:, :-1].max(axis=1, keepdims=True) + np.float32(ANY_SOUND)
    extended = np.concatenate([log_probs[:, :-1], sound, log_probs[:, -1:]], axis=1)
    labels = ["ab ".index(word) if word in "ab" else 3 for word in text.split()]
    words = align_words(log_probs, text, Letters(), "en", seconds=6 * FRAME, seconds_per_frame=FRAME)
    check(words, text, 6 * FRAME)
    for word, (start, end), label in zip(words, brute_force(extended, labels), labels, strict=True):
        assert word.start <= start * FRAME + 1e-9
        assert word.end >= end * FRAME - 1e-9
        if label == 3:
            assert word.confidence is None
        else:
            assert word.confidence == pytest.approx(float(np.exp(log_probs[start:end, label].max())), rel=1e-5)


def test_words_reach_half_way_to_each_other_but_not_far():
    path = ["-"] * 10 + ["▁", "a", "-", "▁", "b", "b"] + ["-"] * 25 + ["▁", "c"] + ["-"] * 10
    first, second, third = align(path, "a b c")
    assert (first.start, first.end) == pytest.approx((0.4 - 0.04, 0.5))
    assert (second.start, second.end) == pytest.approx((0.5, 0.64 + 0.14))
    assert (third.start, third.end) == pytest.approx((1.64 - 0.04, 1.72 + 0.14))
    early = align(path, "a b c", first_frame=-0.3)
    assert [word.start for word in early] == pytest.approx([0.06, 0.2, 1.3])
    assert first.confidence == pytest.approx(0.9)


def test_what_the_units_cannot_spell_lies_between_its_neighbours():
    path = ["▁", "a", "-", "-", "x", "y", "-", "-", "▁", "b"]
    words = align(path, "a 聞き 取り b")
    check(words, "a 聞き 取り b", 0.4)
    assert words[1].start >= 0.08
    assert words[2].end <= 0.32 + 1e-9
    assert (words[1].confidence, words[2].confidence) == (None, None)
    check(align(["-"] * 10, "聞き 取り"), "聞き 取り", 0.4)


def test_no_words_and_too_many():
    assert align(["-"] * 5, "") == ()
    assert align(["-"] * 5, " \n") == ()
    assert align(["-"] * 3, "abc abc") is None


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.text(st.sampled_from("ab c聞1"), max_size=20), st.integers(0, 10**6))
def test_times_rise_within_the_utterance_whatever_the_text(frames, text, seed):
    for units in (UNITS, tiny_bpe()):
        log_probs = random_log_probs(frames, units.size, seed)
        seconds = FRAME * frames
        words = align_words(log_probs, text, units, "en", seconds=seconds, seconds_per_frame=FRAME)
        if words is not None:
            check(words, text, seconds)
            assert all(word.confidence is None or 0.0 < word.confidence <= 1.0 for word in words)
        check(estimated_words(text, "en", seconds=seconds), text, seconds)


def test_labels_belong_to_the_words_that_they_spell():
    for units in (UNITS, tiny_bpe()):
        for text in ("abc cab b", "b", "a  b"):
            pairs = units.encode_with_places(text)
            assert [label for label, _ in pairs] == units.encode(text)
            places = [place for _, place in pairs]
            assert places == sorted(places)
            assert max(places) == len(text) - 1


def test_estimated_words_share_the_speech_by_their_letters():
    words = estimated_words("aa bbbb cc", "en", seconds=10.0, speech=[(1.0, 2.0), (4.0, 7.0)])
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert edges == pytest.approx([1.0, 2.0, 4.0, 6.0, 6.0, 7.0])
    assert {word.confidence for word in words} == {None}
    many = estimated_words("x " * 100, "en", seconds=0.5)
    check(many, "x " * 100, 0.5)
    assert min(word.end - word.start for word in many) >= 0.0049 < LEAST_S


def test_languages_without_spaces_have_characters_for_words():
    words = estimated_words("聞き取り、です。", "ja", seconds=6.0)
    assert [word.word for word in words] == ["聞", "き", "取", "り、", "で", "す。"]
