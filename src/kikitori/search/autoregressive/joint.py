"""Joint search: the speech LLM writes label by label, and the CTC head judges every hypothesis (papers.md B3.2, B3.4).

    score = (1 - ctc_scale) log p_llm(labels, end) + ctc_scale log p_ctc(labels, end) + length_scale · number of labels

Labels are those of the CTC head, which are the first of the LLM's vocabulary. The same with the frames in command is
`shallow_fusion` with the LLM as its language model, see `frame_scorer`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import num_embeddings
from kikitori.scorers.base import SpeechLLMScorer, WeightedSum, length_scorer
from kikitori.scorers.ctc_prefix import CTCOutputs, CTCPrefixScorer, ctc_outputs, ctc_outputs_of_logits
from kikitori.search.autoregressive.beam import BeamHypothesis, Judge, beam_search
from kikitori.search.ctc.beam import collapse_frames, restrict_vocabulary
from kikitori.search.options import BeamSearch, JointSearch, JointTimeSyncSearch

LIKELY = 8
"""Of each frame so many labels may be proposed by CTC."""


def speech_llm_beam(
    llm: PreTrainedModel,
    prefix: AssembledInput,
    options: BeamSearch,
    *,
    eos_id: int,
    max_labels: Sequence[int],
    min_labels: int = 0,
) -> list[list[BeamHypothesis]]:
    """Beam search of the speech LLM alone, over its whole vocabulary; shares are `llm` and `length`.

    Args:
        llm: The LLM.
        prefix: What it reads before the first label.
        options: Those of the search.
        eos_id: Label that ends a transcript.
        max_labels: Most labels of each utterance.
        min_labels: Fewest labels.

    Raises:
        ModelError: Logits are not finite, or the LLM's cache cannot be forked.
    """
    num_labels = num_embeddings(llm)
    scorer = WeightedSum(
        [
            (SpeechLLMScorer(llm, prefix, num_labels, eos_id=eos_id), 1.0),
            (length_scorer(num_labels), options.length_scale),
        ]
    )
    return beam_search(scorer, options, max_labels=max_labels, min_labels=min_labels, most_gain=options.length_scale)


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
) -> list[list[BeamHypothesis]]:
    """The n-best list of each utterance, as of `beam_search`; shares are `llm`, `length` and `ctc`.

    Args:
        llm: The LLM.
        prefix: What it reads before the first label.
        logits: Of the CTC head, (batch, frames, labels + 1), blank last.
        lengths: Valid frames, (batch,).
        options: Those of the search.
        eos_id: Label that ends a transcript.
        max_labels: Most labels of each utterance.
        min_labels: Fewest labels.

    Raises:
        ModelError: Logits are not finite, the LLM's cache cannot be forked, or it has fewer labels than the CTC head.
    """
    num_labels = logits.shape[2] - 1
    outputs, allowed = _outputs(logits, lengths, options)
    scorer = WeightedSum(
        [
            (SpeechLLMScorer(llm, prefix, num_labels, eos_id=eos_id, allowed=allowed), 1.0 - options.ctc_scale),
            (length_scorer(num_labels), options.length_scale),
        ]
    )
    ctc = CTCPrefixScorer(outputs, window=options.window)
    return beam_search(
        scorer,
        options,
        max_labels=max_labels,
        min_labels=min_labels,
        judge=Judge(ctc, options.ctc_scale, options.pre_beam, options.ctc_labels),
        most_gain=options.length_scale,
    )


def frame_scorer(
    llm: PreTrainedModel, prefix: AssembledInput, num_labels: int, options: JointTimeSyncSearch, *, eos_id: int
) -> WeightedSum:
    """The speech LLM and the length for `shallow_fusion` (papers.md B3.3); utterances are those of the prefix.

    Raises:
        ModelError: The LLM's cache cannot be forked, or it has fewer labels than the CTC head.
    """
    return WeightedSum(
        [
            (SpeechLLMScorer(llm, prefix, num_labels, eos_id=eos_id), options.llm_scale),
            (length_scorer(num_labels), options.length_scale),
        ]
    )


def _outputs(logits: Tensor, lengths: Tensor, options: JointSearch) -> tuple[CTCOutputs, Tensor | None]:
    """What the CTC head says, thinned out, and the labels that are left to each utterance."""
    likely = LIKELY if options.ctc_labels else 1
    if options.vocabulary is None and options.collapse is None:
        return ctc_outputs_of_logits(logits, lengths, likely=likely), None
    num_labels = logits.shape[2] - 1
    rows = [
        row[:length].float().cpu().log_softmax(dim=-1) for row, length in zip(logits, lengths.tolist(), strict=True)
    ]
    ids = allowed = None
    if options.vocabulary is not None:
        restricted = [restrict_vocabulary(row, options.vocabulary, options.vocabulary_by) for row in rows]
        rows, ids = [row for row, _ in restricted], [kept for _, kept in restricted]
        allowed = torch.zeros(len(rows), num_labels, dtype=torch.bool)
        for mask, kept in zip(allowed, ids, strict=True):
            mask[torch.from_numpy(kept).long()] = True
    if options.collapse is not None:
        rows = [collapse_frames(row, options.collapse, options.collapse_by) for row in rows]
    return ctc_outputs(rows, num_labels, ids=ids, likely=likely), allowed
