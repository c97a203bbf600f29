"""Which search when: the one place that knows all searches, from an encoded batch to n-best lists.

Each search is a function of its own module, over tensors, scorers and a decoder; here these are taken from the model.
Text, confidence and speech positions of hypotheses are filled in here, for all searches alike.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kikitori.errors import AudioError
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.base import Decoder
from kikitori.scorers.base import Scorer, SequenceScorer, WeightedSum
from kikitori.scorers.ctc.phones import PhoneSequenceScorer
from kikitori.scorers.ctc.sequence import CTCSequenceScorer
from kikitori.scorers.decoder import DecoderSequenceScorer
from kikitori.scorers.internal_lm import internal_lm
from kikitori.scorers.options import CTC, HOTWORDS, INTERNAL_LM, PHONES, SPEECH_LLM
from kikitori.scorers.spelling import Spelling
from kikitori.search.autoregressive.beam import END
from kikitori.search.autoregressive.filters import decoder_filters
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.sampling import Sampling, sample, utterance_seed
from kikitori.search.autoregressive.speculative import speculative
from kikitori.search.batch import EncodedBatch
from kikitori.search.confidence import confidence
from kikitori.search.ctc.best_path import ctc_greedy
from kikitori.search.length import Limits, label_limit, overrun
from kikitori.search.options import (
    BeamSearch,
    CTCBeamSearch,
    CTCGreedySearch,
    Decoding,
    DelayedFusionSearch,
    DraftSearch,
    GreedySearch,
    JointSearch,
    JointTimeSyncSearch,
    LexiconSearch,
    RescoringSearch,
    SamplingSearch,
    Scored,
    ShallowFusionSearch,
    SpeculativeSearch,
)
from kikitori.search.rescore import rescored, with_scores
from kikitori.search.resources import ExternalModels
from kikitori.text.units import TokenizerUnits
from kikitori.text.words import join_words
from kikitori.types import Hypothesis, NBest

Result = NBest | AudioError
"""The n-best list of a recording, or why it has none."""


def first_pass(batch: EncodedBatch, options: DraftSearch) -> list[Hypothesis]:
    """The best hypothesis of each recording, of a search that goes before another one."""
    match options:
        case CTCBeamSearch() | LexiconSearch():
            options = replace(options, nbest=1)
    return [nbest[0] for nbest in _with_text(batch.ctc_units, _by_frames(batch, options), options)]


def shown_drafts(batch: EncodedBatch) -> list[list[int]] | None:
    """The drafts that the decoder reads beside the speech, in its labels; None if it reads none."""
    drafts = _own_drafts(batch)
    return None if drafts is None else batch.encode_texts(drafts)


def teacher_input(batch: EncodedBatch, labels: Sequence[Sequence[int]]) -> AssembledInput:
    """What the LLM reads of recordings and their transcripts in teacher forcing, drafts included."""
    return batch.speech_llm.teacher_input(batch.encoded, labels, shown_drafts(batch))


def decode(batch: EncodedBatch, options: Decoding) -> list[Result]:
    """The n-best list of each recording, or why it has none; options are as `check_search` wants them."""
    match options:
        case CTCGreedySearch() | CTCBeamSearch() | LexiconSearch():
            return [*_with_text(batch.ctc_units, _by_frames(batch, options), options)]
        case ShallowFusionSearch():
            return [*_with_text(batch.ctc_units, _shallow_fusion(batch, options), options)]
        case DelayedFusionSearch():
            from kikitori.search.fusion.delayed import delayed_fusion_of_logits

            reader, prior = batch.external_models.reader(options), batch.external_models.prior(options)
            found = delayed_fusion_of_logits(*batch.ctc_logits, reader, prior, options)
            return [*_with_text(batch.ctc_units, found, options)]
        case RescoringSearch():
            return _rescoring(batch, options)
        case _:
            return _autoregressive(batch, options)


def _with_text(units: TokenizerUnits, nbests: Sequence[NBest], options: Decoding) -> list[NBest]:
    """Hypotheses of a search, whose labels are of some units, with their text and confidence."""
    return [
        tuple(
            replace(each, text=each.text or units.decode(each.labels), confidence=confidence(each, options))
            for each in nbest
        )
        for nbest in nbests
    ]


def _by_frames(batch: EncodedBatch, options: DraftSearch) -> list[NBest]:
    """Searches over the outputs of a CTC head alone."""
    match options:
        case CTCGreedySearch():
            logits, num_frames = batch.ctc_logits
            return ctc_greedy(logits.float().log_softmax(dim=-1), num_frames)
        case CTCBeamSearch():
            return _ctc_beam(batch, options)
        case LexiconSearch():
            return _lexicon(batch, options)


def _ctc_beam(batch: EncodedBatch, options: CTCBeamSearch) -> list[NBest]:
    """CTC beam search, with hotwords as fusion of these alone."""
    if batch.hotwords is None:
        from kikitori.search.ctc.beam import ctc_beam_of_logits  # numba takes a moment to load

        return ctc_beam_of_logits(*batch.ctc_logits, options)
    from kikitori.search.fusion.shallow import shallow_fusion_of_logits

    hotwords = WeightedSum(_hotwords(batch, batch.ctc_units, options, batch.ctc_units.size))
    return shallow_fusion_of_logits(*batch.ctc_logits, hotwords, options)


def _hotwords(
    batch: EncodedBatch, units: TokenizerUnits, options: Scored, num_labels: int
) -> list[tuple[Scorer[Any], float]]:
    """What gives the user's phrases a bonus in a search over the first `num_labels` of some units, if there are any."""
    scorer = batch.hotword_scorer(units, num_labels)
    return [] if scorer is None else [(scorer, options.hotword_scale)]


