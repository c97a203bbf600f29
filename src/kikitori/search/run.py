"""Which search when: the one place that knows all searches, from what the encoder heard to n-best lists.

Each search is a function of its own module, over tensors and scorers; here are those tensors taken from the models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kikitori.data.augment import Waveform
from kikitori.errors import AudioError, ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.acoustic_model import AcousticModel
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import max_positions, num_embeddings
from kikitori.model.encoder import EncoderOutput
from kikitori.model.folder import LoadedModel
from kikitori.model.speech_llm import SpeechLLM
from kikitori.scorers.base import Scorer, SequenceScorer
from kikitori.scorers.decoder import SpeechLLMSequenceScorer
from kikitori.scorers.internal_lm import internal_scorer, internal_sequence_scorer
from kikitori.scorers.options import CTC, INTERNAL_LM, LENGTH, NGRAM, SPEECH_LLM
from kikitori.search.autoregressive.generate import LabelRow
from kikitori.search.autoregressive.greedy import greedy
from kikitori.search.autoregressive.sampling import Sampling, sample, utterance_seed
from kikitori.search.autoregressive.speculative import speculative
from kikitori.search.ctc.best_path import ctc_greedy
from kikitori.search.length import label_limit, overrun
from kikitori.search.options import (
    CTC_SEARCHES,
    JOINT_SEARCHES,
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
from kikitori.search.rescore import check_rescoring, rescored, with_scores
from kikitori.search.resources import ExternalModels
from kikitori.text.units import TokenizerUnits
from kikitori.text.words import join_words
from kikitori.types import Hypothesis, TrainedOn

NBest = tuple[Hypothesis, ...]
"""What a search returns for one utterance: at least one hypothesis, best first."""


@dataclass(frozen=True, eq=False)
class Heard:
    """A batch of recordings as a recogniser has heard it.

    Attributes:
        loaded: The recogniser.
        partners: Language models and priors that may join.
        waveforms: The recordings, 16 kHz mono.
        encoded: What the encoder says about them.
    """

    loaded: LoadedModel
    partners: ExternalModels
    waveforms: Sequence[Waveform]
    encoded: EncoderOutput

    @property
    def model(self) -> AcousticModel | SpeechLLM:
        """The network."""
        return self.loaded.model

    @property
    def speech_llm(self) -> SpeechLLM:
        """The network of a search that needs an LLM, see `check_search`."""
        assert isinstance(self.model, SpeechLLM)  # noqa: S101
        return self.model

    @property
    def units(self) -> TokenizerUnits:
        """Label units."""
        return self.loaded.units

    @property
    def trained_on(self) -> TrainedOn:
        """What the training data were like."""
        return self.loaded.trained_on

    @property
    def seconds(self) -> list[float]:
        """Durations."""
        return [len(waveform) / SAMPLE_RATE for waveform in self.waveforms]

    def ctc_logits(self) -> tuple[Tensor, Tensor]:
        """Of the CTC head, (batch, frames, labels + 1), blank last, and valid frames (batch,); computed once."""
        return self._ctc_logits

    @cached_property
    def _ctc_logits(self) -> tuple[Tensor, Tensor]:
        return acoustic_model(self.model).ctc_logits(self.encoded)

    @cached_property
    def drafts(self) -> list[Hypothesis]:
        """What the search of the model's `draft.yaml` finds."""
        return first_pass(self, self.partners.draft_search)

    def prefix(self) -> AssembledInput:
        """What the LLM reads before the first label."""
        return self.speech_llm.prefix(self.encoded, self.shown_drafts())

    def teacher_input(self, labels: Sequence[Sequence[int]]) -> AssembledInput:
        """The same with transcripts behind it."""
        return self.speech_llm.teacher_input(self.encoded, labels, self.shown_drafts())

    def shown_drafts(self) -> list[list[int]] | None:
        """The drafts that the LLM reads, in its labels; None if it reads none."""
        return self.spelt(self.drafts) if self.speech_llm.config.show_draft else None

    def spelt(self, hypotheses: Sequence[Hypothesis]) -> list[list[int]]:
        """The labels in which the LLM would write them; CTC may have written a word in other units."""
        return [self.units.encode(hypothesis.text) for hypothesis in hypotheses]

    def rows(self, rows: Sequence[int]) -> "Heard":
        """Some of the recordings."""
        place = torch.tensor(rows, device=self.encoded.lengths.device)
        states = tuple(layer[place] for layer in self.encoded.intermediate)
        encoded = EncoderOutput(self.encoded.frames[place], self.encoded.lengths[place], states)
        return Heard(self.loaded, self.partners, [self.waveforms[row] for row in rows], encoded)


