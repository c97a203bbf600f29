"""Joint search: the speech LLM writes label by label, and the CTC head judges every hypothesis (papers.md B3.2, B3.4).

    score = λ_llm log p_llm(labels, end) + λ_ctc log p_ctc(labels, end) + λ_length · number of labels + ...

with λ the scales of the scorers, λ_llm being 1 - λ_ctc unless it is given; further ones are those of an external LM and
of what is subtracted, a prior or the internal LM. Labels are those of the CTC head, which are the first of the LLM's
vocabulary. The same with the frames in command is `shallow_fusion` with the LLM as its language model, see
`frame_scorer`.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import num_embeddings
from kikitori.scorers.base import Scorer, WeightedSum
from kikitori.scorers.ctc_prefix import CTCOutputs, CTCPrefixScorer, ctc_outputs, ctc_outputs_of_logits
from kikitori.scorers.decoder import SpeechLLMScorer
from kikitori.scorers.options import CTC, LENGTH, SPEECH_LLM
from kikitori.scorers.prior import length_scorer
from kikitori.search.autoregressive.beam import BeamHypothesis, Judge, beam_search
from kikitori.search.ctc.beam import collapse_frames, restrict_vocabulary
from kikitori.search.options import BeamSearch, JointSearch, JointTimeSyncSearch, Scored
from kikitori.search.pruning import JointPruning

LIKELY = 8
"""Of each frame so many labels may be proposed by CTC."""
PRE_BEAM, PROPOSED = 16, 4
"""Labels per hypothesis that CTC scores: those most probable without it, and those that it finds likeliest itself."""

Others = Sequence[tuple[Scorer[Any], float]]
"""Further scorers of labels, with their scales."""


def speech_llm_beam(
    llm: PreTrainedModel,
    prefix: AssembledInput,
    options: BeamSearch,
    *,
    eos_id: int,
    max_labels: Sequence[int],
    min_labels: int = 0,
    others: Others = (),
) -> list[list[BeamHypothesis]]:
    """Beam search of the speech LLM over all its labels; scores are `speech_llm`, `length` and those of the others.

    Args:
        llm: The LLM.
        prefix: What it reads before the first label.
        options: Those of the search.
        eos_id: Label that ends a transcript.
        max_labels: Most labels of each utterance.
        min_labels: Fewest labels.
        others: Further scorers, over that vocabulary.

    Raises:
        ModelError: Logits are not finite, or the LLM's cache cannot be forked.
    """
    num_labels = num_embeddings(llm)
    decoder = SpeechLLMScorer(llm, prefix, num_labels, eos_id=eos_id)
    return beam_search(
        _weighted(decoder, num_labels, options, others),
        options,
        max_labels=max_labels,
        min_labels=min_labels,
        most_gain=_most_gain(options, others),
    )


def joint(
    llm: PreTrainedModel,
    prefix: AssembledInput,
    logits: Tensor,
    lengths: Tensor,
    options: JointSearch,
    *,
    eos_id: int,
    max_labels: Sequence[int],
    min_labels: int = 0,
    others: Others = (),
    pre_beam: int | None = PRE_BEAM,
    proposed: int = PROPOSED,
) -> list[list[BeamHypothesis]]:
    """The n-best list of each utterance; scores are `speech_llm`, `length`, those of the others and `ctc`.

    Args:
        llm: The LLM.
        prefix: What it reads before the first label.
        logits: Of the CTC head, (batch, frames, labels + 1), blank last.
        lengths: Valid frames, (batch,).
        options: Those of the search.
        eos_id: Label that ends a transcript.
        max_labels: Most labels of each utterance.
        min_labels: Fewest labels.
        others: Further scorers, over the labels of the CTC head.
        pre_beam: Labels per hypothesis that CTC scores, the most probable ones without it; None for all, as where
            nothing else has a weight.
        proposed: And so many that it finds likeliest itself.

    Raises:
        ModelError: Logits are not finite, the LLM's cache cannot be forked, or it has fewer labels than the CTC head.
    """
    num_labels = logits.shape[2] - 1
    outputs, allowed = _outputs(logits, lengths, options.pruning, LIKELY if proposed else 1)
    decoder = SpeechLLMScorer(llm, prefix, num_labels, eos_id=eos_id, allowed=allowed)
    ctc = CTCPrefixScorer(outputs, window=options.pruning.window)
    asked = pre_beam if any((options.scale(SPEECH_LLM), *(scale for _, scale in others))) else None
    return beam_search(
        _weighted(decoder, num_labels, options, others),
        options,
        max_labels=max_labels,
        min_labels=min_labels,
        judge=Judge(ctc, options.scale(CTC), asked, proposed),
        most_gain=_most_gain(options, others),
    )


def frame_scorer(
    llm: PreTrainedModel,
    prefix: AssembledInput,
    num_labels: int,
    options: JointTimeSyncSearch,
    *,
    eos_id: int,
    others: Others = (),
) -> WeightedSum:
    """The speech LLM, the length and other scorers for `shallow_fusion` (papers.md B3.3).

    Utterances are those of the prefix.

    Raises:
        ModelError: The LLM's cache cannot be forked, or it has fewer labels than the CTC head.
    """
    return _weighted(SpeechLLMScorer(llm, prefix, num_labels, eos_id=eos_id), num_labels, options, others)


def _weighted(decoder: SpeechLLMScorer, num_labels: int, options: Scored, others: Others) -> WeightedSum:
    own: Others = [(decoder, options.scale(SPEECH_LLM)), (length_scorer(num_labels), options.scale(LENGTH))]
    return WeightedSum([*own, *others])


def _most_gain(options: Scored, others: Others) -> float:
    """What a label can add to a score at most: anything, where log-probabilities are subtracted."""
    subtracts = any(scale < 0.0 for scale in (options.scale(SPEECH_LLM), *(scale for _, scale in others)))
    return inf if subtracts else options.scale(LENGTH)


def _outputs(logits: Tensor, lengths: Tensor, pruning: JointPruning, likely: int) -> tuple[CTCOutputs, Tensor | None]:
    """What the CTC head says, thinned out, and the labels that are left to each utterance."""
    if pruning.vocabulary is None and pruning.collapse is None:
        return ctc_outputs_of_logits(logits, lengths, likely=likely), None
    num_labels = logits.shape[2] - 1
    rows = [
        row[:length].float().cpu().log_softmax(dim=-1) for row, length in zip(logits, lengths.tolist(), strict=True)
    ]
    ids = allowed = None
    if pruning.vocabulary is not None:
        restricted = [restrict_vocabulary(row, pruning.vocabulary) for row in rows]
        rows, ids = [row for row, _ in restricted], [kept for _, kept in restricted]
        allowed = torch.zeros(len(rows), num_labels, dtype=torch.bool)
        for mask, kept in zip(allowed, ids, strict=True):
            mask[torch.from_numpy(kept).long()] = True
    if pruning.collapse is not None:
        rows = [collapse_frames(row, pruning.collapse) for row in rows]
    return ctc_outputs(rows, num_labels, ids=ids, likely=likely), allowed
