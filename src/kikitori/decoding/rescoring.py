"""Rescoring: the hypotheses of a first search put in another order by scorers that see them whole.

score(y) = Σ scale_i · share_i(y), where a share is the natural log-probability that a scorer gives to the hypothesis
with its end, before any scale; CTC's comes from the first search (papers.md B3.5, B3.6). Two further shares need no
model: `length`, the number of labels, and whatever an n-best list has brought along.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite

from kikitori.decoding.language_model import LanguageModel
from kikitori.decoding.options import CTC, LENGTH, SPEECH_LLM, RescoringSearch
from kikitori.decoding.tree_scores import TreeScores, score_sequences
from kikitori.errors import ConfigError
from kikitori.model.assemble import AssembledInput
from kikitori.model.speech_llm import SpeechLLM
from kikitori.text.units import TokenizerUnits, equal_units
from kikitori.types import Hypothesis

NBest = Sequence[Hypothesis]


def rescored(nbest: NBest, scales: Mapping[str, float]) -> tuple[Hypothesis, ...]:
    """The hypotheses ordered by the weighted sum of their shares, which becomes their score.

    Equal scores stay in the order that they had, all of them where all scales are 0.

    Raises:
        ConfigError: A hypothesis has no share of the name of a scale that is not 0.
    """
    if LENGTH in scales:
        nbest = [replace(h, shares={**h.shares, LENGTH: float(len(h.labels))}) for h in nbest]
    scored = [replace(hypothesis, score=weighted(hypothesis.shares, scales)) for hypothesis in nbest]
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
        known: Scorers that are there beside CTC, length and the language models.

    Raises:
        ConfigError: With the name.
    """
    for name in options.lms:
        if name in (CTC, LENGTH, SPEECH_LLM):
            raise ConfigError("the name is taken", where=f"decoding.lms.{name}", remedy="choose another, such as lm")
        if name not in options.scales:
            raise ConfigError("it has no scale", where=f"decoding.lms.{name}", remedy=f"set decoding.scales.{name}")
    names = (CTC, LENGTH, *known, *options.lms)
    for name in options.scales:
        if name not in names:
            raise ConfigError(
                f"no such scorer (there are {', '.join(names)})",
                where=f"decoding.scales.{name}",
                remedy=f"name its folder with decoding.lms.{name}.path",
            )


def lm_labels(lm: LanguageModel, nbest: NBest, units: TokenizerUnits | None) -> list[Sequence[int]]:
    """Each hypothesis in the labels of a language model: as it is if its own `units` are equal, else from its text."""
    if units is not None and equal_units(units, lm.units):
        return [hypothesis.labels for hypothesis in nbest]
    return [lm.units.encode(hypothesis.text) for hypothesis in nbest]


def with_lm(
    nbests: Sequence[NBest], name: str, lm: LanguageModel, units: TokenizerUnits | None
) -> tuple[list[tuple[Hypothesis, ...]], TreeScores]:
    """The hypotheses of some utterances with a language model's share of each, and what that took.

    Args:
        nbests: Hypotheses by utterance.
        name: Of the share.
        lm: The language model.
        units: The units of the hypotheses' labels; None goes by their texts.
    """
    found = lm.log_probs([lm_labels(lm, nbest, units) for nbest in nbests])
    return _with_shares(nbests, name, found), found


def with_speech_llm(nbests: Sequence[NBest], model: SpeechLLM, prefix: AssembledInput) -> list[tuple[Hypothesis, ...]]:
    """The hypotheses of some utterances with the share of the speech LLM that has heard them.

    Args:
        nbests: Hypotheses by utterance.
        model: The speech LLM.
        prefix: Its input before the first label, of the same utterances.
    """
    labels = [[hypothesis.labels for hypothesis in nbest] for nbest in nbests]
    judged = _with_shares(nbests, SPEECH_LLM, score_sequences(model.llm, prefix, labels, eos_id=model.config.eos_id))
    positions: list[int] = prefix.speech_lengths.tolist()
    rows = zip(judged, positions, strict=True)
    return [tuple(replace(h, speech_positions=heard) for h in nbest) for nbest, heard in rows]


def _with_shares(nbests: Sequence[NBest], name: str, found: TreeScores) -> list[tuple[Hypothesis, ...]]:
    return [
        tuple(replace(h, shares={**h.shares, name: score}) for h, score in zip(nbest, scores, strict=True))
        for nbest, scores in zip(nbests, found.scores, strict=True)
    ]
