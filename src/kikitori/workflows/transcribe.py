"""`kikitori transcribe`: files and folders of recordings, to transcripts in a folder, and what is done so far."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from kikitori.engine.pool import Pool, each
from kikitori.errors import AudioError, KikitoriError
from kikitori.io.audio import promised_seconds
from kikitori.io.files import DiskFullError, locked, remove_left_overs
from kikitori.io.recordings import Recording
from kikitori.io.subtitles import CueOptions
from kikitori.io.writers import write_transcript
from kikitori.recognizer import Recognizer
from kikitori.transcript import clock
from kikitori.types import Transcript
from kikitori.workflows.sharing.journal import Journal, file_digest, recipe_digest, recognizer_recipe
from kikitori.workflows.sharing.shards import WHOLE, Shard


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


Result = Transcript | KikitoriError
BYTES_A_SECOND = 16_000  # of a file whose header does not say how long it is


class Transcriber(Protocol):
    """What transcribes recordings."""

    @property
    def language(self) -> str | None:
        """Code of the language of its transcripts, where there is one."""
        ...

    @property
    def has_word_times(self) -> bool:
        """Whether words can have times."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the text of a recording beside the recording itself, for a digest."""
        ...

    def try_transcribe_many(
        self, audio: Iterable[Path], *, batch_size: int = 8, word_times: bool = False
    ) -> Iterator[Result]:
        """Transcripts in order, an error in the place of a recording that has none."""
        ...


@dataclass(frozen=True)
class Transcribing:
    """A recogniser of ours, with its search and all that it was told."""

    recognizer: Recognizer

    @property
    def language(self) -> str | None:
        """Code of the language of its transcripts, where there is one."""
        return self.recognizer.loaded.trained_on.language

    @property
    def has_word_times(self) -> bool:
        """Whether words can have times."""
        return self.recognizer.has_word_times

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the text of a recording beside the recording itself."""
        told = {"guards": asdict(self.recognizer.guards), "prompt": self.recognizer.prompt}
        return recognizer_recipe(self.recognizer) | told

    def try_transcribe_many(
        self, audio: Iterable[Path], *, batch_size: int = 8, word_times: bool = False
    ) -> Iterator[Result]:
        """Transcripts in order, an error in the place of a recording that has none."""
        return self.recognizer.try_transcribe_many(audio, batch_size=batch_size, word_times=word_times)


def transcripts(
    transcriber: Transcriber, paths: Iterable[Path], *, batch_size: int, word_times: bool, pool: Pool | None = None
) -> Iterator[tuple[int, Result]]:
    """The transcript of each recording, or its error, with its number: in order, or from a pool in any order.

    Raises:
        KikitoriError: The pool has no recognisers.
    """
    if pool is None:
        return enumerate(transcriber.try_transcribe_many(paths, batch_size=batch_size, word_times=word_times))
    work = partial(_transcribed, batch_size=batch_size, word_times=word_times)
    recordings = [*paths]
    return each(pool, work, recordings, [*map(_seconds, recordings)])


def transcribe_into(
    transcriber: Transcriber,
    recordings: Sequence[Recording],
    outputs: Outputs,
    *,
    batch_size: int,
    word_times: bool,
    pool: Pool | None = None,
    shard: Shard = WHOLE,
) -> Iterator[Done]:
    """Transcribes recordings into files, with a journal: those that an earlier run has finished are not done again.

    The same recordings with the same recogniser and outputs end in the same files, whoever did what, and however often
    a process was killed in between. They are given in their order, but for those that were finished before, which may
    come sooner; from a pool, as they are finished.

    Raises:
        DiskFullError: There is no room left; what is finished is kept.
        DataError: The journal cannot be read or written, or another process writes to the folder.
        KikitoriError: The pool has no recognisers.
    """
    with locked(outputs.folder, shard.part):
        if shard == WHOLE:  # others may be writing theirs
            for folder in {(outputs.folder / recording.name).parent for recording in recordings}:
                remove_left_overs(folder)
        journal = Journal(outputs.folder, _recipe(transcriber, outputs, word_times), shard.part)
        waiting: list[tuple[Recording, str]] = []
        finished: deque[Recording] = deque()

        def unfinished() -> Iterator[Path]:
            for recording in shard.of(recordings):
                digest = file_digest(recording.audio)
                if digest is not None and journal.knows(recording, digest):
                    finished.append(recording)
                else:
                    waiting.append((recording, digest or ""))
                    yield recording.audio

        results = transcripts(transcriber, unfinished(), batch_size=batch_size, word_times=word_times, pool=pool)
        for number, result in results:
            while finished:
                yield Done(finished.popleft())
            recording, digest = waiting[number]
            yield _write(recording, digest, result, outputs, journal, transcriber.language)
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


def _transcribed(recognizer: Recognizer, paths: Sequence[Path], *, batch_size: int, word_times: bool) -> list[Result]:
    return [*recognizer.try_transcribe_many(paths, batch_size=batch_size, word_times=word_times)]


def _seconds(path: Path) -> float:
    """About how long a recording is."""
    try:
        promised = promised_seconds(path)
    except AudioError:
        return 0.0
    return _size(path) / BYTES_A_SECOND if promised is None else promised


def _recipe(transcriber: Transcriber, outputs: Outputs, word_times: bool) -> str:
    """Digest of what decides the files of a recording beside the recording itself."""
    return recipe_digest(
        {
            **transcriber.identity,
            "word_times": word_times,
            "formats": sorted(outputs.formats),
            "cues": asdict(outputs.cues),
        }
    )


def _write(
    recording: Recording,
    digest: str,
    result: Result,
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
