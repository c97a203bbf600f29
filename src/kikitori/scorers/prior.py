"""Label priors: how probable each label is by itself. As scorers, estimated, and kept as a small safetensors file.

Estimates of papers.md B3.5: the mean of what a CTC head gives, blank taken away, and counts of transcripts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from kikitori.errors import DataError, ModelError
from kikitori.io.files import write_bytes
from kikitori.model.safety.weights import check_safetensors
from kikitori.scorers.spelling import Spelling
from kikitori.types import Hypothesis

TENSOR = "log_probs"
VOCABULARY = "vocabulary"
"""Key of the file's metadata: a fingerprint of the labels that it counts."""
UNIFORM = 0.1
"""Share of the uniform distribution that counts are mixed with."""
LOWEST = -80.0
"""No label is less probable: what is subtracted must be finite."""


def softmax_prior(outputs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of CTC outputs over all frames, without blank and renormalised: log-probabilities (labels,), float32.

    Outputs are batches of log-probabilities (batch, frames, labels + 1), blank last, and valid frames (batch,).

    Raises:
        DataError: There is no frame, or one that is no distribution.
    """
    total: Tensor | None = None
    for log_probs, lengths in outputs:
        valid = torch.arange(log_probs.shape[1], device=lengths.device) < lengths[:, None]
        probs = log_probs[valid.to(log_probs.device)].double().exp().sum(dim=0).cpu()
        total = probs if total is None else total + probs
    if total is None or not bool(total.isfinite().all()) or not bool(total[:-1].any()):
        raise DataError("no speech to estimate a prior from", remedy="name a manifest with speech")
    return _normalised(total[:-1])


def count_prior(sentences: Iterable[Sequence[int]], num_labels: int, *, uniform: float = UNIFORM) -> Tensor:
    """Relative counts of labels, mixed with the uniform distribution; log-probabilities (labels,), float32.

    Its weight is above 0 for labels that never occur to be possible.

    Raises:
        DataError: There is no label.
    """
    counts = torch.zeros(num_labels, dtype=torch.float64)
    for labels in sentences:
        counts.index_add_(0, torch.tensor(labels, dtype=torch.int64), torch.ones(len(labels), dtype=torch.float64))
    if not bool(counts.any()):
        raise DataError("no transcript to count labels of", remedy="name a manifest with texts")
    return _normalised((1.0 - uniform) * counts / counts.sum() + uniform / num_labels)


def save_prior(file: Path, log_probs: Tensor, *, vocabulary: str | None = None) -> None:
    """Writes a prior (labels,) with the `vocabulary_fingerprint` of the units that it counts.

    Raises:
        DataError: The file cannot be written.
    """
    named = {} if vocabulary is None else {VOCABULARY: vocabulary}
    write_bytes(file, save({TENSOR: log_probs.float().contiguous()}, metadata={"format": "pt", **named}))


def load_prior(file: Path, num_labels: int, *, vocabulary: str | None = None) -> Tensor:
    """Reads a prior over so many labels; a file with another fingerprint is refused, one without is not.

    Raises:
        ModelError: There is no such file, it is damaged, or it is over other labels.
    """
    remedy = "make one with kikitori prior"
    if not file.is_file():
        raise ModelError("no such file with a label prior", where=file, remedy=remedy)
    check_safetensors(file)
    with safe_open(file, "pt") as tensors:
        names = list(tensors.keys())
        shape = tuple(tensors.get_slice(TENSOR).get_shape()) if names == [TENSOR] else None
        if shape is None or len(shape) != 1:
            raise ModelError("it holds something else than a label prior", where=file, remedy=remedy)
        if shape != (num_labels,):
            raise ModelError(f"a prior of {shape[0]} labels, the model has {num_labels}", where=file, remedy=remedy)
        theirs = (tensors.metadata() or {}).get(VOCABULARY)
        if vocabulary is not None and theirs not in (None, vocabulary):
            raise ModelError("a prior of other labels, though as many", where=file, remedy=remedy)
        log_probs: Tensor = tensors.get_tensor(TENSOR)
    if not log_probs.is_floating_point() or not bool(log_probs.isfinite().all()):
        raise ModelError("the prior is not finite", where=file, remedy=remedy)
    return log_probs.float()


class PriorScorer:
    """How probable each label is by itself, (labels,), whatever stands before it (papers.md B3.5); the end counts 0."""

    def __init__(self, log_probs: Tensor, name: str = "prior") -> None:
        self.name = name
        self._log_probs = torch.cat([log_probs, log_probs.new_zeros(1)])

    def start(self, batch: int) -> int:
        """How many hypotheses there are is all that it remembers."""
        return batch

    def log_probs(self, state: int, rows: Tensor) -> Tensor:  # noqa: ARG002
        """What it gives to each label and to the end, (rows, labels + 1)."""
        return self._log_probs.expand(len(rows), -1)

    def extend(self, state: int, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[int, Tensor]:  # noqa: ARG002
        """A new state, and what it gives to the labels appended, (rows, n)."""
        device = self._log_probs.device
        labels, lengths = labels.to(device), lengths.to(device)
        beyond = torch.arange(labels.shape[1], device=device) >= lengths[:, None]
        return len(rows), self._log_probs[labels].masked_fill(beyond, 0.0)


def length_scorer(num_labels: int) -> PriorScorer:
    """1 for each label: with a positive scale a reward of length."""
    return PriorScorer(torch.ones(num_labels), name="length")


@dataclass(frozen=True, eq=False)
class PriorSequenceScorer:
    """A label prior (labels,) as a scorer of whole hypotheses, which `spelt` gives in its labels; the end counts 0."""

    name: str
    log_probs: Tensor
    spelt: Spelling

    def scores(self, nbests: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """The natural log-probability of each hypothesis of some utterances."""
        return [[float(self.log_probs[list(each)].sum()) for each in self.spelt(nbest)] for nbest in nbests]


def _normalised(weights: Tensor) -> Tensor:
    return (weights / weights.sum()).log().clamp(min=LOWEST).float()
