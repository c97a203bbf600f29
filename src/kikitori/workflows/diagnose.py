"""`kikitori diagnose`: where a recogniser's errors come from, so that one knows which lever to pull.

Predictions of evaluations go in, with texts to say which words are known and a recogniser to score references where
they are at hand; tables, `errors.json` and `errors.html` come out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from math import inf
from pathlib import Path

from kikitori.data.speech import read_utterance
from kikitori.io.files import write_text
from kikitori.model.heads import ctc_loss
from kikitori.recognizer import MIN_SAMPLES, Recognizer
from kikitori.scoring.errors.breakdown import Row
from kikitori.scoring.errors.diagnosis import Diagnosis
from kikitori.scoring.errors.search import Scores
from kikitori.scoring.errors.tables import sections
from kikitori.scoring.page import render_sections
from kikitori.scoring.report import Prediction
from kikitori.text.units import TokenizerUnits

JSON, HTML = "errors.json", "errors.html"
Progress = Callable[[int], None]


def reference_scores(
    recognizer: Recognizer, rows: Sequence[Row], *, batch_size: int = 8, progress: Progress = lambda _: None
) -> list[Scores]:
    """What the CTC head gives to references, in the one segmentation of its units, and to what was found.

    Raises:
        AudioError: An utterance cannot be read.
        ModelError: The recogniser has no CTC head.
    """
    scores: dict[int, Scores] = {}
    order = sorted(range(len(rows)), key=lambda index: rows[index].seconds)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        waveforms = {index: read_utterance(rows[index].prediction.utterance) for index in batch}
        long_enough = [index for index in batch if len(waveforms[index]) >= MIN_SAMPLES]
        scores.update((index, Scores(-inf, -inf)) for index in batch if index not in long_enough)
        if long_enough:
            log_probs, lengths = recognizer.ctc_log_probs([waveforms[index] for index in long_enough])
            for place, index in enumerate(long_enough):
                one = slice(place, place + 1)
                losses = [
                    ctc_loss(log_probs[one], lengths[one], [labels])
                    for labels in _labels(rows[index].prediction, recognizer.loaded.units)
                ]
                scores[index] = Scores(*(-inf if loss.infeasible else -float(loss.total) for loss in losses))
        progress(len(batch))
    return [scores[index] for index in range(len(rows))]


def write_diagnosis(folder: Path, found: Diagnosis, facts: Sequence[str]) -> list[Path]:
    """Writes `errors.json` and `errors.html`, with facts on where they come from, and returns their paths.

    Raises:
        DataError: A file cannot be written.
    """
    content = {"facts": [*facts], "diagnosis": _plain(found)}
    write_text(folder / JSON, json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    write_text(folder / HTML, render_sections("errors", facts, sections(found)))
    return [folder / JSON, folder / HTML]


def _labels(prediction: Prediction, units: TokenizerUnits) -> tuple[Sequence[int], Sequence[int]]:
    """Reference and best hypothesis in the recogniser's labels, even if the search had others."""
    found = prediction.nbest[0] if prediction.nbest else None
    text = prediction.pred_text if found is None else found.text
    own = found is not None and all(0 <= label < units.size for label in found.labels)
    labels = found.labels if found is not None and own and units.decode(found.labels) == text else units.encode(text)
    return units.encode(prediction.utterance.text or ""), labels


def _plain(value: object) -> object:
    """A value as JSON has it, dataclasses with their properties."""
    match value:
        case Mapping():
            return {str(key): _plain(member) for key, member in value.items()}
        case tuple():
            return [_plain(member) for member in value]
        case _ if is_dataclass(value):
            properties = [name for name, member in vars(type(value)).items() if isinstance(member, property)]
            return {name: _plain(getattr(value, name)) for name in [*(f.name for f in fields(value)), *properties]}
    return value
