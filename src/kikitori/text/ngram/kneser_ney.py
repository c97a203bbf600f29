"""N-gram language models by interpolated modified Kneser-Ney smoothing.

Chen and Goodman (1998), section 3, over a closed vocabulary:

    p(w | h) = (c(hw) − D(c(hw))) / c(h·) + γ(h) p(w | h'),    γ(h) = (mass taken from behind h) / c(h·)

where h' is h without its first word, and below the unigrams stands the uniform distribution. c counts n-grams of the
highest order and those that begin with the sentence; of all others it counts the different words before them. Words
are numbers here; n-grams are kept sorted, each as the place of its first n − 1 words and its last word.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from kikitori.errors import ConfigError, DataError
from kikitori.text.ngram.arpa import IMPOSSIBLE, MOST_ORDERS, NGrams

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where the counts of counts give none, as with few labels that are all frequent."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Counts:
    """N-grams of one order: places of their first words and of their last ones in the order below, and their counts."""

    prefixes: Ints
    suffixes: Ints
    last: Ints
    starts: Bools
    raw: Ints


def estimate(
    sentences: Iterable[Sequence[int]], num_words: int, order: int, *, min_count: int = 1, prune: float = 0.0
) -> tuple[NGrams, ...]:
    """N-grams of the orders 1 to `order` with what each of them needs in an ARPA file.

    Every word has a probability, also one that never occurs; so has the end of the sentence. With all words and the end
    they sum to one behind any words.

    Args:
        sentences: Words 0 to `num_words` − 1; empty sentences are left out.
        num_words: Words that there are.
        order: Longest n-grams, 1 to 6.
        min_count: N-grams of three words and more that are rarer are left out; their share goes to the order below.
        prune: So are n-grams of two words and more without which the text would lose less than this, in nats per word
            of it: c(hw) (ln p(w | h) − ln γ(h) p(w | h')), the weighted difference of Seymore and Rosenfeld (1996).
            What is left is estimated anew.

    Raises:
        ConfigError: No such order.
        DataError: There is no sentence, or a word beyond the vocabulary.
    """
    if not 1 <= order <= MOST_ORDERS:
        raise ConfigError(f"no n-grams of order {order}", where="--order", remedy=f"use 1 to {MOST_ORDERS}")
    text, places = _text(sentences, num_words)
    counts: list[_Counts] = []
    grams = text  # the number of the n-gram that ends at each place of the text
    for n in range(1, order + 1):
        found, grams = _counted(text, places, grams, n, num_words, counts[-1] if counts else None)
        counts.append(found)
    kept = [each.raw >= (min_count if n >= 3 else 0) for n, each in enumerate(counts, start=1)]
    probs, backoffs = _smoothed(counts, kept, num_words)
    if prune > 0:
        kept = _worth_keeping(counts, kept, probs, backoffs, prune * len(text))
        probs, backoffs = _smoothed(counts, kept, num_words)

    results = []
    above = np.zeros(1, np.int64)  # the place, among those kept, of the n-grams that are one word shorter
    for each, there, prob, backoff in zip(counts, kept, probs, backoffs[1:], strict=True):
        logs = np.log10(np.clip(prob[there], 1e-99, 1.0))
        last = each.last[there]
        logs[last == num_words + 1] = IMPOSSIBLE
        results.append(NGrams(above[each.prefixes[there]], last.astype(np.int32), logs, np.log10(backoff[there])))
        above = np.cumsum(there) - 1
    return tuple(results)


def _text(sentences: Iterable[Sequence[int]], num_words: int) -> tuple[Ints, Ints]:
    """All sentences with their ends in a row, and how far into its sentence each word stands."""
    text, sizes, end, start = array("i"), array("q"), num_words, num_words + 1
    for sentence in sentences:
        if len(sentence):
            text.extend(chain((start,), sentence, (end,)))
            sizes.append(len(sentence) + 2)
    if not sizes:
        raise DataError("no text to count n-grams of", remedy="name a file with sentences")
    words, lengths = np.frombuffer(text, np.int32).astype(np.int64), np.frombuffer(sizes, np.int64)
    inner = np.ones(len(words), bool)
    begins = np.cumsum(lengths) - lengths
    inner[begins], inner[begins + lengths - 1] = False, False
    if (strange := words[inner])[(strange < 0) | (strange >= num_words)].size:
        raise DataError(f"words beyond the vocabulary of {num_words}", remedy="encode the text with the same units")
    return words, np.arange(len(words)) - np.repeat(begins, lengths)


def _counted(
    words: Ints, places: Ints, grams: Ints, n: int, num_words: int, below: _Counts | None
) -> tuple[_Counts, Ints]:
    """The n-grams of the text, and which of them ends at each place, given the same of the order below."""
    size = num_words + 2
    if below is None:
        every = np.arange(size)
        none = np.zeros(size, np.int64)
        return _Counts(none, none, every, every == num_words + 1, np.bincount(words, minlength=size)), words
    ends = (places >= n - 1).nonzero()[0]
    keys, first, inverse, raw = np.unique(
        grams[ends - 1] * size + words[ends], return_index=True, return_inverse=True, return_counts=True
    )
    prefixes = keys // size
    found = np.zeros_like(grams)
    found[ends] = inverse
    return _Counts(prefixes, grams[ends[first]], keys % size, below.starts[prefixes], raw), found


def _smoothed(counts: Sequence[_Counts], kept: Sequence[Bools], num_words: int) -> tuple[list[Floats], list[Floats]]:
    """Probabilities of the n-grams by order, and what their contexts leave to the order below; from order 0 on."""
    probs: list[Floats] = []
    backoffs: list[Floats] = []
    below = np.array([1.0 / (num_words + 1)])  # the uniform distribution: of what follows the n-gram without words
    for each, above, there in zip(counts, [*counts[1:], None], kept, strict=True):
        numbers = _adjusted(each, above)
        if not probs:
            numbers[-1] = 0  # nothing is followed by the beginning of a sentence
        left = np.where(there, numbers - _discounts(numbers)[np.minimum(numbers, 3)], 0.0)
        totals = np.bincount(each.prefixes, numbers, len(below))
        gammas = np.bincount(each.prefixes, numbers - left, len(below))
        backoffs.append(np.divide(gammas, totals, out=np.ones(len(below)), where=totals > 0))
        below = left / totals[each.prefixes] + backoffs[-1][each.prefixes] * below[each.suffixes]
        probs.append(below)
    return probs, [*backoffs, np.ones(len(below))]


def _worth_keeping(
    counts: Sequence[_Counts], kept: Sequence[Bools], probs: Sequence[Floats], backoffs: Sequence[Floats], loss: float
) -> list[Bools]:
    """N-grams without which the text would lose more than so many nats, and all that these begin with."""
    found = [kept[0]]
    for n in range(1, len(counts)):
        each = counts[n]
        instead = backoffs[n][each.prefixes] * probs[n - 1][each.suffixes]
        found.append(kept[n] & (each.raw * np.log(probs[n] / instead) >= loss))
    for n in range(len(counts) - 1, 1, -1):
        found[n - 1][counts[n].prefixes[found[n]]] = True
    return found


def _adjusted(counts: _Counts, above: _Counts | None) -> Ints:
    """What Kneser-Ney counts: different words before an n-gram, unless nothing can stand there or it is the longest."""
    if above is None:
        return counts.raw.copy()
    return np.where(counts.starts, counts.raw, np.bincount(above.suffixes, minlength=len(counts.raw)))


def _discounts(counts: Ints) -> Floats:
    """What is taken from counts of none, one, two, and more (Chen and Goodman 1998, equation 26)."""
    n1, n2, n3, n4 = (int((counts == times).sum()) for times in range(1, 5))
    if not (n1 and n2 and n3 and n4):
        return np.array([0.0, *FALLBACK])
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    fits = all(0 < discount < times for times, discount in enumerate(found, start=1))
    return np.array([0.0, *(found if fits else FALLBACK)])
