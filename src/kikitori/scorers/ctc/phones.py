"""A CTC head over phones as a scorer of whole hypotheses, whatever these are written in: by how their words are said.

A word may be said in several ways, so a text is a graph of phones, in which all ways of a word lie side by side. Its
probability is the sum over all paths of CTC through the graph (Graves et al. 2006), one forward pass for a whole n-best
list.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kikitori.scorers.options import PHONES
from kikitori.types import Hypothesis

Ways = tuple[tuple[int, ...], ...]
"""The pronunciations of a word, each its phones as numbers."""


@dataclass(frozen=True, eq=False)
class PhoneSequenceScorer:
    """Log-probability that the words of a hypothesis are said, summed over their pronunciations and all CTC paths.

    All pronunciations of a word are equally probable.

    Attributes:
        log_probs: Of the phone head, (utterances, frames, phones + 1), blank last.
        lengths: Valid frames, (utterances,).
        words: From a hypothesis to its words in the form of the lexicon; None where it has none.
        pronunciations: How words are said, in the numbers of the head.
        name: Its name among the scores.
    """

    log_probs: Tensor
    lengths: Tensor
    words: Callable[[Hypothesis], Sequence[str] | None]
    pronunciations: Mapping[str, Ways]
    name: str = PHONES

    def scores(self, nbests: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """The natural log-probability of each hypothesis of the utterances; -inf with a word that is not known."""
        rows = zip(self.log_probs, self.lengths.tolist(), nbests, strict=True)
        return [self._scores(frames[:length], nbest) for frames, length, nbest in rows]

    def _scores(self, frames: Tensor, nbest: Sequence[Hypothesis]) -> list[float]:
        texts = [self._ways(hypothesis) for hypothesis in nbest]
        distinct = [*dict.fromkeys(text for text in texts if text is not None)]
        found = dict(zip(distinct, word_log_probs(frames.double().cpu().numpy(), distinct), strict=True))
        return [-inf if text is None else found[text] for text in texts]

    def _ways(self, hypothesis: Hypothesis) -> tuple[Ways, ...] | None:
        words = self.words(hypothesis)
        if words is None or not all(word in self.pronunciations for word in words):
            return None
        return tuple(self.pronunciations[word] for word in words)


def word_log_probs(log_probs: NDArray[np.float64], texts: Sequence[Sequence[Ways]]) -> list[float]:
    """The log-probability of each of some texts.

    Args:
        log_probs: Of a CTC head over phones, (frames, phones + 1), blank last.
        texts: For each word of each text its pronunciations, one or more, and none of them empty.
    """
    graph = _Graph(blank=log_probs.shape[1] - 1)
    ends = [graph.ends(text) for text in texts]
    outputs, sources, weights = graph.arrays()
    totals = np.full(len(outputs) + 1, -inf)  # the last place is none
    totals[_START] = 0.0
    for frame in log_probs:
        totals[:-1] = _log_sum(totals[sources] + weights) + frame[outputs]
    return [float(_log_sum(totals[list(places)])) for places in ends]


_START = 0


class _Graph:
    """Texts as places, a phone or a blank each, and arcs between them; what begins alike shares its beginning."""

    def __init__(self, blank: int) -> None:
        self._blank = blank
        self._outputs, self._arcs = list[int](), list[list[tuple[int, float]]]()
        self._ends: dict[tuple[Ways, ...], tuple[int, ...]] = {(): (self._place(blank, ()),)}

    def ends(self, text: Sequence[Ways]) -> tuple[int, ...]:
        """The places at which paths through a text may end, which is added where it is new."""
        words = tuple(text)
        known = len(words)
        while words[:known] not in self._ends:
            known -= 1
        for stop in range(known + 1, len(words) + 1):
            self._ends[words[:stop]] = self._word(words[stop - 1], self._ends[words[: stop - 1]])
        return self._ends[words]

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """What each place writes, (places,), the places before it and the weights of the arcs, (most arcs, places)."""
        shape = max(map(len, self._arcs)), len(self._arcs)
        sources, weights = np.full(shape, len(self._arcs)), np.zeros(shape)
        for place, arcs in enumerate(self._arcs):
            for number, (source, weight) in enumerate(arcs):
                sources[number, place], weights[number, place] = source, weight
        return np.array(self._outputs), sources, weights

    def _word(self, ways: Ways, before: Sequence[int]) -> tuple[int, ...]:
        """Adds a word behind some places; a blank may follow each phone."""
        said = []
        for way in ways:
            at, weight = before, -log(len(ways))
            for number, phone in enumerate(way):
                if number:
                    at = (*at, self._place(self._blank, at))
                at, weight = (self._place(phone, at, weight),), 0.0
            said.append(at[0])
        return (*said, self._place(self._blank, said))

    def _place(self, output: int, before: Sequence[int], weight: float = 0.0) -> int:
        """Adds a place; two equal phones in a row would be one without a blank between them."""
        place = len(self._outputs)
        self._outputs.append(output)
        others = [(each, weight) for each in before if self._outputs[each] != output]
        self._arcs.append([(place, 0.0), *others])
        return place


def _log_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of the sum of exponentials over the first axis."""
    peaks = values.max(axis=0)
    with np.errstate(divide="ignore"):
        sums: NDArray[np.float64] = np.log(np.exp(values - np.where(np.isfinite(peaks), peaks, 0.0)).sum(axis=0))
    return sums + np.where(np.isfinite(peaks), peaks, 0.0)
