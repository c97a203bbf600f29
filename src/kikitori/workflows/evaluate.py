"""`kikitori evaluate`: a recogniser on transcribed speech, to error rates and reports.

Nothing is filtered: an utterance that cannot be read is an empty prediction, and is named.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kikitori.data.augment import Waveform
from kikitori.data.corruption import Corruption, Heard, as_recorded, corrupted
from kikitori.data.speech import read_utterance
from kikitori.errors import AudioError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.recognizer import Recognizer
from kikitori.scoring.fillers import count_fillers, leave_out_fillers
from kikitori.scoring.report import Prediction, build_report, write_report
from kikitori.search.batch import Result
from kikitori.search.guards import Guards
from kikitori.search.options import Decoding
from kikitori.transcript import flags_of
from kikitori.types import DecoderName, NBest, Utterance
from kikitori.workflows.machine.conditions import conditions_of, forget_peak_memory, versions
from kikitori.workflows.sharing.journal import recognizer_recipe

Progress = Callable[[int], None]
FLAGGED = Guards()
"""Doubtful texts are flagged, not replaced; recordings without speech have no text."""


class System(Protocol):
    """What is evaluated."""

    @property
    def name(self) -> str:
        """Of the model, for reports."""
        ...

    @property
    def search(self) -> str:
        """How it decodes, for reports."""
        ...

    @property
    def decoder(self) -> DecoderName | None:
        """Which of our decoders it uses; None where it uses none."""
        ...

    @property
    def device(self) -> str:
        """Where it computes, as torch names it."""
        ...

    @property
    def dtype(self) -> str:
        """Arithmetic of its networks."""
        ...

    @property
    def together(self) -> int | None:
        """Most utterances that it decodes together, whatever it is given; None is no limit."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the text of a recording beside the recording itself, for a digest."""
        ...

    def recognize(self, waveforms: Sequence[Waveform]) -> list[Result]:
        """What is found in each of a batch of 16 kHz mono waveforms, or why nothing is."""
        ...


