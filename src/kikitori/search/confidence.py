"""How sure a search is of what it found: the score of the best hypothesis, per label (Kahn, Lee and Hannun 2020).

A score is a sum over an utterance, so long ones score low whatever they hold; divided by the labels they compare. It is
the measure that every search has, also those that return one hypothesis. Posteriors over n-best lists order utterances
worse: a list of 32 holds but a few of the ways to be wrong in a long one (docs/self_training.md has the numbers).
"""

from collections.abc import Sequence
from dataclasses import replace

from kikitori.search.options import Decoding
from kikitori.text.units import TokenizerUnits
from kikitori.types import Hypothesis, NBest


def confidence(best: Hypothesis, options: Decoding) -> float:
    """The score of a hypothesis over its labels, of which the end of the sentence is one; natural log.

    0 is certainty where the score is a log-probability. With scales, priors and rewards it is none: values then only
    compare with those of the same recogniser and search, and may be above 0. `-inf` is impossible. The search may have
    divided the score by some power of the labels already.
    """
    total: float = best.score * (len(best.labels) + 1) ** options.length_exponent
    return total / (len(best.labels) + 1)


def with_text(units: TokenizerUnits, nbests: Sequence[NBest], options: Decoding) -> list[NBest]:
    """Hypotheses of a search, whose labels are of some units, with their text and confidence."""
    return [
        tuple(
            replace(each, text=each.text or units.decode(each.labels), confidence=confidence(each, options))
            for each in nbest
        )
        for nbest in nbests
    ]
