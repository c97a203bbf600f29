"""Speculative decoding of the speech LLM: what greedy search writes, in a few passes over drafts of it.

A search of the CTC heads has a draft of the whole transcript. The LLM reads prefix and draft in one pass, which says
for each label of the draft what the LLM would have written in its place. The labels up to the first slip stay in the
key-value cache, the LLM's own label takes the place of the slip, the rest of the draft is aligned anew
(`draft`), and the next pass reads on. A label is kept only if it is the LLM's most probable one:
drafts decide about speed alone (Leviathan et al. 2023, greedy case). Taking a draft up again after its slips is ours.

How much of the drafts a pass reads goes by how reliable they have been, down to nothing, which is greedy search. What
is not read is compared all the same, so that a draft may recover.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import LLMState, append, embed, project, read
from kikitori.search.autoregressive.draft import Draft, pass_size
from kikitori.search.autoregressive.generate import LabelRow

FREE_LABELS = {"cpu": 64, "cuda": 128}
"""About so many labels in a pass take as long as reading the LLM's weights, by device; results do not depend on it."""
MAX_LOGITS = 2**24
"""Logits that exist at a time."""
NONE = -1


@dataclass
class _Row:
    """A row that is being written.

    Attributes:
        result: What is written.
        draft: Where it stands in its draft.
        most: Most labels.
        known: Positions in the cache.
        proposals: What the draft proposes at each position that a pass settles, `NONE` behind its end; the pass reads
            all of them but the last.
    """

    result: LabelRow
    draft: Draft
    most: int
    known: int
    proposals: list[int]

    @property
    def available(self) -> int:
        """Labels of the draft that could be written next."""
        return len(self.draft.ahead(self.most - len(self.result.labels)))

    def propose(self, size: int) -> None:
        """Sets what the next pass reads of the draft, at most so many labels."""
        size = min(size, self.available)
        self.proposals = [*self.draft.ahead(size + 1), NONE][: size + 1]


@dataclass(frozen=True)
class _Verdict:
    """What the LLM says at a position: its best label, the log-probabilities of that and of the proposal."""

    best: int
    score: float
    proposal_score: float


@torch.inference_mode()
def speculative(
    llm: PreTrainedModel,
    prefix: AssembledInput,
    drafts: Sequence[Sequence[int]],
    *,
    eos_id: int,
    max_labels: Sequence[int],
    min_labels: int = 0,
    margin: float = 0.0,
) -> list[LabelRow]:
    """Writes each row's most probable labels until EOS or its limit: the result of `greedy`, if there is no margin.

    In float32 the labels are equal and scores differ by rounding; `llm_passes` are fewer.

    Args:
        llm: The LLM.
        prefix: What the LLM reads before the first label.
        drafts: For each row what it may write, in the LLM's labels; anything will do. EOS and labels that the LLM does
            not have are left out.
        eos_id: Label that ends a row.
        max_labels: Most labels per row, EOS not counted; stronger than `min_labels`.
        min_labels: EOS is ruled out while a row has fewer labels.
        margin: What the draft proposes is written, if its log-probability is less than this below that of the best.
    """
    known = cast(torch.nn.Embedding, llm.get_input_embeddings()).num_embeddings
    rows = []
    for labels, most, length in zip(drafts, max_labels, prefix.lengths.tolist(), strict=True):
        draft = Draft([label for label in labels if 0 <= label < known and label != eos_id])
        rows.append(_Row(LabelRow(), draft, most, length, []))
        rows[-1].propose(most)
    results = [row.result for row in rows]
    hidden, state = _read(llm, prefix, [row.proposals[:-1] for row in rows])
    starts = [row.known - 1 for row in rows]
    while True:
        filled = [row.known + len(row.proposals) - 1 for row in rows]  # positions in the cache, slips among them
        verdicts = _judge(llm, hidden, starts, rows, eos_id=eos_id, min_labels=min_labels)
        going = [place for place, row in enumerate(rows) if _write(row, verdicts[place], eos_id, margin)]
        if not going:
            return results
        slipped = any(rows[place].known < filled[place] for place in going)
        rows, state = [rows[place] for place in going], _with_rows(state, going)
        if slipped:
            state = state.crop(torch.tensor([row.known for row in rows]))
        price = len(rows) / (len(rows) + FREE_LABELS.get(hidden.device.type, FREE_LABELS["cpu"]))
        size = pass_size([row.draft.reliability for row in rows], [row.available for row in rows], price)
        for row in rows:
            row.propose(size)
        hidden, state = _append(llm, [[row.result.labels[-1], *row.proposals[:-1]] for row in rows], state)
        starts = [0] * len(rows)
        for row in rows:
            row.known += 1
            row.result.llm_passes += 1


