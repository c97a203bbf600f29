"""Speculative decoding: what greedy search writes, in a few passes over drafts of it.

A search of the CTC heads has a draft of the whole transcript. The decoder reads prefix and draft in one pass, which
says for each label of the draft what it would have written in its place. The labels up to the first slip stay in the
key-value cache, the decoder's own label takes the place of the slip, the rest of the draft is aligned anew
(`draft`), and the next pass reads on. A label is kept only if it is the decoder's most probable one:
drafts decide about speed alone (Leviathan et al. 2023, greedy case). Taking a draft up again after its slips is ours.

How much of the drafts a pass reads goes by how reliable they have been, down to nothing, which is greedy search. What
is not read is compared all the same, so that a draft may recover.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model.decoder.base import Decoder, DecoderState
from kikitori.search.autoregressive.draft import Draft, pass_size
from kikitori.search.autoregressive.filters import LogitFilter, Row, apply_filters, min_labels
from kikitori.search.autoregressive.generate import generated
from kikitori.search.length import Limits
from kikitori.types import NBest

FREE_LABELS = {"cpu": 64, "cuda": 128}
"""About so many labels in a pass take as long as reading the weights, by device; results do not depend on it."""
MAX_LOGITS = 2**24
"""Logits that exist at a time."""
NONE = -1


@dataclass
class _Row:
    """An utterance that is being written.

    Attributes:
        known: Positions in the cache.
        proposals: What the draft proposes at each position that a pass settles, `NONE` behind its end; the pass reads
            all of them but the last.
        passes: Passes after the first.
    """

    utterance: int
    draft: Draft
    most: int
    known: int
    proposals: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    score: float = 0.0
    complete: bool = False
    passes: int = 0

    @property
    def available(self) -> int:
        """Labels of the draft that could be written next."""
        return len(self.draft.ahead(self.most - len(self.labels)))

    def propose(self, size: int) -> None:
        """Sets what the next pass reads of the draft, at most so many labels."""
        size = min(size, self.available)
        self.proposals = [*self.draft.ahead(size + 1), NONE][: size + 1]


@torch.inference_mode()
def speculative(
    decoder: Decoder,
    drafts: Sequence[Sequence[int]],
    limits: Limits,
    *,
    filters: Sequence[LogitFilter] = (),
) -> list[NBest]:
    """Write each utterance's most probable labels until EOS or its limit: the result of `greedy`.

    In float32 the labels are equal and scores differ by rounding; `llm_passes` are fewer. Drafts are in the decoder's
    labels; anything will do. EOS and labels that the decoder does not have are left out.

    Raises:
        ModelError: The decoder has recurrent layers.
    """
    filters = (*filters, min_labels([limits.min_labels] * len(drafts), decoder.eos_id))
    known, eos_id = decoder.vocab_size, decoder.eos_id
    every = []
    for utterance, (labels, most, length) in enumerate(
        zip(drafts, limits.max_labels, decoder.prefix_lengths.tolist(), strict=True)
    ):
        draft = Draft([label for label in labels if 0 <= label < known and label != eos_id])
        every.append(_Row(utterance, draft, most, length))
        every[-1].propose(most)
    hidden, state = decoder.prefill(*_padded([row.proposals[:-1] for row in every], decoder.device))
    if state.recurrent:
        raise ModelError(
            "speculative search takes labels back, which recurrent layers cannot",
            where=decoder.name,
            remedy="use decoding greedy or beam",
        )
    rows = every
    while True:
        filled = [row.known + len(row.proposals) - 1 for row in rows]  # positions in the cache, slips among them
        chosen = _best_labels(decoder, hidden, rows, filters)
        going = [place for place, row in enumerate(rows) if _write(row, chosen[place], eos_id)]
        if not going:
            return [generated(row.labels, row.score, row.complete, row.passes) for row in every]
        slipped = any(rows[place].known < filled[place] for place in going)
        rows, state = [rows[place] for place in going], _with_rows(state, going)
        if slipped:
            state = state.crop(torch.tensor([row.known for row in rows]))
        price = len(rows) / (len(rows) + FREE_LABELS.get(hidden.device.type, FREE_LABELS["cpu"]))
        size = pass_size([row.draft.reliability for row in rows], [row.available for row in rows], price)
        for row in rows:
            row.propose(size)
        new, num_labels = _padded([[row.labels[-1], *row.proposals[:-1]] for row in rows], decoder.device)
        hidden, state = decoder.append(new, state, num_labels)
        for row in rows:
            row.known += 1
            row.passes += 1


def _write(row: _Row, chosen: Sequence[tuple[int, float]], eos_id: int) -> bool:
    """Write what a pass has settled: its proposals up to the first slip, and the decoder's label there or behind them.

    Whether the row goes on; all its labels but the last are then in the cache.
    """
    for proposal, (label, score) in zip(row.proposals, chosen, strict=True):
        if label == eos_id:
            row.complete = True
            row.score += score
            return False
        if len(row.labels) == row.most:
            return False
        row.labels.append(label)
        row.score += score
        row.draft.write(label)
        if label != proposal:
            return True
        row.known += 1
    row.known -= 1  # the last proposal was not read
    return True


def _best_labels(
    decoder: Decoder, hidden: Tensor, rows: Sequence[_Row], filters: Sequence[LogitFilter]
) -> list[list[tuple[int, float]]]:
    """The decoder's best label at each row's positions, and its log-probability.

    These are behind its last label, and behind each label of the draft that was read; `hidden` is (rows, columns, dim).
    """
    cells = [(place, column) for place, row in enumerate(rows) for column in range(len(row.proposals))]
    places, columns = torch.tensor(cells, device=hidden.device).T
    states = hidden[places, columns]
    found: list[tuple[int, float]] = []
    chunk = max(1, MAX_LOGITS // decoder.vocab_size)
    for begin in range(0, len(cells), chunk):
        part = [(rows[place], column) for place, column in cells[begin : begin + chunk]]
        log_probs = decoder.project(states[begin : begin + chunk]).float().log_softmax(dim=-1)
        written = [Row(row.utterance, [*row.labels, *row.proposals[:column]]) for row, column in part]
        log_probs = apply_filters(filters, log_probs, written)
        best = log_probs.argmax(dim=-1)  # of equals the first, as in greedy search
        scores = log_probs.gather(1, best[:, None])[:, 0]
        found += zip(best.tolist(), scores.tolist(), strict=True)
    every = iter(found)
    return [[next(every) for _ in row.proposals] for row in rows]


def _padded(labels: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of labels as one tensor (rows, longest), and how many each has."""
    width = max(len(row) for row in labels)
    padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in labels], dtype=torch.int64, device=device)
    return padded, torch.tensor([len(row) for row in labels], device=device)


def _with_rows(state: DecoderState, rows: Sequence[int]) -> DecoderState:
    return state if len(rows) == state.batch_size else state.reorder(torch.tensor(rows))
