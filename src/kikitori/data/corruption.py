"""Recordings as they are outside of the studio: corruptions for evaluation, alike for every system.

A corruption is written as its kind and level, such as `noise:10`; several one after the other are joined by a plus,
such as `reverb:0.5+noise:10`. What is drawn depends on the seed, the kinds and the utterance alone, so that every
recogniser hears the same samples, in whatever order.
"""

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from kikitori.data.augment import Waveform, add_noise, change_speed
from kikitori.data.synthesis.room import reverberate, room_response
from kikitori.errors import ConfigError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.codecs.encoders import G711, GSM, OPUS, Coding, encoded
from kikitori.io.config import did_you_mean
from kikitori.types import Utterance

Kind = Literal["clean", "noise", "speed", "reverb", "telephone", "clipping", "opus", "gsm"]
LEVELS: dict[str, tuple[float, float, str]] = {
    "noise": (-20.0, 60.0, "dB of speech above noise"),
    "speed": (0.5, 2.0, "times as fast"),
    "reverb": (0.1, 5.0, "seconds until a sound has fallen by 60 dB"),
    "clipping": (1.0, 60.0, "dB below the peak"),
    "opus": (6.0, 256.0, "kbit/s"),
}
"""Least and greatest level of the kinds that have one, and what it means."""
CLEAN = "clean"
EXAMPLE = "write one such as noise:10, speed:1.1, reverb:0.5, telephone, clipping:12, opus:8 or gsm"
DIRECT_DB = 0.0  # the sound that comes straight to the microphone, against its reverberation
BAND = (300.0, 3400.0)  # Hertz of a telephone line
NARROW_RATE = 8_000
_NEEDED: dict[str, Coding] = {"telephone": G711, "gsm": GSM, "opus": OPUS}


@dataclass(frozen=True)
class Step:
    """One kind of corruption; the level is 0 where the kind has none."""

    kind: Kind
    level: float = 0.0


@dataclass(frozen=True)
class Corruption:
    """What happens to a recording, step by step; `name` is how a user writes it."""

    name: str
    steps: tuple[Step, ...]


Heard = Callable[[Utterance, Waveform], Waveform]
"""From the samples of an utterance to those that a recogniser gets."""


def as_recorded(_utterance: Utterance, waveform: Waveform) -> Waveform:
    """The samples themselves."""
    return waveform


def parse_corruption(text: str) -> Corruption:
    """Reads what a user writes, such as `noise:10` or `reverb:0.5+telephone`; `clean` changes nothing.

    Raises:
        ConfigError: There is no such kind, its level is missing or impossible, or the codec is not there.
    """
    if not text.strip():
        raise ConfigError("no corruption given", where="corrupt", remedy=EXAMPLE)
    steps = tuple(_step(part.strip(), text) for part in text.split("+"))
    return Corruption("+".join(map(_written, steps)), steps)


def corrupted(corruption: Corruption, seed: int = 0) -> Heard:
    """How recordings with a corruption are heard.

    What is drawn differs by utterance, kinds and seed; of two levels of noise, say, the noise itself is the same.
    """
    kinds = "+".join(step.kind for step in corruption.steps)

    def heard(utterance: Utterance, waveform: Waveform) -> Waveform:
        key = zlib.crc32(f"{kinds}\n{utterance.utt_id}\n{utterance.offset}".encode(errors="replace"))
        return corrupt(waveform, corruption, np.random.default_rng([seed, key]))

    return heard


def corrupt(waveform: Waveform, corruption: Corruption, generator: np.random.Generator) -> Waveform:
    """A 16 kHz mono waveform (samples,) with a corruption; as long as it was, but for `speed`."""
    for step in corruption.steps:
        if len(waveform) > 1:
            waveform = _corrupt(waveform, step, generator)
    return waveform


def _corrupt(waveform: Waveform, step: Step, generator: np.random.Generator) -> Waveform:
    match step.kind:
        case "clean":
            return waveform
        case "noise":
            return add_noise(waveform, step.level, generator)
        case "speed":
            return change_speed(waveform, step.level)
        case "reverb":
            return reverberate(waveform, room_response(step.level, DIRECT_DB, generator))
        case "telephone":
            return _coded(_in_band(waveform), G711, NARROW_RATE)
        case "clipping":
            limit = float(np.abs(waveform).max()) * 10.0 ** (-step.level / 20.0)
            return np.clip(waveform, -limit, limit)
        case "opus":
            return _coded(waveform, OPUS, SAMPLE_RATE, step.level)
        case "gsm":
            return _coded(waveform, GSM, NARROW_RATE)


def _in_band(waveform: Waveform) -> Waveform:
    """What a telephone line lets through."""
    spectrum = np.fft.rfft(waveform)
    frequencies = np.fft.rfftfreq(len(waveform), 1.0 / SAMPLE_RATE)
    spectrum[(frequencies < BAND[0]) | (frequencies > BAND[1])] = 0.0
    passed: Waveform = np.fft.irfft(spectrum, len(waveform)).astype(np.float32)
    return passed


def _coded(waveform: Waveform, coding: Coding, rate: int, kilobits: float | None = None) -> Waveform:
    """A waveform that went through a codec of libsndfile, at its rate."""
    import soundfile
    import soxr

    samples = waveform if rate == SAMPLE_RATE else soxr.resample(waveform, SAMPLE_RATE, rate)
    coded, _ = soundfile.read(io.BytesIO(encoded(samples, rate, coding, kilobits)), dtype="float32")
    if rate != SAMPLE_RATE:
        coded = soxr.resample(coded, rate, SAMPLE_RATE)
    heard: Waveform = np.zeros(len(waveform), np.float32)  # codecs fill up their last frame
    kept = min(len(waveform), len(coded))
    heard[:kept] = coded[:kept]
    return heard


def _step(text: str, where: str) -> Step:
    name, colon, value = text.partition(":")
    kinds: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    if name not in kinds:
        guess = did_you_mean(name, kinds)
        remedy = f"did you mean '{guess}'?" if guess else EXAMPLE
        raise ConfigError(f"no such corruption: '{name}'", where=where, remedy=remedy)
    _check_codec(name, where)
    if name not in LEVELS:
        if colon:
            raise ConfigError(f"{name} has no level", where=where, remedy=f"write {name} alone")
        return Step(kinds[name])
    least, most, unit = LEVELS[name]
    try:
        level = float(value)
    except ValueError:
        level = math.nan
    if not least <= level <= most:
        what = f"{name} needs a level, {least:g} to {most:g} {unit}"
        raise ConfigError(what, where=where, remedy=EXAMPLE)
    return Step(kinds[name], level)


def _written(step: Step) -> str:
    return f"{step.kind}:{step.level:g}" if step.kind in LEVELS else step.kind


def _check_codec(name: str, where: str) -> None:
    import soundfile

    container, codec = _NEEDED.get(name, G711)
    if codec not in soundfile.available_subtypes(container):
        raise ConfigError(f"libsndfile is built without {codec}", where=where, remedy="install another soundfile")
