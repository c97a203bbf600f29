"""An autoregressive decoder behind the speech as a scorer: label by label, and of whole hypotheses."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model.decoder.base import Decoder
from kikitori.model.decoder.memory import Recurrent
from kikitori.model.decoder.tree import LabelTree
from kikitori.scorers.options import SPEECH_LLM
from kikitori.scorers.spelling import Spelling
from kikitori.scorers.tree import score_sequences
from kikitori.types import Hypothesis


@dataclass(frozen=True, eq=False)
class DecoderScorerState:
    """Hypotheses of a `DecoderScorer`.

    Attributes:
        tree: Keys and values, which states of one search share.
        prefixes: The prefix of the tree that each hypothesis begins with, (rows,).
        places: Where in the tree the labels of each hypothesis lie, (rows, longest), its prefix first.
        counts: How many these are, (rows,).
        next: Log-probabilities of what may follow, (rows, labels + 1), the end last.
        recurrent: States of recurrent layers behind each hypothesis, (rows, ...) each; empty without such layers.
    """

    tree: LabelTree
    prefixes: Tensor
    places: Tensor
    counts: Tensor
    next: Tensor
    recurrent: Recurrent = ()


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
        following = self._without_labels(following, counts)
        return DecoderScorerState(tree, prefixes, places, counts, following, _of_rows(tree.recurrent, prefixes))

    def log_probs(self, state: DecoderScorerState, rows: Tensor) -> Tensor:
        """What it gives to each next label of some hypotheses and to their end, (rows, labels + 1)."""
        rows = rows.to(state.next.device)
        every = torch.arange(len(state.next), device=rows.device)
        return state.next if torch.equal(rows, every) else state.next[rows]  # a copy would be of millions of numbers

    def extend(
        self, state: DecoderScorerState, rows: Tensor, labels: Tensor, lengths: Tensor
    ) -> tuple[DecoderScorerState, Tensor]:
        """A new state of some hypotheses with more labels, and what it gives to these, (rows, n).

        One call of the decoder for all rows that grow, none where no row does.
        """
        device = state.next.device
        rows, labels, lengths = rows.to(device), labels.to(device), lengths.to(device)
        counts = state.counts[rows]
        given = state.next.new_zeros(labels.shape)
        fits = torch.ones_like(rows, dtype=torch.bool) if self._most is None else counts + lengths <= self._most
        given[~fits & (lengths > 0)] = -inf
        grows = (fits & (lengths > 0)).nonzero()[:, 0]
        longest = int((counts + lengths).max()) if len(rows) else 0
        prefixes = state.prefixes[rows]
        places = torch.nn.functional.pad(state.places[rows], (0, longest - state.places.shape[1]))
        recurrent = _of_rows(state.recurrent, rows)
        following = None
        if len(grows):
            labels, old, more = labels[grows], counts[grows], lengths[grows]
            logits, new, states = state.tree.append(
                places[grows], old, labels, more, prefixes[grows], _of_rows(recurrent, grows)
            )
            for kept, grown in zip(recurrent, states, strict=True):
                if kept is not None and grown is not None:
                    kept[grows] = grown
            real = torch.arange(labels.shape[1], device=device) < more[:, None]
            logits[~real] = 0.0  # undefined
            log_probs = self._log_probs(logits, prefixes[grows])
            # Each label is scored by what stands before it; the first by what the old state says.
            first = state.next[rows[grows], labels[:, 0]][:, None]
            later = log_probs[:, :-1].gather(2, labels[:, 1:, None])[:, :, 0]
            given[grows] = torch.cat([first, later], dim=1).masked_fill(~real, 0.0)
            following = log_probs[torch.arange(len(grows), device=device), more - 1]
            row, column = real.nonzero(as_tuple=True)
            places[grows[row], old[row] + column] = new[row, column]
        if following is None or len(grows) < len(rows):
            some, following = following, state.next[rows]
            following[~fits] = -inf
            if some is not None:
                following[grows] = some
        counts = counts + lengths
        following = self._without_labels(following, counts)
        return DecoderScorerState(state.tree, prefixes, places, counts, following, recurrent), given

    def _log_probs(self, logits: Tensor, prefixes: Tensor) -> Tensor:
        """Of labels and end, (rows, ..., labels + 1), from logits behind prefixes (rows,)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        found = self._columns(logits)
        if self._allowed is not None:
            mask = self._allowed[prefixes]
            logits = found.masked_fill_(~(mask if found.ndim == 2 else mask[:, None]), -inf)
        found -= _finite(logits.logsumexp(dim=-1, keepdim=True), self._decoder.name)
        return self._without_eos(found)

    def _without_eos(self, log_probs: Tensor) -> Tensor:
        if self._decoder.eos_id < self._num_labels:
            log_probs[..., self._decoder.eos_id] = -inf
        return log_probs

    def _columns(self, logits: Tensor) -> Tensor:
        """Of labels and end alone, in a tensor of its own."""
        return torch.cat([logits[..., : self._num_labels], logits[..., self._decoder.eos_id, None]], dim=-1)

    def _without_labels(self, following: Tensor, counts: Tensor) -> Tensor:
        """What may follow, where the decoder has no position left: only the end."""
        if self._most is not None and bool((full := counts >= self._most).any()):
            following[full, :-1] = -inf
        return following


@dataclass(frozen=True, eq=False)
class DecoderSequenceScorer:
    """A decoder as a scorer of whole hypotheses of the utterances behind whose speech it stands.

    Attributes:
        decoder: The decoder.
        spelling: From the labels of hypotheses to those of the decoder; None where they are the same.
        name: Its name among the scores.
    """

    decoder: Decoder
    spelling: Spelling | None = None
    name: str = SPEECH_LLM

    def scores(self, nbests: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """The natural log-probability of each hypothesis of the utterances, its end included."""
        spelling = self.spelling
        rows = [[each.labels for each in nbest] if spelling is None else spelling(nbest) for nbest in nbests]
        return score_sequences(self.decoder, rows).scores


def _of_rows(recurrent: Recurrent, rows: Tensor) -> Recurrent:
    """Copies of the states of some rows."""
    return tuple(each if each is None else each[rows] for each in recurrent)


def _finite(normaliser: Tensor, network: str) -> Tensor:
    """What logits are normalised by, which tells whether one of them is infinite or not a number."""
    if not bool(normaliser.isfinite().all()):
        raise ModelError(
            "its logits are not finite",
            where=network,
            remedy="decode with dtype float32; if it says so again, the weights are damaged",
        )
    return normaliser
