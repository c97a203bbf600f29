"""The estimate against the formulas written out, word by word and context by context."""

from collections import Counter
from functools import cache
from itertools import product
from math import log, log10

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.errors import ConfigError, DataError
from kikitori.text.ngram.arpa import spelled, write_arpa
from kikitori.text.ngram.kneser_ney import FALLBACK, estimate

CORPUS = np.random.default_rng(0).zipf(1.4, 4000).reshape(400, 10) % 7
SENTENCES = [row[: 1 + row[0] + row[-1]].tolist() for row in CORPUS]


class Plain:
    """Interpolated modified Kneser-Ney by definition."""

    def __init__(self, sentences, num_words, order, min_count=1):
        self.num_words, self.order = num_words, order
        self.start, self.end = num_words + 1, num_words
        self.raw, self.before = Counter(), {}
        for sentence in filter(None, sentences):
            row = (self.start, *sentence, self.end)
            for n, place in product(range(1, order + 1), range(len(row))):
                if place + n <= len(row):
                    gram = row[place : place + n]
                    self.raw[gram] += 1
                    if place:
                        self.before.setdefault(gram, set()).add(row[place - 1])
        self.counts = {n: {} for n in range(1, order + 1)}
        for gram, count in self.raw.items():
            continued = len(gram) < order and gram[0] != self.start
            self.counts[len(gram)][gram] = len(self.before[gram]) if continued else count
        del self.counts[1][(self.start,)]
        self.discounts = {n: self.estimated(self.counts[n].values()) for n in self.counts}
        self.behind = cache(self.behind)
        self.dropped = {gram for gram, count in self.raw.items() if len(gram) >= 3 and count < min_count}

    def estimated(self, counts):
        n = [0, *(sum(count == times for count in counts) for times in range(1, 5))]
        if not all(n[1:]):
            return FALLBACK
        y = n[1] / (n[1] + 2 * n[2])
        found = [times - (times + 1) * y * n[times + 1] / n[times] for times in (1, 2, 3)]
        return found if all(0 < d < times for times, d in enumerate(found, 1)) else FALLBACK

    def behind(self, history):
        n = len(history) + 1
        return {gram[-1]: count for gram, count in self.counts[n].items() if gram[:-1] == history}

    def share(self, history, word):
        """What a word keeps of its count behind a history, as a share of all."""
        counts = self.behind(history)
        if (*history, word) in self.dropped or word not in counts:
            return 0.0
        discount = self.discounts[len(history) + 1][min(counts[word], 3) - 1]
        return (counts[word] - discount) / sum(counts.values())

    def prob(self, history, word):
        history = tuple(history)[-(self.order - 1) :] if self.order > 1 else ()
        lower = self.prob(history[1:], word) if history else 1 / (self.num_words + 1)
        if history and not self.behind(history):
            return lower
        left = 1 - sum(self.share(history, other) for other in range(self.num_words + 1))
        return self.share(history, word) + left * lower


def read(ngrams):
    """Probabilities and backoffs by n-gram, as an ARPA file has them."""
    probs, backoffs = {}, {}
    for each, rows in zip(ngrams, spelled(ngrams), strict=True):
        for words, log_prob, backoff in zip(rows.tolist(), each.log10_probs, each.log10_backoffs, strict=True):
            probs[tuple(words)], backoffs[tuple(words)] = log_prob, backoff
    return probs, backoffs


def backed_off(tables, history, word):
    """log10 p(word | history), as readers of ARPA files find it."""
    probs, backoffs = tables
    if (*history, word) in probs:
        return probs[*history, word]
    return backoffs.get(tuple(history), 0.0) + backed_off(tables, history[1:], word)


def histories(order, num_words):
    for n in range(order):
        yield from product(range(num_words), repeat=n)
        if n:
            yield from ((num_words + 1, *rest) for rest in product(range(num_words), repeat=n - 1))


