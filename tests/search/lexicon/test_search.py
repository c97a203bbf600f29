"""Lexicon search against the scores of every sentence."""

from dataclasses import replace
from itertools import product
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.search.lexicon import state
from kikitori.search.lexicon.search import lexicon_search
from kikitori.search.lexicon.trie import word_model
from kikitori.search.options import LexiconSearch
from kikitori.text.lexicon import Lexicon
from kikitori.text.ngram.model import Automaton, NGram, score_text
from tests.search.ctc.test_beam import every_path, random_log_probs
from tests.search.flat import flat

PHONES = ("A", "B", "C")
LEXICON = Lexicon(
    {
        "a": (("A",),),
        "b": (("B",), ("A", "B")),  # two pronunciations, one of which begins with another word
        "be": (("B",),),  # homophone
        "aa": (("A", "A"),),
        "abc": (("A", "B", "C"),),
        "ca": (("C", "A"), ("C",)),  # different last phones
        "odd": (("C", "B"),),  # unknown to the n-gram
    }
)
KNOWN = ("a", "b", "be", "aa", "abc", "ca")
ALL = {"beam": 100_000, "nbest": 100_000, "score_beam": None, "min_log_prob": None, "histories": None}


def bigram(seed, words=("<s>", "</s>", "<unk>", *KNOWN), pairs=14):
    """An n-gram with some bigrams; others back off."""
    rng = np.random.default_rng(seed)
    count = len(words)
    unigrams = np.log(rng.dirichlet(np.ones(count)) + 1e-4)
    behind = {}
    for before, word in rng.integers(0, count, (pairs, 2)).tolist():
        behind.setdefault(before, {})[word] = float(np.log(rng.uniform(0.05, 0.3)))
    starts, arc_words, scores = [0, count], [*range(count)], [*unigrams]
    for before in range(count):
        for word, score in sorted(behind.get(before, {}).items()):
            arc_words.append(word)
            scores.append(score)
        starts.append(len(arc_words))
    automaton = Automaton(
        np.array(starts, np.int64),
        np.array(arc_words, np.int32),
        np.array(scores, np.float32),
        np.array([word + 1 for word in arc_words], np.int32),
        np.concatenate([[0.0], np.log(rng.uniform(0.3, 0.9, count))]).astype(np.float32),
        np.zeros(count + 1, np.int32),
    )
    return NGram(tuple(words), automaton, 1)


def every_sentence(log_probs, ngram, lexicon=LEXICON, unknown_score=-5.0, ngram_scale=1.0, length_scale=0.0):
    """CTC score, n-gram score and total of all sentences that the frames have room for, from scratch."""
    heard = every_path(log_probs, "sum")
    words = [word for word in lexicon.pronunciations if word in ngram.ids or "<unk>" in ngram.ids]
    found = {}
    for size in range(len(log_probs) + 1):
        for each in product(words, repeat=size):
            ways = [sum(ways, ()) for ways in product(*(lexicon.pronunciations[word] for word in each))]
            scores = [heard[labels] for way in ways if (labels := tuple(map(PHONES.index, way))) in heard]
            if scores:
                ctc = float(np.logaddexp.reduce(scores))
                known = score_text(ngram, each) + unknown_score * sum(word not in ngram.ids for word in each)
                found[each] = ctc, known, ctc + ngram_scale * known + length_scale * size
    return found


def one(log_probs, ngram, lexicon=LEXICON, *, histories=1, unknown_score=-5.0, **changes):
    model = word_model(lexicon, PHONES, ngram, unknown_score=unknown_score)
    lengths, options = torch.tensor([len(log_probs)]), flat(LexiconSearch, **changes)
    (found,) = lexicon_search(log_probs[None], lengths, model, options, histories=histories)
    return in_words(found, model)


def in_words(found, model):
    """The same with words in place of their numbers."""
    return [replace(each, labels=tuple(model.words[word] for word in each.labels)) for each in found]


