"""Beam search of a decoder, alone or joined by the CTC head, which scores every hypothesis (papers.md B3.2, B3.4).

    score = λ_dec log p_dec(labels, end) + λ_ctc log p_ctc(labels, end) + λ_length · number of labels + ...

with λ the scales of the scorers, λ_dec being 1 - λ_ctc unless it is given; further ones are those of an external LM and
of what is subtracted, a prior or the internal LM. Labels are those of the CTC head, which are the first of the
decoder's vocabulary. The same with the frames in command is `shallow_fusion` with the decoder as its language model,
see `frame_scorer`.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

import torch
from torch import Tensor

from kikitori.model.decoder.base import Decoder
from kikitori.scorers.base import Scorer, WeightedSum
from kikitori.scorers.ctc.prefix import CTCOutputs, CTCPrefixScorer, ctc_outputs, ctc_outputs_of_logits
from kikitori.scorers.ctc.spelled import SpelledCTCScorer
from kikitori.scorers.ctc.speller import TokenSpeller
from kikitori.scorers.decoder import DecoderScorer
from kikitori.scorers.options import CTC, HOTWORDS, LENGTH, SPEECH_LLM
from kikitori.scorers.prior import length_scorer
from kikitori.search.autoregressive.beam import PartialScorer, beam_search
from kikitori.search.autoregressive.filters import LogitFilter
from kikitori.search.autoregressive.recombination import Recombination
from kikitori.search.ctc.beam import collapse_frames, restrict_vocabulary
from kikitori.search.length import Limits
from kikitori.search.options import BeamSearch, JointSearch, JointTimeSyncSearch, Scored
from kikitori.search.pruning import JointPruning
from kikitori.types import Hypothesis, NBest

LIKELY = 8
"""Of each frame so many labels may be proposed by CTC."""
PRE_BEAM, PROPOSED = 16, 4
"""Labels per hypothesis that CTC scores: those most probable without it, and those that it finds likeliest itself."""

Others = Sequence[tuple[Scorer[Any], float]]
"""Further scorers of labels, with their scales."""


def decoder_beam(
    decoder: Decoder, options: BeamSearch, limits: Limits, others: Others = (), filters: Sequence[LogitFilter] = ()
) -> list[NBest]:
    """Beam search of a decoder over all its labels; scores are `speech_llm`, `length` and those of the others.

    Args:
        decoder: What writes.
        options: Those of the search.
        limits: Most and fewest labels.
        others: Further scorers, over the decoder's vocabulary.
        filters: What rules labels out beside the fewest labels.

    Raises:
        ModelError: Logits are not finite, or the decoder's cache cannot be forked.
    """
    num_labels = decoder.vocab_size
    scorer = _weighted(DecoderScorer(decoder, num_labels), num_labels, options, others)
    return beam_search(scorer, options, limits, most_gain=_most_gain(options, others), filters=filters)


def joint(
    decoder: Decoder,
    logits: Tensor,
    num_frames: Tensor,
    options: JointSearch,
    limits: Limits,
    others: Others = (),
    filters: Sequence[LogitFilter] = (),
    *,
    pre_beam: int | None = PRE_BEAM,
    proposed: int = PROPOSED,
) -> list[NBest]:
    """The n-best list of each utterance; scores are `speech_llm`, `length`, those of the others and `ctc`.

    Args:
        decoder: What writes.
        logits: Of the CTC head, (batch, frames, labels + 1), blank last.
        num_frames: Valid frames, (batch,).
        options: Those of the search.
        limits: Most and fewest labels.
        others: Further scorers, over the labels of the CTC head.
        filters: What rules labels out beside the fewest labels.
        pre_beam: Labels per hypothesis that CTC scores, the most probable ones without it; None for all, as where
            nothing else has a weight.
        proposed: And so many that it finds likeliest itself.

    Raises:
        ModelError: Logits are not finite, the decoder's cache cannot be forked, or it has fewer labels than the CTC
            head.
    """
    num_labels = logits.shape[2] - 1
    outputs, allowed = _outputs(logits, num_frames, options.pruning, LIKELY if proposed else 1)
    scorer = _weighted(DecoderScorer(decoder, num_labels, allowed=allowed), num_labels, options, others)
    asked = pre_beam if any((options.scale(SPEECH_LLM), *(scale for _, scale in others))) else None
    ctc = PartialScorer(CTCPrefixScorer(outputs, window=options.pruning.window), options.scale(CTC), asked, proposed)
    return beam_search(scorer, options, limits, partial=ctc, most_gain=_most_gain(options, others), filters=filters)


def joint_by_letters(
    decoder: Decoder,
    logits: Tensor,
    num_frames: Tensor,
    speller: TokenSpeller,
    options: JointSearch,
    limits: Limits,
    others: Others = (),
    filters: Sequence[LogitFilter] = (),
    *,
    pre_beam: int | None = PRE_BEAM,
) -> list[NBest]:
    """As `joint`, over the decoder's own labels, which CTC scores by the characters that they are spelt with.

    Hypotheses of nothing but punctuation, which is free, become empty; so does the text where CTC finds an empty one
    likelier than the best that the search has found: Whisper does not begin with the end.

    Args:
        decoder: What writes.
        logits: Of the CTC head, (batch, frames, characters + 1), blank last.
        num_frames: Valid frames, (batch,).
        speller: From the decoder's labels to characters.
        options: Those of the search.
        limits: Most and fewest labels.
        others: Further scorers, over the decoder's vocabulary.
        filters: What rules labels out beside the fewest labels.
        pre_beam: Labels per hypothesis that CTC scores, the most probable ones without it; None for all.

    Raises:
        ModelError: Logits are not finite, or the decoder's cache cannot be forked.
    """
    num_labels = decoder.vocab_size
    letters, _ = _outputs(logits, num_frames, options.pruning, 1)
    scorer = _weighted(DecoderScorer(decoder, num_labels), num_labels, options, others)
    spelled = SpelledCTCScorer(CTCPrefixScorer(letters, window=options.pruning.window), speller, num_labels)
    ctc = PartialScorer(spelled, options.scale(CTC), pre_beam)
    most = options.pruning.variants
    same = None if most is None else Recombination(most, speller.text, speller.point)
    gain = _most_gain(options, others)
    found = beam_search(scorer, options, limits, partial=ctc, most_gain=gain, filters=filters, recombination=same)
    found = [tuple(_without_mere_punctuation(each, speller) for each in nbest) for nbest in found]
    if not options.scale(CTC):
        return found
    rows, none = torch.arange(len(found)), torch.empty(len(found), 0, dtype=torch.int64)
    nothing = spelled.log_probs_of(spelled.start(len(found)), rows, none)[:, -1].tolist()
    return [_unless_silent(*row, options.scale(CTC)) for row in zip(found, nothing, strict=True)]


def _without_mere_punctuation(hypothesis: Hypothesis, speller: TokenSpeller) -> Hypothesis:
    """No labels where none has a letter: Whisper cannot begin with the end, and CTC heard nothing."""
    return hypothesis if speller.letters(hypothesis.labels) else replace(hypothesis, labels=())


def _unless_silent(nbest: NBest, nothing: float, scale: float) -> NBest:
    """The hypotheses, or the empty one alone where CTC gives more to it, `nothing`, than to the best that has letters.

    What CTC finds likelier among the others, such as a sigh, is what the decoder finds less likely still.
    """
    best = next((each for each in nbest if each.labels), None)
    if best is None or best.scores[CTC] >= nothing:
        return nbest
    # Whisper cannot begin with the end: the decoder's share is that of mere punctuation, or of the best hypothesis.
    empty = next((each for each in nbest if not each.labels), nbest[0])
    score = empty.score + scale * (nothing - empty.scores[CTC])
    return (replace(empty, labels=(), score=score, scores={**empty.scores, CTC: nothing}),)


def frame_scorer(decoder: Decoder, num_labels: int, options: JointTimeSyncSearch, others: Others = ()) -> WeightedSum:
    """The decoder, the length and other scorers for `shallow_fusion` (papers.md B3.3).

    Utterances are those of the decoder.

    Raises:
        ModelError: The decoder's cache cannot be forked, or it has fewer labels than the CTC head.
    """
    return _weighted(DecoderScorer(decoder, num_labels), num_labels, options, others)


def _weighted(decoder: DecoderScorer, num_labels: int, options: Scored, others: Others) -> WeightedSum:
    own: Others = [(decoder, options.scale(SPEECH_LLM)), (length_scorer(num_labels), options.scale(LENGTH))]
    return WeightedSum([*own, *others])


def _most_gain(options: Scored, others: Others) -> float:
    """What a label can add to a score at most: anything, where log-probabilities are subtracted or letters counted."""
    subtracts = any(scale < 0.0 for scale in (options.scale(SPEECH_LLM), *(scale for _, scale in others)))
    counts = any(scorer.name == HOTWORDS for scorer, _ in others)
    return inf if subtracts or counts else options.scale(LENGTH)


def _outputs(
    logits: Tensor, num_frames: Tensor, pruning: JointPruning, likely: int
) -> tuple[CTCOutputs, Tensor | None]:
    """What the CTC head says, thinned out, and the labels that are left to each utterance."""
    if pruning.vocabulary is None and pruning.collapse is None:
        return ctc_outputs_of_logits(logits, num_frames, likely=likely), None
    num_labels = logits.shape[2] - 1
    rows = [
        row[:length].float().cpu().log_softmax(dim=-1) for row, length in zip(logits, num_frames.tolist(), strict=True)
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
