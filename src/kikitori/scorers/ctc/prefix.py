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
from kikitori.scorers.ctc import prefix_kernel as prefix_scores
from kikitori.scorers.ctc.pruning import Candidates, candidates, candidates_of_logits

MIN_LOG_PROB = -9.0
"""Labels that a frame gives less are not proposed."""


@dataclass(frozen=True, eq=False)
class CTCOutputs:
    """What the CTC head says of some utterances, as `prefix_scores` reads it; made by `ctc_outputs`.

    Attributes:
        scores: Of all outputs, utterance after utterance and frame after frame, blank last in each.
        norms: Subtracted from the scores of a frame to make log-probabilities, (utterances, frames).
        starts: Where each utterance begins, (utterances,).
        widths: Outputs of each, (utterances,).
        lengths: Frames of each, (utterances,).
        columns: Output of each label, -1 for none, (utterances, labels); (utterances, 0) where it is the label itself.
        num_labels: Labels of the search.
        blanks: Probability of blank, (utterances, frames).
        likely: The likeliest labels of each frame, all frames one after the other; None without proposals.
        firsts: The first frame of each utterance among these, (utterances,).
    """

    scores: NDArray[np.float32]
    norms: NDArray[np.float64]
    starts: NDArray[np.int64]
    widths: NDArray[np.int64]
    lengths: NDArray[np.int64]
    columns: NDArray[np.int32]
    num_labels: int
    blanks: NDArray[np.float64]
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
    return CTCOutputs(
        *(scores, norms, sizes.cumsum() - sizes, np.array([row.shape[1] for row in rows], np.int64)),
        *(np.array([len(row) for row in rows], np.int64), columns, num_labels),
        _probabilities([row[:, -1] for row in rows], norms.shape),
        *_joined(found, [len(row) for row in rows]),
    )


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
    return CTCOutputs(
        *(values.numpy().reshape(-1), norms, starts, np.full(batch, outputs, np.int64)),
        *(np.array(sizes, np.int64), np.empty((batch, 0), np.int32), outputs - 1),
        _probabilities([each.blank for each in found], norms.shape),
        *_joined(found, sizes),
    )


Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Arrays = tuple[NDArray[np.float32], Floats, Integers, Integers, Integers, NDArray[np.int32], prefix_scores.Store]
Parts = tuple[Integers, Integers, Floats, Floats, Floats, NDArray[np.int32]]


@dataclass(frozen=True, eq=False)
class PrefixState:
    """Hypotheses of a `CTCPrefixScorer`.

    Attributes:
        utterances: Of each, (rows,).
        last: Last label, -1 where there is none, (rows,).
        prefix: Log-probability of everything that begins with it, (rows,).
        b: See `prefix_scores`, (rows, frames + 1).
        n: As above.
        exponents: As above.
    """

    utterances: NDArray[np.int64]
    last: NDArray[np.int64]
    prefix: NDArray[np.float64]
    b: NDArray[np.float64]
    n: NDArray[np.float64]
    exponents: NDArray[np.int32]

    @property
    def parts(self) -> Parts:
        """The arrays, in the order in which `prefix_scores` takes them."""
        return self.utterances, self.last, self.prefix, self.b, self.n, self.exponents


class CTCPrefixScorer:
    """CTC prefix probabilities as a `CandidateScorer`.

    Args:
        outputs: What the CTC head says.
        window: Frames that a hypothesis reaches with a probability that is below its best one's by more than this
            (natural log) are left out when next labels are scored; None leaves out none.
        name: Its name among the shares.
    """

    def __init__(self, outputs: CTCOutputs, *, window: float | None = None, name: str = "ctc") -> None:
        self.name = name
        self._outputs, self._window = outputs, 0.0 if window is None else exp(-window)
        store = prefix_scores.new_store(
            len(outputs.lengths), int(outputs.widths.max(initial=1)), outputs.norms.shape[1]
        )
        places = outputs.starts, outputs.widths, outputs.lengths, outputs.columns
        self._arrays: Arrays = (outputs.scores, outputs.norms, *places, store)

    def start(self, batch: int) -> PrefixState:
        """As of `Scorer`; the utterances are those of the outputs.

        Raises:
            ModelError: There is another number of them.
        """
        outputs = self._outputs
        if batch != len(outputs.lengths):
            raise ModelError(f"a search over {batch} utterances, and CTC outputs of {len(outputs.lengths)}")
        frames = outputs.blanks.shape[1] + 1
        b, n, exponents = np.zeros((batch, frames)), np.zeros((batch, frames)), np.zeros((batch, frames), np.int32)
        for row, length in enumerate(outputs.lengths.tolist()):
            prefix_scores.begin(outputs.blanks[row], length, b[row], n[row], exponents[row])
        return PrefixState(np.arange(batch), np.full(batch, -1), np.zeros(batch), b, n, exponents)

    def log_probs(self, state: PrefixState, rows: Tensor) -> Tensor:
        """As of `Scorer`, in float64."""
        return self.log_probs_of(state, rows, torch.arange(self._outputs.num_labels).expand(len(rows), -1))

    def log_probs_of(self, state: PrefixState, rows: Tensor, labels: Tensor) -> Tensor:
        """As of `CandidateScorer`, in float64."""
        found = np.empty((labels.shape[0], labels.shape[1] + 1))
        asked = _integers(rows), _integers(labels)
        prefix_scores.score(*self._arrays, self._window, *state.parts, *asked, found)
        return torch.from_numpy(found)

    def likeliest(self, state: PrefixState, rows: Tensor, most: int) -> Tensor:
        """As of `CandidateScorer`."""
        outputs = self._outputs
        found = np.full((len(rows), most), -1)
        if most and outputs.likely is not None:
            offsets, labels, log_probs, _ = outputs.likely
            candidates = offsets, labels, log_probs, outputs.firsts, outputs.lengths, self._window
            hypotheses = state.utterances, state.last, state.b, state.n, state.exponents, _integers(rows)
            prefix_scores.propose(*candidates, *hypotheses, outputs.num_labels, found)
        return torch.from_numpy(found)

    def extend(self, state: PrefixState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[PrefixState, Tensor]:
        """As of `Scorer`, in float64."""
        count, frames = len(rows), state.b.shape[1]
        new = PrefixState(
            *(np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)),
            *(np.empty((count, frames)), np.empty((count, frames)), np.empty((count, frames), np.int32)),
        )
        given = np.zeros(tuple(labels.shape))
        appended = _integers(rows), _integers(labels), _integers(lengths)
        prefix_scores.extend(
            *(*self._arrays, self._outputs.blanks, *state.parts, *appended),
            *(new.utterances, new.last, new.prefix, new.b, new.n, new.exponents, given),
        )
        return new, torch.from_numpy(given)


def _probabilities(blank: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.float64]:
    found = np.zeros(shape)
    for row, values in zip(found, blank, strict=True):
        row[: len(values)] = np.exp(values, dtype=np.float64)
    if np.isnan(found).any():
        raise _not_finite()
    return found


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
