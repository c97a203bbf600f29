"""Pronunciation trees against the pronunciations."""

import numpy as np
import pytest

from kikitori.errors import ModelError
from kikitori.search.lexicon.trie import word_model
from kikitori.text.lexicon import Lexicon
from kikitori.text.ngram.model import advance
from tests.search.lexicon.test_search import KNOWN, LEXICON, PHONES, bigram


def spelled(model):
    """Every pronunciation in the tree with the nodes on its way."""
    trie, found = model.trie, []

    def visit(node, way, nodes):
        words = trie.words[trie.word_starts[node] : trie.word_starts[node + 1]]
        found.extend((model.words[word], way, nodes) for word in words)
        for child in range(trie.first[node], trie.stop[node]):
            visit(child, (*way, PHONES[trie.phones[child]]), (*nodes, child))

    visit(model.num_phones, (), ())
    return found


def test_it_holds_every_pronunciation_once():
    model = word_model(LEXICON, PHONES, bigram(0))
    found = spelled(model)
    expected = [(word, way) for word, ways in LEXICON.pronunciations.items() for way in ways]
    assert sorted(each[:2] for each in found) == sorted(expected)
    ways = {way[:size] for _, way in expected for size in range(1, len(way) + 1)}
    assert len(model.trie.phones) == len(PHONES) + 1 + len(ways)


def test_all_roots_have_the_same_children_and_a_phone_of_their_own():
    trie = word_model(LEXICON, PHONES, bigram(0)).trie
    assert trie.phones[: len(PHONES) + 1].tolist() == [0, 1, 2, 3]
    assert len({*trie.first[: len(PHONES) + 1].tolist()}) == len({*trie.stop[: len(PHONES) + 1].tolist()}) == 1


def test_lookahead_is_the_best_unigram_below():
    ngram = bigram(0)
    model = word_model(LEXICON, PHONES, ngram, unknown_score=-2.0)
    best = np.full(len(model.trie.phones), -np.inf)
    for word, _, nodes in spelled(model):
        score = ngram.automaton.arc_scores[ngram.ids.get(word, ngram.ids["<unk>"])] - 2.0 * (word not in ngram.ids)
        best[list(nodes)] = np.maximum(best[list(nodes)], score)
    assert model.trie.lookahead[len(PHONES) + 1 :] == pytest.approx(best[len(PHONES) + 1 :])
    assert not model.trie.lookahead[: len(PHONES) + 1].any()


def test_no_word_exceeds_the_peaks_of_its_nodes():
    ngram = bigram(0)
    ngram.automaton.backoffs[3:6] = 0.4  # as n-grams of other makers may have
    model = word_model(LEXICON, PHONES, ngram, unknown_score=-2.0)
    automaton = model.grammar.automaton
    for word, _, nodes in spelled(model):
        number = model.words.index(word)
        scores = [advance(automaton, state, model.grammar.ids[number])[0] for state in range(len(automaton.lower))]
        best = max(scores) + model.grammar.extra[number]
        assert all(model.trie.peaks[node] >= best - 1e-6 for node in (model.num_phones, *nodes))


def test_width_counts_what_children_can_become():
    trie = word_model(LEXICON, PHONES, bigram(0)).trie
    for node in range(len(trie.phones)):
        children = range(trie.first[node], trie.stop[node])
        assert trie.width[node] == sum(1 + trie.word_starts[each + 1] - trie.word_starts[each] for each in children)


def test_the_same_pronunciation_twice_counts_once():
    twice = Lexicon({"a": (("A",), ("A",))})
    assert len(spelled(word_model(twice, PHONES, bigram(0)))) == 1


def test_other_phones_are_refused():
    with pytest.raises(ModelError, match=r"here\.tsv: 'b' has the phone 'X'"):
        word_model(Lexicon({"b": (("B", "X"),)}), PHONES, bigram(0), where="here.tsv")


def test_an_ngram_without_any_of_the_words_is_refused():
    with pytest.raises(ModelError, match="none of its words"):
        word_model(Lexicon({"odd": (("A",),)}), PHONES, bigram(0, words=("<s>", "</s>", *KNOWN)))


def test_an_n_gram_of_words_in_another_form():
    with pytest.raises(ModelError, match=r"here\.tsv: the n-gram has none of its words"):
        word_model(LEXICON, PHONES, bigram(0, ("<s>", "</s>", "<unk>", *map(str.upper, KNOWN))), where="here.tsv")
