"""Recordings that make speech LLMs hallucinate, made from the utterances of a manifest, the same on every call.

python benchmarks/hard_speech.py MANIFEST OUT [--split dev] [--count 20] [--model MODEL]

Eight manifests, which `kikitori evaluate --data OUT/silence.jsonl --data OUT/noise.jsonl ... -o report` reads as eight
sets, and OUT/*.flac:

- silence       digital silence and the rounding noise of 16 bits, 0.5 to 15 s. The transcript is empty.
- noise         white, pink and brown noise, hum and clicks, 1 to 15 s, -60 to -10 dB. The transcript is empty.
- music         tones that swell, chords, a melody, beats, and a band of them all, 4 and 12 s. The transcript is empty.
- moving        breath, barks, a wah-wah and a siren, whose spectra move as speech's does. The transcript is empty.
- reversed      an utterance played backwards: no word of any language is right, so the transcript is empty.
- cut           an utterance that breaks off in the middle of a word, at about 60 % of its words. The CTC head of MODEL
                aligns the transcript (`ctc_align`); a word lasts from the first frame of its first label to that of the
                next word. The transcript is that of the words before the one that is cut.
- doubled       an utterance of up to 8 s twice in a row, and so its transcript.
- after_silence an utterance of up to 8 s behind 10 s of digital silence, or of pink noise 50 dB below it.

Which utterances: those of the split evenly spread over their order in the manifest.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from kikitori.align.ctc import ctc_align
from kikitori.data.augment import Waveform
from kikitori.data.manifest import read_manifest, write_manifest
from kikitori.data.speech import read_utterance
from kikitori.io.audio import SAMPLE_RATE
from kikitori.loading import load
from kikitori.recognizer import Recognizer
from kikitori.types import Utterance

SEED = 20
SHORT, PAUSE = 8.0, 10.0  # seconds
CUT = 0.6  # share of the words that stays whole
COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}

Recording = tuple[str, Waveform, str]  # name, samples, transcript


def silence() -> Iterator[Recording]:
    generator = np.random.default_rng(SEED)
    for seconds in (0.5, 2.0, 5.0, 15.0):
        count = round(seconds * SAMPLE_RATE)
        yield f"digital-{seconds:g}s", np.zeros(count, np.float32), ""
        yield f"rounding-{seconds:g}s", (generator.integers(-1, 2, count) / 32768).astype(np.float32), ""


def noise() -> Iterator[Recording]:
    generator = np.random.default_rng(SEED + 1)
    for seconds in (1.0, 5.0, 15.0):
        count = round(seconds * SAMPLE_RATE)
        times = np.arange(count) / SAMPLE_RATE
        for level in (-60, -35, -10):
            waves = {name: coloured(count, exponent, generator) for name, exponent in COLOURS.items()}
            waves["hum"] = np.sum([np.sin(2 * np.pi * 50 * n * times + n) / n for n in (1, 2, 3, 5, 7)], axis=0)
            waves["clicks"] = clicks(count, generator)
            for name, wave in waves.items():
                yield f"{name}-{level}dB-{seconds:g}s", (10 ** (level / 20) * wave).astype(np.float32), ""


def coloured(count: int, exponent: float, generator: np.random.Generator) -> Waveform:
    """Gaussian noise of mean square 0.1, its power falling with the frequency to this exponent."""
    frequencies = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 20.0)
    wave = np.fft.irfft(np.fft.rfft(generator.standard_normal(count)) * frequencies ** (-exponent / 2), count)
    scaled: Waveform = (wave * np.sqrt(0.1 / (wave**2).mean())).astype(np.float32)
    return scaled


def clicks(count: int, generator: np.random.Generator) -> Waveform:
    """Two bursts of 10 ms a second."""
    wave, decay = np.zeros(count), np.exp(-np.arange(160) / 20)
    for start in np.arange(0.3, count / SAMPLE_RATE - 0.1, 0.5) + generator.uniform(0.0, 0.1):
        at = round(start * SAMPLE_RATE)
        wave[at : at + 160] = decay * generator.uniform(-1.0, 1.0, 160)
    return wave.astype(np.float32)


def music() -> Iterator[Recording]:
    generator = np.random.default_rng(SEED + 3)
    for number in range(2):
        for seconds in (4.0, 12.0):
            count = round(seconds * SAMPLE_RATE)
            key = 110.0 * 2 ** (generator.integers(0, 12) / 12)  # Hz, of the lowest note
            parts = {
                "tones": tones(count, generator),
                "chords": chords(count, key, generator),
                "melody": melody(count, 4 * key, generator),
                "beats": beats(count, generator),
            }
            parts["band"] = 0.4 * parts["chords"] + 0.6 * parts["melody"] + 0.8 * parts["beats"]
            for name, wave in parts.items():
                level = generator.uniform(-30.0, -3.0)
                loudest = np.abs(wave).max()
                yield f"{name}-{seconds:g}s-{number}", (10 ** (level / 20) * wave / loudest).astype(np.float32), ""


def tones(count: int, generator: np.random.Generator) -> Waveform:
    """Three sines that swell and fade, as of machines and alarms."""
    times = np.arange(count) / SAMPLE_RATE
    wave = np.zeros(count)
    for pitch, swell in zip(generator.uniform(100.0, 3000.0, 3), generator.uniform(0.2, 2.0, 3), strict=True):
        wave += (1.0 + np.sin(2 * np.pi * swell * times)) * np.sin(2 * np.pi * pitch * times)
    return wave.astype(np.float32)


def chords(count: int, root: float, generator: np.random.Generator) -> Waveform:
    """Major and minor triads that are held for a second or two, with three voices of six harmonics."""
    wave, start = np.zeros(count), 0
    triads = [(0, 4, 7), (7, 11, 14), (9, 12, 16), (5, 9, 12)]  # semitones: I, V, vi, IV
    while start < count:
        size = min(count - start, round(generator.uniform(1.0, 2.0) * SAMPLE_RATE))
        for semitone in triads[generator.integers(len(triads))]:
            wave[start : start + size] += note(size, root * 2 ** (semitone / 12), harmonics=6, decay=0.7)
        start += size
    return wave.astype(np.float32)


def melody(count: int, root: float, generator: np.random.Generator) -> Waveform:
    """One voice on a pentatonic scale, two to six notes a second, with vibrato."""
    wave, start = np.zeros(count), 0
    while start < count:
        size = min(count - start, round(generator.uniform(0.16, 0.5) * SAMPLE_RATE))
        pitch = root * 2 ** (generator.choice([0, 2, 4, 7, 9, 12]) / 12)
        wave[start : start + size] += note(size, pitch, harmonics=8, decay=2.0, vibrato=0.01)
        start += size
    return wave.astype(np.float32)


def note(size: int, pitch: float, *, harmonics: int, decay: float, vibrato: float = 0.0) -> Waveform:
    """A tone of this pitch (Hz): its harmonics fall with their number, and all fade by `decay` nats a second."""
    times = np.arange(size) / SAMPLE_RATE
    phase = 2 * np.pi * pitch * (times + vibrato * np.sin(2 * np.pi * 5.5 * times) / (2 * np.pi * 5.5))
    wave = np.sum([np.sin(k * phase) / k for k in range(1, harmonics + 1)], axis=0)
    edges = np.minimum(1.0, np.minimum(times, times[::-1]) / 0.01)  # without clicks
    shaped: Waveform = (wave * edges * np.exp(-decay * times)).astype(np.float32)
    return shaped


def beats(count: int, generator: np.random.Generator) -> Waveform:
    """A drum kit: bass drum and snare take turns, a hi-hat goes twice as fast."""
    beat = 60.0 / generator.uniform(80.0, 140.0)
    wave, times = np.zeros(count), np.arange(round(0.25 * SAMPLE_RATE)) / SAMPLE_RATE
    bass = np.sin(2 * np.pi * (50.0 * times - 7.0 * np.exp(-times / 0.05))) * np.exp(-times / 0.08)
    for half, start in enumerate(np.arange(0.0, count / SAMPLE_RATE, beat / 2)):
        hiss = generator.standard_normal(len(times))
        struck = 0.1 * np.diff(hiss, prepend=0.0) * np.exp(-times / 0.02)
        if half % 4 == 0:
            struck += bass
        elif half % 4 == 2:
            struck += 0.3 * hiss * np.exp(-times / 0.06)
        at = round(start * SAMPLE_RATE)
        wave[at : at + len(times)] += struck[: count - at]
    return wave.astype(np.float32)


def moving() -> Iterator[Recording]:
    generator = np.random.default_rng(SEED + 4)
    times = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    for number in range(4):
        times = times * generator.uniform(0.85, 1.2)  # slower or faster, lower or higher
        since = times % 0.7
        notes = 110.0 * 2 ** (generator.integers(0, 12, 100)[(4 * times).astype(int)] / 12)
        parts = {
            "breath": coloured(len(times), 1.0, generator) * np.maximum(0.0, np.sin(2 * np.pi * 0.35 * times)) ** 2,
            "bark": resonant(500.0 * np.exp(-3.0 * since), 900.0) * np.sin(np.pi * np.minimum(since / 0.25, 1.0)),
            "wah": resonant(notes, 1250.0 + 750.0 * np.sin(2 * np.pi * 2.0 * times)),
            "siren": resonant(700.0 + 250.0 * np.sin(2 * np.pi * 0.5 * times), 1500.0),
        }
        for name, wave in parts.items():
            yield f"{name}-{number}", (0.3 * wave / np.abs(wave).max()).astype(np.float32), ""


def resonant(pitch: NDArray[np.float64], resonance: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Harmonics of a pitch (Hz) that moves, the louder the nearer they are to a resonance (Hz)."""
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    near = (np.exp(-(((k * pitch - resonance) / 300.0) ** 2)) * np.sin(k * phase) for k in range(1, 21))
    return sum(near, np.zeros(len(pitch)))


