"""Folded n-grams against their tables, looked up n-gram by n-gram."""

from itertools import pairwise
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.errors import ModelError
from kikitori.scorers.ngram import NGramSequenceScorer
from kikitori.text.ngram import model as word_ngram
from kikitori.text.ngram.arpa import write_arpa
from kikitori.text.ngram.kneser_ney import estimate
from kikitori.text.ngram.model import advance, fold, following, load_ngram, score_text
from kikitori.text.ngram.packed import write_packed
from kikitori.types import Hypothesis
from tests.text.ngram.test_kneser_ney import SENTENCES, backed_off, read

LN10 = log(10.0)
WORDS = ["<unk>", *"abcdef"]
NAMES = [*WORDS, "</s>", "<s>"]


def by_table(tables, words, order):
    """The natural log-probability of a sentence of numbers, as readers of ARPA files find it."""
    row = [8, *words, 7]
    return LN10 * sum(backed_off(tables, tuple(row[max(0, i - order + 1) : i]), row[i]) for i in range(1, len(row)))


few = st.lists(st.lists(st.integers(0, 6), max_size=6), min_size=1, max_size=8).filter(any)


@settings(max_examples=60, deadline=None)
@given(few, few, st.integers(1, 4), st.integers(1, 3), st.sampled_from([0.0, 0.01, 0.05, 0.3]))
def test_it_is_the_table(text, sentences, order, min_count, prune):
    ngrams = estimate(text, 7, order, min_count=min_count, prune=prune)
    ngram, tables = fold(ngrams, NAMES), read(ngrams)
    for words in sentences:
        expected = by_table(tables, words, order)
        assert score_text(ngram, [NAMES[word] for word in words]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("order", "min_count"), [(1, 1), (2, 1), (3, 2), (4, 1)])
def test_compiled_and_plain_steps_are_equal(order, min_count):
    ngram = fold(estimate(SENTENCES, 7, order, min_count=min_count), NAMES)
    for state in range(len(ngram.automaton.backoffs)):
        for word in range(9):
            log_prob, after = advance(ngram.automaton, state, word)
            plain = word_ngram._advance(ngram.automaton, state, word)
            assert (pytest.approx(plain[0], abs=1e-5), plain[1]) == (log_prob, after)


def test_its_arrays_are_sound():
    ngram = fold(estimate(SENTENCES, 7, 4, min_count=2), NAMES)
    starts, arc_words, _, arc_targets, backoffs, lower = ngram.automaton
    num_states, num_arcs = len(backoffs), len(arc_words)
    assert len(starts) == num_states + 1 == len(lower) + 1
    assert (starts[0], starts[-1]) == (0, num_arcs)
    assert arc_words[: starts[1]].tolist() == [*range(9)]
    assert (lower[1:] < np.arange(1, num_states)).all()
    assert ((arc_targets >= 0) & (arc_targets < num_states)).all()
    for first, last in pairwise(starts):
        assert (np.diff(arc_words[first:last]) > 0).all()
    kinds = [each.dtype for each in ngram.automaton]
    assert kinds == [np.int64, np.int32, np.float32, np.int32, np.float32, np.int32]
    assert (ngram.words[ngram.end], ngram.start) == ("</s>", int(arc_targets[ngram.ids["<s>"]]))


def test_words_that_it_has_not():
    ngram = fold(estimate(SENTENCES, 7, 3), NAMES)
    assert ngram.numbers(["a", "xyz", "<s>", "</s>", "<unk>"]) == [1, 0, 0, 0, 0]
    assert score_text(ngram, ["a", "xyz"]) == score_text(ngram, ["a", "<unk>"])


@pytest.mark.parametrize("order", [1, 3])
def test_files(order, tmp_path):
    ngrams = estimate(SENTENCES, 7, order)
    write_arpa(tmp_path / "lm.arpa", ngrams, WORDS)
    write_packed(tmp_path / "lm.ngram", ngrams, NAMES)
    whole, read_again, packed = (
        fold(ngrams, NAMES),
        load_ngram(tmp_path / "lm.arpa"),
        load_ngram(str(tmp_path / "lm.ngram")),
    )
    assert packed.words == read_again.words == whole.words
    for text in ("a b c", "", "d d nothing"):
        words = text.split()
        assert score_text(read_again, words) == pytest.approx(score_text(whole, words), abs=1e-4)
        assert score_text(packed, words) == pytest.approx(score_text(whole, words), abs=0.02 * (len(words) + 1) * order)
    with pytest.raises(ModelError, match=r"missing\.ngram"):
        load_ngram(tmp_path / "missing.ngram")


def test_it_scores_hypotheses():
    ngram = fold(estimate(SENTENCES, 7, 3), NAMES)
    nbests = [[Hypothesis((0,), "A, b.", 0.0), Hypothesis((1,), "", 0.0)], []]
    found = NGramSequenceScorer("lm", ngram, None, "en_plain").scores(nbests)
    assert found == [[score_text(ngram, ["a", "b"]), score_text(ngram, [])], []]
    assert NGramSequenceScorer("lm", ngram, None).scores(nbests)[0][0] == score_text(ngram, ["<unk>", "<unk>"])


def test_a_binary_file_of_kenlm(tmp_path):
    for name, content in (
        ("lm.bin", b"anything"),
        ("lm.arpa", b"mmap lm http://kheafield.com/code format version 5\n\0"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=r"lm\.\w+: .*KenLM.*; name the ARPA file that it was made from"):
            load_ngram(tmp_path / name)


@pytest.mark.parametrize(("order", "min_count"), [(1, 1), (3, 1), (4, 2)])
def test_all_words_behind_a_state_at_once(order, min_count):
    ngram = fold(estimate(SENTENCES, 7, order, min_count=min_count), NAMES)
    states = np.arange(len(ngram.automaton.backoffs), dtype=np.int64)
    words = np.array([3, 8, 7, 0, 3, 6], np.int64)
    found = np.empty((len(states), len(words)))
    following(ngram.automaton, states, words, found)
    expected = [[advance(ngram.automaton, state, word)[0] for word in words.tolist()] for state in states.tolist()]
    assert found == pytest.approx(np.array(expected), abs=1e-5)
