"""Comparison of a recogniser before and after adaptation, on the target domain and on the source domain.

Predictions of the same rows before and after go in; rates, their relative change, insertions and fillers come out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kikitori.scoring.metrics import ErrorCounts, char_errors, confidence_interval, word_errors
from kikitori.scoring.report import Prediction
from kikitori.scoring.table import text_table
from kikitori.text.normalize import default_normalizer, normalize, versions_of
from kikitori.text.words import count_fillers


def compare(before: Sequence[Prediction], after: Sequence[Prediction], *, language: str | None) -> dict[str, Any]:
    """Error rates on the same rows before and after adaptation; `language` is that of rows that name none.

    Rates are fractions of normalized text, and None where no row has a reference; `wer_change` and `cer_change` are
    relative (-0.25: a quarter fewer errors), and None against a rate of 0. Fillers are counted in raw text, over the
    rows with a reference; None where we know none of the language.
    """
    languages = [prediction.utterance.language or language for prediction in before]
    normalizer = default_normalizer(languages)
    scored = [p for p in before if p.utterance.text is not None]
    first, second = (_measured(rows, normalizer, language) for rows in (before, after))
    return {
        "utterances": len(before),
        "scored": len(scored),
        "normalizer": normalizer,
        "normalizer_versions": versions_of(normalizer),
        "reference_fillers": _fillers([(p.utterance.text or "", p.utterance.language or language) for p in scored]),
        "before": first,
        "after": second,
        "wer_change": _change(first["wer"], second["wer"]),
        "cer_change": _change(first["cer"], second["cer"]),
    }


def format_comparison(domains: Mapping[str, Mapping[str, Any]]) -> str:
    """What `compare` says of each domain, as a text table."""
    rows = [["domain", "rows", "WER", "change", "CER", "change", "insertions", "fillers", "in reference"]]
    for name, domain in domains.items():
        before, after = domain["before"], domain["after"]
        cells = [name, str(domain["scored"])]
        for rate in ("wer", "cer"):
            cells += [f"{_rate(before[rate])} -> {_rate(after[rate])}", _percent(domain[f"{rate}_change"])]
        cells += [f"{_count(before[key])} -> {_count(after[key])}" for key in ("insertions", "fillers")]
        rows.append([*cells, _count(domain["reference_fillers"])])
    return text_table(rows)


def _measured(predictions: Sequence[Prediction], normalizer: str, language: str | None) -> dict[str, Any]:
    scored = [prediction for prediction in predictions if prediction.utterance.text is not None]
    texts = [[normalize(normalizer, text) for text in (p.utterance.text or "", p.pred_text)] for p in scored]
    words, chars = [word_errors(*pair) for pair in texts], [char_errors(*pair) for pair in texts]
    all_words, all_chars = sum(words, ErrorCounts()), sum(chars, ErrorCounts())
    return {
        "wer": all_words.rate if scored else None,
        "wer_ci": list(confidence_interval(words)) if scored else None,
        "cer": all_chars.rate if scored else None,
        "insertions": all_words.insertions,
        "character_insertions": all_chars.insertions,
        "fillers": _fillers([(p.pred_text, p.utterance.language or language) for p in scored]),
        "failed": sum(prediction.error is not None for prediction in predictions),
    }


def _fillers(texts: Sequence[tuple[str, str | None]]) -> int | None:
    counts = [count for count in (count_fillers(*text) for text in texts) if count is not None]
    return sum(counts) if counts else None


def _change(before: float | None, after: float | None) -> float | None:
    return None if not before or after is None else (after - before) / before


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.4f}"


def _percent(change: float | None) -> str:
    return "-" if change is None else f"{100 * change:+.1f} %"


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)