def backwards(utterances: Sequence[Utterance], count: int) -> Iterator[Recording]:
    for utterance in spread(utterances, count):
        yield stem(utterance), read_utterance(utterance)[::-1].copy(), ""


def cut(recognizer: Recognizer, utterances: Sequence[Utterance], count: int) -> Iterator[Recording]:
    for utterance in spread(utterances, count):
        wave, words = read_utterance(utterance), (utterance.text or "").split()
        starts = word_starts(recognizer, wave, words)
        kept = round(CUT * len(words))
        if starts is None or not 0 < kept < len(words) - 1:
            print(f"left out: {utterance.utt_id} cannot be cut within a word")
            continue
        middle = round((starts[kept] + starts[kept + 1]) / 2 * SAMPLE_RATE)
        yield stem(utterance), wave[:middle], " ".join(words[:kept])


def word_starts(recognizer: Recognizer, wave: Waveform, words: Sequence[str]) -> list[float] | None:
    """Seconds at which the CTC head begins each word; None if the words do not fit into its frames."""
    log_probs, _ = recognizer.ctc_log_probs([wave])
    labels, firsts = list[int](), list[int]()
    for number in range(len(words)):
        firsts.append(len(labels))
        labels = recognizer.loaded.ctc_units.encode(" ".join(words[: number + 1]))
    spans = ctc_align(log_probs[0].cpu().numpy(), labels)
    if spans is None:
        return None
    frame = len(wave) / SAMPLE_RATE / log_probs.shape[1]
    return [spans[min(first, len(spans) - 1)][0] * frame for first in firsts]


