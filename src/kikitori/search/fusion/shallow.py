"""Shallow fusion, label-wise and in one pass: CTC beam search in which other scorers score every label at once.

    score = log p_ctc + Σ scale_i · score_i(labels, end), of an LM, an n-gram, a prior (scale < 0), the number of labels

Scores of the others enter before pruning, for every candidate behind every hypothesis (papers.md B3.5, B3.6); the end
of the sentence is scored when the frames are over. Each label sequence is scored once, when it first survives a frame:
utterances run ahead to their next frame with new sequences, and those of the whole batch are then scored in one call.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.scorers.base import SumState, WeightedSum
from kikitori.scorers.options import CTC
from kikitori.search.ctc.beam import NO_GAINS, FrameSearch, SearchInput, prepare_logits
from kikitori.search.options import FrameBeam
from kikitori.types import Hypothesis, NBest

ROOT = 0

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


def shallow_fusion_of_logits(logits: Tensor, lengths: Tensor, scorer: WeightedSum, options: FrameBeam) -> list[NBest]:
    """The n-best list of each utterance, best first, equal scores by their labels.

    It holds at least one hypothesis: where none is possible, the empty one with a score of -inf. Logits of the CTC head
    are (batch, frames, labels + 1), blank last; the scorer gives what joins their log-probabilities.
    """
    rows = zip(logits.detach().float().cpu(), lengths.tolist(), strict=True)
    return fuse([prepare_logits(row[:length], options) for row, length in rows], scorer, options)


@torch.inference_mode()
def fuse(utterances: Sequence[SearchInput], scorer: WeightedSum, options: FrameBeam) -> list[NBest]:
    """Shallow fusion of utterances that are prepared, see `shallow_fusion_of_logits`."""
    searches = [_Search(utterance, options) for utterance in utterances]
    if not searches:
        return []
    state, fresh = scorer.start(len(searches)), torch.arange(len(searches))
    while True:
        gains, start = scorer.log_probs(state, fresh).numpy(), 0
        for search in searches:
            start, gains = search.take(start, gains)
        advanced = [search.advance() for search in searches]
        if not any(advanced):
            return [search.finish(scorer, state) for search in searches]
        moves = [search.moves() for search in searches]
        rows, labels, lengths = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*moves, strict=True))
        state, _ = scorer.extend(state, rows, labels[:, None], lengths)
        fresh = lengths.nonzero()[:, 0]


class _Search:
    """One utterance: its beam, and what is known of the label sequences that are in it or may return to it."""

    def __init__(self, utterance: SearchInput, options: FrameBeam) -> None:
        self._candidates, self._ids, self._options = utterance.candidates, utterance.ids, options
        self._beam = FrameSearch(utterance.num_labels, options)
        self._frame, self._calls = 0, -1  # the empty sequence costs none
        self._new = np.array([ROOT], np.int32)
        self._kept: list[int] = []
        self._rows: dict[int, int] = {}
        self._gains: dict[int, Floats] = {}

    def take(self, start: int, gains: Floats) -> tuple[int, Floats]:
        """Takes what was asked for: gains (new, labels + 1), those of this utterance first, from a row of the state on.

        Returns where the next utterance's begin, and the gains that are left for it.
        """
        nodes = [*self._kept, *self._new.tolist()]
        self._rows = dict(zip(nodes, range(start, start + len(nodes)), strict=True))
        self._gains = {node: self._gains[node] for node in self._kept}
        # Copied, lest one sequence that stays keep the gains of all in memory.
        self._gains |= ((node, row.copy()) for node, row in zip(self._new.tolist(), gains, strict=False))
        self._calls += len(self._new) > 0
        return start + len(nodes), gains[len(self._new) :]

    def advance(self) -> bool:
        """Takes frames until one leaves new label sequences in the beam; False if there is none any more."""
        offsets, labels, log_probs, blank = self._candidates
        self._new = self._new[:0]
        while self._frame < len(blank) and not len(self._new):
            part = slice(offsets[self._frame], offsets[self._frame + 1])
            gains = self._label_gains(labels[part])
            self._new = self._beam.step(labels[part], log_probs[part], float(blank[self._frame]), gains)
            self._frame += 1
        return len(self._new) > 0

    def _label_gains(self, labels: Ints) -> Floats:
        """What each of some labels adds behind each hypothesis of the beam, (hypotheses, labels)."""
        if not len(labels):
            return NO_GAINS
        columns = labels if self._ids is None else self._ids[labels]
        gains = [self._gains[node][columns] for node in self._beam.nodes.tolist()]
        return np.stack(gains) if gains else NO_GAINS

    def moves(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The hypotheses of the next state: rows of the old one, labels to append, and whether there is one."""
        self._kept = self._reachable()
        parents, labels = self._beam.parents(self._new).tolist(), self._beam.last_labels(self._new)
        rows = [self._rows[node] for node in (*self._kept, *parents)]
        appended = np.zeros(len(rows), np.int64)
        appended[len(self._kept) :] = labels if self._ids is None else self._ids[labels]
        return np.array(rows, np.int64), appended, (np.arange(len(rows)) >= len(self._kept)).astype(np.int64)

    def _reachable(self) -> list[int]:
        """Known sequences that are in the beam or may return to it, since one that they begin with is.

        The empty one is always kept: it stands for an utterance without hypotheses.
        """
        reached = set(self._beam.nodes.tolist())
        nodes = np.array([*self._rows], np.int32)  # ascending, so that a parent comes before its children
        for node, parent in zip(nodes.tolist(), self._beam.parents(nodes).tolist(), strict=True):
            if parent in reached:
                reached.add(node)
        return [node for node in nodes.tolist() if node in reached or node == ROOT]

    def finish(self, scorer: WeightedSum, state: SumState) -> NBest:
        """The n-best list, with the end of the sentence."""
        nodes = self._beam.nodes
        rows = dict(zip(self._beam.labels(nodes), [self._rows[node] for node in nodes.tolist()], strict=True))
        found = self._beam.hypotheses(self._options.beam)
        scores = scorer.scores(state, torch.tensor([rows.get(each.labels, self._rows[ROOT]) for each in found]))
        totals = scorer.total(scores).tolist()
        hypotheses = [
            Hypothesis(
                self._written(each.labels),
                score=each.scores[CTC] + total,
                llm_passes=self._calls,
                scores={**each.scores, **dict(zip(scorer.names, given, strict=True))},
            )
            for each, given, total in zip(found, scores.tolist(), totals, strict=True)
        ]
        return tuple(sorted(hypotheses, key=lambda each: (-each.score, each.labels))[: self._options.nbest])

    def _written(self, labels: tuple[int, ...]) -> tuple[int, ...]:
        return labels if self._ids is None else tuple(self._ids[list(labels)].tolist())