def acoustic_model(model: AcousticModel | SpeechLLM) -> AcousticModel:
    """The acoustic model that a network is or has."""
    return model.acoustic if isinstance(model, SpeechLLM) else model


def uses_speech_llm(options: Decoding) -> bool:
    """Whether the LLM of a recogniser takes part in a search."""
    scorers = getattr(options, "scorers", {})
    return not isinstance(options, CTC_SEARCHES) or bool({SPEECH_LLM, INTERNAL_LM} & {*scorers})


def check_search(options: Decoding, model: AcousticModel | SpeechLLM, name: str) -> None:
    """Refuses a search for which a network has not what it takes.

    Raises:
        ModelError: It has no LLM, no CTC head or no phone head; `name` says which network.
        ConfigError: Scales do not fit.
    """
    by_ctc = isinstance(options, CTC_SEARCHES)
    first = getattr(options, "first", None) or getattr(options, "draft", None) or options
    by_phones = isinstance(first, LexiconSearch)
    if not by_ctc and not isinstance(model, SpeechLLM):
        raise ModelError(f"an acoustic model has no LLM for '{options.search}'", where=name, remedy="use ctc_greedy")
    heads = acoustic_model(model).config
    if by_phones and not heads.phone_layers:
        raise ModelError("the model has no phone head", where=name, remedy="train one with ctc.phones, or use ctc_beam")
    by_labels = (by_ctc or isinstance(options, JOINT_SEARCHES)) and not by_phones
    if by_labels and not heads.ctc_layers:
        raise ModelError("the model has no CTC head", where=name, remedy="use greedy")
    if isinstance(options, RescoringSearch):
        check_rescoring(options, (SPEECH_LLM, INTERNAL_LM) if isinstance(model, SpeechLLM) else ())


def decode(heard: Heard, options: Decoding) -> list[NBest | AudioError]:
    """The n-best list of each recording, or why it has none; options are as `check_search` wants them."""
    match options:
        case CTCGreedySearch() | CTCBeamSearch():
            return [*_ctc(heard, options)]
        case ShallowFusionSearch():
            return [*_fused(heard, options)]
        case DelayedFusionSearch():
            return [*_fused_by_words(heard, options)]
        case LexiconSearch():
            return [*_in_words(heard, options)]
        case RescoringSearch():
            return [*_rescored(heard, options)]
        case (
            GreedySearch()
            | SamplingSearch()
            | SpeculativeSearch()
            | BeamSearch()
            | JointSearch()
            | JointTimeSyncSearch()
        ):
            return _written(heard, options)


def _ctc(heard: Heard, options: CTCGreedySearch | CTCBeamSearch) -> list[NBest]:
    nbest: list[list[tuple[Sequence[int], float]]]
    if isinstance(options, CTCGreedySearch):
        logits, lengths = heard.ctc_logits()
        nbest = [[best] for best in ctc_greedy(logits.float().log_softmax(dim=-1), lengths)]
    else:
        from kikitori.search.ctc.beam import ctc_beam_of_logits  # numba takes a moment to load

        found = ctc_beam_of_logits(*heard.ctc_logits(), options)
        nbest = [[(hypothesis.labels, hypothesis.ctc) for hypothesis in row] for row in found]
    text = heard.units.decode
    return [tuple(Hypothesis(tuple(ls), text(ls), s, shares={"ctc": s}) for ls, s in row) for row in nbest]


def _fused(heard: Heard, options: ShallowFusionSearch) -> list[NBest]:
    from kikitori.search.fusion.shallow import shallow_fusion_of_logits

    scorer = heard.partners.scorer(options)
    found = shallow_fusion_of_logits(*heard.ctc_logits(), scorer, options)
    names, most = ("ctc", *scorer.names), heard.partners.max_labels(options)
    return [
        tuple(
            Hypothesis(
                *(each.labels, heard.units.decode(each.labels), each.score, each.calls),
                complete=most is None or len(each.labels) < most,
                shares=dict(zip(names, (each.ctc, *each.scores), strict=True)),
            )
            for each in row
        )
        for row in found
    ]


