"""R9: damaged recordings give finite samples or an `AudioError`, soon, and kill nothing."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kikitori.errors import AudioError
from kikitori.io.audio import SAMPLE_RATE, read_audio
from tests.io.codecs.test_containers import made
from tests.io.test_audio import encode, mutants, signal
from tests.processes import start
from tests.score.row import Row

LONGEST_S = 5.0
MOST_MB = 200
PATIENCE = 300.0
BY_SOUNDFILE = (
    *(("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16")),
    *(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
)
BY_FFMPEG = (("mp4", "aac"), ("webm", "libopus"))


def count_mutants(root: Path, *, each: int) -> Row:
    """Damages a recording of every format so many times; a child process for each format reads what is left."""
    kept, tries, slowest, largest, seconds, megabytes = 0, 0, "", "", 0.0, 0.0
    for name, data in _recordings():
        (root / name).write_bytes(data)
        found = root / f"{name}.found"
        child = start(_read_mutants, root / name, each, found)
        child.join(PATIENCE)
        child.kill()
        lines = [line.split(maxsplit=2) for line in found.read_text().splitlines()] if found.is_file() else []
        tries += each  # those that are not in the file killed the child, or it hung
        kept += sum(
            said == "well" and float(took) < LONGEST_S and float(grown) < MOST_MB for took, grown, said in lines
        )
        for took, grown, _ in lines:
            if float(took) > seconds:
                seconds, slowest = float(took), name
            if float(grown) > megabytes:
                megabytes, largest = float(grown), name
    return Row(
        "R9",
        f"a damaged recording gives finite samples or an AudioError within {LONGEST_S:g} s and {MOST_MB} MB",
        kept,
        tries,
        (
            f"{each} of each of {len(BY_SOUNDFILE) + len(BY_FFMPEG)} formats;"
            f" slowest {seconds:.1f} s ({slowest}), most memory {megabytes:.0f} MB ({largest})",
        ),
    )


def _recordings() -> Iterator[tuple[str, bytes]]:
    for container, subtype in BY_SOUNDFILE:
        yield f"{container}-{subtype}", encode(signal(0.5, SAMPLE_RATE, 2), SAMPLE_RATE, container, subtype)
    for container, codec in BY_FFMPEG:
        yield f"{container}-{codec}", made(container, codec)


def _read_mutants(file: Path, count: int, found: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    changed = file.with_suffix(".changed")
    with found.open("w", buffering=1) as out:
        for number, mutant in enumerate(mutants(file.read_bytes(), count, np.random.default_rng(20260101))):
            changed.write_bytes(mutant)
            started = time.perf_counter()
            try:
                said = "well" if np.isfinite(read_audio(mutant if number % 2 else changed)).all() else "not finite"
            except AudioError:
                said = "well"
            except Exception as error:  # noqa: BLE001  (that is the question)
                said = type(error).__name__
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            out.write(f"{time.perf_counter() - started:.3f} {grown:.1f} {said}\n")
