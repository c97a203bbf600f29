"""Evaluation report: predictions per named set go in, `report.json`, `report.html` and `predictions.jsonl` come out.

Rows without a reference text are written but not scored; a row that failed is an empty prediction, scored as such.
The total sums the counts of all sets, so each word weighs the same.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kikitori.data.manifest import BYTES
from kikitori.errors import counted
from kikitori.io.files import write_text
from kikitori.scoring.conditions import Conditions, read_conditions, speed
from kikitori.scoring.metrics import ErrorCounts, align_words, char_errors, confidence_interval, word_errors
from kikitori.scoring.page import Example, render_page
from kikitori.scoring.table import text_table
from kikitori.text.forms.fillers import FillerCounts
from kikitori.text.normalize import WITHOUT_WORDS, default_normalizer, normalize, versioned, versions_of
from kikitori.types import Hypothesis, Utterance

PREDICTIONS, REPORT, PAGE = "predictions.jsonl", "report.json", "report.html"
REPLACED_FLAG = "replaced"  # set by a guard that put another text in place of the recogniser's
WORST_UTTERANCES = 50
FREQUENT_SUBSTITUTIONS = 30
MAX_ALIGNED_PAIRS = 10_000_000  # alignment takes about four bytes per pair of words


@dataclass(frozen=True)
class Prediction:
    """What the recogniser made of one utterance: the n-best list of the search, best first, or an error.

    Attributes:
        pred_text: Raw predicted text; empty where the row failed.
        time: Compute seconds spent on this row; of a batch, its share.
        llm_passes: Forward passes of the LLM after prefill.
        flags: Warnings, such as `length_limit`; `replaced` marks a text that a guard put in place.
        speech_positions: Positions of the speech in the LLM's input or memory, or None without an LLM.
        reasons: What flags mean here, in words, by their names.
        ctc_agreement: Agreement of the speech LLM's text with the CTC posteriors, 0 to 1; None without both.
    """

    utterance: Utterance
    pred_text: str
    time: float
    error: str | None = None
    llm_passes: int = 0
    flags: tuple[str, ...] = ()
    speech_positions: int | None = None
    nbest: tuple[Hypothesis, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    ctc_agreement: float | None = None


def build_report(
    sets: Mapping[str, Sequence[Prediction]],
    *,
    normalizer: str | None,
    decoding: str,
    model: str,
    versions: Mapping[str, str],
    conditions: Conditions | None = None,
    fillers: FillerCounts | None = None,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Scores sets of predictions by name and returns the content of `report.json`.

    `wer`, `cer` and `wer_ci` (95 %, bootstrap over utterances) are fractions, and None where nothing was scored; `rtfx`
    is None where no time was measured. `positions_per_second` are speech positions per second of audio, over the rows
    that an LLM has read; None without any; `flags` are how many rows have each. Without a normalizer each set gets that
    of its rows' languages, and the total's `normalizer` joins the names where sets differ. `decoder` is there where the
    search uses one.
    """
    shared = {"decoding": decoding, "model": model, "versions": dict(versions)}
    shared |= {} if decoder is None else {"decoder": decoder}
    names = {
        name: normalizer or default_normalizer(prediction.utterance.language for prediction in predictions)
        for name, predictions in sets.items()
    }
    counts = {name: _count(predictions, names[name]) for name, predictions in sets.items()}
    per_set = {name: _summary(predictions, counts[name], names[name]) | shared for name, predictions in sets.items()}
    total = _summary(
        [prediction for predictions in sets.values() for prediction in predictions],
        [pair for pairs in counts.values() for pair in pairs],
        normalizer or ", ".join(sorted(set(names.values()))),
    )
    known = {"conditions": conditions, "fillers": fillers}
    more = {key: None if value is None else asdict(value) for key, value in known.items()}
    return total | shared | more | {"sets": per_set}