def doubled(utterances: Sequence[Utterance], count: int) -> Iterator[Recording]:
    for utterance in spread([u for u in utterances if u.duration <= SHORT], count):
        wave = read_utterance(utterance)
        yield stem(utterance), np.concatenate([wave, wave]), f"{utterance.text} {utterance.text}"


def after_silence(utterances: Sequence[Utterance], count: int) -> Iterator[Recording]:
    generator = np.random.default_rng(SEED + 2)
    pause = round(PAUSE * SAMPLE_RATE)
    for number, utterance in enumerate(spread([u for u in utterances if u.duration <= SHORT], count)):
        wave = read_utterance(utterance)
        level = float(np.sqrt((wave**2).mean())) * 10 ** (-50 / 20)
        quiet = coloured(pause, 1.0, generator) * np.float32(level / np.sqrt(0.1) if number % 2 else 0.0)
        yield stem(utterance), np.concatenate([quiet, wave]), utterance.text or ""


def spread(utterances: Sequence[Utterance], count: int) -> list[Utterance]:
    places = np.linspace(0, len(utterances) - 1, min(count, len(utterances))).round().astype(int)
    return [utterances[place] for place in places]


def stem(utterance: Utterance) -> str:
    return Path(utterance.utt_id).stem


def write(folder: Path, kind: str, language: str | None, recordings: Iterator[Recording]) -> None:
    rows, total = [], 0.0
    for name, wave, text in recordings:
        file = f"{kind}-{name}.flac"
        sf.write(folder / file, np.clip(wave, -1.0, 1.0), SAMPLE_RATE, subtype="PCM_16")
        seconds = round(len(wave) / SAMPLE_RATE, 3)
        total += seconds
        rows.append({"audio_filepath": file, "duration": seconds, "text": text, "language": language, "kind": kind})
    write_manifest(folder / f"{kind}.jsonl", rows)
    print(f"{folder / kind}.jsonl: {len(rows)} recordings, {total / 60:.1f} min")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--count", type=int, default=20, help="utterances of each kind made from speech")
    parser.add_argument("--model", default="mini-en", help="whose CTC head aligns")
    options = parser.parse_args()
    utterances = [row for row in read_manifest(options.manifest, split=options.split).utterances if row.text]
    options.folder.mkdir(parents=True, exist_ok=True)
    kinds = {
        "silence": silence(),
        "noise": noise(),
        "music": music(),
        "moving": moving(),
        "reversed": backwards(utterances, options.count),
        "cut": cut(load(options.model), utterances, options.count),
        "doubled": doubled(utterances, options.count),
        "after_silence": after_silence(utterances, options.count),
    }
    for kind, recordings in kinds.items():
        write(options.folder, kind, utterances[0].language, recordings)


if __name__ == "__main__":
    main()
