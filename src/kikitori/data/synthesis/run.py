"""Synthetic speech to train on: sentences in, a folder of recordings with a manifest out.

Engine, voice, speed, pitch, room and noise of a sentence are drawn from the seed and the sentence's own number, so
that neither order nor the number of workers changes the result. Sentences are done in batches, each with a file of its
own in the folder `.parts`; a run that was killed goes on with the batches that have none.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile as sf
import soxr

from kikitori.data.augment import Waveform, add_noise
from kikitori.data.synthesis.room import reverberate, room_response, set_level, trim_silence
from kikitori.data.synthesis.sentences import Sentence
from kikitori.data.synthesis.synthesizer import Sound, SpeechRequest, Synthesizer
from kikitori.errors import DataError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.files import locked, write_bytes, write_text
from kikitori.text.forms.japanese import spoken_kana

AudioFormat = Literal["flac", "opus"]
Range = tuple[float, float]

BATCH = 48  # sentences; long enough for engines that take a while to start
PAUSE_S: Range = (0.0, 0.03)  # between words
SILENCE_S: Range = (0.1, 0.4)  # before and after
DECAY_S: Range = (0.1, 0.7)  # of rooms, and how much stronger the direct sound is, dB
DIRECT_DB: Range = (0.0, 15.0)
NOISE_SNR_DB: Range = (10.0, 30.0)
FLOOR_SNR_DB: Range = (40.0, 60.0)  # no recording is silent between the words
CHARACTERS_PER_S: Range = (2.0, 40.0)  # others are not the sentence


@dataclass(frozen=True)
class VoiceVariation:
    """How much the voices are varied: ranges of factors, and fractions of the recordings.

    Attributes:
        speed: Range of the rate of speech, against the engine's own.
        size: Range of the factor by which all frequencies go up, as of a smaller speaker, at the same rate of speech.
        noise: Fraction of the recordings with noise 10 to 30 dB below the speech; others have 40 to 60 dB.
    """

    speed: Range = (0.8, 1.15)
    pitch: Range = (0.85, 1.2)
    size: Range = (0.92, 1.12)
    reverberation: float = 0.4
    noise: float = 0.4
    seed: int = 0


@dataclass(frozen=True)
class SynthesisConfig:
    """What the recordings of a run have in common.

    Attributes:
        engines: Engines by name; each sentence gets one of them by chance, then one of its voices.
        audio_format: 16-bit FLAC, or Ogg Opus of a fifth of its size.
        in_kana: The manifest's `text` is the reading, in kana as they sound; the sentence is its `written`.
    """

    engines: Mapping[str, Synthesizer]
    language: str
    variation: VoiceVariation = field(default_factory=VoiceVariation)
    audio_format: AudioFormat = "flac"
    in_kana: bool = False


@dataclass(frozen=True)
class PlannedUtterance:
    """A sentence, its place among all, and what is drawn for it; `size` is the factor of all frequencies."""

    number: int
    sentence: Sentence
    engine: str
    request: SpeechRequest
    size: float

    @property
    def speaker(self) -> str:
        """Engine and voice."""
        return f"{self.engine}/{self.request.voice}"


@dataclass(frozen=True)
class Report:
    """What became of sentences: rows of the manifest, and how many were left out, by voice and reason."""

    rows: list[dict[str, Any]]
    failures: dict[str, int]

    @property
    def seconds(self) -> float:
        """How long the recordings are in all."""
        return float(sum(row["duration"] for row in self.rows))


def synthesize(
    sentences: Sequence[Sentence],
    config: SynthesisConfig,
    folder: Path,
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Has sentences read aloud and writes `manifest.jsonl`, 16 kHz mono audio and `synthesis.json` into a folder.

    A sentence on which its engine fails is left out. The folder exists and belongs to these sentences and this
    configuration, which `synthesis.json` names; to be called with them again finishes what is missing. So many workers
    do batches at a time; `progress` gets how many more sentences are done.

    Raises:
        DataError: There is no sentence, nothing could be spoken, the folder holds other speech or cannot be written.
    """
    if not sentences:
        raise DataError("no sentence is left to read aloud", where=folder, remedy="allow other lengths or characters")
    with locked(folder):
        _claim(folder, sentences, config)
        planned = [plan_utterance(sentence, number, config) for number, sentence in enumerate(sentences)]
        batches = [planned[start : start + BATCH] for start in range(0, len(planned), BATCH)]
        report = Report([], {})
        pool = ThreadPoolExecutor(workers)
        try:
            for batch, part in zip(batches, pool.map(partial(_part, config, folder), batches), strict=True):
                report.rows.extend(part.rows)
                report.failures.update(Counter(report.failures) + Counter(part.failures))
                progress(len(batch))
        finally:
            pool.shutdown(cancel_futures=True)
        if not report.rows:
            raise DataError(f"no sentence could be spoken: {max(report.failures)}", where=folder)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in report.rows)
        write_text(folder / "manifest.jsonl", "".join(lines))
    return report


def plan_utterance(sentence: Sentence, number: int, config: SynthesisConfig) -> PlannedUtterance:
    """Who reads a sentence, and how."""
    variation = config.variation
    generator = np.random.default_rng([variation.seed, number])
    engine = list(config.engines)[int(generator.integers(len(config.engines)))]
    voices = config.engines[engine].voices
    voice = voices[int(generator.integers(len(voices)))]
    speed, pitch, size, pause_s = (
        float(generator.uniform(*limits)) for limits in (variation.speed, variation.pitch, variation.size, PAUSE_S)
    )
    # A smaller speaker is had by playing faster, so the engine speaks slower.
    return PlannedUtterance(
        number, sentence, engine, SpeechRequest(sentence.spoken, voice, speed / size, pitch, pause_s), size
    )