def write_report(
    directory: Path,
    report: Mapping[str, Any],
    predictions: Mapping[str, Sequence[Prediction]],
    scored: Mapping[str, Sequence[Prediction]] | None = None,
) -> list[Path]:
    """Writes `report.json`, `report.html` and `predictions.jsonl`, each whole or not at all, and returns their paths.

    Where other texts were scored than those of the predictions, such as those without fillers, the page shows these.

    Raises:
        DataError: A file cannot be written.
    """
    rows = (prediction_line(name, prediction) for name, members in predictions.items() for prediction in members)
    contents = {
        PREDICTIONS: "".join(rows),
        PAGE: _page(report, scored or predictions),
        REPORT: _json(report, indent=2) + "\n",
    }
    for name, content in contents.items():
        write_text(directory / name, content)
    return [directory / name for name in contents]


def prediction_line(set_name: str, prediction: Prediction) -> str:
    """A line of `predictions.jsonl`, with its end."""
    return _json(_row(set_name, prediction)) + "\n"


def format_table(report: Mapping[str, Any]) -> str:
    """Returns the sets and their total as an aligned plain text table; rates are fractions."""
    return text_table(_table(report))


def _count(predictions: Iterable[Prediction], normalizer: str) -> list[tuple[ErrorCounts, ErrorCounts]]:
    """Returns word and character counts of each utterance that has a reference."""
    texts = (_normalized(prediction, normalizer) for prediction in predictions if prediction.utterance.text is not None)
    return [(word_errors(*pair), char_errors(*pair)) for pair in texts]


def _normalized(prediction: Prediction, normalizer: str) -> tuple[str, str]:
    return normalize(normalizer, prediction.utterance.text or ""), normalize(normalizer, prediction.pred_text)


def _summary(
    predictions: Sequence[Prediction], counts: Sequence[tuple[ErrorCounts, ErrorCounts]], normalizer: str
) -> dict[str, Any]:
    words = sum((pair[0] for pair in counts), ErrorCounts())
    chars = sum((pair[1] for pair in counts), ErrorCounts())
    failed = [prediction for prediction in predictions if prediction.error is not None]
    # What could not be read is not as long as its row says.
    audio = math.fsum(prediction.utterance.duration for prediction in predictions if prediction.error is None)
    compute = math.fsum(prediction.time for prediction in predictions)
    return {
        "wer": words.rate if counts else None,
        "cer": chars.rate if counts else None,
        "wer_ci": list(confidence_interval([pair[0] for pair in counts])) if counts else None,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "reference_words": words.reference_length,
        "reference_characters": chars.reference_length,
        "utterances": len(predictions),
        "scored": len(counts),
        "failed": len(failed),
        "failures": [{"id": _name(prediction), "error": prediction.error} for prediction in failed],
        "replaced": sum(REPLACED_FLAG in prediction.flags for prediction in predictions),
        "flags": dict(Counter(flag for prediction in predictions for flag in prediction.flags)),
        "llm_passes": sum(prediction.llm_passes for prediction in predictions),
        "audio_seconds": audio,
        "compute_seconds": compute,
        "rtfx": audio / compute if compute > 0 else None,
        "positions_per_second": _positions_per_second(predictions),
        "normalizer": normalizer,
        "normalizer_versions": versions_of(normalizer),
    }


def _positions_per_second(predictions: Sequence[Prediction]) -> float | None:
    read = [(p.speech_positions, p.utterance.duration) for p in predictions if p.speech_positions is not None]
    seconds = math.fsum(duration for _, duration in read)
    return sum(positions for positions, _ in read) / seconds if seconds > 0 else None


def _name(prediction: Prediction) -> str:
    return prediction.utterance.utt_id or str(prediction.utterance.audio_filepath)


def _row(set_name: str, prediction: Prediction) -> dict[str, Any]:
    utterance = prediction.utterance
    row = {
        "audio_filepath": str(utterance.audio_filepath),
        "duration": utterance.duration,
        "text": utterance.text,
        "pred_text": prediction.pred_text,
        "time": prediction.time,
        "id": _name(prediction),
        "set": set_name,
        "offset": utterance.offset,
        "speaker": utterance.speaker,
        "language": utterance.language,
        "error": prediction.error,
        "flags": list(prediction.flags),
        "reasons": dict(prediction.reasons),
        "ctc_agreement": prediction.ctc_agreement,
        "llm_passes": prediction.llm_passes,
        "speech_positions": prediction.speech_positions,
        "nbest": [_hypothesis(hypothesis) for hypothesis in prediction.nbest],
    }
    if utterance.byte_range is not None:
        row[BYTES] = utterance.byte_range
    return row | {key: value for key, value in utterance.extra.items() if key not in row}


