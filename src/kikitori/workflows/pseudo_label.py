"""`kikitori data pseudo-label`: speech without transcripts → text that a recogniser writes, to train on.

Self-training (Kahn, Lee and Hannun 2020; Park et al. 2020): what one recogniser finds with its best search, the next
one learns from. Utterances go in; `manifest.jsonl` with the texts that are trusted, `left_out.jsonl` with the others
and the reasons, and `summary.json` come out. References, where there are any, say how wrong the texts are, and reach no
file.

What was recognised is kept in `.parts`: a run that was killed goes on, and another threshold recognises nothing anew.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from math import inf, isfinite
from pathlib import Path
from typing import Any

from kikitori.data.manifest import BYTES, RECOGNIZED
from kikitori.errors import DataError
from kikitori.io.files import locked, write_text
from kikitori.io.model_folder import search_files_digest
from kikitori.loading import model_name
from kikitori.model.weights import weights_digest
from kikitori.recognizer import Recognizer
from kikitori.scoring.pseudo_labels import FilterSummary, PseudoLabelFilter, Recognized, summarize
from kikitori.search.options import Decoding
from kikitori.transcript import LONG_FLAG
from kikitori.types import Utterance
from kikitori.workflows.evaluate import Searching, evaluate_batch

MANIFEST, LEFT_OUT, SUMMARY, ORIGIN = "manifest.jsonl", "left_out.jsonl", "summary.json", "recognition.json"
PART = 32  # utterances that are lost at most when a run is killed
DIGITS = 4  # of confidences

Progress = Callable[[int], None]


def recognize(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    options: Decoding,
    folder: Path,
    *,
    batch_size: int = 8,
    progress: Progress = lambda _: None,
) -> list[Recognized]:
    """Recognises utterances, in their order; those that the folder knows from an earlier run are not recognised again.

    The texts do not depend on the batches, nor, but for rounding, do the confidences. The folder exists, and belongs to
    this recogniser, search and speech; `progress` gets how many more are done.

    Raises:
        DataError: The folder holds the results of other weights, another search or other speech, or is in use.
    """
    with locked(folder):
        _claim(folder, recognizer, utterances, options)
        found: dict[int, Recognized] = {}
        order = sorted(range(len(utterances)), key=lambda number: utterances[number].duration)
        for start in range(0, len(order), PART):
            numbers, file = order[start : start + PART], folder / ".parts" / f"{start:08}.json"
            known = _read_part(file)
            missing = [number for number in numbers if number not in known]
            for first in range(0, len(missing), batch_size):
                batch = missing[first : first + batch_size]
                results = _recognized(recognizer, [utterances[number] for number in batch], options)
                known.update(zip(batch, results, strict=True))
            if missing:  # what could not be recognised is tried again the next time
                lasting = {number: asdict(known[number]) for number in numbers if known[number].error is None}
                write_text(file, json.dumps(lasting, ensure_ascii=False))
            found.update(known)
            progress(len(numbers))
    return [found[number] for number in range(len(utterances))]


def origin_of(recognizer: Recognizer, options: Decoding) -> dict[str, str]:
    """Where texts come from, as their rows say it: the last two names of the recogniser's folder, and the search."""
    name = recognizer.name
    # "model" alone, as of a run, says nothing.
    if recognizer.folder is not None and "/" not in model_name(recognizer.folder):
        adapted = name.removeprefix(recognizer.folder.name)
        name = "/".join(recognizer.folder.resolve().parts[-2:]) + adapted
    return {"recognizer": name, "search": options.search}


