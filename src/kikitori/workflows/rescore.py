"""`kikitori rescore`: the n-best lists of an evaluation in another order, without the audio."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kikitori.scoring.report import Prediction
from kikitori.search.options import RescoringSearch
from kikitori.search.rescore import (
    check_rescoring,
    load_judge,
    load_label_prior,
    rescored,
    scales_of,
    with_lm,
    with_prior,
)
from kikitori.text.units import TokenizerUnits
from kikitori.types import Hypothesis

Sets = Mapping[str, Sequence[Prediction]]


@dataclass(frozen=True)
class Rescored:
    """What became of the predictions.

    Attributes:
        sets: Predictions by set; their `time` has grown by their share of the time that it took.
        labels: Labels of all hypotheses, as often as a language model has judged them.
        nodes: Labels that were read for that, those of shared beginnings once.
    """

    sets: dict[str, list[Prediction]]
    labels: int = 0
    nodes: int = 0


def rescore(sets: Sets, options: RescoringSearch, units: TokenizerUnits | None = None, device: str = "cpu") -> Rescored:
    """Rescores predictions; those that no search has scored stay as they are.

    Args:
        sets: Predictions by set, as `read_predictions` gives them. Shares that all hypotheses have may have a scale.
        options: Language models and scales; the first search has been.
        units: The units of the hypotheses' labels, which a language model over the same units then judges as they are;
            None goes by their texts.
        device: Where the language models compute.

    Raises:
        ConfigError: A scale without a scorer, or a language model without a scale.
        ModelError: A language model cannot be loaded.
    """
    judged = with_shares(sets, options, units, device)
    scales = scales_of(options)

    def ordered(row: Prediction) -> Prediction:
        if not _is_scored(row):
            return row
        nbest = rescored(row.nbest, scales)
        return replace(row, pred_text=nbest[0].text, nbest=nbest)

    return replace(judged, sets={name: [ordered(row) for row in rows] for name, rows in judged.sets.items()})


def with_shares(
    sets: Sets, options: RescoringSearch, units: TokenizerUnits | None = None, device: str = "cpu"
) -> Rescored:
    """The same hypotheses in the same order, with the shares that `rescore` would order them by."""
    places = [(name, index) for name, rows in sets.items() for index, row in enumerate(rows) if _is_scored(row)]
    nbests: list[tuple[Hypothesis, ...]] = [sets[name][index].nbest for name, index in places]
    check_rescoring(options, stored_shares(sets))
    labels = nodes = 0
    started = time.perf_counter()
    for name, prior in options.priors.items():
        nbests = with_prior(nbests, name, load_label_prior(prior, options.lms, units, name), units)
    for name, settings in options.lms.items():
        nbests, found = with_lm(nbests, name, load_judge(settings, device), units)
        labels, nodes = labels + found.labels, nodes + found.nodes
    seconds = (time.perf_counter() - started) / max(1, len(nbests))
    results = {name: list(rows) for name, rows in sets.items()}
    for (name, index), nbest in zip(places, nbests, strict=True):
        old = results[name][index]
        results[name][index] = replace(old, time=old.time + seconds, nbest=nbest)
    return Rescored(results, labels, nodes)


def stored_shares(sets: Sets) -> list[str]:
    """Shares that every scored hypothesis has."""
    names = [{*h.scores} for rows in sets.values() for row in rows if _is_scored(row) for h in row.nbest]
    return sorted(set.intersection(*names)) if names else []


def _is_scored(row: Prediction) -> bool:
    return any(hypothesis.scores for hypothesis in row.nbest)  # an utterance too short to be searched has none