def _fused_by_words(heard: Heard, options: DelayedFusionSearch) -> list[NBest]:
    from kikitori.search.fusion.delayed import delayed_fusion_of_logits

    reader, prior = heard.partners.reader(options), heard.partners.prior(options)
    return delayed_fusion_of_logits(*heard.ctc_logits(), reader, prior, options)


def _in_words(heard: Heard, options: LexiconSearch) -> list[NBest]:
    from kikitori.search.lexicon.search import lexicon_search

    model = acoustic_model(heard.model)
    words, prior = heard.partners.words(options, model.config.phones)
    found = lexicon_search(*model.phone_log_probs(heard.encoded), words, options, prior)
    nbests = []
    for row in found:
        nbest: dict[str, Hypothesis] = {}
        for each in row:
            text = join_words(each.words, heard.trained_on.language)
            shares = {CTC: each.ctc, NGRAM: each.ngram, LENGTH: float(len(each.words))}
            # Without spaces, other words may be the same text; the best come first.
            nbest.setdefault(text, Hypothesis(tuple(heard.units.encode(text)), text, each.score, shares=shares))
        nbests.append(tuple(nbest.values()))
    return nbests


def _first(heard: Heard, options: DraftSearch) -> list[NBest]:
    """Of a search that goes before another one."""
    return _in_words(heard, options) if isinstance(options, LexiconSearch) else _ctc(heard, options)


def first_pass(heard: Heard, options: DraftSearch) -> list[Hypothesis]:
    """The best hypothesis of each recording."""
    if not isinstance(options, CTCGreedySearch):
        options = replace(options, nbest=1)
    return [nbest[0] for nbest in _first(heard, options)]


def _drafts(heard: Heard, options: SpeculativeSearch) -> list[Hypothesis]:
    """What the speech LLM probably writes: if nothing else is named, the drafts that it reads anyway."""
    if options.draft is None and heard.speech_llm.config.show_draft:
        return heard.drafts
    return first_pass(heard, options.draft or CTCGreedySearch())


def _rescored(heard: Heard, options: RescoringSearch) -> list[NBest]:
    nbests, options = _first(heard, options.first), heard.partners.with_paths(options)
    scorers: list[SequenceScorer] = []
    if SPEECH_LLM in options.scorers:
        model, prefix = heard.speech_llm, heard.prefix()
        scorers.append(SpeechLLMSequenceScorer(model.llm, prefix, model.config.eos_id))
        rows = zip(nbests, prefix.speech_lengths.tolist(), strict=True)
        nbests = [tuple(replace(h, speech_positions=positions) for h in nbest) for nbest, positions in rows]
    if INTERNAL_LM in options.scorers:
        scorers.append(internal_sequence_scorer(heard.speech_llm, heard.units))
    for scorer in (*scorers, *heard.partners.sequence_scorers(options)):
        nbests = with_scores(nbests, scorer)
    return [rescored(nbest, options.scales) for nbest in nbests]


def _others(heard: Heard, options: Scored, num_labels: int) -> list[tuple[Scorer[Any], float]]:
    """Scorers beside the speech LLM's own: the internal LM where it is named, and external models."""
    own = INTERNAL_LM in options.scorers
    ilm = [(internal_scorer(heard.speech_llm, num_labels), options.scale(INTERNAL_LM))] if own else []
    return [*ilm, *heard.partners.named(options)]


Stepwise = GreedySearch | SamplingSearch | SpeculativeSearch
Writing = Stepwise | BeamSearch | JointSearch | JointTimeSyncSearch


def _written(heard: Heard, options: Writing) -> list[NBest | AudioError]:
    """What the speech LLM writes, label by label, or behind the labels of the frames."""
    prefix = heard.prefix()
    limit = None if isinstance(options, JointTimeSyncSearch) else options.max_labels
    limits = [limit or label_limit(seconds, heard.trained_on) for seconds in heard.seconds]
    most, sizes = max_positions(heard.speech_llm.llm), prefix.lengths.tolist()
    errors = [_too_long(*row, most) for row in zip(heard.seconds, sizes, limits, strict=True)]
    if any(errors):
        fitting = [row for row, error in enumerate(errors) if error is None]
        others = iter(_written(heard.rows(fitting), options) if fitting else [])
        return [next(others) if error is None else error for error in errors]
    if isinstance(options, BeamSearch | JointSearch):
        return [*_searched(heard, prefix, limits, options)]
    if isinstance(options, JointTimeSyncSearch):
        return [*_time_synchronous(heard, prefix, options)]
    text, positions = heard.units.decode, prefix.speech_lengths.tolist()
    return [
        (
            Hypothesis(
                *(tuple(row.labels), text(row.labels), row.score, row.llm_passes, row.complete, place),
                shares={SPEECH_LLM: row.score},
            ),
        )
        for row, place in zip(_write(heard, prefix, limits, options), positions, strict=True)
    ]


