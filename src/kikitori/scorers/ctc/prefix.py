"""The CTC head as a scorer of label sequences: how probable it is that an utterance begins with these.

    log p(labels ... | x) = log of the sum over everything that begins with them;  of the end: what is nothing but them

What it gives to the labels behind a hypothesis and to its end are log-probabilities that sum to one (papers.md B3.2).
A hypothesis that leaves speech unexplained cannot end cheaply, and one that goes round in circles runs out of speech.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.scorers.ctc.outputs import Outputs, new_store
from kikitori.scorers.ctc.prefix_kernel import Prefixes, extend, propose, score
from kikitori.scorers.ctc.pruning import Candidates, candidates, candidates_of_logits
from kikitori.scorers.ctc.scaled import begin

MIN_LOG_PROB = -9.0
"""Labels that a frame gives less are not proposed."""


@dataclass(frozen=True, eq=False)
class CTCOutputs:
    """What the CTC head says of some utterances, for a search over so many labels; made by `ctc_outputs`.

    Attributes:
        likely: The likeliest labels of each frame, all frames one after the other; None without proposals.
        firsts: The first frame of each utterance among these, (utterances,).
    """

    outputs: Outputs
    num_labels: int
    likely: Candidates | None
    firsts: NDArray[np.int64]


def ctc_outputs(
    log_probs: Sequence[Tensor],
    num_labels: int,
    *,
    ids: Sequence[NDArray[np.int32]] | None = None,
    likely: int = 0,
) -> CTCOutputs:
    """Outputs from log-probabilities.

    Args:
        log_probs: Of each utterance, (frames, outputs), blank last, all in the same precision.
        num_labels: Labels of the search.
        ids: Of each utterance the labels that its outputs stand for, (outputs - 1,): others are impossible. None where
            these are all labels.
        likely: So many labels of each frame may be proposed.

    Raises:
        ModelError: The log-probabilities are not numbers.
    """
    rows = [each.detach().cpu().contiguous().numpy() for each in log_probs]
    norms = np.zeros((len(rows), max((len(row) for row in rows), default=0)))
    sizes = np.array([row.size for row in rows], np.int64)
    scores = rows[0].reshape(-1) if len(rows) == 1 else np.concatenate([row.reshape(-1) for row in rows])
    columns = np.full((len(rows), 0 if ids is None else num_labels), -1, np.int32)
    for row, labels in zip(columns, ids or (), strict=False):
        row[labels] = np.arange(len(labels))
    found = [candidates(each, most=likely, min_log_prob=MIN_LOG_PROB) for each in log_probs] if likely else None
    if found is not None and ids is not None:
        found = [each._replace(labels=labels[each.labels]) for each, labels in zip(found, ids, strict=True)]
    lengths, widths = [len(row) for row in rows], [row.shape[1] for row in rows]
    blank = [row[:, -1] for row in rows]
    outputs = _outputs(scores, norms, sizes.cumsum() - sizes, widths, lengths, columns, blank)
    return CTCOutputs(outputs, num_labels, *_joined(found, lengths))


def ctc_outputs_of_logits(logits: Tensor, lengths: Tensor, *, likely: int = 1) -> CTCOutputs:
    """As `ctc_outputs` of `logits.log_softmax(-1)`, from logits (batch, frames, labels + 1) in any precision.

    They are normalised in the same pass over the memory that finds the likeliest labels, and nothing is copied.

    Raises:
        ModelError: The logits are not finite.
    """
    values = logits.detach().float().cpu().contiguous()
    batch, frames, outputs = values.shape
    sizes = lengths.tolist()
    found = [
        candidates_of_logits(row[:size], most=likely, min_log_prob=MIN_LOG_PROB)
        for row, size in zip(values, sizes, strict=True)
    ]
    norms = np.zeros((batch, frames))
    for norm, row, size, each in zip(norms, values, sizes, found, strict=True):
        norm[:size] = row[:size, -1].double().numpy() - each.blank
    if not np.isfinite(norms).all():
        raise _not_finite()
    starts = np.arange(batch, dtype=np.int64) * (frames * outputs)
    every_label, blank = np.empty((batch, 0), np.int32), [each.blank for each in found]
    scores = values.numpy().reshape(-1)
    made = _outputs(scores, norms, starts, [outputs] * batch, sizes, every_label, blank)
    return CTCOutputs(made, outputs - 1, *_joined(found, sizes))


class CTCPrefixScorer:
    """CTC prefix probabilities as a `CandidateScorer`.

    Args:
        window: Frames that a hypothesis reaches with a probability that is below its best one's by more than this
            (natural log) are left out when next labels are scored; None leaves out none.
    """

    def __init__(self, outputs: CTCOutputs, *, window: float | None = None, name: str = "ctc") -> None:
        self.name = name
        self._outputs, self._window = outputs, 0.0 if window is None else exp(-window)

    def start(self, batch: int) -> Prefixes:
        """The empty hypothesis of each utterance of the outputs.

        Raises:
            ModelError: There is another number of them.
        """
        outputs = self._outputs.outputs
        if batch != len(outputs.lengths):
            raise ModelError(f"a search over {batch} utterances, and CTC outputs of {len(outputs.lengths)}")
        prefixes = Prefixes(np.arange(batch), np.full(batch, -1), np.zeros(batch), *_frames(batch, outputs))
        for row, length in enumerate(outputs.lengths.tolist()):
            begin(outputs.blanks[row], length, prefixes.b[row], prefixes.n[row], prefixes.exponents[row])
        return prefixes

    def log_probs(self, state: Prefixes, rows: Tensor) -> Tensor:
        """What every label and the end add to some hypotheses, (rows, labels + 1) float64."""
        return self.log_probs_of(state, rows, torch.arange(self._outputs.num_labels).expand(len(rows), -1))

    def log_probs_of(self, state: Prefixes, rows: Tensor, labels: Tensor) -> Tensor:
        """What some labels (rows, n) of each hypothesis and its end add, (rows, n + 1) float64."""
        found = np.empty((labels.shape[0], labels.shape[1] + 1))
        score(self._outputs.outputs, self._window, state, _integers(rows), _integers(labels), found)
        return torch.from_numpy(found)

    def likeliest(self, state: Prefixes, rows: Tensor, most: int) -> Tensor:
        """The labels that CTC finds likeliest behind some hypotheses, (rows, most), -1 where there are no more."""
        found, ours = np.full((len(rows), most), -1), self._outputs
        if most and ours.likely is not None:
            lengths, num_labels = ours.outputs.lengths, ours.num_labels
            propose(ours.likely, ours.firsts, lengths, self._window, state, _integers(rows), num_labels, found)
        return torch.from_numpy(found)

    def extend(self, state: Prefixes, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[Prefixes, Tensor]:
        """Hypotheses with more labels, and what each of these adds, (rows, n) float64."""
        count, outputs = len(rows), self._outputs.outputs
        hypotheses = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
        new, given = Prefixes(*hypotheses, *_frames(count, outputs)), np.zeros(tuple(labels.shape))
        extend(outputs, state, _integers(rows), _integers(labels), _integers(lengths), new, given)
        return new, torch.from_numpy(given)


def _outputs(
    scores: NDArray[np.float32],
    norms: NDArray[np.float64],
    starts: NDArray[np.int64],
    widths: Sequence[int],
    lengths: Sequence[int],
    columns: NDArray[np.int32],
    blank: Sequence[NDArray[Any]],
) -> Outputs:
    blanks = np.zeros(norms.shape)
    for row, values in zip(blanks, blank, strict=True):
        row[: len(values)] = np.exp(values, dtype=np.float64)
    if np.isnan(blanks).any():
        raise _not_finite()
    store = new_store(len(lengths), max(widths, default=1), norms.shape[1])
    sizes = np.array(widths, np.int64), np.array(lengths, np.int64)
    return Outputs(scores, norms, starts, *sizes, columns, blanks, store)


def _frames(rows: int, outputs: Outputs) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """Room for what some hypotheses have in each frame."""
    shape = rows, outputs.blanks.shape[1] + 1
    return np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int32)


def _joined(found: Sequence[Candidates] | None, lengths: Sequence[int]) -> tuple[Candidates | None, NDArray[np.int64]]:
    """The candidates of all utterances as one, and the first frame of each."""
    firsts = np.cumsum([0, *lengths])[:-1].astype(np.int64)
    if found is None:
        return None, firsts
    counts = [np.diff(each.offsets) for each in found]
    offsets = np.concatenate([[0], *counts]).cumsum().astype(np.int64)
    rest = (np.concatenate([each[part] for each in found]) for part in (1, 2, 3))
    return Candidates(offsets, *rest), firsts


def _integers(tensor: Tensor) -> NDArray[np.int64]:
    return tensor.detach().cpu().contiguous().numpy()


def _not_finite() -> ModelError:
    return ModelError(
        "the CTC head's outputs are not finite",
        remedy="decode with dtype float32; if it says so again, the weights are damaged",
    )
