"""The filter of pseudo-labels: which recognised texts are kept for training, and their error rates where known.

Utterances with what was recognised in them go in, reasons for rejection come out, and the counts, errors and groups by
confidence with which to choose a threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, inf, isfinite
from typing import Any

from kikitori.data.manifest import is_recognized
from kikitori.data.speech import FilterReport
from kikitori.scoring.errors.breakdown import units_of
from kikitori.scoring.errors.confidence import ConfidenceBin, ScoredUtterance, by_confidence, total_errors
from kikitori.scoring.metrics import ErrorCounts, count_errors
from kikitori.scoring.table import text_table
from kikitori.text.normalize import WITHOUT_WORDS, default_normalizer, versions_of
from kikitori.types import Utterance

UNREADABLE, FLAGGED, EMPTY, LENGTH, UNSURE = (
    "unreadable",
    "flagged",
    "no text",
    "unlikely length",
    "too little confidence",
)


@dataclass(frozen=True)
class Recognized:
    """What a recogniser made of an utterance; flags are reasons for rejection, those of the guards among them."""

    text: str
    confidence: float
    flags: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class PseudoLabelFilter:
    """Which texts are trusted.

    Attributes:
        rate: Those with at least and at most so many letters and digits per second of audio.
    """

    min_confidence: float = -inf
    rate: tuple[float, float] = (2.0, 30.0)

    def rejection(self, utterance: Utterance, found: Recognized) -> str | None:
        """Why a text is left out; None if it is kept. Little confidence is the last reason that is looked for."""
        if found.error is not None:
            return UNREADABLE
        if found.flags:
            return f"{FLAGGED}: {', '.join(found.flags)}"
        characters = sum(character.isalnum() for character in found.text)
        if not characters:
            return EMPTY
        low, high = self.rate
        if not low * utterance.duration <= characters <= high * utterance.duration:
            return LENGTH
        if not isfinite(found.confidence) or found.confidence < self.min_confidence:
            return UNSURE
        return None

    def settings(self) -> dict[str, Any]:
        """Both, for a file in JSON."""
        threshold = self.min_confidence if isfinite(self.min_confidence) else None
        return {"min_confidence": threshold, "rate": list(self.rate)}


@dataclass(frozen=True)
class Subset:
    """Utterances with one fate, and the errors in those that have a reference; None without any."""

    utterances: int
    seconds: float
    errors: ErrorCounts | None


@dataclass(frozen=True)
class FilterSummary:
    """What became of the utterances: texts that are kept, and the others by reason.

    Attributes:
        groups: Utterances by confidence, those left out for other reasons apart.
        names: Names of the utterances that are left out, by reason.
    """

    kept: Subset
    left_out: Mapping[str, Subset]
    groups: Sequence[ConfidenceBin]
    names: Mapping[str, list[str]]
    form: str

    def lines(self) -> list[str]:
        """The counts, a line each, and a table of the groups."""
        rate = "CER" if self.form in WITHOUT_WORDS else "WER"
        report = FilterReport(self.kept.utterances, self.kept.seconds, dict(self.names))
        parts = [self.kept, *(self.left_out[reason] for reason in self.names)]
        shown = [f", {rate} {part.errors.rate:.3f}" if part.errors else "" for part in parts]
        lines = [f"{line}{wrong}" for line, wrong in zip(report.lines(), shown, strict=True)]
        table = [["confidence at least", "utterances", "hours", rate, "of all surer", "of the rest"]]
        for group in self.groups:
            rates = [_shown(errors) for errors in (group.errors, group.kept, group.left_out)]
            table.append([f"{group.lowest:.4f}", f"{group.utterances}", f"{group.seconds / 3600:.2f}", *rates])
        scored = any(group.errors is not None for group in self.groups)
        return [*lines, *text_table([row if scored else row[:3] for row in table]).splitlines()]

    def summary(self) -> dict[str, Any]:
        """The same for a file in JSON."""
        return {
            "kept": _values(self.kept),
            "left_out": {reason: _values(part) for reason, part in self.left_out.items()},
            "by_confidence": [
                {
                    "lowest": group.lowest,
                    "utterances": group.utterances,
                    "seconds": group.seconds,
                    "error_rate": _rate(group.errors),
                    "error_rate_of_all_surer": _rate(group.kept),
                    "error_rate_of_the_rest": _rate(group.left_out),
                }
                for group in self.groups
            ],
            "errors": "characters" if self.form in WITHOUT_WORDS else "words",
            "normalizer": self.form,
            "normalizer_versions": versions_of(self.form),
        }


def summarize(
    utterances: Sequence[Utterance], found: Sequence[Recognized], rejections: Sequence[str | None]
) -> FilterSummary:
    """What became of utterances, in what of them is recognised, and why not all of it is kept (None where it is).

    A text that a recogniser wrote is no reference.
    """
    form = default_normalizer(utterance.language for utterance in utterances)
    outcomes: dict[str | None, list[ScoredUtterance]] = {}
    names: dict[str, list[str]] = {}
    for utterance, result, rejection in zip(utterances, found, rejections, strict=True):
        errors = None
        if utterance.text is not None and not is_recognized(utterance):
            errors = count_errors(units_of(form, utterance.text), units_of(form, result.text))
        outcomes.setdefault(rejection, []).append(ScoredUtterance(result.confidence, utterance.duration, errors))
        if rejection is not None:
            names.setdefault(rejection, []).append(utterance.utt_id)
    sure = [*outcomes.get(None, []), *outcomes.get(UNSURE, [])]
    groups = by_confidence([each for each in sure if isfinite(each.confidence)])
    parts = {rejection: _part(outcomes.get(rejection, [])) for rejection in (None, *names)}
    return FilterSummary(parts[None], {reason: parts[reason] for reason in names}, groups, names, form)


def _part(members: Sequence[ScoredUtterance]) -> Subset:
    return Subset(len(members), fsum(each.seconds for each in members), total_errors(members))


def _values(part: Subset) -> dict[str, Any]:
    return {"utterances": part.utterances, "seconds": part.seconds, "error_rate": _rate(part.errors)}


def _rate(errors: ErrorCounts | None) -> float | None:
    return None if errors is None else errors.rate


def _shown(errors: ErrorCounts | None) -> str:
    return "-" if errors is None else f"{errors.rate:.3f}"
