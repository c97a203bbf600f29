"""R10: a recording of hours takes the memory of a short one; each of its segments has the text it has alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile as sf

from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.io.audio import SAMPLE_RATE, stream_audio
from kikitori.loading import load
from kikitori.segment.chunks import utterances
from kikitori.types import TrainedOn
from tests.processes import ROOT
from tests.score.row import Row
from tests.tiny import save_tiny, tiny_acoustic_model

SAMPLES = ROOT / "src" / "kikitori" / "samples" / "manifest.jsonl"
GROWTH_MB = 150.0
SHORT_S = 120.0
MEASURED = """
import sys
from pathlib import Path
from kikitori.cli import app
app(sys.argv[1:], standalone_mode=False)
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
"""A command, then the most kilobytes that its process held; of a child, the system would count its parent's too."""


def count_long(root: Path, *, hours: float) -> Row:
    """Transcribes real speech that goes on for so long, by a tiny model, and compares segment by segment."""
    save_tiny(root / "model", tiny_acoustic_model(), trained_on=TrainedOn(10.0, 20.0, "en"))
    memory = {}
    for name, seconds in (("short", SHORT_S), ("long", 3600.0 * hours)):
        _write(root / f"{name}.flac", seconds)
        memory[name] = _transcribe(root, name)
    segments = json.loads((root / "long.json").read_text())["segments"]
    recognizer = load(root / "model", device="cpu", decoding="ctc_greedy")
    longest = recognizer.longest
    assert longest is not None
    chunks = utterances(stream_audio(root / "long.flac"), longest)
    expected = [text for chunk in chunks if (text := recognizer.transcribe(chunk.waveform).text)]
    kept = sum(each["text"] == text for each, text in zip(segments, expected, strict=False))
    edges = [edge for each in segments for edge in (each["start"], each["end"])]
    growth = memory["long"] - memory["short"]
    return Row(
        "R10",
        f"of a recording of {hours:g} hours each segment has the text that it has alone, they come in order, and memory"
        f" grows by no more than {GROWTH_MB:g} MB",
        kept + (edges == sorted(edges)) + (growth <= GROWTH_MB),
        max(len(segments), len(expected)) + 2,
        (f"{len(segments)} segments, {growth:.0f} MB more than for two minutes",),
    )


def _write(file: Path, seconds: float) -> None:
    """The bundled recordings, again and again, with faint noise between them."""
    waves = [read_utterance(row) for row in read_manifest(SAMPLES).utterances]
    generator, samples = np.random.default_rng(0), 0
    with sf.SoundFile(file, "w", SAMPLE_RATE, 1) as out:
        while samples < seconds * SAMPLE_RATE:
            pause = 3e-4 * generator.standard_normal(int(generator.uniform(0.4, 1.2) * SAMPLE_RATE))
            for wave in (pause.astype(np.float32), waves[generator.integers(len(waves))]):
                out.write(wave)
                samples += len(wave)


def _transcribe(root: Path, name: str) -> float:
    """Most megabytes of a process that transcribes a file."""
    command = ["transcribe", str(root / f"{name}.flac"), "-f", "json", "-o", str(root)]
    options = ["--model", str(root / "model"), "--decoding", "ctc_greedy", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command, *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1]) / 1024