scales = st.fixed_dictionaries(
    {
        "ngram_scale": st.sampled_from([0.0, 0.5, 1.5]),
        "length_scale": st.sampled_from([0.0, -1.0, 0.7]),
        "unknown_score": st.sampled_from([0.0, -2.0]),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.integers(0, 9999), st.sampled_from([0.5, 3.0, 20.0]), scales)
def test_with_a_full_beam_it_finds_every_sentence_with_its_exact_score(frames, seed, spread, scales):
    log_probs, ngram = random_log_probs(frames, len(PHONES), seed, spread), bigram(seed)
    found = one(log_probs, ngram, **ALL, **scales)
    expected = every_sentence(log_probs, ngram, **scales)
    assert {each.labels: each.score for each in found} == pytest.approx(
        {w: s[2] for w, s in expected.items()}, abs=1e-6
    )
    assert {each.labels: each.scores["ctc"] for each in found} == pytest.approx(
        {w: s[0] for w, s in expected.items()}, abs=1e-6
    )
    assert {each.labels: each.scores["ngram"] for each in found} == pytest.approx(
        {w: s[1] for w, s in expected.items()}, abs=1e-6
    )
    assert len(found) == len(expected)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 9999),
    st.integers(1, 6),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 3.0]),
    st.sampled_from([None, -2.0]),
)
def test_pruning_only_takes_paths_away(seed, beam, histories, score_beam, min_log_prob):
    log_probs, ngram = random_log_probs(3, len(PHONES), seed), bigram(seed)
    changes = {"score_beam": score_beam, "min_log_prob": min_log_prob}
    found = one(log_probs, ngram, beam=beam, histories=histories, **changes)
    expected = every_sentence(log_probs, ngram)
    assert len({each.labels for each in found}) == len(found) > 0
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    for each in found:
        known = score_text(ngram, each.labels) - 5.0 * sum(word not in ngram.ids for word in each.labels)
        assert each.scores["ngram"] == pytest.approx(known, abs=1e-6)
        assert each.score == pytest.approx(each.scores["ctc"] + each.scores["ngram"], abs=1e-6)
    if len(found) > 1:  # else there may be phones of a word that was begun
        assert found[0].scores["ctc"] <= expected[found[0].labels][0] + 1e-6
        assert histories or all(each.scores["ctc"] <= expected[each.labels][0] + 1e-6 for each in found)


def test_two_equal_phones_need_a_blank_between_words_too():
    ngram = bigram(3)
    for path, words in (("AA", ("a",)), ("A-A", ("a", "a")), ("AAB", ("a", "be")), ("AB-B", ("a", "be", "be"))):
        log_probs = torch.full((len(path), 4), 1e-9)
        for frame, phone in enumerate(path):
            log_probs[frame, (*PHONES, "-").index(phone)] = 1.0
        lists = one(log_probs.log(), ngram, Lexicon({"a": (("A",),), "be": (("B",),)}))
        assert lists[0].labels == words


def test_words_that_the_ngram_lacks_are_left_out_where_it_has_no_unknown_word():
    ngram = bigram(1, words=("<s>", "</s>", *KNOWN))
    log_probs = random_log_probs(3, len(PHONES), 1)
    known = Lexicon({word: LEXICON.pronunciations[word] for word in KNOWN})
    assert one(log_probs, ngram, **ALL) == one(log_probs, ngram, known, **ALL)
    assert ("odd",) in {each.labels for each in one(log_probs, bigram(1), **ALL)}


def test_a_prior_is_subtracted_in_every_frame():
    log_probs, ngram = random_log_probs(4, len(PHONES), 2), bigram(2)
    prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    model = word_model(LEXICON, PHONES, ngram, unknown_score=-5.0)
    (found,) = lexicon_search(
        log_probs[None],
        torch.tensor([4]),
        model,
        flat(LexiconSearch, **{name: value for name, value in ALL.items() if name != "histories"}, prior_scale=0.4),
        prior,
        histories=None,
    )
    shifted = torch.cat([log_probs[:, :-1] - 0.4 * prior, log_probs[:, -1:]], dim=1)
    assert in_words(found, model) == one(shifted, ngram, **ALL)


