"""`kikitori rescore`: the n-best lists of an evaluation in another order, without the audio."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kikitori.scoring.report import Prediction
from kikitori.search.options import RescoringSearch
from kikitori.search.rescore import check_rescoring, lm_scorer, prior_scorer, rescored, with_scores
from kikitori.text.units import TokenizerUnits
from kikitori.types import Hypothesis

Sets = Mapping[str, Sequence[Prediction]]
"""Predictions by set."""


def rescore(
    sets: Sets, options: RescoringSearch, units: TokenizerUnits | None = None, device: str = "cpu"
) -> dict[str, list[Prediction]]:
    """Rescores predictions; those that no search has scored stay as they are.

    Scores that all hypotheses have may have a scale. A language model over the given units scores labels as they are;
    without units, texts count. The time of each has grown by its part of what the scorers took.

    Raises:
        ConfigError: An unknown scorer, or one without a scale.
        ModelError: A language model cannot be loaded.
    """
    scales = options.scales

    def ordered(row: Prediction) -> Prediction:
        if not _is_scored(row):
            return row
        nbest = rescored(row.nbest, scales)
        return replace(row, pred_text=nbest[0].text, nbest=nbest)

    scored = with_named_scores(sets, options, units, device)
    return {name: [ordered(row) for row in rows] for name, rows in scored.items()}


def with_named_scores(
    sets: Sets, options: RescoringSearch, units: TokenizerUnits | None = None, device: str = "cpu"
) -> dict[str, list[Prediction]]:
    """The same hypotheses in the same order, with the scores that `rescore` would order them by."""
    places = [(name, index) for name, rows in sets.items() for index, row in enumerate(rows) if _is_scored(row)]
    nbests: list[tuple[Hypothesis, ...]] = [sets[name][index].nbest for name, index in places]
    check_rescoring(options, stored_scores(sets))
    started = time.perf_counter()
    for name, prior in options.priors.items():
        nbests = with_scores(nbests, prior_scorer(name, prior, options.lms, units))
    for name, lm in options.lms.items():
        nbests = with_scores(nbests, lm_scorer(name, lm.lm_options(str(lm.path)), units, device))
    seconds = (time.perf_counter() - started) / max(1, len(nbests))
    results = {name: list(rows) for name, rows in sets.items()}
    for (name, index), nbest in zip(places, nbests, strict=True):
        old = results[name][index]
        results[name][index] = replace(old, time=old.time + seconds, nbest=nbest)
    return results


def stored_scores(sets: Sets) -> list[str]:
    """Names of the scores that every scored hypothesis has."""
    names = [{*h.scores} for rows in sets.values() for row in rows if _is_scored(row) for h in row.nbest]
    return sorted(set.intersection(*names)) if names else []


def _is_scored(row: Prediction) -> bool:
    return any(hypothesis.scores for hypothesis in row.nbest)  # an utterance too short to be searched has none
