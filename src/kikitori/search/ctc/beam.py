"""CTC beam search: the label sequences that the CTC head gives most, time-synchronous, with an n-best list.

log-probabilities → (fewer labels, fewer frames) → candidates per frame → prefix search → hypotheses. The search itself
is `prefix_beam`, compiled; here are its batch, and `FrameSearch`, which leaves the loop over frames to a search that
has other scorers.

Without pruning the score of a hypothesis is that of all its paths (`sum`) or of its best one (`max`); pruning only
takes paths away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.scorers.ctc.pruning import Candidates, candidates, candidates_of_logits
from kikitori.scorers.options import CTC
from kikitori.search.ctc import prefix_beam, prefix_tree
from kikitori.search.ctc.prefix_tree import PrefixBeam
from kikitori.search.options import CTCBeamSearch, FrameBeam
from kikitori.types import Hypothesis, NBest

NO_GAINS = np.zeros((0, 0))


@dataclass(frozen=True)
class SearchInput:
    """What is left of an utterance for the search.

    Attributes:
        ids: For each of these labels its id in the vocabulary; None where it is the same.
    """

    candidates: Candidates
    num_labels: int
    ids: NDArray[np.int32] | None = None


def ctc_beam(log_probs: Tensor, lengths: Tensor, options: CTCBeamSearch) -> list[NBest]:
    """The n-best list of each utterance, best first, equal scores by their labels.

    It holds at least one hypothesis: where no label sequence is possible, the empty one with a score of -inf.
    Log-probabilities are (batch, frames, labels + 1), blank last; `lengths` (batch,) are valid frames.
    """
    rows = zip(log_probs.detach().cpu(), lengths.tolist(), strict=True)
    return [search(prepare(row[:length], options), options) for row, length in rows]


def ctc_beam_of_logits(logits: Tensor, lengths: Tensor, options: CTCBeamSearch) -> list[NBest]:
    """As `ctc_beam` of `logits.log_softmax(-1)`."""
    rows = zip(logits.detach().float().cpu(), lengths.tolist(), strict=True)
    return [search(prepare_logits(row[:length], options), options) for row, length in rows]


def prepare(log_probs: Tensor, options: FrameBeam) -> SearchInput:
    """An utterance's log-probabilities (frames, labels + 1) as the options thin them out."""
    ids = None
    pruning = options.pruning
    if pruning.vocabulary is not None:
        log_probs, ids = restrict_vocabulary(log_probs, pruning.vocabulary)
    if pruning.collapse is not None:
        log_probs = collapse_frames(log_probs, pruning.collapse)
    if log_probs.dtype not in (torch.float32, torch.float64):
        log_probs = log_probs.float()
    found = candidates(log_probs, most=pruning.frame_labels, min_log_prob=pruning.min_log_prob)
    return SearchInput(found, log_probs.shape[1] - 1, ids)


def prepare_logits(logits: Tensor, options: FrameBeam) -> SearchInput:
    """As `prepare` of `logits.log_softmax(-1)`; normalised on the way, where nothing needs all log-probabilities."""
    pruning = options.pruning
    if pruning.vocabulary is not None or pruning.collapse is not None:
        return prepare(logits.log_softmax(dim=-1), options)
    found = candidates_of_logits(logits, most=pruning.frame_labels, min_log_prob=pruning.min_log_prob)
    return SearchInput(found, logits.shape[1] - 1)


def search(utterance: SearchInput, options: FrameBeam) -> NBest:
    """The n-best list of one utterance, see `ctc_beam`."""
    beam = prefix_tree.new_beam(utterance.num_labels)
    return _nbest(prefix_beam.search(beam, *utterance.candidates, *_limits(options)), options.nbest, utterance.ids)


