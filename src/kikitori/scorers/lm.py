"""Causal language models over the label units of a search, label by label: keys and values in a tree of labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.errors import ModelError
from kikitori.model.decoder.llm import check_llm, embed, max_positions
from kikitori.model.decoder.tree import LabelTree
from kikitori.scorers.options import LM


@dataclass(frozen=True, eq=False)
class LMState:
    """Hypotheses of an `LMScorer`.

    Attributes:
        tree: Keys and values, which states of one search share.
        prefixes: The prefix of the tree that each hypothesis begins with, (rows,).
        places: Where in the tree the labels of each hypothesis lie, (rows, longest), its prefix first.
        counts: How many these are, (rows,).
        next: Log-probabilities of what may follow, (rows, labels + 1), the end last.
    """

    tree: LabelTree
    prefixes: Tensor
    places: Tensor
    counts: Tensor
    next: Tensor


class LMScorer:
    """A causal language model over the label units of the search.

    A hypothesis with more labels than the LLM has positions is impossible.

    Args:
        llm: Any decoder-only model of transformers.
        num_labels: Labels of the search, which are the first of the LLM's vocabulary.
        bos_id: What stands before the first label.
        eos_id: The LLM's end of a sentence.
        before: What it reads before that, such as a prompt.
        name: Its name among the scores.

    Raises:
        ModelError: The LLM's cache cannot be forked.
    """

    def __init__(
        self,
        llm: PreTrainedModel,
        num_labels: int,
        *,
        bos_id: int,
        eos_id: int,
        before: Sequence[int] = (),
        name: str = LM,
    ) -> None:
        check_llm(llm)
        self.name = name
        self._llm, self._num_labels, self._eos = llm, num_labels, eos_id
        self._before = (*before, bos_id)
        self._most = max_positions(llm)
        self.max_labels = None if self._most is None else self._most - len(self._before)

    def start(self, batch: int) -> LMState:
        """Reads what stands before the first label."""
        before = torch.tensor([self._before], device=self._llm.device)
        tree = LabelTree(self._llm, embed(self._llm, before), torch.tensor([before.shape[1]], device=before.device))
        return self._behind(tree, torch.zeros(batch, dtype=torch.int64, device=self._llm.device))

    def _behind(self, tree: LabelTree, prefixes: Tensor) -> LMState:
        """The state of some hypotheses without labels."""
        following, counts = self._log_probs(tree.logits[prefixes], prefixes), tree.lengths[prefixes]
        return LMState(tree, prefixes, tree.prefix[prefixes], counts, self._without_labels(following, counts))

    def log_probs(self, state: LMState, rows: Tensor) -> Tensor:
        """What it gives to each next label of some hypotheses and to their end, (rows, labels + 1)."""
        return state.next[rows.to(state.next.device)]

    def extend(self, state: LMState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[LMState, Tensor]:
        """A new state of some hypotheses with more labels, and what it gives to these, (rows, n).

        One call of the LLM for all rows that grow, none where no row does.
        """
        device = state.next.device
        rows, labels, lengths = rows.to(device), labels.to(device), lengths.to(device)
        following, counts = state.next[rows], state.counts[rows]
        given = following.new_zeros(labels.shape)
        fits = torch.ones_like(rows, dtype=torch.bool) if self._most is None else counts + lengths <= self._most
        following[~fits], given[~fits & (lengths > 0)] = -inf, -inf
        grows = (fits & (lengths > 0)).nonzero()[:, 0]
        longest = int((counts + lengths).max()) if len(rows) else 0
        prefixes = state.prefixes[rows]
        places = torch.nn.functional.pad(state.places[rows], (0, longest - state.places.shape[1]))
        if len(grows):
            labels, old, more = labels[grows], counts[grows], lengths[grows]
            logits, new = state.tree.append(places[grows], old, labels, more, prefixes[grows])
            real = torch.arange(labels.shape[1], device=device) < more[:, None]
            logits[~real] = 0.0  # undefined
            log_probs = self._log_probs(logits, prefixes[grows])
            # Each label is judged by what stands before it; the first by what the old state says.
            first = following[grows].gather(1, labels[:, :1])
            later = log_probs[:, :-1].gather(2, labels[:, 1:, None])[:, :, 0]
            given[grows] = torch.cat([first, later], dim=1).masked_fill(~real, 0.0)
            following[grows] = log_probs[torch.arange(len(grows), device=device), more - 1]
            row, column = real.nonzero(as_tuple=True)
            places[grows[row], old[row] + column] = new[row, column]
        counts = counts + lengths
        return LMState(state.tree, prefixes, places, counts, self._without_labels(following, counts)), given

    def _log_probs(self, logits: Tensor, prefixes: Tensor) -> Tensor:  # noqa: ARG002
        """Of labels and end, (rows, ..., labels + 1), from what the LLM says behind prefixes (rows,)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self._columns(logits) - finite(logits.logsumexp(dim=-1, keepdim=True), self._llm)

    def _columns(self, logits: Tensor) -> Tensor:
        """Of labels and end alone, in a tensor of its own."""
        return torch.cat([logits[..., : self._num_labels], logits[..., self._eos, None]], dim=-1)

    def _without_labels(self, following: Tensor, counts: Tensor) -> Tensor:
        """What may follow, where the LLM has no position left: only the end."""
        if self._most is not None and bool((full := counts >= self._most).any()):
            following[full, :-1] = -inf
        return following


def finite(normaliser: Tensor, llm: PreTrainedModel) -> Tensor:
    """What logits are normalised by, (..., 1), which tells whether one of them is infinite or not a number.

    Raises:
        ModelError: One is.
    """
    if not bool(normaliser.isfinite().all()):
        raise ModelError(
            "its logits are not finite",
            where=type(llm).__name__,
            remedy="decode with dtype float32; if it says so again, the weights are damaged",
        )
    return normaliser
