"""Which search when: the one place that knows all searches, from an encoded batch to n-best lists.

Each search is a function of its own module, over tensors, scorers and a decoder; `ctc.run` and `autoregressive.run`
take these from the recogniser, and fill in text, confidence and speech positions of the hypotheses.
"""

from collections.abc import Sequence

from kikitori.errors import AudioError
from kikitori.scorers.base import SequenceScorer
from kikitori.scorers.ctc.phones import PhoneSequenceScorer
from kikitori.scorers.ctc.sequence import CTCSequenceScorer
from kikitori.scorers.decoder import DecoderSequenceScorer
from kikitori.scorers.internal_lm import internal_lm
from kikitori.scorers.options import CTC, HOTWORDS, INTERNAL_LM, PHONES, SPEECH_LLM
from kikitori.scorers.spelling import Spelling
from kikitori.search.autoregressive.cascade import without_doubt
from kikitori.search.autoregressive.run import autoregressive_search, shown_drafts, with_positions
from kikitori.search.batch import EncodedBatch, Result
from kikitori.search.confidence import with_text
from kikitori.search.ctc.run import ctc_search
from kikitori.search.options import (
    BeamSearch,
    CascadeSearch,
    CTCBeamSearch,
    CTCGreedySearch,
    Decoding,
    DelayedFusionSearch,
    JointSearch,
    LexiconSearch,
    RescoringSearch,
    ShallowFusionSearch,
    VLLMSearch,
)
from kikitori.search.rescore import rescored, with_scores
from kikitori.search.resources import ExternalModels
from kikitori.text.units import TokenizerUnits
from kikitori.types import Hypothesis, NBest


def decode(batch: EncodedBatch, options: Decoding) -> list[Result]:
    """The n-best list of each recording, or why it has none; options are as `check_search` wants them."""
    match options:
        case CTCGreedySearch() | CTCBeamSearch() | LexiconSearch() | ShallowFusionSearch() | DelayedFusionSearch():
            return [*ctc_search(batch, options)]
        case RescoringSearch():
            return _rescoring(batch, options)
        case CascadeSearch():
            return _cascade(batch, options)
        case _:
            return autoregressive_search(batch, options)


def _rescoring(batch: EncodedBatch, options: RescoringSearch) -> list[Result]:
    """The hypotheses of a first search in the order of further scorers; what the first search refused stays so."""
    match options.first:
        case BeamSearch() | JointSearch() | VLLMSearch():
            first, units, models = autoregressive_search(batch, options.first), batch.units, batch.decoder_models
        case CTCBeamSearch() | LexiconSearch():
            first = [*ctc_search(batch, options.first)]
            units, models = batch.ctc_units, batch.external_models
    rows = [row for row, result in enumerate(first) if not isinstance(result, AudioError)]
    nbests = [result for result in first if not isinstance(result, AudioError)]
    part = batch if len(rows) == len(first) else batch.rows(rows)
    found = iter(with_text(units, _rescored(part, nbests, units, models, options), options) if rows else [])
    return [next(found) if isinstance(result, tuple) else result for result in first]


def _cascade(batch: EncodedBatch, options: CascadeSearch) -> list[Result]:
    """What greedy search is sure of, and what the second search finds in the other recordings.

    Greedy search knows nothing of hotwords: with any, all is left to the second.
    """
    if batch.hotwords is not None:
        return decode(batch, options.second)
    logits, num_frames = batch.ctc_logits
    letters = batch.speller.letters if batch.speller is not None else _same
    first = autoregressive_search(batch, options.first)
    best = [None if isinstance(result, AudioError) else result[0] for result in first]
    found = without_doubt(best, logits.float().log_softmax(dim=-1), num_frames, letters, options)
    results: list[Result] = [first[row] if each is None else (each,) for row, each in enumerate(found)]
    if rows := [row for row, each in enumerate(found) if each is None and best[row] is not None]:
        part = batch if len(rows) == len(first) else batch.rows(rows)
        for row, result in zip(rows, decode(part, options.second), strict=True):
            results[row] = result
    return results


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
        nbests = with_positions(nbests, decoder)
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