def _lexicon(batch: EncodedBatch, options: LexiconSearch) -> list[NBest]:
    """Lexicon search, its words in the label units of the recogniser."""
    from kikitori.search.lexicon.search import lexicon_search

    words, prior = batch.external_models.words(options, batch.acoustic.config.phones)
    nbests = []
    for row in lexicon_search(*batch.acoustic.phone_log_probs(batch.encoded), words, options, prior):
        nbest: dict[str, Hypothesis] = {}
        for each in row:
            text = join_words([words.words[word] for word in each.labels], batch.trained_on.language)
            # Without spaces, other words may be the same text; the best come first.
            nbest.setdefault(text, replace(each, labels=tuple(batch.ctc_units.encode(text)), text=text))
        nbests.append(tuple(nbest.values()))
    return nbests


def _shallow_fusion(batch: EncodedBatch, options: ShallowFusionSearch) -> list[NBest]:
    from kikitori.search.fusion.shallow import shallow_fusion_of_logits

    hotwords = _hotwords(batch, batch.ctc_units, options, batch.ctc_units.size)
    scorer = batch.external_models.scorer(options, hotwords)
    found = shallow_fusion_of_logits(*batch.ctc_logits, scorer, options)
    if (most := batch.external_models.max_labels(options)) is None:
        return found
    return [tuple(replace(each, complete=len(each.labels) < most) for each in nbest) for nbest in found]


def _rescoring(batch: EncodedBatch, options: RescoringSearch) -> list[Result]:
    """The hypotheses of a first search in the order of further scorers; what the first search refused stays so."""
    match options.first:
        case BeamSearch() | JointSearch():
            first, units, models = _autoregressive(batch, options.first), batch.units, batch.decoder_models
        case CTCBeamSearch() | LexiconSearch():
            first = [*_with_text(batch.ctc_units, _by_frames(batch, options.first), options.first)]
            units, models = batch.ctc_units, batch.external_models
    rows = [row for row, result in enumerate(first) if not isinstance(result, AudioError)]
    nbests = [result for result in first if not isinstance(result, AudioError)]
    part = batch if len(rows) == len(first) else batch.rows(rows)
    found = iter(_with_text(units, _rescored(part, nbests, units, models, options), options) if rows else [])
    return [next(found) if isinstance(result, tuple) else result for result in first]


def _rescored(
    batch: EncodedBatch,
    nbests: list[NBest],
    units: TokenizerUnits,
    models: ExternalModels,
    options: RescoringSearch,
) -> list[NBest]:
    """Hypotheses over some units, with the external models over these, by the scorers that rescoring names."""
    options = models.with_paths(options)
    scorers: list[SequenceScorer] = []
    if SPEECH_LLM in options.scorers and not options.autoregressive:
        decoder = batch.decoder(shown_drafts(batch))
        nbests = _with_positions(nbests, decoder)
        scorers.append(DecoderSequenceScorer(decoder, Spelling(batch.units, units)))
    if CTC in options.scorers and options.autoregressive:
        logits, num_frames = batch.ctc_logits
        letters = batch.speller.letters if batch.speller is not None else _same
        scorers.append(CTCSequenceScorer(logits.float().log_softmax(dim=-1), num_frames, letters))
    if PHONES in options.scorers:
        ways = batch.external_models.pronunciations(options, batch.acoustic.config.phones)
        heard = batch.acoustic.phone_log_probs(batch.encoded)
        scorers.append(PhoneSequenceScorer(*heard, lambda each: _words(batch, each, units), ways))
    if INTERNAL_LM in options.scorers:
        spelling = Spelling(batch.units, units)
        scorers.append(internal_lm(batch.model.speech_llm, batch.decoder, batch.units, spelling).sequence_scorer())
    for scorer in (*scorers, *models.sequence_scorers(options)):
        nbests = with_scores(nbests, scorer)
    scales = {name: scale for name, scale in options.scales.items() if name != HOTWORDS}
    if batch.hotwords is not None:
        scales[HOTWORDS] = options.hotword_scale
    return [rescored(nbest, scales) for nbest in nbests]