class FrameSearch:
    """The same search with the loop over frames left to the caller, who brings other scorers in and thins out frames.

    Scores of new labels enter a frame before pruning (`label_gains` of `step`), or after it, for the prefixes that
    survived (`set_bonus`). A prefix is named by its node, a number that it keeps; prefixes that leave the beam may come
    back to it, under the same number and with the same bonus.
    """

    def __init__(self, num_labels: int, options: FrameBeam) -> None:
        self._beam = prefix_tree.new_beam(num_labels)
        self._options = options

    def step(
        self,
        labels: NDArray[np.int32],
        log_probs: NDArray[np.float64],
        blank: float,
        label_gains: NDArray[np.float64] = NO_GAINS,
    ) -> NDArray[np.int32]:
        """Takes one frame with its candidates; returns the nodes that it has newly made, all of them in the beam.

        `label_gains` (hypotheses, candidates) is what each candidate adds behind each prefix of the beam.
        """
        self._beam = prefix_tree.reserve(self._beam, len(labels), self._options.beam)
        before = self._num_nodes
        prefix_beam.advance(self._beam, labels, log_probs, blank, label_gains, *_limits(self._options))
        return np.arange(before, self._num_nodes, dtype=np.int32)

    @property
    def _num_nodes(self) -> int:
        return int(self._beam.counts["nodes"][0])

    @property
    def nodes(self) -> NDArray[np.int32]:
        """The prefixes of the beam, (hypotheses,), in the order of `label_gains`."""
        return _nodes(self._beam)

    def parents(self, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
        """The prefix one label shorter of each; -1 for the empty one."""
        return self._beam.tree["parent"][nodes]

    def last_labels(self, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
        """The last label of each; the blank's id for the empty prefix."""
        return self._beam.tree["label"][nodes]

    def bonus(self, nodes: NDArray[np.int32]) -> NDArray[np.float64]:
        """What other scorers have added to each."""
        return self._beam.tree["bonus"][nodes]

    def set_bonus(self, nodes: NDArray[np.int32], bonus: NDArray[np.float64]) -> None:
        """Sets what other scorers have added; prefixes made of them later begin with it."""
        self._beam.tree["bonus"][nodes] = bonus

    def labels(self, nodes: NDArray[np.int32]) -> list[tuple[int, ...]]:
        """The whole label sequence of each."""
        return _labels(self._beam, nodes, None)

    def hypotheses(self, nbest: int | None = None) -> NBest:
        """The beam as it stands, best first; scores are those of CTC with the bonus."""
        return _nbest(self._beam, self._options.nbest if nbest is None else nbest, None)


def restrict_vocabulary(log_probs: Tensor, keep: int) -> tuple[Tensor, NDArray[np.int32]]:
    """The most probable labels of an utterance (frames, labels + 1) and blank alone, renormalised (papers.md B3.4).

    Labels are ranked by their highest log-probability over the frames. Those that are kept are returned too, ascending.
    """
    num_labels = log_probs.shape[1] - 1
    if keep >= num_labels or not len(log_probs):
        return log_probs, np.arange(num_labels, dtype=np.int32)
    labels = log_probs[:, :-1]
    ids = labels.amax(dim=0).argsort(descending=True, stable=True)[:keep].sort().values
    return _normalised(torch.cat([labels[:, ids], log_probs[:, -1:]], dim=1)), ids.numpy().astype(np.int32)


def collapse_frames(log_probs: Tensor, threshold: float) -> Tensor:
    """An utterance (frames, outputs) whose sure repetitions are one frame each, with their mean (papers.md B3.4).

    A frame joins the one before if both have the same best output, with a probability of at least `threshold` in both.
    """
    if len(log_probs) < 2:
        return log_probs
    best, output = log_probs.exp().max(dim=1)
    sure = best >= threshold
    joins = (output[1:] == output[:-1]) & sure[1:] & sure[:-1]
    starts = torch.cat([torch.tensor([0]), (~joins).nonzero()[:, 0] + 1, torch.tensor([len(log_probs)])]).tolist()
    groups = [log_probs[start:stop] for start, stop in pairwise(starts)]
    return torch.stack([group.logsumexp(dim=0) - log(len(group)) if len(group) > 1 else group[0] for group in groups])


def _normalised(log_probs: Tensor) -> Tensor:
    total = log_probs.logsumexp(dim=-1, keepdim=True)
    return log_probs - total.masked_fill(total == -inf, 0.0)


def _limits(options: FrameBeam) -> tuple[int, float, bool]:
    pruning = options.pruning
    score_beam = inf if pruning.score_beam is None else float(pruning.score_beam)
    return options.beam, score_beam, pruning.recombine == "sum"


def _nodes(beam: PrefixBeam) -> NDArray[np.int32]:
    return beam.beam["node"][: int(beam.counts["entries"][0])].copy()


def _nbest(beam: PrefixBeam, nbest: int, ids: NDArray[np.int32] | None) -> NBest:
    nodes, base = _nodes(beam), float(beam.counts["base"][0])
    size = len(nodes)
    if size == 0 or base == -inf:
        return (Hypothesis((), score=-inf, scores={CTC: -inf}),)
    ctc = beam.beam["total"][:size] + base
    ranks = ctc + beam.tree["bonus"][nodes]
    if nbest < size:
        # Before any labels are written out; those that are equal to the last one stay for now.
        chosen = np.flatnonzero(ranks >= np.partition(ranks, size - nbest)[size - nbest])
        nodes, ctc, ranks = nodes[chosen], ctc[chosen], ranks[chosen]
    rows = zip((-ranks).tolist(), _labels(beam, nodes, ids), ctc.tolist(), strict=True)
    return tuple(Hypothesis(ls, score=-cost, scores={CTC: each}) for cost, ls, each in sorted(rows)[:nbest])


def _labels(beam: PrefixBeam, nodes: NDArray[np.int32], ids: NDArray[np.int32] | None) -> list[tuple[int, ...]]:
    offsets, labels = prefix_tree.trace_back(beam.tree, nodes)
    written: Sequence[int] = (labels if ids is None else ids[labels]).tolist()
    bounds = offsets.tolist()
    return [tuple(written[start:stop]) for start, stop in pairwise(bounds)]
