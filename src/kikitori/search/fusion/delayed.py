"""Delayed fusion: CTC beam search in one pass with a language model over other label units, which scores whole words.

    score = log p_ctc + λ_lm log p_lm(text, end) + λ_prior log p_prior(labels) + λ_length · labels

with λ the scales of the scorers, that of the prior below 0.

From time to time (`trigger`) the words that hypotheses have completed are scored: labels → text → the LM's text form →
its tokens → one call for all hypotheses of all utterances. What it says counts in pruning from then on, for all that
goes on with these words; prior and length count for the labels of the same words, from the same moment (papers.md B3.6,
Hori et al. 2025). Texts are tokenised whole each time, so that the last score of a hypothesis is that of its text.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.scorers.base import weighted
from kikitori.scorers.incremental import IncrementalLMScorer, Tokens
from kikitori.scorers.options import CTC, LENGTH, LM, PRIOR
from kikitori.search.ctc.beam import FrameSearch, SearchInput, prepare_logits
from kikitori.search.fusion.retokenizing import Labels, RetokenizingLM
from kikitori.search.options import DelayedFusionSearch
from kikitori.types import Hypothesis, NBest

ROOT = 0


def delayed_fusion_of_logits(
    logits: Tensor, lengths: Tensor, reader: RetokenizingLM, prior: Tensor | None, options: DelayedFusionSearch
) -> list[NBest]:
    """The n-best list of each utterance, best first, equal scores as the beam had them.

    It holds at least one hypothesis: where none is possible, the empty one with a score of -inf. One that is too long
    for the LM keeps what the words had that there was room for, and comes after all that are possible in the end.
    Logits of the CTC head are (batch, frames, labels + 1), blank last; the prior is (labels,).
    """
    rows = zip(logits.detach().float().cpu(), lengths.tolist(), strict=True)
    return fuse_words([prepare_logits(row[:length], options) for row, length in rows], reader, prior, options)


@torch.inference_mode()
def fuse_words(
    utterances: Sequence[SearchInput], reader: RetokenizingLM, prior: Tensor | None, options: DelayedFusionSearch
) -> list[NBest]:
    """Delayed fusion of utterances that are prepared, see `delayed_fusion_of_logits`."""
    scorers = _Scorers(reader, prior, options)
    searches = [_Search(utterance, scorers, options) for utterance in utterances]
    memory = IncrementalLMScorer(reader.lm, len(searches))
    # Utterances run ahead to their next words, each in its own time, and are then scored in one call.
    while any(asked := [search.advance() for search in searches]):
        for search, scores in zip(searches, memory.scores(asked), strict=True):
            search.take(scores)
    ended = memory.ended([search.texts() for search in searches])
    return [search.finish(scores) for search, scores in zip(searches, ended, strict=True)]


class _Scorers:
    """What the scorers give to a label sequence, once the LM has scored it."""

    def __init__(self, reader: RetokenizingLM, prior: Tensor | None, options: DelayedFusionSearch) -> None:
        self.reader, self._prior = reader, None if prior is None else prior.double().numpy()
        self._scales = {name: options.scale(name) for name in (LM, LENGTH, PRIOR)}

    def scores(self, labels: Labels, lm: float) -> dict[str, float]:
        """By name, before their scales."""
        scores = {LM: lm, LENGTH: float(len(labels))}
        return scores if self._prior is None else {**scores, PRIOR: float(self._prior[list(labels)].sum())}

    def total(self, scores: dict[str, float]) -> float:
        """The weighted sum of scores; the CTC head's counts as it is."""
        return weighted(scores, {CTC: 1.0, **self._scales} if CTC in scores else self._scales)

    def fits(self, tokens: Tokens) -> bool:
        """Whether the LM has positions for a text."""
        most = self.reader.lm.most_labels
        return most is None or len(tokens) <= most