def write_labels(
    folder: Path,
    utterances: Sequence[Utterance],
    found: Sequence[Recognized],
    label_filter: PseudoLabelFilter,
    origin: Mapping[str, str],
) -> FilterSummary:
    """Writes the manifest of what is trusted, the rows that are not, and the summary; without a kept text no manifest.

    Rows keep the order of the utterances, their names, speakers, languages and splits, and get `recognizer` and
    `search` of the origin. Other keys are left behind: they may say what was said. Audio is named by its way from the
    folder.
    """
    rejections = [label_filter.rejection(*pair) for pair in zip(utterances, found, strict=True)]
    labels = summarize(utterances, found, rejections)
    rows = [_row(*pair, folder, origin) for pair in zip(utterances, found, strict=True)]
    kept = [row for row, rejection in zip(rows, rejections, strict=True) if rejection is None]
    left_out = [
        row | {"left_out": rejection} for row, rejection in zip(rows, rejections, strict=True) if rejection is not None
    ]
    summary = {**origin, **label_filter.settings(), **labels.summary()}
    with locked(folder):
        write_text(folder / LEFT_OUT, _json_lines(left_out))
        write_text(folder / SUMMARY, json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
        if kept:
            write_text(folder / MANIFEST, _json_lines(kept))
        else:
            (folder / MANIFEST).unlink(missing_ok=True)  # that of an earlier run, with other thresholds
    return labels


def _recognized(recognizer: Recognizer, batch: Sequence[Utterance], options: Decoding) -> list[Recognized]:
    longest = recognizer.loaded.trained_on.max_seconds
    results = []
    for prediction in evaluate_batch(Searching(recognizer, options), batch):
        known = prediction.nbest[0].confidence if prediction.nbest else None
        sure = -inf if known is None else round(known, DIGITS)
        flags = [*prediction.flags, *([LONG_FLAG] if prediction.utterance.duration > longest else [])]
        results.append(Recognized(prediction.pred_text, sure, tuple(flags), prediction.error))
    return results


def _read_part(file: Path) -> dict[int, Recognized]:
    if not file.is_file():
        return {}
    try:
        rows = json.loads(file.read_bytes())
        return {int(number): Recognized(**row | {"flags": tuple(row["flags"])}) for number, row in rows.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"is damaged ({error})", where=file, remedy="delete it, and it is recognised anew") from None


def _claim(folder: Path, recognizer: Recognizer, utterances: Sequence[Utterance], options: Decoding) -> None:
    """Writes what the folder's texts come from; refuses a folder with other texts."""
    speech = [[_way_to(row, folder), row.offset, row.duration, *(row.byte_range or ())] for row in utterances]
    described = {
        "utterances": len(speech),
        "speech": hashlib.sha256(json.dumps(speech).encode()).hexdigest(),
        "weights": weights_digest(recognizer.loaded.model),
        "partners": search_files_digest(recognizer.folder) if recognizer.folder else hashlib.sha256().hexdigest(),
        "dtype": recognizer.dtype,
        "search": asdict(options),
    }
    content = json.dumps(described, ensure_ascii=False, indent=1) + "\n"
    file = folder / ORIGIN
    if file.is_file():
        if file.read_text(encoding="utf-8") != content:
            raise DataError("is of another model, search or speech", where=file, remedy="choose another folder")
    elif (folder / MANIFEST).exists():
        raise DataError("holds a manifest that is not of this command", where=folder, remedy="choose another folder")
    write_text(file, content)


def _way_to(utterance: Utterance, folder: Path) -> str:
    """The way from a folder to an utterance's audio; links on the way are followed, the file itself keeps its name."""
    audio = utterance.audio_filepath
    return os.path.relpath(audio.parent.resolve() / audio.name, folder.resolve())


def _row(utterance: Utterance, found: Recognized, folder: Path, origin: Mapping[str, str]) -> dict[str, Any]:
    known = {
        "offset": utterance.offset or None,
        BYTES: utterance.byte_range,
        "speaker": utterance.speaker,
        "language": utterance.language,
        "split": utterance.split,
    }
    return {
        "audio_filepath": _way_to(utterance, folder),
        "duration": utterance.duration,
        "text": found.text,
        "id": utterance.utt_id,
        **{key: value for key, value in known.items() if value is not None},
        RECOGNIZED: True,
        **origin,
        "confidence": found.confidence if isfinite(found.confidence) else None,
    }


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