def _write(heard: Heard, prefix: AssembledInput, limits: Sequence[int], options: Stepwise) -> list[LabelRow]:
    llm, eos_id = heard.speech_llm.llm, heard.speech_llm.config.eos_id
    least = heard.trained_on.min_labels if options.min_labels is None else options.min_labels
    if isinstance(options, GreedySearch):
        return greedy(llm, prefix, eos_id=eos_id, max_labels=limits, min_labels=least)
    if isinstance(options, SpeculativeSearch):
        drafts = heard.spelt(_drafts(heard, options))
        return speculative(*(llm, prefix, drafts), eos_id=eos_id, max_labels=limits, min_labels=least)
    settings = Sampling(options.temperature, options.top_k, options.top_p)
    seeds = [utterance_seed(options.seed, waveform) for waveform in heard.waveforms]
    return sample(llm, prefix, settings, seeds=seeds, eos_id=eos_id, max_labels=limits, min_labels=least)


def _searched(
    heard: Heard, prefix: AssembledInput, limits: Sequence[int], options: BeamSearch | JointSearch
) -> list[NBest]:
    from kikitori.search.autoregressive.joint import joint, speech_llm_beam

    llm, eos_id = heard.speech_llm.llm, heard.speech_llm.config.eos_id
    least = heard.trained_on.min_labels if options.min_labels is None else options.min_labels
    if isinstance(options, BeamSearch):
        others = _others(heard, options, num_embeddings(llm))
        found = speech_llm_beam(llm, prefix, options, eos_id=eos_id, max_labels=limits, min_labels=least, others=others)
    else:
        logits, lengths = heard.ctc_logits()
        others = _others(heard, options, logits.shape[2] - 1)
        found = joint(
            *(llm, prefix, logits, lengths, options),
            eos_id=eos_id,
            max_labels=limits,
            min_labels=least,
            others=others,
        )
    by_ctc = (CTC,) if isinstance(options, JointSearch) else ()
    names = (SPEECH_LLM, LENGTH, *(scorer.name for scorer, _ in others), *by_ctc)
    return [
        tuple(
            Hypothesis(
                *(each.labels, heard.units.decode(each.labels), each.score, each.calls, each.complete, positions),
                shares=dict(zip(names, each.shares, strict=True)),
            )
            for each in row
        )
        for row, positions in zip(found, prefix.speech_lengths.tolist(), strict=True)
    ]


def _time_synchronous(heard: Heard, prefix: AssembledInput, options: JointTimeSyncSearch) -> list[NBest]:
    from kikitori.search.autoregressive.joint import frame_scorer
    from kikitori.search.fusion.shallow import shallow_fusion_of_logits

    model, (logits, lengths) = heard.speech_llm, heard.ctc_logits()
    num_labels = logits.shape[2] - 1
    others = _others(heard, options, num_labels)
    scorer = frame_scorer(model.llm, prefix, num_labels, options, eos_id=model.config.eos_id, others=others)
    found = shallow_fusion_of_logits(logits, lengths, scorer, options)
    names = (CTC, *scorer.names)
    return [
        tuple(
            Hypothesis(
                *(each.labels, heard.units.decode(each.labels), each.score, each.calls),
                speech_positions=positions,
                shares=dict(zip(names, (each.ctc, *each.scores), strict=True)),
            )
            for each in row
        )
        for row, positions in zip(found, prefix.speech_lengths.tolist(), strict=True)
    ]


def _too_long(seconds: float, prefix: int, limit: int, most: int | None) -> AudioError | None:
    """The error of a recording whose prefix and longest transcript do not fit into the LLM."""
    problem = overrun(seconds, prefix, limit, most)
    remedy = "split the recording or lower decoding.max_labels"
    return None if problem is None else AudioError(problem, remedy=remedy)