class _Search:
    """One utterance: its beam, and how far the words of each label sequence are scored.

    A prefix of labels is a node of the beam's tree. `_words` has for every node the one above it (or itself) where its
    last complete word ends, `_scored` the one whose bonus it has; `_bonus` the bonus of all that were scored.
    """

    def __init__(self, utterance: SearchInput, scorers: _Scorers, options: DelayedFusionSearch) -> None:
        self._candidates, self._ids, self._options, self._scorers = (
            utterance.candidates,
            utterance.ids,
            options,
            scorers,
        )
        self._beam = FrameSearch(utterance.num_labels, options)
        by_word = options.trigger == "word_end" or not scorers.reader.equal
        starts = scorers.reader.word_starts if utterance.ids is None else scorers.reader.word_starts[utterance.ids]
        self._starts = starts if by_word else None
        self._frame, self._calls = 0, 0
        self._parents, self._lengths, self._words, self._scored = [-1], [0], [ROOT], [ROOT]
        self._bonus: dict[int, float | None] = {ROOT: 0.0}  # None: the LM had no room
        self._reachable = [ROOT]
        self._asked: list[tuple[int, Labels, Tokens]] = []
        self._last: list[tuple[Labels, float, Tokens]] = []

    def advance(self) -> list[Tokens]:
        """Takes frames until there are words to score; returns their texts in tokens, none when the frames are over."""
        offsets, labels, log_probs, blank = self._candidates
        self._asked = []
        while self._frame < len(blank):
            part = slice(offsets[self._frame], offsets[self._frame + 1])
            self._add(self._beam.step(labels[part], log_probs[part], float(blank[self._frame])))
            self._frame += 1
            # Behind the last frame nothing is pruned any more, and whole texts are scored anyway.
            if self._frame < len(blank) and self._is_due() and self._ask():
                break
        return [tokens for _, _, tokens in self._asked]

    def take(self, scores: Sequence[float]) -> None:
        """What the LM says of the texts that `advance` returned."""
        if not self._asked:
            return
        for (node, labels, tokens), score in zip(self._asked, scores, strict=True):
            total = self._scorers.total(self._scorers.scores(labels, score))
            self._bonus[node] = total if self._scorers.fits(tokens) else None
        self._calls += 1
        self._spread()

    def texts(self) -> list[Tokens]:
        """The hypotheses of the beam in tokens, when the frames are over."""
        found = [(self._written(each.labels), each.scores[CTC]) for each in self._beam.hypotheses(self._options.beam)]
        self._last = [(labels, ctc, self._scorers.reader.tokens(labels)) for labels, ctc in found]
        return [tokens for _, _, tokens in self._last]

    def finish(self, scores: Sequence[float]) -> NBest:
        """The n-best list, from what the LM says of `texts`."""
        found = []
        for (labels, ctc, tokens), score in zip(self._last, scores, strict=True):
            parts = {CTC: ctc, **self._scorers.scores(labels, score)}
            total, fits = self._scorers.total(parts), self._scorers.fits(tokens)
            passes = self._calls + 1
            found.append(Hypothesis(labels, score=total, llm_passes=passes, complete=fits, scores=parts))
        return tuple(sorted(found, key=lambda each: -each.score)[: self._options.nbest])

    def _add(self, new: NDArray[np.int32]) -> None:
        """Takes up prefixes that the beam has newly made; they have the bonus of the one before."""
        parents, labels = self._beam.parents(new).tolist(), self._beam.last_labels(new).tolist()
        for node, parent, label in zip(new.tolist(), parents, labels, strict=True):
            self._parents.append(parent)
            self._lengths.append(self._lengths[parent] + 1)
            self._scored.append(self._scored[parent])
            if self._starts is None:
                self._words.append(node)
            else:
                self._words.append(parent if self._starts[label] else self._words[parent])
            self._reachable.append(node)

    def _is_due(self) -> bool:
        match self._options.trigger:
            case "never":
                return False
            case "word_end":
                return True
            case "shortest":
                nodes = self._beam.nodes.tolist()
                shortest = min((self._lengths[node] for node in nodes), default=0)
                return all(self._is_behind(node) for node in nodes if self._lengths[node] == shortest)
            case frames:
                return self._frame % frames == 0

    def _is_behind(self, node: int) -> bool:
        return self._words[node] != self._scored[node]

    def _ask(self) -> bool:
        """Whether hypotheses have complete words that the LM has not scored; takes note of them."""
        behind = {self._words[node] for node in self._beam.nodes.tolist() if self._is_behind(node)}
        nodes = np.array(sorted(behind - self._bonus.keys()), np.int32)
        if len(nodes):
            written = [self._written(labels) for labels in self._beam.labels(nodes)]
            tokens = [self._scorers.reader.tokens(labels) for labels in written]
            self._asked = list(zip(nodes.tolist(), written, tokens, strict=True))
        elif behind:
            self._spread()
        return len(nodes) > 0

    def _spread(self) -> None:
        """Gives hypotheses the bonus of their words, and those that may return to the beam at least their parents'."""
        beam, reachable, changed = set(self._beam.nodes.tolist()), set(), []
        for node in self._reachable:  # a parent comes before its children
            parent = self._parents[node]
            if node not in beam and parent not in reachable:
                continue
            reachable.add(node)
            words = self._words[node] if node in beam else self._scored[parent]
            # Numbers grow along a branch, so that of a longer prefix is the higher one.
            if words > self._scored[node] and self._bonus.get(words) is not None:
                self._scored[node] = words
                changed.append(node)
        self._reachable = sorted(reachable)
        bonus = np.array([self._bonus[self._scored[node]] for node in changed], np.float64)
        self._beam.set_bonus(np.array(changed, np.int32), bonus)

    def _written(self, labels: Labels) -> Labels:
        return labels if self._ids is None else tuple(self._ids[list(labels)].tolist())
