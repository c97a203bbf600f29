"""`kikitori evaluate`: a recogniser on transcribed speech, to error rates and reports.

Nothing is filtered: an utterance that cannot be read is an empty prediction, and is named.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

import kikitori
from kikitori.data.augment import Waveform
from kikitori.data.speech import read_utterance
from kikitori.errors import AudioError, DataError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.recognizer import Recognizer
from kikitori.scoring.report import Prediction
from kikitori.search.guards import Guards
from kikitori.search.options import Decoding
from kikitori.transcript import flags_of
from kikitori.types import NBest, Utterance

Progress = Callable[[int], None]
FLAGGED = Guards()
"""Doubtful texts are flagged, not replaced; recordings without speech have no text."""


def with_reference(utterances: Sequence[Utterance], key: str) -> list[Utterance]:
    """Utterances whose text is the value of a key of their manifest; `text` leaves them as they are.

    Raises:
        DataError: A row has no such text.
    """
    if key == "text":
        return list(utterances)
    found = []
    for utterance in utterances:
        text = utterance.extra.get(key)
        if not isinstance(text, str):
            raise DataError(f"has no text '{key}'", where=utterance.utt_id, remedy="name another --reference")
        found.append(replace(utterance, text=text))
    return found


def evaluate(
    recognizer: Recognizer,
    sets: Mapping[str, Sequence[Utterance]],
    *,
    decoding: Decoding,
    batch_size: int = 8,
    progress: Progress = lambda _: None,
    guards: Guards = FLAGGED,
) -> dict[str, list[Prediction]]:
    """Recognises every utterance of every set; utterances of similar length share a batch.

    Predictions come in the order of the utterances. Their `time` runs from reading the audio to the text, a batch's
    time shared evenly; one warm-up batch goes before. By default doubtful texts are flagged, not replaced, and
    recordings without speech have no text. `progress` gets the number of utterances just done.
    """
    recognizer.try_recognize([_sweep()] * batch_size, decoding)
    results = {}
    for name, utterances in sets.items():
        predictions: dict[int, Prediction] = {}
        order = sorted(range(len(utterances)), key=lambda index: utterances[index].duration)
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = evaluate_batch(recognizer, [utterances[index] for index in indices], decoding, guards)
            predictions.update(zip(indices, batch, strict=True))
            progress(len(indices))
        results[name] = [predictions[index] for index in range(len(utterances))]
    return results


def evaluate_batch(
    recognizer: Recognizer, utterances: Sequence[Utterance], decoding: Decoding, guards: Guards = FLAGGED
) -> list[Prediction]:
    """Recognises some utterances together; the time that it takes is shared evenly."""
    started = time.perf_counter()
    waveforms: list[Waveform] = []
    errors: list[str | None] = []
    for utterance in utterances:
        try:
            waveforms.append(read_utterance(utterance))
            errors.append(None)
        except AudioError as error:
            waveforms.append(np.zeros(0, dtype=np.float32))
            errors.append(str(error))
    results = recognizer.try_recognize(waveforms, decoding, guards)
    seconds = (time.perf_counter() - started) / len(utterances)
    return [
        _prediction(utterance, result, seconds, error)
        for utterance, result, error in zip(utterances, results, errors, strict=True)
    ]


def versions() -> dict[str, str]:
    """Versions that decide a result."""
    found = {"kikitori": kikitori.__version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "soundfile", "whisper-normalizer", "kaldialign"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def _sweep() -> Waveform:
    """A second of sound that no guard takes for silence."""
    times = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    return np.sin(2.0 * np.pi * (100.0 + 1900.0 * times) * times).astype(np.float32)


def _prediction(utterance: Utterance, result: NBest | AudioError, seconds: float, error: str | None) -> Prediction:
    if isinstance(result, AudioError):
        named = AudioError(result.what, where=utterance.audio_filepath, remedy=result.remedy)
        return Prediction(utterance, "", seconds, error=str(named))
    best = result[0]
    return Prediction(
        utterance=utterance,
        pred_text=best.text,
        time=seconds,
        error=error,
        llm_passes=best.llm_passes,
        flags=tuple(flags_of(best)),
        speech_positions=best.speech_positions,
        nbest=result,
        reasons=best.warnings,
        ctc_agreement=best.ctc_agreement,
    )
