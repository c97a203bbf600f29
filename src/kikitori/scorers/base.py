"""What judges label sequences in a search, whatever the search: language models, priors, lengths, and sums of them.

A `Scorer` says, in natural logs, what it thinks of every label that may follow a hypothesis, and of ending there. Its
states hold hypotheses as rows; `extend` makes a new state out of any rows of an old one: named twice a hypothesis is
forked, in another order reordered, left out dropped, with no label kept, with several labels it grows by all of them
at once. States are never modified. Every search takes scorers in this form, so that each works in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.errors import ModelError
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import check_llm, embed, max_positions, num_embeddings
from kikitori.model.decoder.tree import LabelTree
from kikitori.scorers.options import LM, SPEECH_LLM

State = TypeVar("State")


class Scorer(Protocol[State]):
    """The seam between searches and what scores labels."""

    @property
    def name(self) -> str:
        """Its name among the shares of a hypothesis."""
        ...

    def start(self, batch: int) -> State:
        """A state of so many empty hypotheses, one for each utterance."""
        ...

    def log_probs(self, state: State, rows: Tensor) -> Tensor:
        """What it gives to each next label of some hypotheses, and to their end: (rows, labels + 1), the end last."""
        ...

    def extend(self, state: State, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[State, Tensor]:
        """A new state of some hypotheses with more labels.

        Args:
            state: The old one.
            rows: The old hypothesis that each new one begins with, (rows,) int64.
            labels: What it goes on with, (rows, n) int64.
            lengths: How many of these count, (rows,) int64, each 0 to n.

        Returns:
            The state, and what the scorer gives to the labels appended, (rows, n), 0 beyond `lengths`.
        """
        ...


class CandidateScorer(Scorer[State], Protocol[State]):
    """A scorer that is asked about a few labels alone, since all of them would take it long."""

    def log_probs_of(self, state: State, rows: Tensor, labels: Tensor) -> Tensor:
        """What it gives to some labels (rows, n), -1 for none, and to the end: (rows, n + 1), -inf for none."""
        ...

    def likeliest(self, state: State, rows: Tensor, most: int) -> Tensor:
        """Labels that it would ask about, best first, (rows, most), -1 where there are no more."""
        ...


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
        name: Its name among the shares.

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
        """As of `Scorer`."""
        return state.next[rows.to(state.next.device)]

    def extend(self, state: LMState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[LMState, Tensor]:
        """As of `Scorer`: one call of the LLM for all rows that grow, none where no row does."""
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
        return self._columns(logits) - _finite(logits.logsumexp(dim=-1, keepdim=True), self._llm)

    def _columns(self, logits: Tensor) -> Tensor:
        """Of labels and end alone, in a tensor of its own."""
        return torch.cat([logits[..., : self._num_labels], logits[..., self._eos, None]], dim=-1)

    def _without_labels(self, following: Tensor, counts: Tensor) -> Tensor:
        """What may follow, where the LLM has no position left: only the end."""
        if self._most is not None and bool((full := counts >= self._most).any()):
            following[full, :-1] = -inf
        return following


class SpeechLLMScorer(LMScorer):
    """An LLM that has heard the speech, whatever the interface: hypotheses stand behind each utterance's speech prompt.

    Args:
        llm: The LLM of a speech LLM.
        prefix: What it reads before the first label, a row for each utterance.
        num_labels: Labels of the search, which are the first of the LLM's vocabulary.
        eos_id: What ends a transcript; as a label within one it is impossible.
        allowed: The labels of each utterance, (utterances, labels) bool: what is left over is impossible and is no
            part of the softmax (papers.md B3.4); None allows all.
        name: Its name among the shares.

    Raises:
        ModelError: The LLM's cache cannot be forked, or it has fewer labels than the search.
    """

    def __init__(
        self,
        llm: PreTrainedModel,
        prefix: AssembledInput,
        num_labels: int,
        *,
        eos_id: int,
        allowed: Tensor | None = None,
        name: str = SPEECH_LLM,
    ) -> None:
        super().__init__(llm, num_labels, bos_id=eos_id, eos_id=eos_id, name=name)
        if (known := num_embeddings(llm)) < num_labels:
            raise ModelError(
                f"the CTC head has {num_labels} labels, the LLM {known}",
                where=type(llm).__name__,
                remedy="give both the same label units",
            )
        self._prefix = prefix
        self._allowed = None if allowed is None else torch.nn.functional.pad(allowed, (0, 1), value=True).to(llm.device)

    def start(self, batch: int) -> LMState:
        """Reads the speech prompts.

        Raises:
            ModelError: There is another number of them.
        """
        prefix = self._prefix
        if batch != len(prefix.lengths):
            raise ModelError(f"a search over {batch} utterances, {len(prefix.lengths)} of which were heard")
        tree = LabelTree(self._llm, prefix.embeds, prefix.lengths, prefix.memory)
        return self._behind(tree, torch.arange(batch, device=self._llm.device))

    def _log_probs(self, logits: Tensor, prefixes: Tensor) -> Tensor:
        if self._allowed is None:
            log_probs = super()._log_probs(logits, prefixes)
        else:
            found = self._columns(logits.to(torch.promote_types(logits.dtype, torch.float32)))
            mask = self._allowed[prefixes]
            found.masked_fill_(~(mask if found.ndim == 2 else mask[:, None]), -inf)
            log_probs = found - _finite(found.logsumexp(dim=-1, keepdim=True), self._llm)
        if self._eos < self._num_labels:
            log_probs[..., self._eos] = -inf
        return log_probs


class PriorScorer:
    """How probable each label is by itself, whatever stands before it (papers.md B3.5); the end has no share.

    Args:
        log_probs: Of each label, (labels,), finite.
        name: Its name among the shares.
    """

    def __init__(self, log_probs: Tensor, name: str = "prior") -> None:
        self.name = name
        self._log_probs = torch.cat([log_probs, log_probs.new_zeros(1)])

    def start(self, batch: int) -> int:
        """How many hypotheses there are is all that it remembers."""
        return batch

    def log_probs(self, state: int, rows: Tensor) -> Tensor:  # noqa: ARG002
        """As of `Scorer`."""
        return self._log_probs.expand(len(rows), -1)

    def extend(self, state: int, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[int, Tensor]:  # noqa: ARG002
        """As of `Scorer`."""
        device = self._log_probs.device
        labels, lengths = labels.to(device), lengths.to(device)
        beyond = torch.arange(labels.shape[1], device=device) >= lengths[:, None]
        return len(rows), self._log_probs[labels].masked_fill(beyond, 0.0)


def length_scorer(num_labels: int) -> PriorScorer:
    """1 for each label: with a positive scale a reward of length."""
    return PriorScorer(torch.ones(num_labels), name="length")


@dataclass(frozen=True)
class SumState:
    """Hypotheses of a `WeightedSum`.

    Attributes:
        states: One of each scorer.
        shares: What each scorer has given to each hypothesis so far, before its scale, (rows, scorers) float64.
    """

    states: tuple[Any, ...]
    shares: Tensor


class WeightedSum:
    """Scorers with a scale each, as one scorer; the shares of each are kept, before scaling.

    What has the scale 0 counts as 0, even if it is infinite. With any other scale what is not finite is impossible,
    also where the scorer is subtracted; so sums are finite or -inf.

    Args:
        scorers: One or more with names of their own, and their scales; a negative one subtracts.
        name: Its own name.
    """

    def __init__(self, scorers: Sequence[tuple[Scorer[Any], float]], name: str = "sum") -> None:
        self.name = name
        self.names = tuple(scorer.name for scorer, _ in scorers)
        """Of the scorers, in the order of the shares."""
        self._scorers = [scorer for scorer, _ in scorers]
        self._scales = [scale for _, scale in scorers]

    def start(self, batch: int) -> SumState:
        """As of `Scorer`."""
        shares = torch.zeros(batch, len(self._scorers), dtype=torch.float64)
        return SumState(tuple(scorer.start(batch) for scorer in self._scorers), shares)

    def log_probs(self, state: SumState, rows: Tensor) -> Tensor:
        """As of `Scorer`, in float64 on the CPU."""
        return self._sum(self._each(state, rows))

    def extend(self, state: SumState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[SumState, Tensor]:
        """As of `Scorer`; what is given in float64 on the CPU."""
        results = [s.extend(its, rows, labels, lengths) for s, its in zip(self._scorers, state.states, strict=True)]
        given = [log_probs.cpu().double() for _, log_probs in results]
        shares = state.shares[rows] + torch.stack([log_probs.sum(dim=1) for log_probs in given], dim=1)
        return SumState(tuple(extended for extended, _ in results), shares), self._sum(given)

    def shares(self, state: SumState, rows: Tensor) -> Tensor:
        """What each scorer gives to some hypotheses that end here, before its scale, (rows, scorers) float64."""
        return state.shares[rows] + torch.stack([each[:, -1] for each in self._each(state, rows)], dim=1)

    def total(self, shares: Tensor) -> Tensor:
        """The weighted sum of shares (..., scorers)."""
        return self._sum(shares.unbind(dim=-1))

    def _each(self, state: SumState, rows: Tensor) -> list[Tensor]:
        pairs = zip(self._scorers, state.states, strict=True)
        return [scorer.log_probs(its, rows).cpu().double() for scorer, its in pairs]

    def _sum(self, each: Sequence[Tensor]) -> Tensor:
        total = torch.zeros_like(each[0])
        for scale, values in zip(self._scales, each, strict=True):
            if scale != 0.0:
                total += torch.where(values.isfinite(), scale * values, -inf)
        return total


def _finite(normaliser: Tensor, llm: PreTrainedModel) -> Tensor:
    """What logits are normalised by, which tells whether one of them is infinite or not a number."""
    if not bool(normaliser.isfinite().all()):
        raise ModelError(
            "its logits are not finite",
            where=type(llm).__name__,
            remedy="decode with dtype float32; if it says so again, the weights are damaged",
        )
    return normaliser
