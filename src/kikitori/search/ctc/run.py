"""The searches over the frames of a CTC head, with what they need of a recogniser."""

from collections.abc import Sequence
from dataclasses import replace

from kikitori.scorers.base import WeightedSum
from kikitori.search.batch import EncodedBatch
from kikitori.search.confidence import with_text
from kikitori.search.ctc.best_path import ctc_greedy
from kikitori.search.options import (
    CTCBeamSearch,
    CTCGreedySearch,
    DelayedFusionSearch,
    DraftSearch,
    LexiconSearch,
    ShallowFusionSearch,
)
from kikitori.text.words import join_words
from kikitori.types import Hypothesis, NBest

CTCSearch = DraftSearch | ShallowFusionSearch | DelayedFusionSearch


def ctc_search(batch: EncodedBatch, options: CTCSearch) -> list[NBest]:
    """The n-best list of each recording, in the label units of the CTC head."""
    return with_text(batch.ctc_units, _found(batch, options), options)


def first_pass(batch: EncodedBatch, options: DraftSearch) -> list[Hypothesis]:
    """The best hypothesis of each recording, of a search that goes before another one."""
    match options:
        case CTCBeamSearch() | LexiconSearch():
            options = replace(options, nbest=1)
    return [nbest[0] for nbest in ctc_search(batch, options)]


def _found(batch: EncodedBatch, options: CTCSearch) -> Sequence[NBest]:
    match options:
        case CTCGreedySearch():
            logits, num_frames = batch.ctc_logits
            return ctc_greedy(logits.float().log_softmax(dim=-1), num_frames)
        case CTCBeamSearch():
            return _ctc_beam(batch, options)
        case LexiconSearch():
            return _lexicon(batch, options)
        case ShallowFusionSearch():
            return _shallow_fusion(batch, options)
        case DelayedFusionSearch():
            from kikitori.search.fusion.delayed import delayed_fusion_of_logits

            reader, prior = batch.external_models.reader(options), batch.external_models.prior(options)
            return delayed_fusion_of_logits(*batch.ctc_logits, reader, prior, options)


def _ctc_beam(batch: EncodedBatch, options: CTCBeamSearch) -> list[NBest]:
    """CTC beam search, with hotwords as fusion of these alone."""
    if batch.hotwords is None:
        from kikitori.search.ctc.beam import ctc_beam_of_logits  # numba takes a moment to load

        return ctc_beam_of_logits(*batch.ctc_logits, options)
    from kikitori.search.fusion.shallow import shallow_fusion_of_logits

    hotwords = WeightedSum(batch.hotword_scorers(batch.ctc_units, batch.ctc_units.size, options.hotword_scale))
    return shallow_fusion_of_logits(*batch.ctc_logits, hotwords, options)


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

    hotwords = batch.hotword_scorers(batch.ctc_units, batch.ctc_units.size, options.hotword_scale)
    scorer = batch.external_models.scorer(options, hotwords)
    found = shallow_fusion_of_logits(*batch.ctc_logits, scorer, options)
    if (most := batch.external_models.max_labels(options)) is None:
        return found
    return [tuple(replace(each, complete=len(each.labels) < most) for each in nbest) for nbest in found]