@dataclass(frozen=True)
class Searching:
    """A recogniser of ours with a search; by default doubtful texts are flagged, and no speech has no text."""

    recognizer: Recognizer
    decoding: Decoding
    guards: Guards = FLAGGED

    @property
    def name(self) -> str:
        """Of the model, for reports."""
        return self.recognizer.name

    @property
    def search(self) -> str:
        """Name of the search."""
        return self.decoding.search

    @property
    def decoder(self) -> DecoderName | None:
        """The recogniser's, where the search uses it."""
        return self.recognizer.decoder if "decoder" in self.decoding.needs else None

    @property
    def device(self) -> str:
        """Where it computes, as torch names it."""
        return self.recognizer.device

    @property
    def dtype(self) -> str:
        """Arithmetic of its networks."""
        return self.recognizer.dtype

    @property
    def together(self) -> None:
        """No limit."""
        return

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the text of a recording beside the recording itself."""
        search, guards = asdict(self.decoding), asdict(self.guards)
        return recognizer_recipe(self.recognizer) | {"search": search, "guards": guards}

    def recognize(self, waveforms: Sequence[Waveform]) -> list[Result]:
        """What is found in each of a batch of 16 kHz mono waveforms, or why nothing is."""
        return self.recognizer.try_recognize(waveforms, self.decoding, self.guards)


@dataclass(frozen=True)
class Setting:
    """How systems are evaluated.

    Attributes:
        normalizer: Form that is scored; None takes that of the rows' language.
        batch_size: Utterances decoded together.
        corruption: What is done to the recordings, if anything is.
        seed: Of what is drawn for it.
        without_fillers: Whether fillers are left out of what is scored, see `kikitori.text.forms.fillers`.
    """

    normalizer: str | None = None
    batch_size: int = 8
    corruption: Corruption | None = None
    seed: int = 0
    without_fillers: bool = False

    @property
    def heard(self) -> Heard:
        """What becomes of the recordings."""
        return as_recorded if self.corruption is None else corrupted(self.corruption, self.seed)


def evaluate_into(
    folder: Path,
    system: System,
    sets: Mapping[str, Sequence[Utterance]],
    setting: Setting,
    progress: Progress = lambda _: None,
) -> tuple[dict[str, Any], dict[str, list[Prediction]]]:
    """Evaluates and writes the report into a folder; returns its content and the predictions.

    Raises:
        DataError: A file cannot be written.
    """
    predictions = evaluate(system, sets, batch_size=setting.batch_size, progress=progress, heard=setting.heard)
    return report_into(folder, system, predictions, setting), predictions


def report_into(
    folder: Path,
    system: System,
    predictions: Mapping[str, Sequence[Prediction]],
    setting: Setting,
    device: str | None = None,
) -> dict[str, Any]:
    """Writes the report of predictions into a folder; returns its content.

    Args:
        folder: Is made if need be.
        system: Which made them.
        predictions: By the names of their sets.
        setting: How.
        device: Where they were computed, if not where the system is.

    Raises:
        DataError: A file cannot be written.
    """
    name = None if setting.corruption is None else setting.corruption.name
    size = min(setting.batch_size, system.together or setting.batch_size)
    scored = leave_out_fillers(predictions) if setting.without_fillers else predictions
    report = build_report(
        scored,
        normalizer=setting.normalizer,
        decoding=system.search,
        model=system.name,
        versions=versions(),
        conditions=conditions_of(device or system.device, system.dtype, size, name, setting.seed),
        fillers=count_fillers(predictions, removed=setting.without_fillers),
        decoder=system.decoder,
    )
    write_report(folder, report, predictions, scored)
    return report


def evaluate(
    system: System,
    sets: Mapping[str, Sequence[Utterance]],
    *,
    batch_size: int = 8,
    progress: Progress = lambda _: None,
    heard: Heard = as_recorded,
) -> dict[str, list[Prediction]]:
    """Recognises every utterance of every set; utterances of similar length share a batch.

    Predictions come in the order of the utterances. Their `time` is that of reading the audio and of recognising it, a
    batch's time shared evenly; one warm-up batch goes before. `progress` gets the number of utterances just done, and
    what is recognised is as `heard`, see `kikitori.data.corruption`.
    """
    warm_up(system, min(batch_size, max(map(len, sets.values()), default=0)))
    results = {}
    for name, utterances in sets.items():
        predictions: dict[int, Prediction] = {}
        for number, prediction in predict(system, utterances, batch_size=batch_size, heard=heard):
            predictions[number] = prediction
            progress(1)
        results[name] = [predictions[number] for number in range(len(utterances))]
    return results


def warm_up(system: System, batch_size: int) -> None:
    """Recognises a batch of sound, so that what is compiled or loaded with the first one is not measured.

    Peak memory is counted from its end, by `conditions_of`.
    """
    system.recognize([_sweep()] * batch_size)
    forget_peak_memory(system.device)


def predict(
    system: System, utterances: Sequence[Utterance], *, batch_size: int, heard: Heard
) -> Iterator[tuple[int, Prediction]]:
    """The prediction of each utterance with its number, the short ones first."""
    order = sorted(range(len(utterances)), key=lambda number: utterances[number].duration)
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        yield from zip(numbers, evaluate_batch(system, [utterances[number] for number in numbers], heard), strict=True)


def evaluate_batch(system: System, utterances: Sequence[Utterance], heard: Heard = as_recorded) -> list[Prediction]:
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
    seconds = time.perf_counter() - started
    waveforms = [*map(heard, utterances, waveforms)]
    started = time.perf_counter()
    results = system.recognize(waveforms)
    seconds = (seconds + time.perf_counter() - started) / len(utterances)
    return [
        _prediction(utterance, result, seconds, error)
        for utterance, result, error in zip(utterances, results, errors, strict=True)
    ]


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