def _hypothesis(hypothesis: Hypothesis) -> dict[str, Any]:
    return {
        "text": hypothesis.text,
        "labels": list(hypothesis.labels),
        "score": hypothesis.score,
        "scores": dict(hypothesis.scores),
    }


def _table(report: Mapping[str, Any]) -> list[list[str]]:
    rows = [["set", "utterances", "WER", "CER", "sub", "del", "ins", "RTFx"]]
    for name, part in [*report["sets"].items(), ("total", report)]:
        # Where there are no words, a whole utterance would count as one.
        shown = {"wer": None if part["normalizer"] in WITHOUT_WORDS else part["wer"], "cer": part["cer"]}
        rates = ["-" if rate is None else f"{rate:.4f}" for rate in shown.values()]
        counts = [str(part[key]) for key in ("substitutions", "deletions", "insertions")]
        rows.append([name, str(part["utterances"]), *rates, *counts, speed(part["rtfx"])])
    return rows


def _page(report: Mapping[str, Any], predictions: Mapping[str, Sequence[Prediction]]) -> str:
    keys = ("decoding", "model", "decoder", "failed", "replaced", "llm_passes")
    facts = [f"{key}: {report[key]}" for key in keys if key in report]
    facts.insert(2, f"normalizer: {versioned(report['normalizer'])}")
    facts += [f"{flag}: {times}" for flag, times in report["flags"].items() if flag != REPLACED_FLAG]
    if conditions := read_conditions(report["conditions"]):
        facts += [str(conditions), *([conditions.sound] if conditions.sound else [])]
    if report["fillers"]:
        facts += FillerCounts(**report["fillers"]).facts()
    facts += [f"{package} {version}" for package, version in report["versions"].items()]
    confused: Counter[tuple[str, str]] = Counter()
    examples, too_long = list[Example](), 0
    scored = [(name, row) for name, rows in predictions.items() for row in rows if row.utterance.text is not None]
    for name, prediction in scored:
        example = _example(name, prediction, report["sets"][name]["normalizer"])
        if example is None:
            too_long += 1
        elif example.errors > 0:
            examples.append(example)
            confused.update((left, right) for left, right in example.pairs if left and right and left != right)
    if too_long:
        facts.append(f"{counted(too_long, 'utterance')} too long to be aligned below")
    substitutions = sorted(confused.items(), key=lambda item: (-item[1], item[0]))[:FREQUENT_SUBSTITUTIONS]
    worst = sorted(examples, key=lambda example: (-example.errors, len(example.pairs), example.title))
    return render_page(facts, _table(report), substitutions, worst[:WORST_UTTERANCES])


def _example(set_name: str, prediction: Prediction, normalizer: str) -> Example | None:
    """Aligns an utterance for display, in characters where the normalizer leaves no words; None if it is too long."""
    reference, predicted = _normalized(prediction, normalizer)
    separator = " "
    if normalizer in WITHOUT_WORDS:
        reference, predicted, separator = " ".join(reference), " ".join(predicted), ""
    if len(reference.split()) * len(predicted.split()) > MAX_ALIGNED_PAIRS:
        return None
    flags = [
        f"{flag} ({prediction.reasons[flag]})" if flag in prediction.reasons else flag for flag in prediction.flags
    ]
    notes = [note for note in (prediction.error, *flags) if note]
    return Example(f"{set_name}: {_name(prediction)}", notes, tuple(align_words(reference, predicted)), separator)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent, default=str)


def _finite(value: object) -> object:
    """Replaces NaN and infinity, which JSON does not have, by None; manifests can bring them along."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): _finite(member) for key, member in value.items()}
        case list() | tuple():
            return [_finite(member) for member in value]
    return value