@pytest.mark.parametrize(("order", "min_count"), [(1, 1), (2, 1), (3, 1), (4, 1), (3, 2), (4, 3)])
def test_it_is_the_definition(order, min_count):
    plain = Plain(SENTENCES, 7, order, min_count)
    if order == 4:
        assert [*plain.discounts[3]] != [*FALLBACK]  # the corpus is large enough for estimates
    tables = read(estimate(SENTENCES, 7, order, min_count=min_count))
    some = [*histories(order, 7)]
    for history in some[:: max(1, len(some) // 60)]:
        found = [backed_off(tables, history, word) for word in range(8)]
        assert found == pytest.approx([log10(plain.prob(history, word)) for word in range(8)], abs=1e-9)


@pytest.mark.parametrize(("order", "min_count", "prune"), [(2, 1, 3e-3), (3, 1, 2e-4), (3, 2, 1e-3), (4, 1, 1e-2)])
def test_what_the_text_would_not_miss_is_left_out(order, min_count, prune):
    plain = Plain(SENTENCES, 7, order, min_count)
    loss = prune * sum(count for gram, count in plain.raw.items() if len(gram) == 1)

    def gain(gram):
        prob = plain.prob(gram[:-1], gram[-1])
        return plain.raw[gram] * (log(prob) - log(prob - plain.share(gram[:-1], gram[-1])))

    longer = [gram for gram in plain.raw if len(gram) > 1]
    wanted = {gram for gram in longer if gram not in plain.dropped and gain(gram) >= loss}
    wanted |= {gram[:n] for gram in wanted for n in range(2, len(gram))}
    assert 0 < len(wanted) < len({*longer} - plain.dropped)
    plain.dropped = {*longer} - wanted
    tables = read(estimate(SENTENCES, 7, order, min_count=min_count, prune=prune))
    assert {gram for gram in tables[0] if len(gram) > 1} == wanted
    some = [*histories(order, 7)]
    for history in some[:: max(1, len(some) // 60)]:
        found = [backed_off(tables, history, word) for word in range(8)]
        assert found == pytest.approx([log10(plain.prob(history, word)) for word in range(8)], abs=1e-9)


few = st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=8).filter(any)


@settings(max_examples=60, deadline=None)
@given(few, st.integers(1, 4), st.integers(1, 2), st.sampled_from([0.0, 0.02, 0.1]))
def test_it_sums_to_one_behind_any_words(sentences, order, min_count, prune):
    tables = read(estimate(sentences, 5, order, min_count=min_count, prune=prune))  # word 4 never occurs
    for history in histories(order, 5):
        assert sum(10 ** backed_off(tables, history, word) for word in range(6)) == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(few, st.integers(1, 4))
def test_few_sentences_are_the_definition_too(sentences, order):
    tables, plain = read(estimate(sentences, 4, order)), Plain(sentences, 4, order)
    for history in [*histories(order, 4)][:40]:
        found = [backed_off(tables, history, word) for word in range(5)]
        assert found == pytest.approx([log10(plain.prob(history, word)) for word in range(5)], abs=1e-9)


def test_every_context_of_an_n_gram_is_there():
    for min_count in (1, 2, 5):
        probs, _ = read(estimate(SENTENCES, 7, 4, min_count=min_count))
        for words in probs:
            assert len(words) == 1 or (words[:-1] in probs and words[1:] in probs)
    assert len(probs) < len(read(estimate(SENTENCES, 7, 4))[0])


def test_the_file(tmp_path):
    write_arpa(tmp_path / "lm.arpa", estimate([[0, 1], [0]], 2, 2), ["▁the", "é"])
    lines = (tmp_path / "lm.arpa").read_text().splitlines()
    assert lines[:4] == ["\\data\\", "ngram 1=4", "ngram 2=4", ""]
    assert lines[-1] == "\\end\\"
    rows = {row[1]: [float(row[0]), *map(float, row[2:])] for row in (line.split("\t") for line in lines) if row[1:]}
    assert set(rows) == {"▁the", "é", "</s>", "<s>", "<s> ▁the", "▁the é", "é </s>", "▁the </s>"}
    assert rows["<s>"][0] == -99
    assert rows["</s>"][1] == 0.0
    # By hand: unigrams count 1, 1, 2 with the fallback discounts; behind the beginning "the" stands twice.
    uniform = (0.5 + 0.5 + 1.0) / 4 / 3
    assert rows["▁the"][0] == pytest.approx(log10(0.5 / 4 + uniform), abs=1e-6)
    assert rows["</s>"][0] == pytest.approx(log10(1 / 4 + uniform), abs=1e-6)
    assert rows["<s> ▁the"][0] == pytest.approx(log10(1 / 2 + 1 / 2 * (0.5 / 4 + uniform)), abs=1e-6)
    assert rows["<s>"][1] == pytest.approx(log10(1 / 2), abs=1e-6)


@pytest.mark.parametrize("word", ["", "a b", "</s>", "<s>", "a\tb", "\n"])
def test_words_that_the_format_cannot_hold(word, tmp_path):
    with pytest.raises(ConfigError, match=r"no word for an ARPA file"):
        write_arpa(tmp_path / "lm.arpa", estimate([[0]], 1, 1), [word])


def test_what_cannot_be_estimated_or_written(tmp_path):
    with pytest.raises(DataError, match="no text"):
        estimate([[], []], 3, 2)
    for strange in ([3], [-1]):
        with pytest.raises(DataError, match="beyond the vocabulary"):
            estimate([[0], strange], 3, 2)
    for order in (0, 7):
        with pytest.raises(ConfigError, match="order"):
            estimate([[0]], 3, order)
    with pytest.raises(DataError, match="cannot be written"):
        write_arpa(tmp_path / "no" / "lm.arpa", estimate([[0]], 1, 1), ["a"])
