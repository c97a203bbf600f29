"""Recordings without speech, from nothing: hiss, hum, tones, knocks and notes. `python tools/make_noise.py FOLDER`

A folder of FLAC files with a manifest, for `{path: ..., nonspeech: true}` in a recipe.
"""

import json
import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from kikitori.data.augment import coloured_noise
from kikitori.io.audio import SAMPLE_RATE

COUNT, SHORTEST, LONGEST = 120, 2.0, 14.0
Sound = NDArray[np.floating]


def hiss(size: int, draw: np.random.Generator) -> Sound:
    return coloured_noise(size, draw.uniform(0.0, 2.2), draw)


def quiet(size: int, draw: np.random.Generator) -> Sound:
    return 10 ** draw.uniform(-5.0, -3.5) * draw.normal(size=size)


def tones(size: int, draw: np.random.Generator) -> Sound:
    """A few sines that swell and fade, such as hum and beeps."""
    time = np.arange(size) / SAMPLE_RATE
    pitches = draw.uniform(50.0, 3000.0, size=draw.integers(1, 6))
    swells = [1.0 + 0.5 * np.sin(2 * np.pi * draw.uniform(0.1, 3.0) * time) for _ in pitches]
    parts = [
        draw.uniform(0.2, 1.0) * swell * np.sin(2 * np.pi * f * time) for f, swell in zip(pitches, swells, strict=True)
    ]
    sound: Sound = np.sum(parts, axis=0)
    return sound


def knocks(size: int, draw: np.random.Generator) -> Sound:
    sound = 0.05 * coloured_noise(size, 1.0, draw)
    for start in draw.integers(0, size - 2000, size=int(size / SAMPLE_RATE * draw.uniform(0.5, 4.0))):
        width = int(draw.integers(100, 1900))
        sound[start : start + width] += draw.uniform(0.2, 1.0) * draw.normal(size=width) * decay(width, 6.0)
    return sound


def notes(size: int, draw: np.random.Generator) -> Sound:
    """Harmonics that die away, one note after the other."""
    sound, start = np.zeros(size), 0
    while start < size:
        width = min(size - start, int(draw.uniform(0.15, 0.8) * SAMPLE_RATE))
        pitch, time = 220.0 * 2 ** (draw.integers(-12, 24) / 12), np.arange(width) / SAMPLE_RATE
        harmonics = [np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6)]
        sound[start : start + width] += np.sum(harmonics, axis=0) * np.exp(-3.0 * time)
        start += max(1, int(width * draw.uniform(0.5, 1.0)))
    return sound


def decay(width: int, rate: float) -> Sound:
    return np.exp(-np.arange(width) * rate / width)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draw, rows = np.random.default_rng(7), list[dict[str, object]]()
    for number in range(COUNT):
        size = int(draw.uniform(SHORTEST, LONGEST) * SAMPLE_RATE)
        kind = (hiss, quiet, tones, knocks, notes, hiss)[number % 6]
        sound = kind(size, draw)
        if kind is not quiet:
            sound = sound / np.abs(sound).max() * 10 ** draw.uniform(-2.2, -0.1)
        soundfile.write(folder / f"{number:03}.flac", sound.astype(np.float32), SAMPLE_RATE)
        rows.append({"audio_filepath": f"{number:03}.flac", "duration": round(size / SAMPLE_RATE, 3), "text": ""})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
