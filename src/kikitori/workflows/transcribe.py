"""`kikitori transcribe`: files and folders of recordings, to transcripts in a folder, and what is done so far."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import kikitori
from kikitori.errors import KikitoriError
from kikitori.io.files import DiskFullError, locked, remove_left_overs
from kikitori.io.model_folder import search_files_digest
from kikitori.io.recordings import Recording
from kikitori.io.subtitles import CueOptions
from kikitori.io.writers import write_transcript
from kikitori.model.weights import weights_digest
from kikitori.recognizer import Recognizer
from kikitori.transcript import clock
from kikitori.types import Transcript
from kikitori.workflows.journal import Journal, file_digest, recipe_digest


@dataclass(frozen=True)
class Outputs:
    """What is written of each recording.

    Attributes:
        folder: Where; exists.
        formats: Some of `kikitori.io.writers.FORMATS`.
        cues: How subtitles are laid out.
    """

    folder: Path
    formats: Sequence[str]
    cues: CueOptions = field(default_factory=CueOptions)


@dataclass(frozen=True)
class Done:
    """What became of a recording.

    Attributes:
        recording: The recording.
        transcript: None if it was finished in an earlier run.
        error: Why there are no files of it.
    """

    recording: Recording
    transcript: Transcript | None = None
    error: KikitoriError | None = None


def transcribe_into(
    recognizer: Recognizer, recordings: Sequence[Recording], outputs: Outputs, *, batch_size: int, word_times: bool
) -> Iterator[Done]:
    """Transcribes recordings into files, with a journal: those that an earlier run has finished are not done again.

    The same recordings with the same recogniser and outputs end in the same files, however often the process was
    killed in between. They are given in their order, but for those that were finished before, which may come sooner.

    Raises:
        DiskFullError: There is no room left; what is finished is kept.
        DataError: The journal cannot be read or written, or another process writes to the folder.
    """
    with locked(outputs.folder):
        for folder in {(outputs.folder / recording.name).parent for recording in recordings}:
            remove_left_overs(folder)
        journal = Journal(outputs.folder, _recipe(recognizer, outputs, word_times))
        waiting: deque[tuple[Recording, str]] = deque()
        finished: deque[Recording] = deque()

        def unfinished() -> Iterator[Path]:
            for recording in recordings:
                digest = file_digest(recording.audio)
                if digest is not None and journal.knows(recording, digest):
                    finished.append(recording)
                else:
                    waiting.append((recording, digest or ""))
                    yield recording.audio

        for result in recognizer.try_transcribe_many(unfinished(), batch_size=batch_size, word_times=word_times):
            while finished:
                yield Done(finished.popleft())
            recording, digest = waiting.popleft()
            yield _write(recording, digest, result, outputs, journal, recognizer.loaded.trained_on.language)
        while finished:
            yield Done(finished.popleft())


@dataclass
class Progress:
    """How far many recordings are, by their bytes, since their seconds are not known beforehand.

    Args:
        recordings: All of them.
        now: A clock, in seconds.
    """

    recordings: Sequence[Recording]
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._sizes = {recording.name: _size(recording.audio) for recording in self.recordings}
        self._started = self.now()
        self._left = sum(self._sizes.values())
        self._recognized = 0
        self.files = self.failed = self.skipped = 0
        self.seconds = 0.0

    def add(self, done: Done) -> None:
        """Notes what became of a recording."""
        size = self._sizes[done.recording.name]
        self._left -= size
        self.files += 1
        if done.error is not None:
            self.failed += 1
        elif done.transcript is None:
            self.skipped += 1
        else:
            self._recognized += size
            self.seconds += done.transcript.duration

    @property
    def fraction(self) -> float:
        """How much is done, 0 to 1."""
        total = sum(self._sizes.values())
        return 1.0 - self._left / total if total else 1.0

    def __str__(self) -> str:
        passed = max(self.now() - self._started, 1e-3)
        parts = [f"{self.files} of {len(self.recordings)} files", f"{clock(self.seconds)} of audio"]
        parts += [f"{self.skipped} done before"] if self.skipped else []
        parts += [f"{self.failed} failed"] if self.failed else []
        if self._recognized:
            parts.append(f"RTFx {self.seconds / passed:.1f}")
            if self._left:
                parts.append(f"{clock(passed * self._left / self._recognized).split('.')[0]} left")
        return ", ".join(parts)


def _recipe(recognizer: Recognizer, outputs: Outputs, word_times: bool) -> str:
    """Digest of what decides the files of a recording beside the recording itself."""
    loaded, folder = recognizer.loaded, recognizer.folder
    return recipe_digest(
        {
            "kikitori": kikitori.__version__,
            "weights": weights_digest(loaded.model),
            "partners": None if folder is None else search_files_digest(folder),
            "search": asdict(recognizer.decoding),
            "dtype": recognizer.dtype,
            "guards": asdict(recognizer.guards),
            "language": loaded.trained_on.language,
            "window": "padded" if recognizer.padded is None else "speech",
            "prompt": recognizer.prompt,
            "hotwords": recognizer.hotwords,
            "word_times": word_times,
            "formats": sorted(outputs.formats),
            "cues": asdict(outputs.cues),
        }
    )


def _write(
    recording: Recording,
    digest: str,
    result: Transcript | KikitoriError,
    outputs: Outputs,
    journal: Journal,
    language: str | None,
) -> Done:
    if isinstance(result, KikitoriError):
        return Done(recording, error=result)
    try:
        files = write_transcript(
            result,
            recording.audio,
            outputs.folder,
            outputs.formats,
            stem=recording.name,
            language=language,
            cues=outputs.cues,
        )
    except DiskFullError:
        raise
    except KikitoriError as error:
        return Done(recording, error=error)
    journal.add(recording, digest, files)
    return Done(recording, result)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
