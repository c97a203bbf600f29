"""`kikitori calibrate`: how late a recogniser writes words, and how far its confidences are from being right."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np

from kikitori.align.calibration import AS_IS, WordCalibration, calibration_error, fitted
from kikitori.data.speech import read_utterance
from kikitori.errors import DataError
from kikitori.recognizer import Recognizer
from kikitori.text.normalize import WITHOUT_WORDS, default_normalizer, normalize
from kikitori.types import Utterance, Word

Spans = Sequence[tuple[str, float, float]]
"""Words of an utterance with their beginnings and ends in seconds."""
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Measured:
    """The words of a recogniser as they are and as they can be.

    Attributes:
        calibration: The best one for this speech.
        words: Words with a confidence.
        errors: Expected calibration error as the recogniser is, and with `calibration`.
        borders: Borders of words whose place is known.
        offsets: Median distance of these, in seconds, as the recogniser is, and with `calibration`.
    """

    calibration: WordCalibration
    words: int
    errors: tuple[float, float]
    borders: int
    offsets: tuple[float, float]


def calibrate(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    spans: Mapping[str, Spans],
    *,
    batch_size: int = 8,
    progress: Progress = lambda _: None,
) -> Measured:
    """Measures the words that the default search finds in transcribed speech.

    Args:
        recognizer: What has times of words.
        utterances: With texts.
        spans: By `utt_id`, when the words of an utterance are said, where that is known; without any the delay stays.
        batch_size: Utterances decoded together.
        progress: Gets the number of utterances just done.

    Raises:
        AudioError: An utterance cannot be read.
        ConfigError: All words are right, or all wrong.
        DataError: There are no transcribed utterances, or no words are found.
    """
    rows = sorted((row for row in utterances if row.text), key=lambda row: row.duration)
    if not rows:
        raise DataError("no transcripts", remedy="give transcribed speech")
    name = default_normalizer(row.language for row in rows)
    confidences: list[float] = []
    right: list[bool] = []
    offsets: list[float] = []
    for row, words in _found(recognizer, rows, batch_size, progress):
        marks = right_words(words, row.text or "", name)
        for word, mark in zip(words, marks, strict=True):
            if word.confidence is not None:
                confidences.append(word.confidence)
                right.append(mark)
        offsets += border_offsets(words, spans.get(row.utt_id, ()), name)
    if not confidences:
        raise DataError("no words are found in it", remedy="give speech that the model understands")
    old = recognizer.words
    slope, offset = fitted(confidences, right)
    delay = float(np.median(offsets)) if offsets else old.delay
    new = WordCalibration(delay=delay, slope=slope, offset=offset)
    errors = [calibration_error(each.confidences(confidences), right) for each in (old, new)]
    distances = [float(np.median(np.abs(np.array(offsets) - each.delay))) if offsets else 0.0 for each in (old, new)]
    return Measured(new, len(right), (errors[0], errors[1]), len(offsets), (distances[0], distances[1]))


def right_words(words: Sequence[Word], reference: str, normalizer: str) -> list[bool]:
    """Which words stand in the reference, by a best alignment; without words in the language, characters of theirs."""
    import kaldialign

    units, owners = [], []
    for number, word in enumerate(words):
        own = _units(word.word, normalizer)
        units += own
        owners += [number] * len(own)
    right, at = [True] * len(words), 0
    for left, found in kaldialign.align(_units(reference, normalizer), units, ""):  # no unit is empty
        if found:
            right[owners[at]] &= left == found
            at += 1
    return right


def border_offsets(words: Sequence[Word], spans: Spans, normalizer: str) -> list[float]:
    """By how many seconds beginnings and ends of rightly found words come later than they should."""
    ours = [" ".join(_units(word.word, normalizer)) for word in words]
    theirs = [" ".join(_units(word, normalizer)) for word, _, _ in spans]
    found = []
    for block in SequenceMatcher(None, theirs, ours, autojunk=False).get_matching_blocks():
        for known, word in zip(spans[block.a :][: block.size], words[block.b :], strict=False):
            found += [word.start - known[1], word.end - known[2]]
    return found


def _units(text: str, normalizer: str) -> list[str]:
    plain = normalize(normalizer, text)
    return [*plain.replace(" ", "")] if normalizer in WITHOUT_WORDS else plain.split()


def _found(
    recognizer: Recognizer, rows: Sequence[Utterance], batch_size: int, progress: Progress
) -> Iterator[tuple[Utterance, tuple[Word, ...]]]:
    """The words of each utterance as the model gives them."""
    plain = replace(recognizer, words=AS_IS)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        waveforms = [read_utterance(row) for row in batch]
        found = plain.transcribe_many(waveforms, batch_size=batch_size, word_times=True)
        yield from ((row, transcript.words) for row, transcript in zip(batch, found, strict=True))
        progress(len(batch))