def test_where_nothing_is_heard_there_are_no_words():
    ngram = bigram(0)
    for log_probs in (torch.zeros(0, 4), torch.tensor([[1e-6] * 3 + [1.0]] * 5).log()):
        first = one(log_probs, ngram)[0]
        assert first.labels == ()
        assert first.score == pytest.approx(score_text(ngram, ()), abs=1e-4)
    impossible = one(torch.full((2, 4), -inf), ngram)
    assert [(each.labels, each.score) for each in impossible] == [((), -inf)]


def test_a_word_that_is_not_complete_is_left_out():
    log_probs = torch.tensor([[0.0, -inf, -inf, -inf], [-inf, -inf, -inf, 0.0], [-inf, 0.0, -inf, -inf]])
    lexicon = Lexicon({"a": (("A",),), "bc": (("B", "C"),)})
    (found,) = one(log_probs, bigram(0), lexicon)
    assert found.labels == ("a",)
    assert found.scores["ctc"] == pytest.approx(0.0)
    assert found.scores["ngram"] == pytest.approx(score_text(bigram(0), ("a",)), abs=1e-6)


def test_frames_of_blank_alone_are_skipped_exactly():
    log_probs, ngram = random_log_probs(12, len(PHONES), 4), bigram(4)
    log_probs[3:9] = torch.tensor([-30.0, -30.0, -30.0, 0.0])
    all_frames, skipped = (one(log_probs, ngram, beam=500, nbest=50, min_log_prob=lowest) for lowest in (None, -25.0))
    assert [each.labels for each in all_frames] == [each.labels for each in skipped]
    assert [each.score for each in all_frames] == pytest.approx([each.score for each in skipped], abs=1e-6)


def test_histories_that_the_ngram_cannot_tell_apart_come_back_in_the_list():
    words = ("<s>", "</s>", "<unk>", "x", "y", "z")
    scores = np.log([0.1, 0.2, 0.1, 0.3, 0.2, 0.1]).astype(np.float32)
    nothing = np.zeros(1, np.int32)
    arcs = np.array([0, 6]), np.arange(6, dtype=np.int32), scores, np.zeros(6, np.int32)
    unigram = NGram(words, Automaton(*arcs, nothing.astype(np.float32), nothing), 0)
    lexicon = Lexicon({"x": (("A",),), "y": (("A",),), "z": (("B",),)})
    log_probs = torch.full((5, 4), -20.0)
    for frame, phone in enumerate("A-B-A"):
        log_probs[frame, (*PHONES, "-").index(phone)] = 0.0
    found = one(log_probs, unigram, lexicon, beam=20)
    expected = every_sentence(log_probs.double(), unigram, lexicon)
    best = sorted(expected, key=lambda words: -expected[words][2])[:4]
    assert [each.labels for each in found[:4]] == best == [("x", "z", "x"), *best[1:3], ("y", "z", "y")]
    for each in found[:4]:
        assert (each.scores["ctc"], each.scores["ngram"], each.score) == pytest.approx(expected[each.labels], abs=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_in_any_batch_with_any_padding_and_any_number_of_threads(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    generator = torch.Generator().manual_seed(0)
    log_probs = (2.0 * torch.randn(6, 30, 4, generator=generator)).log_softmax(-1)
    lengths = torch.tensor([30, 0, 7, 21, 1, 30])
    model = word_model(LEXICON, PHONES, bigram(5), unknown_score=-5.0)
    together = lexicon_search(log_probs, lengths, model, LexiconSearch(beam=30))
    for row, length in enumerate(lengths.tolist()):
        assert lexicon_search(log_probs[row : row + 1, :length], lengths[[row]], model, LexiconSearch(beam=30)) == [
            together[row]
        ]
    assert len({row[0].labels for row in together}) >= 5


def test_arrays_that_grow(monkeypatch):
    log_probs, ngram = random_log_probs(25, len(PHONES), 6, 2.0), bigram(6)
    roomy = one(log_probs, ngram, beam=300, nbest=100)
    small = state.new_beam
    monkeypatch.setattr(state, "new_beam", lambda phones, start: small(phones, start, room=1))
    assert one(log_probs, ngram, beam=300, nbest=100) == roomy