def _words(batch: EncodedBatch, hypothesis: Hypothesis, units: TokenizerUnits) -> list[str] | None:
    """The words of a hypothesis as the CTC head writes them; None if it cannot."""
    if batch.speller is None or units is not batch.units:
        return hypothesis.text.split()
    letters = batch.speller.letters(hypothesis.labels)
    return None if letters is None else batch.ctc_units.decode(letters).split()


def _same(labels: Sequence[int]) -> Sequence[int]:
    return labels


def _own_drafts(batch: EncodedBatch) -> list[Hypothesis] | None:
    """The drafts that the decoder reads beside the speech; None if it reads none."""
    model = batch.model.autoregressive
    return None if model is None or not model.reads_drafts else first_pass(batch, batch.external_models.draft_search)


def _others(batch: EncodedBatch, decoder: Decoder, options: Scored, num_labels: int) -> list[tuple[Scorer[Any], float]]:
    """Scorers beside the decoder's own: external models, hotwords, and the internal LM where it is named."""
    others = [*batch.decoder_models.named(options, num_labels), *_hotwords(batch, batch.units, options, num_labels)]
    if INTERNAL_LM not in options.scorers:
        return others
    own = internal_lm(batch.model.speech_llm, lambda: decoder, batch.units)
    return [(own.scorer(num_labels), options.scale(INTERNAL_LM)), *others]


Autoregressive = GreedySearch | SamplingSearch | SpeculativeSearch | BeamSearch | JointSearch | JointTimeSyncSearch


def _autoregressive(batch: EncodedBatch, options: Autoregressive) -> list[Result]:
    """What the decoder writes, label by label, or behind the labels of the frames."""
    own = _own_drafts(batch)
    decoder = batch.decoder(None if own is None else batch.encode_texts(own))
    limits = _limits(batch, options)
    sizes = decoder.prefix_lengths.tolist()
    errors = [
        _too_long(*row, decoder.max_positions) for row in zip(batch.seconds, sizes, limits.max_labels, strict=True)
    ]
    if any(errors):
        fitting = [row for row, error in enumerate(errors) if error is None]
        others = iter(_autoregressive(batch.rows(fitting), options) if fitting else [])
        return [next(others) if error is None else error for error in errors]
    found = _written(batch, decoder, own, options, limits)
    return [*_with_text(batch.units, _with_positions(found, decoder), options)]


def _written(
    batch: EncodedBatch, decoder: Decoder, own: Sequence[Hypothesis] | None, options: Autoregressive, limits: Limits
) -> list[NBest]:
    filters = decoder_filters(decoder, decoder.vocab_size, decoder.eos_id)
    match options:
        case GreedySearch():
            return greedy(decoder, limits, filters)
        case SamplingSearch():
            seeds = [utterance_seed(options.seed, waveform) for waveform in batch.waveforms]
            return sample(decoder, Sampling(options.temperature, options.top_k, options.top_p), seeds, limits, filters)
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


def _limits(batch: EncodedBatch, options: Autoregressive) -> Limits:
    """Most and fewest labels: those of the options, else those that go with duration and training."""
    most = [options.max_labels or label_limit(seconds, batch.trained_on) for seconds in batch.seconds]
    return Limits(most, batch.trained_on.min_labels if options.min_labels is None else options.min_labels)


def _with_positions(nbests: Sequence[Sequence[Hypothesis]], decoder: Decoder) -> list[NBest]:
    """Hypotheses with what the decoder knows of each utterance: positions of the speech, and the language."""
    rows = zip(nbests, decoder.speech_lengths.tolist(), decoder.languages, strict=True)
    return [
        tuple(replace(each, speech_positions=positions, language=language) for each in nbest)
        for nbest, positions, language in rows
    ]


def _too_long(seconds: float, prefix: int, limit: int, most: int | None) -> AudioError | None:
    """The error of a recording whose prefix and longest transcript do not fit into the decoder."""
    problem = overrun(seconds, prefix, limit, most)
    remedy = "split the recording or lower decoding.max_labels"
    return None if problem is None else AudioError(problem, remedy=remedy)
