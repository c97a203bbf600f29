"""Rescoring: the hypotheses of a first search put in another order by scorers that see them whole.

score(y) = Σ scale_i · score_i(y), where score_i is the natural log-probability that a scorer gives to the hypothesis
with its end; CTC's comes from the first search (papers.md B3.5, B3.6). Further scores need no model: `length`, the
number of labels where the first search did not count something else, label priors, and whatever an n-best list has
brought along.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import torch

from kikitori.errors import ConfigError
from kikitori.scorers.base import SequenceScorer, weighted
from kikitori.scorers.language_model import LMSequenceScorer, load_language_model
from kikitori.scorers.ngram import NGramSequenceScorer, is_ngram
from kikitori.scorers.options import CTC, HOTWORDS, INTERNAL_LM, LENGTH, SPEECH_LLM, LMOptions, ScorerOptions
from kikitori.scorers.prior import PriorSequenceScorer, load_prior
from kikitori.scorers.spelling import Spelling
from kikitori.search.options import RescoringSearch
from kikitori.text.ngram.model import load_ngram
from kikitori.text.units import TokenizerUnits, load_units, vocabulary_fingerprint, with_text_form
from kikitori.types import Hypothesis, NBest


def rescored(nbest: Sequence[Hypothesis], scales: Mapping[str, float]) -> NBest:
    """The hypotheses ordered by the weighted sum of their scores, which becomes their score.

    Equal ones stay in the order that they had, all of them where all scales are 0.

    Raises:
        ConfigError: A hypothesis has no score of the name of a scale that is not 0.
    """
    if LENGTH in scales:
        nbest = [replace(h, scores={LENGTH: float(len(h.labels)), **h.scores}) for h in nbest]
    scored = [replace(hypothesis, score=weighted(hypothesis.scores, scales)) for hypothesis in nbest]
    return tuple(sorted(scored, key=lambda hypothesis: -hypothesis.score))


def with_scores(nbests: Sequence[Sequence[Hypothesis]], scorer: SequenceScorer) -> list[NBest]:
    """The hypotheses of some utterances with what a scorer gives to each.

    Where all of an utterance are impossible to it (each has a word that the lexicon has not), it says nothing of them,
    0 for each: the other scorers decide.
    """
    found = [[0.0] * len(scores) if {*scores} == {-inf} else scores for scores in scorer.scores(nbests)]
    return [
        tuple(replace(h, scores={**h.scores, scorer.name: score}) for h, score in zip(nbest, scores, strict=True))
        for nbest, scores in zip(nbests, found, strict=True)
    ]


def check_rescoring(options: RescoringSearch, known: Iterable[str] = ()) -> None:
    """Refuses unknown scorers, and those with a path but without a scale.

    `known` are those that are there beside CTC, length and what the options name.

    Raises:
        ConfigError: With the name.
    """
    taken = (CTC, LENGTH, HOTWORDS, SPEECH_LLM, INTERNAL_LM, *options.first_scores)
    there = [*dict.fromkeys((CTC, LENGTH, HOTWORDS, *options.first_scores, *known, *options.lms, *options.priors))]
    for name, scorer in options.scorers.items():
        where = f"decoding.scorers.{name}"
        if name in taken and scorer.path is not None:
            raise ConfigError("the name is taken", where=where, remedy="choose another, such as lm or prior")
        if name not in there:
            what = f"no such scorer (there are {', '.join(there)})"
            raise ConfigError(what, where=where, remedy=f"name its folder or file with {where}.path")
        if scorer.path is not None and scorer.scale is None:
            raise ConfigError("it has no scale", where=where, remedy=f"set {where}.scale")
        if scorer.lm is not None and (scorer.lm not in options.lms or is_ngram(str(options.lms[scorer.lm].path))):
            raise ConfigError(
                f"{scorer.lm!r} is no language model with units",
                where=f"{where}.lm",
                remedy="name another of the scorers, or leave it out for the recogniser's units",
            )


def lm_scorer(
    name: str, options: LMOptions, units: TokenizerUnits | None, device: torch.device | str = "cpu"
) -> SequenceScorer:
    """An LLM from a folder or the hub, or an n-gram from its file; without units hypotheses go by their texts.

    Raises:
        ModelError: It is missing, damaged or unsafe.
    """
    if is_ngram(options.path):
        return NGramSequenceScorer(name, load_ngram(options.path), units, options.text_form, where=options.path)
    return LMSequenceScorer(name, load_language_model(options, device), units)


def prior_scorer(
    name: str, options: ScorerOptions, lms: Mapping[str, ScorerOptions], units: TokenizerUnits | None
) -> PriorSequenceScorer:
    """A prior over the recogniser's units, or over those in which one of the language models reads texts.

    Raises:
        ConfigError: The recogniser's units are meant and not known.
        ModelError: The file is missing, damaged or over other labels; the LM has no tokenizer.
    """
    counted = units
    if options.lm is not None:
        lm = lms[options.lm]
        counted = with_text_form(load_units(str(lm.path)), lm.text_form)
    if counted is None:
        raise ConfigError("whose labels does it count?", where=f"decoding.scorers.{name}", remedy="give --model")
    log_probs = load_prior(Path(str(options.path)), counted.size, vocabulary=vocabulary_fingerprint(counted))
    return PriorSequenceScorer(name, log_probs.double(), Spelling(counted, units))
