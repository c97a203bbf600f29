"""Rescoring: the hypotheses of a first search put in another order by scorers that see them whole.

score(y) = Σ scale_i · share_i(y), where a share is the natural log-probability that a scorer gives to the hypothesis
with its end, before any scale; CTC's comes from the first search (papers.md B3.5, B3.6). Further shares need no
model: `length`, the number of labels where the first search did not count something else, label priors, and whatever an
n-best list has brought along.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path

import torch
from torch import Tensor

from kikitori.errors import ConfigError
from kikitori.model.decoder.base import Decoder
from kikitori.scorers.language_model import LanguageModel, load_language_model
from kikitori.scorers.ngram import NGramJudge, is_ngram, load_ngram_judge
from kikitori.scorers.options import CTC, INTERNAL_LM, LENGTH, NGRAM, SPEECH_LLM, LMOptions, PriorOptions
from kikitori.scorers.prior import load_prior
from kikitori.scorers.tree import TreeScores, score_sequences
from kikitori.search.options import LexiconSearch, RescoringSearch
from kikitori.text.units import TokenizerUnits, differing_labels, load_units, vocabulary_fingerprint, with_text_form
from kikitori.types import Hypothesis


def rescored(nbest: Sequence[Hypothesis], scales: Mapping[str, float]) -> tuple[Hypothesis, ...]:
    """The hypotheses ordered by the weighted sum of their shares, which becomes their score.

    Equal scores stay in the order that they had, all of them where all scales are 0.

    Raises:
        ConfigError: A hypothesis has no share of the name of a scale that is not 0.
    """
    if LENGTH in scales:
        nbest = [replace(h, scores={LENGTH: float(len(h.labels)), **h.scores}) for h in nbest]
    scored = [replace(hypothesis, score=weighted(hypothesis.scores, scales)) for hypothesis in nbest]
    return tuple(sorted(scored, key=lambda hypothesis: -hypothesis.score))


def weighted(shares: Mapping[str, float], scales: Mapping[str, float]) -> float:
    """The weighted sum of shares.

    What has the scale 0 counts as 0, even if it is infinite. With any other scale, what is impossible for one scorer
    or no number is impossible, -inf, also if that scorer is subtracted.

    Raises:
        ConfigError: There is no share of the name of a scale that is not 0.
    """
    total = 0.0
    for name, scale in scales.items():
        if scale == 0.0:
            continue
        if name not in shares:
            known = ", ".join(shares) or "none"
            raise ConfigError(
                f"the hypotheses have no share of that name (theirs: {known})",
                where=f"scales.{name}",
                remedy="name a language model under lms, or leave the scale out",
            )
        total = total + scale * shares[name] if isfinite(shares[name]) else -inf
    return total if isfinite(total) else -inf


def scales_of(options: RescoringSearch) -> dict[str, float]:
    """The scales by name; that of CTC is 1 where none is given."""
    return {CTC: 1.0, **options.scales}


def check_rescoring(options: RescoringSearch, known: Iterable[str] = ()) -> None:
    """Refuses scales of unknown scorers, and language models without a scale.

    Args:
        options: To check.
        known: Scorers that are there beside CTC, length, the language models and the priors.

    Raises:
        ConfigError: With the name.
    """
    first = {NGRAM} if isinstance(options.first, LexiconSearch) else set()
    taken = {CTC, LENGTH, SPEECH_LLM, INTERNAL_LM, *first}
    for where, name in [*(("lms", name) for name in options.lms), *(("priors", name) for name in options.priors)]:
        if name in taken:
            remedy = "choose another, such as lm" if where == "lms" else "choose another, such as prior"
            raise ConfigError("the name is taken", where=f"decoding.{where}.{name}", remedy=remedy)
        if name not in options.scales:
            raise ConfigError("it has no scale", where=f"decoding.{where}.{name}", remedy=f"set decoding.scales.{name}")
        taken.add(name)
    for name, prior in options.priors.items():
        if prior.lm is not None and (prior.lm not in options.lms or is_ngram(options.lms[prior.lm].path)):
            raise ConfigError(
                f"{prior.lm!r} is no language model with units",
                where=f"decoding.priors.{name}.lm",
                remedy="name one of decoding.lms, or leave it out for the recogniser's units",
            )
    names = (CTC, LENGTH, *first, *known, *options.lms, *options.priors)
    for name in options.scales:
        if name not in names:
            raise ConfigError(
                f"no such scorer (there are {', '.join(names)})",
                where=f"decoding.scales.{name}",
                remedy=f"name its folder with decoding.lms.{name}.path",
            )


Judge = LanguageModel | NGramJudge
"""What gives a share to whole hypotheses."""


def load_judge(options: LMOptions, device: torch.device | str = "cpu") -> Judge:
    """An LLM from a folder or the hub, or an n-gram from its file.

    Raises:
        ModelError: It is missing, damaged or unsafe.
    """
    if is_ngram(options.path):
        return load_ngram_judge(options.path, options.text_form)
    return load_language_model(options, device)


def labels_in(wanted: TokenizerUnits, nbest: Sequence[Hypothesis], units: TokenizerUnits | None) -> list[Sequence[int]]:
    """Each hypothesis in the labels of `wanted`: as it is if they know its own `units`, else from its text."""
    if units is not None and not any(differing_labels(units, wanted)):
        return [hypothesis.labels for hypothesis in nbest]
    return [wanted.encode(hypothesis.text) for hypothesis in nbest]


def with_lm(
    nbests: Sequence[Sequence[Hypothesis]], name: str, lm: Judge, units: TokenizerUnits | None
) -> tuple[list[tuple[Hypothesis, ...]], TreeScores]:
    """The hypotheses of some utterances with a language model's share of each, and what that took.

    Args:
        nbests: Hypotheses by utterance.
        name: Of the share.
        lm: The language model.
        units: The units of the hypotheses' labels; None goes by their texts.
    """
    if isinstance(lm, NGramJudge):
        found = lm.scores(nbests, units)
    else:
        found = lm.log_probs([labels_in(lm.units, nbest, units) for nbest in nbests])
    return _with_shares(nbests, name, found.scores), found


@dataclass(frozen=True, eq=False)
class LabelPrior:
    """A label prior as a judge of whole hypotheses; it counts no end.

    Attributes:
        log_probs: Of each label, (labels,) float64.
        units: The labels that it counts.
    """

    log_probs: Tensor
    units: TokenizerUnits


def load_label_prior(
    options: PriorOptions, lms: Mapping[str, LMOptions], units: TokenizerUnits | None, name: str = "prior"
) -> LabelPrior:
    """Loads a prior over the recogniser's units, or over those in which a language model reads texts.

    Args:
        options: Its file, and which of the language models.
        lms: These by name; see `check_rescoring`.
        units: The recogniser's, if they are known.
        name: Its own, for errors.

    Raises:
        ConfigError: The recogniser's units are meant and not known.
        ModelError: The file is missing, damaged or over other labels; the LM has no tokenizer.
    """
    if options.lm is not None:
        settings = lms[options.lm]
        units = with_text_form(load_units(settings.path), settings.text_form)
    if units is None:
        raise ConfigError("whose labels does it count?", where=f"decoding.priors.{name}", remedy="give --model")
    log_probs = load_prior(Path(options.path), units.size, vocabulary=vocabulary_fingerprint(units))
    return LabelPrior(log_probs.double(), units)


def with_prior(
    nbests: Sequence[Sequence[Hypothesis]], name: str, prior: LabelPrior, units: TokenizerUnits | None
) -> list[tuple[Hypothesis, ...]]:
    """The hypotheses of some utterances with the share of a label prior; arguments as of `with_lm`."""
    labels = [labels_in(prior.units, nbest, units) for nbest in nbests]
    scores = [[float(prior.log_probs[list(each)].sum()) for each in row] for row in labels]
    return _with_shares(nbests, name, scores)


def with_decoder(nbests: Sequence[Sequence[Hypothesis]], decoder: Decoder) -> list[tuple[Hypothesis, ...]]:
    """The hypotheses of some utterances with the share of the recogniser's own decoder.

    Args:
        nbests: Hypotheses by utterance.
        decoder: The decoder behind the same utterances.
    """
    labels = [[hypothesis.labels for hypothesis in nbest] for nbest in nbests]
    return _with_shares(nbests, SPEECH_LLM, score_sequences(decoder, labels).scores)


def _with_shares(
    nbests: Sequence[Sequence[Hypothesis]], name: str, found: Sequence[Sequence[float]]
) -> list[tuple[Hypothesis, ...]]:
    return [
        tuple(replace(h, scores={**h.scores, name: score}) for h, score in zip(nbest, scores, strict=True))
        for nbest, scores in zip(nbests, found, strict=True)
    ]
