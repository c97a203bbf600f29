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
from kikitori.model.decoder.base import Decoder
from kikitori.model.decoder.llm import check_llm
from kikitori.model.decoder.llm_decoder import text_decoder
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
class DecoderScorerState:
    """Hypotheses of a `DecoderScorer`.

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


class DecoderScorer:
    """An autoregressive decoder that has read the speech: hypotheses stand behind each utterance's prefix.

    A hypothesis with more labels than the decoder has positions is impossible.

    Args:
        decoder: What gives the next labels.
        num_labels: Labels of the search, which are the first of the decoder's vocabulary. Its EOS as a label among them
            is impossible.
        allowed: The labels of each utterance, (utterances, labels) bool: what is left over is impossible and is no
            part of the softmax (papers.md B3.4); None allows all.
        name: Its name among the scores.

    Raises:
        ModelError: The decoder has fewer labels than the search.
    """

    def __init__(
        self, decoder: Decoder, num_labels: int, *, allowed: Tensor | None = None, name: str = SPEECH_LLM
    ) -> None:
        if (known := decoder.vocab_size) < num_labels:
            raise ModelError(
                f"the CTC head has {num_labels} labels, the LLM {known}",
                where=decoder.name,
                remedy="give both the same label units",
            )
        self.name = name
        self._decoder, self._num_labels, self._most = decoder, num_labels, decoder.max_positions
        padded = None if allowed is None else torch.nn.functional.pad(allowed, (0, 1), value=True)
        self._allowed = None if padded is None else padded.to(decoder.device)

    def start(self, batch: int) -> DecoderScorerState:
        """Reads the prefixes.

        Raises:
            ModelError: There is another number of them.
        """
        if batch != (known := len(self._decoder.prefix_lengths)):
            raise ModelError(f"a search over {batch} utterances, and the decoder has {known}")
        return self._behind(LabelTree(self._decoder), torch.arange(batch, device=self._decoder.device))

    def _behind(self, tree: LabelTree, prefixes: Tensor) -> DecoderScorerState:
        """The state of some hypotheses without labels."""
        following, counts = self._log_probs(tree.logits[prefixes], prefixes), tree.lengths[prefixes]
        places = tree.prefix[prefixes]
        return DecoderScorerState(tree, prefixes, places, counts, self._without_labels(following, counts))

    def log_probs(self, state: DecoderScorerState, rows: Tensor) -> Tensor:
        """As of `Scorer`."""
        return state.next[rows.to(state.next.device)]

    def extend(
        self, state: DecoderScorerState, rows: Tensor, labels: Tensor, lengths: Tensor
    ) -> tuple[DecoderScorerState, Tensor]:
        """As of `Scorer`: one call of the decoder for all rows that grow, none where no row does."""
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
        following = self._without_labels(following, counts)
        return DecoderScorerState(state.tree, prefixes, places, counts, following), given

    def _log_probs(self, logits: Tensor, prefixes: Tensor) -> Tensor:
        """Of labels and end, (rows, ..., labels + 1), from logits behind prefixes (rows,)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        found = self._columns(logits)
        if self._allowed is not None:
            mask = self._allowed[prefixes]
            logits = found.masked_fill_(~(mask if found.ndim == 2 else mask[:, None]), -inf)
        log_probs = found - _finite(logits.logsumexp(dim=-1, keepdim=True), self._decoder.name)
        return self._without_eos(log_probs)

    def _without_eos(self, log_probs: Tensor) -> Tensor:
        if self._decoder.eos_id < self._num_labels:
            log_probs[..., self._decoder.eos_id] = -inf
        return log_probs

    def _columns(self, logits: Tensor) -> Tensor:
        """Of labels and end alone, in a tensor of its own."""
        return torch.cat([logits[..., : self._num_labels], logits[..., self._decoder.eos_id, None]], dim=-1)

    def _without_labels(self, following: Tensor, counts: Tensor) -> Tensor:
        """What may follow, where the LLM has no position left: only the end."""
        if self._most is not None and bool((full := counts >= self._most).any()):
            following[full, :-1] = -inf
        return following


class LMScorer(DecoderScorer):
    """A causal language model over the label units of the search: all hypotheses stand behind the same text.

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
        super().__init__(text_decoder(llm, (*before, bos_id), eos_id=eos_id), num_labels, name=name)
        self.max_labels = None if self._most is None else self._most - len(before) - 1

    def start(self, batch: int) -> DecoderScorerState:
        """Reads what stands before the first label."""
        none = torch.zeros(batch, dtype=torch.int64, device=self._decoder.device)
        return self._behind(LabelTree(self._decoder), none)

    def _without_eos(self, log_probs: Tensor) -> Tensor:
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


def _finite(normaliser: Tensor, network: str) -> Tensor:
    """What logits are normalised by, which tells whether one of them is infinite or not a number."""
    if not bool(normaliser.isfinite().all()):
        raise ModelError(
            "its logits are not finite",
            where=network,
            remedy="decode with dtype float32; if it says so again, the weights are damaged",
        )
    return normaliser
