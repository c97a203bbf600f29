"""R11: `kill -9` at random moments of `kikitori transcribe` over many files; nothing is lost, doubled or different."""

import random
import signal
import subprocess
import time
from pathlib import Path

import soundfile as sf

from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.files import LOCK
from kikitori.workflows.sharing.journal import JOURNAL
from tests.processes import start_module
from tests.score.row import Row
from tests.tiny import save_tiny, tiny_acoustic_model, tiny_waveform

PATIENCE = 300.0
FORMATS = ("-f", "txt", "-f", "srt")


def count_killed_jobs(root: Path, *, files: int, kills: int, seed: int = 0) -> Row:
    """Kills a job over short recordings in folders, a few finished recordings after each other, then lets it end."""
    save_tiny(root / "model", tiny_acoustic_model())
    (root / "in").mkdir()
    for number in range(files):
        file = root / "in" / f"{number % 7}" / f"{number:03}.wav"
        file.parent.mkdir(exist_ok=True)
        sf.write(file, tiny_waveform(0.2 + 0.1 * (number % 5), number), SAMPLE_RATE)
    _finish(root, "straight")
    expected = _files(root / "straight")

    generator = random.Random(seed)  # noqa: S311
    kept, lines, slack = 0, 0, max(files // max(kills, 1) // 2, 1)
    for kill in range(kills):
        target = files * kill // kills + generator.randrange(slack)
        died = _kill(root, target, generator.uniform(0.0, 0.05))
        now = _lines(root / "killed")
        kept += died and now >= lines and _agree(_files(root / "killed"), expected)
        lines = now
    _finish(root, "killed")
    names = [line.split(b'"audio"')[0] for line in (root / "killed" / JOURNAL).read_bytes().splitlines()]
    whole = _files(root / "killed") == expected and len(names) == len({*names}) == files
    journals = [(root / name / JOURNAL).read_bytes() for name in ("straight", "killed")]
    return Row(
        "R11",
        "after a kill -9 a job over many files goes on; nothing is lost or doubled, all files and the journal are those"
        " of an uninterrupted run",
        kept if whole and journals[0] == journals[1] else 0,
        kills,
        (f"{files} recordings, {len(expected)} files",),
    )


def _command(root: Path, out: str) -> list[str]:
    command = ["kikitori", "transcribe", str(root / "in"), "--model", str(root / "model"), "-o", str(root / out)]
    return [*command, *FORMATS, "--batch-size", "3", "--decoding", "ctc_greedy"]


def _kill(root: Path, target: int, seconds: float) -> bool:
    """Kills a job when so many recordings are finished, and so many seconds later; False if it ended before."""
    process = start_module(_command(root, "killed"), root / "errors.txt")
    started = time.monotonic()
    while process.exitcode is None and _lines(root / "killed") < target and time.monotonic() - started < PATIENCE:
        time.sleep(0.002)
    process.join(seconds)
    process.kill()
    process.join(PATIENCE)
    return process.exitcode == -signal.SIGKILL


def _finish(root: Path, out: str) -> None:
    process = start_module(_command(root, out), root / "errors.txt")
    process.join(PATIENCE)
    if process.exitcode != 0:
        raise subprocess.CalledProcessError(process.exitcode or 1, out, stderr=(root / "errors.txt").read_text())


def _lines(folder: Path) -> int:
    file = folder / JOURNAL
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def _files(folder: Path) -> dict[str, bytes]:
    """Transcripts by name; half files have other names, and so would doubled ones."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in (LOCK, JOURNAL)]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _agree(found: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    """Whether all transcripts so far are whole; of those that were being written there may be temporary files."""
    return all(expected[name] == content for name, content in found.items() if not name.endswith(".tmp"))