def _write(row: _Row, verdicts: Sequence[_Verdict], eos_id: int, margin: float) -> bool:
    """Writes what a pass has settled: its proposals up to the first slip, and the LLM's label there or behind them.

    Returns:
        Whether the row goes on. All its labels but the last are then in the cache.
    """
    for proposal, verdict in zip(row.proposals, verdicts, strict=True):
        label, score = verdict.best, verdict.score
        if verdict.proposal_score > score - margin:
            label, score = proposal, verdict.proposal_score
        if label == eos_id:
            row.result.complete = True
            row.result.score += score
            return False
        if len(row.result.labels) == row.most:
            return False
        row.result.labels.append(label)
        row.result.score += score
        row.draft.write(label)
        if label != proposal:
            return True
        row.known += 1
    row.known -= 1  # the last proposal was not read
    return True


def _judge(
    llm: PreTrainedModel, hidden: Tensor, starts: Sequence[int], rows: Sequence[_Row], *, eos_id: int, min_labels: int
) -> list[list[_Verdict]]:
    """Verdicts at each row's positions: behind its last label, and behind each label of the draft that was read.

    Args:
        llm: The LLM.
        hidden: Its states, (rows, columns, dim).
        starts: The column of each row's last label.
        rows: The rows.
        eos_id: Is ruled out where a row has fewer labels than `min_labels`.
        min_labels: See `eos_id`.
    """
    cells = []
    for number, (row, start) in enumerate(zip(rows, starts, strict=True)):
        for offset, proposal in enumerate(row.proposals):
            cells.append((number, start + offset, proposal, len(row.result.labels) + offset < min_labels))
    places, columns, proposals, too_short = torch.tensor(cells, device=hidden.device).T
    states, found = hidden[places, columns], []
    chunk = max(1, MAX_LOGITS // llm.config.vocab_size)
    for part, proposed, early in zip(*(each.split(chunk) for each in (states, proposals, too_short)), strict=True):
        log_probs = project(llm, part).float().log_softmax(dim=-1)
        log_probs[early.bool(), eos_id] = -torch.inf
        best = log_probs.argmax(dim=-1)
        scores = log_probs.gather(1, torch.stack([best, proposed.clamp(min=0)], dim=1))
        scores[:, 1].masked_fill_(proposed == NONE, -torch.inf)
        found += [_Verdict(label, *pair) for label, pair in zip(best.tolist(), scores.tolist(), strict=True)]
    every = iter(found)
    return [[next(every) for _ in row.proposals] for row in rows]


def _read(llm: PreTrainedModel, prefix: AssembledInput, drafts: Sequence[Sequence[int]]) -> tuple[Tensor, LLMState]:
    """Reads each row's prefix and, directly behind it, labels."""
    sizes: list[int] = prefix.lengths.tolist()
    lengths = [size + len(draft) for size, draft in zip(sizes, drafts, strict=True)]
    width, (batch, columns, dim) = max(lengths), prefix.embeds.shape
    embeds = prefix.embeds.new_zeros(batch, max(width, columns), dim)
    embeds[:, :columns] = prefix.embeds
    cells = [
        (row, size + place, label)
        for row, (size, draft) in enumerate(zip(sizes, drafts, strict=True))
        for place, label in enumerate(draft)
    ]
    if cells:
        rows, places, labels = torch.tensor(cells, device=embeds.device).T
        embeds[rows, places] = embed(llm, labels[None])[0].to(embeds.dtype)
    return read(llm, embeds, torch.tensor(lengths, device=embeds.device), prefix.memory)


def _append(llm: PreTrainedModel, labels: Sequence[Sequence[int]], state: LLMState) -> tuple[Tensor, LLMState]:
    width, device = max(len(row) for row in labels), state.valid.device
    padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in labels], device=device)
    return append(llm, padded, state, torch.tensor([len(row) for row in labels], device=device))


def _with_rows(state: LLMState, rows: Sequence[int]) -> LLMState:
    return state if len(rows) == state.batch_size else state.reorder(torch.tensor(rows))