def record(sound: Sound, plan: PlannedUtterance, variation: VoiceVariation) -> Waveform:
    """The recording (samples,) at 16 kHz of what an engine said: trimmed, in a room, with noise; empty if silent."""
    generator = np.random.default_rng([variation.seed, plan.number, 1])
    resampled = soxr.resample(sound.waveform, sound.rate_hz * plan.size, SAMPLE_RATE)
    waveform = trim_silence(resampled.astype(np.float32))
    if not len(waveform):
        return waveform
    waveform = np.pad(waveform, [round(generator.uniform(*SILENCE_S) * SAMPLE_RATE) for _ in range(2)])
    if generator.random() < variation.reverberation:
        waveform = reverberate(
            waveform, room_response(generator.uniform(*DECAY_S), generator.uniform(*DIRECT_DB), generator)
        )
    limits = NOISE_SNR_DB if generator.random() < variation.noise else FLOOR_SNR_DB
    return set_level(add_noise(waveform, generator.uniform(*limits), generator))


def _part(config: SynthesisConfig, folder: Path, batch: Sequence[PlannedUtterance]) -> Report:
    """A batch of sentences: as it was recorded, or recorded now."""
    file = folder / ".parts" / f"{batch[0].number:08}.json"
    if file.is_file():
        return Report(**json.loads(file.read_bytes()))
    rows, failures = [], Counter[str]()
    for plan, sound in _spoken(config, batch):
        waveform = record(sound, plan, config.variation) if sound else np.empty(0, np.float32)
        if problem := _problem(waveform, _reading(plan, sound) or plan.sentence.spoken):
            failures[f"{plan.speaker}: {problem}"] += 1
        else:
            rows.append(_row(plan, sound, waveform, config))
            write_bytes(folder / rows[-1]["audio_filepath"], _encoded(waveform, config.audio_format))
    report = Report(rows, dict(failures))
    write_text(file, json.dumps(asdict(report), ensure_ascii=False))
    return report


def _spoken(
    config: SynthesisConfig, batch: Sequence[PlannedUtterance]
) -> Iterator[tuple[PlannedUtterance, Sound | None]]:
    """Planned utterances with their sounds, in their order; each engine gets its own at once."""
    sounds: dict[int, Sound | None] = {}
    for name, engine in config.engines.items():
        planned = [plan for plan in batch if plan.engine == name]
        if planned:
            found = engine.speak([plan.request for plan in planned])
            sounds.update(zip((plan.number for plan in planned), found, strict=True))
    return ((plan, sounds[plan.number]) for plan in batch)


def _reading(plan: PlannedUtterance, sound: Sound | None) -> str | None:
    """How the text was read, where that is known: in kanji it is much shorter than it sounds."""
    return plan.sentence.reading or (sound.reading if sound else None)


def _problem(waveform: Waveform, spoken: str) -> str | None:
    if not len(waveform):
        return "no sound"
    slowest, fastest = CHARACTERS_PER_S
    rate = sum(character.isalnum() for character in spoken) / len(waveform) * SAMPLE_RATE
    return None if slowest <= rate <= fastest else "its length is not that of the sentence"


def _row(plan: PlannedUtterance, sound: Sound | None, waveform: Waveform, config: SynthesisConfig) -> dict[str, Any]:
    row = {
        "audio_filepath": f"audio/{plan.number // 1000:03}/{plan.number:06}.{config.audio_format}",
        "duration": len(waveform) / SAMPLE_RATE,
        "text": plan.sentence.text,
        "speaker": plan.speaker,
        "language": config.language,
        "split": "train",
        "engine": plan.engine,
        "synthetic": True,
    }
    reading = _reading(plan, sound)
    if config.in_kana:
        return row | {"text": spoken_kana(reading or plan.sentence.text), "written": plan.sentence.text}
    return row | {"reading": reading} if reading else row


def _encoded(waveform: Waveform, audio_format: AudioFormat) -> bytes:
    out = io.BytesIO()
    kind = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}[audio_format]
    sf.write(out, waveform, SAMPLE_RATE, format=kind[0], subtype=kind[1])
    return out.getvalue()


def _claim(folder: Path, sentences: Sequence[Sentence], config: SynthesisConfig) -> None:
    """Writes what the folder's speech is made from; refuses a folder with other speech."""
    texts = json.dumps([asdict(sentence) for sentence in sentences]).encode()
    described = {
        "sentences": len(sentences),
        "sha256": hashlib.sha256(texts).hexdigest(),
        "language": config.language,
        "audio_format": config.audio_format,
        "in_kana": config.in_kana,
        "variety": asdict(config.variation),
        "engines": {
            name: {"version": engine.version(), "voices": engine.voices} for name, engine in config.engines.items()
        },
    }
    # As JSON has it, where tuples are lists.
    content = json.dumps(described, ensure_ascii=False, indent=2)
    file = folder / "synthesis.json"
    if file.is_file():
        if file.read_text(encoding="utf-8") != content:
            raise DataError("is of other sentences or settings", where=file, remedy="choose another folder")
    elif (folder / "manifest.jsonl").exists():
        raise DataError("holds a manifest of other speech", where=folder, remedy="choose another folder")
    write_text(file, content)
