"""Beam search of a decoder, alone or joined by the CTC head, which judges every hypothesis (papers.md B3.2, B3.4).

    score = (1 - ctc_scale) log p_dec(labels, end) + ctc_scale log p_ctc(labels, end) + length_scale · number of labels

Labels are those of the CTC head, which are the first of the decoder's vocabulary. The same with the frames in command
is `shallow_fusion` with the decoder as its language model, see `frame_scorer`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kikitori.model.decoder.base import Decoder
from kikitori.scorers.base import DecoderScorer, WeightedSum, length_scorer
from kikitori.scorers.ctc_prefix import CTCOutputs, CTCPrefixScorer, ctc_outputs, ctc_outputs_of_logits
from kikitori.search.autoregressive.beam import Judge, beam_search
from kikitori.search.autoregressive.filters import LogitFilter
from kikitori.search.ctc.beam import collapse_frames, restrict_vocabulary
from kikitori.search.length import Limits
from kikitori.search.options import BeamSearch, JointSearch, JointTimeSyncSearch
from kikitori.types import NBest

LIKELY = 8
"""Of each frame so many labels may be proposed by CTC."""


def decoder_beam(
    decoder: Decoder, options: BeamSearch, limits: Limits, filters: Sequence[LogitFilter] = ()
) -> list[NBest]:
    """Beam search of a decoder alone, over its whole vocabulary; scores are `speech_llm` and `length`.

    Raises:
        ModelError: Logits are not finite, or the decoder's cache cannot be forked.
    """
    scorer = WeightedSum(
        [
            (DecoderScorer(decoder, decoder.vocab_size), 1.0),
            (length_scorer(decoder.vocab_size), options.length_scale),
        ]
    )
    return beam_search(scorer, options, limits, most_gain=options.length_scale, filters=filters)


def joint(
    decoder: Decoder,
    logits: Tensor,
    num_frames: Tensor,
    options: JointSearch,
    limits: Limits,
    filters: Sequence[LogitFilter] = (),
) -> list[NBest]:
    """The n-best list of each utterance, as of `beam_search`; scores are `speech_llm`, `length` and `ctc`.

    Args:
        decoder: What writes.
        logits: Of the CTC head, (batch, frames, labels + 1), blank last.
        num_frames: Valid frames, (batch,).
        options: Those of the search.
        limits: Most and fewest labels.
        filters: What rules labels out beside the fewest labels.

    Raises:
        ModelError: Logits are not finite, the decoder's cache cannot be forked, or it has fewer labels than the CTC
            head.
    """
    num_labels = logits.shape[2] - 1
    outputs, allowed = _outputs(logits, num_frames, options)
    scorer = WeightedSum(
        [
            (DecoderScorer(decoder, num_labels, allowed=allowed), 1.0 - options.ctc_scale),
            (length_scorer(num_labels), options.length_scale),
        ]
    )
    ctc = CTCPrefixScorer(outputs, window=options.window)
    judge = Judge(ctc, options.ctc_scale, options.pre_beam, options.ctc_labels)
    return beam_search(scorer, options, limits, judge=judge, most_gain=options.length_scale, filters=filters)


def frame_scorer(decoder: Decoder, num_labels: int, options: JointTimeSyncSearch) -> WeightedSum:
    """The decoder and the length for `shallow_fusion` (papers.md B3.3); utterances are those of the decoder.

    Raises:
        ModelError: The decoder's cache cannot be forked, or it has fewer labels than the CTC head.
    """
    return WeightedSum(
        [
            (DecoderScorer(decoder, num_labels), options.llm_scale),
            (length_scorer(num_labels), options.length_scale),
        ]
    )


def _outputs(logits: Tensor, num_frames: Tensor, options: JointSearch) -> tuple[CTCOutputs, Tensor | None]:
    """What the CTC head says, thinned out, and the labels that are left to each utterance."""
    likely = LIKELY if options.ctc_labels else 1
    if options.vocabulary is None and options.collapse is None:
        return ctc_outputs_of_logits(logits, num_frames, likely=likely), None
    num_labels = logits.shape[2] - 1
    rows = [
        row[:length].float().cpu().log_softmax(dim=-1) for row, length in zip(logits, num_frames.tolist(), strict=True)
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
