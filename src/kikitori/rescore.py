"""`kikitori rescore`: the n-best lists of an evaluation in another order, without the audio."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kikitori.decoding.options import RescoringSearch
from kikitori.decoding.rescoring import (
    check_rescoring,
    load_judge,
    load_label_prior,
    rescored,
    scales_of,
    with_lm,
    with_prior,
)
from kikitori.scoring.report import Prediction
from kikitori.text.units import TokenizerUnits
from kikitori.types import Hypothesis


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


def rescore(
    sets: Mapping[str, Sequence[Prediction]],
    options: RescoringSearch,
    units: TokenizerUnits | None = None,
    device: str = "cpu",
) -> Rescored:
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
    places = [
        (name, index)
        for name, rows in sets.items()
        for index, row in enumerate(rows)
        if any(hypothesis.shares for hypothesis in row.nbest)  # an utterance too short to be searched has none
    ]
    nbests: list[tuple[Hypothesis, ...]] = [sets[name][index].nbest for name, index in places]
    check_rescoring(options, _shared_names(nbests))
    labels = nodes = 0
    started = time.perf_counter()
    for name, prior in options.priors.items():
        nbests = with_prior(nbests, name, load_label_prior(prior, options.lms, units, name), units)
    for name, settings in options.lms.items():
        nbests, found = with_lm(nbests, name, load_judge(settings, device), units)
        labels, nodes = labels + found.labels, nodes + found.nodes
    scales = scales_of(options)
    ordered = [rescored(nbest, scales) for nbest in nbests]
    seconds = (time.perf_counter() - started) / max(1, len(ordered))
    results = {name: list(rows) for name, rows in sets.items()}
    for (name, index), nbest in zip(places, ordered, strict=True):
        old = results[name][index]
        results[name][index] = replace(old, pred_text=nbest[0].text, time=old.time + seconds, nbest=nbest)
    return Rescored(results, labels, nodes)


def _shared_names(nbests: Sequence[Sequence[Hypothesis]]) -> list[str]:
    """Shares that every hypothesis has."""
    names = [set(hypothesis.shares) for nbest in nbests for hypothesis in nbest]
    return sorted(set.intersection(*names)) if names else []
