"""The searches whose labels the decoder writes, with what they need of a recogniser."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kikitori.errors import AudioError
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.base import Decoder
from kikitori.scorers.base import Scorer
from kikitori.scorers.internal_lm import internal_lm
from kikitori.scorers.options import INTERNAL_LM
from kikitori.search.autoregressive.beam import END
from kikitori.search.autoregressive.filters import decoder_filters
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.sampling import Sampling, sample, utterance_seed
from kikitori.search.autoregressive.speculative import speculative
from kikitori.search.autoregressive.vllm import served, vllm
from kikitori.search.batch import EncodedBatch, Result
from kikitori.search.confidence import with_text
from kikitori.search.ctc.run import first_pass
from kikitori.search.length import Limits, label_limit, overrun
from kikitori.search.options import (
    BeamSearch,
    CTCGreedySearch,
    GreedySearch,
    JointSearch,
    JointTimeSyncSearch,
    SamplingSearch,
    Scored,
    SpeculativeSearch,
    VLLMSearch,
)
from kikitori.types import Hypothesis, NBest

AutoregressiveSearch = (
    GreedySearch | SamplingSearch | SpeculativeSearch | BeamSearch | JointSearch | JointTimeSyncSearch | VLLMSearch
)


def autoregressive_search(batch: EncodedBatch, options: AutoregressiveSearch) -> list[Result]:
    """What the decoder writes, label by label, or behind the labels of the frames."""
    own = _own_drafts(batch)
    decoder = batch.decoder(None if own is None else batch.encode_texts(own))
    limits = _limits(batch, options)
    sizes = decoder.prefix_lengths.tolist()
    most = _most_positions(decoder, options)
    errors = [_too_long(*row, most) for row in zip(batch.seconds, sizes, limits.max_labels, strict=True)]
    if any(errors):
        fitting = [row for row, error in enumerate(errors) if error is None]
        others = iter(autoregressive_search(batch.rows(fitting), options) if fitting else [])
        return [next(others) if error is None else error for error in errors]
    found = _written(batch, decoder, own, options, limits)
    return [*with_text(batch.units, with_positions(found, decoder), options)]


def shown_drafts(batch: EncodedBatch) -> list[list[int]] | None:
    """The drafts that the decoder reads beside the speech, in its labels; None if it reads none."""
    drafts = _own_drafts(batch)
    return None if drafts is None else batch.encode_texts(drafts)


def teacher_input(batch: EncodedBatch, labels: Sequence[Sequence[int]]) -> AssembledInput:
    """What the LLM reads of recordings and their transcripts in teacher forcing, drafts included."""
    return batch.speech_llm.teacher_input(batch.encoded, labels, shown_drafts(batch))


def with_positions(nbests: Sequence[Sequence[Hypothesis]], decoder: Decoder) -> list[NBest]:
    """Hypotheses with what the decoder knows of each utterance: positions of the speech, and the language."""
    rows = zip(nbests, decoder.speech_lengths.tolist(), decoder.languages, strict=True)
    return [
        tuple(replace(each, speech_positions=positions, language=language) for each in nbest)
        for nbest, positions, language in rows
    ]


def _own_drafts(batch: EncodedBatch) -> list[Hypothesis] | None:
    """The drafts that the decoder reads beside the speech; None if it reads none."""
    model = batch.model.autoregressive
    return None if model is None or not model.reads_drafts else first_pass(batch, batch.external_models.draft_search)


def _written(
    batch: EncodedBatch,
    decoder: Decoder,
    own: Sequence[Hypothesis] | None,
    options: AutoregressiveSearch,
    limits: Limits,
) -> list[NBest]:
    filters = decoder_filters(decoder, decoder.vocab_size, decoder.eos_id)
    match options:
        case GreedySearch():
            return greedy(decoder, limits, filters)
        case SamplingSearch():
            seeds = [utterance_seed(options.seed, waveform) for waveform in batch.waveforms]
            return sample(decoder, Sampling(options.temperature, options.top_k, options.top_p), seeds, limits, filters)
        case VLLMSearch():
            drafts_read = None if own is None else batch.encode_texts(own)
            prefix = batch.speech_llm.prefix(batch.encoded, drafts_read)
            seeds = [utterance_seed(options.seed, waveform) for waveform in batch.waveforms]
            return vllm(prefix, decoder.eos_id, decoder.vocab_size, seeds, limits, options)
        case SpeculativeSearch():
            known = own if options.draft is None else None
            drafts = first_pass(batch, options.draft or CTCGreedySearch()) if known is None else known
            return speculative(decoder, batch.encode_texts(drafts), limits, filters=filters)
        case BeamSearch():
            from kikitori.search.autoregressive.joint import decoder_beam  # numba takes a moment to load

            size = decoder.vocab_size
            filters = decoder_filters(decoder, size, END)
            return decoder_beam(decoder, options, limits, _others(batch, decoder, options, size), filters)
        case JointSearch():
            from kikitori.search.autoregressive.joint import joint, joint_by_letters

            logits, num_frames = batch.ctc_logits
            if (speller := batch.speller) is not None:
                size = decoder.vocab_size
                others, filters = _others(batch, decoder, options, size), decoder_filters(decoder, size, END)
                return joint_by_letters(decoder, logits, num_frames, speller, options, limits, others, filters)
            size = logits.shape[2] - 1
            filters = decoder_filters(decoder, size, END)
            return joint(decoder, logits, num_frames, options, limits, _others(batch, decoder, options, size), filters)
        case JointTimeSyncSearch():
            from kikitori.search.autoregressive.joint import frame_scorer
            from kikitori.search.fusion.shallow import shallow_fusion_of_logits

            logits, num_frames = batch.ctc_logits
            others = _others(batch, decoder, options, logits.shape[2] - 1)
            scorer = frame_scorer(decoder, logits.shape[2] - 1, options, others)
            return shallow_fusion_of_logits(logits, num_frames, scorer, options)


def _others(batch: EncodedBatch, decoder: Decoder, options: Scored, num_labels: int) -> list[tuple[Scorer[Any], float]]:
    """Scorers beside the decoder's own: external models, hotwords, and the internal LM where it is named."""
    others = [
        *batch.decoder_models.named(options, num_labels),
        *batch.hotword_scorers(batch.units, num_labels, options.hotword_scale),
    ]
    if INTERNAL_LM not in options.scorers:
        return others
    own = internal_lm(batch.model.speech_llm, lambda: decoder, batch.units)
    return [(own.scorer(num_labels), options.scale(INTERNAL_LM)), *others]


def _most_positions(decoder: Decoder, options: AutoregressiveSearch) -> int | None:
    """Most positions of prefix and labels together; those of a server too, where it runs the LLM."""
    match options:
        case VLLMSearch():
            both = [most for most in (decoder.max_positions, served(options).max_positions) if most is not None]
            return min(both, default=None)
    return decoder.max_positions


def _limits(batch: EncodedBatch, options: AutoregressiveSearch) -> Limits:
    """Most and fewest labels: those of the options, else those that go with duration and training."""
    most = [options.max_labels or label_limit(seconds, batch.trained_on) for seconds in batch.seconds]
    return Limits(most, batch.trained_on.min_labels if options.min_labels is None else options.min_labels)


def _too_long(seconds: float, prefix: int, limit: int, most: int | None) -> AudioError | None:
    """The error of a recording whose prefix and longest transcript do not fit into the decoder."""
    problem = overrun(seconds, prefix, limit, most)
    remedy = "split the recording or lower decoding.max_labels"
    return None if problem is None else AudioError(problem, remedy=remedy)
