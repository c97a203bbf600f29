"""Speech for training: filtered utterances in, augmented waveforms with their texts out, in batches."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kikitori.data.augment import Waveform, add_noise, change_gain, change_speed, draw_speed
from kikitori.data.manifest import OnError
from kikitori.data.rows import Rows
from kikitori.errors import AudioError, DataError, counted
from kikitori.io.audio import SAMPLE_RATE, promised_seconds, read_audio
from kikitori.io.codecs.decoders import TOLERANCE_S
from kikitori.io.files import read_range
from kikitori.types import Utterance

ROUNDING_S = 0.5
"""More seconds than durations are rounded by."""


@dataclass(frozen=True)
class WaveformAugment:
    """What may happen to a training waveform; the defaults leave it as it is."""

    speeds: Sequence[float] = ()
    gain_db: float = 0.0
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (10.0, 40.0)


@dataclass(frozen=True)
class SpeechBatch:
    """Utterances of one batch.

    Attributes:
        waveforms: (batch, samples), float32, right-padded with zeros.
        lengths: Samples per utterance, (batch,).
        texts: Reference texts as the manifest has them.
        indices: Positions in the dataset.
    """

    utt_ids: tuple[str, ...]
    waveforms: Tensor
    lengths: Tensor
    texts: tuple[str, ...]
    indices: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds of audio without padding."""
        return float(self.lengths.sum()) / SAMPLE_RATE


@dataclass(frozen=True)
class FilterReport:
    """Which utterances are left out of training, and why; `recognized` of those kept have a recogniser's text."""

    kept: int
    seconds: float
    dropped: dict[str, list[str]]
    recognized: int = 0

    def lines(self) -> list[str]:
        """The report, one line per reason, with up to three names each."""
        of_which = f", of which {self.recognized} with recognised text" if self.recognized else ""
        lines = [f"{counted(self.kept, 'utterance')}, {self.seconds / 3600:.2f} h{of_which}"]
        for reason, names in self.dropped.items():
            more = ", ..." if len(names) > 3 else ""
            lines.append(f"left out {len(names)}: {reason} ({', '.join(names[:3])}{more})")
        return lines


def filter_rows(rows: Rows, *, min_seconds: float, max_seconds: float) -> tuple[Rows, FilterReport]:
    """Keeps what can be trained on: rows that have labels, a usable duration and a file."""
    table = rows.table
    reasons = {
        "no text": ~table["labelled"],
        f"shorter than {min_seconds:g} s": rows.durations < min_seconds,
        f"longer than {max_seconds:g} s": rows.durations > max_seconds,
        "audio file missing": ~table["there"],
    }
    keep, dropped = np.ones(len(rows), bool), {}
    for reason, wrong in reasons.items():
        if names := [row.utt_id for row in rows.take(keep & wrong)]:
            dropped[reason] = names
        keep &= ~wrong
    kept = rows if keep.all() else rows.take(keep)
    seconds, recognized = float(sum(kept.durations.tolist())), int(kept.table["recognized"].sum())
    return kept, FilterReport(len(kept), seconds, dropped, recognized)


@dataclass(frozen=True)
class FileReport:
    """What headers say of the files of some utterances.

    Attributes:
        problems: What is wrong, by the name of the utterance.
        cut: Utterances that are the beginning of a longer file of which no other has the rest.
    """

    problems: dict[str, str]
    cut: list[str]


def check_files(utterances: Sequence[Utterance], advance: Callable[[int], None]) -> FileReport:
    """Compares durations with the headers of the files; `advance` is told how many more are done."""
    report, lengths = FileReport({}, []), dict[_AudioFile, float | None]()
    shares = Counter((_audio_file(each), each.offset) for each in utterances)
    cuts = Counter(path for path, _ in shares)
    for utterance in utterances:
        path, end = _audio_file(utterance), utterance.offset + utterance.duration
        try:
            if path not in lengths:
                lengths[path] = _promised_seconds(utterance)
            seconds = lengths[path]
            if seconds is not None:
                _check_length(utterance, seconds)
                if cuts[path] == 1 and utterance.offset == 0 and 0 < end < seconds - ROUNDING_S:
                    report.cut.append(f"{utterance.utt_id}: {end:g} s of {seconds:.2f} s")
        except AudioError as error:
            report.problems[utterance.utt_id] = str(error)
        advance(1)
    return report


_AudioFile = tuple[Path, tuple[int, int] | None]


def _audio_file(utterance: Utterance) -> _AudioFile:
    return utterance.audio_filepath, utterance.byte_range


@dataclass
class SpeechLoader:
    """Reads utterances into batches, with an optional cache of decoded audio.

    Attributes:
        augment: Applied when an epoch is given.
        cache: Keep decoded audio in memory, as 16-bit samples.
        on_error: `skip` leaves unreadable files out of the batch, counts them in `unreadable` and names their
            utterances in `left_out`.
    """

    utterances: Rows
    augment: WaveformAugment = field(default_factory=WaveformAugment)
    seed: int = 0
    cache: bool = False
    on_error: OnError = "stop"
    unreadable: Counter[str] = field(default_factory=Counter)
    left_out: set[str] = field(default_factory=set)
    _cached: dict[int, np.ndarray[tuple[int], np.dtype[np.int16]]] = field(default_factory=dict, repr=False)

    def batch(self, indices: Sequence[int], *, epoch: int | None = None) -> SpeechBatch | None:
        """The utterances of a batch, augmented if an epoch is given; None if none could be read.

        Raises:
            DataError: A file cannot be read and `on_error` is `stop`.
        """
        rows: list[tuple[Utterance, Waveform]] = []
        used: list[int] = []
        for index, utterance in zip(indices, self.utterances.take(indices), strict=True):
            try:
                waveform = self._waveform(index, utterance)
            except AudioError as error:
                if self.on_error == "stop":
                    raise DataError(str(error), remedy="or set data.on_error=skip") from None
                self.unreadable[str(error)] += 1
                self.left_out.add(utterance.utt_id)
                continue
            if epoch is not None:
                waveform = self._augment(waveform, np.random.default_rng([self.seed, epoch, index]))
            rows.append((utterance, waveform))
            used.append(index)
        return collate(rows, used) if rows else None

    def read(self, index: int) -> Waveform:
        """The audio of an utterance as it was recorded.

        Raises:
            AudioError: The file cannot be read.
        """
        return self._waveform(index, self.utterances[index])

    def _waveform(self, index: int, utterance: Utterance) -> Waveform:
        if index in self._cached:
            return self._cached[index].astype(np.float32) / 32768.0
        waveform = read_utterance(utterance)
        if self.cache:
            self._cached[index] = np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(np.int16)
            return self._cached[index].astype(np.float32) / 32768.0
        return waveform

    def _augment(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        settings = self.augment
        waveform = change_speed(waveform, draw_speed(settings.speeds, generator))
        if generator.random() < settings.noise_probability:
            waveform = add_noise(waveform, generator.uniform(*settings.noise_snr_db), generator)
        if settings.gain_db:
            waveform = change_gain(waveform, generator.uniform(-settings.gain_db, settings.gain_db))
        return waveform


def left_out(speech: Sequence[SpeechLoader]) -> list[list[str]]:
    """The utterances that each loader has left out so far, for a checkpoint."""
    return [sorted(loader.left_out) for loader in speech]


def leave_out(speech: Sequence[SpeechLoader], *known: Sequence[Sequence[str]]) -> None:
    """Adds what `left_out` gave of loaders in the same order, perhaps several times."""
    for names in known:
        for loader, more in zip(speech, names, strict=False):
            loader.left_out.update(more)


def audio_source(utterance: Utterance) -> Path | bytes:
    """The audio file of an utterance, or its bytes where it lies inside another.

    Raises:
        AudioError: That one is cut or cannot be read.
    """
    if utterance.byte_range is None:
        return utterance.audio_filepath
    try:
        return read_range(utterance.audio_filepath, *utterance.byte_range)
    except (OSError, EOFError) as error:
        what = f"has not all of {utterance.utt_id!r} ({error})"
        raise AudioError(what, where=utterance.audio_filepath, remedy="copy it again") from None


def read_utterance(utterance: Utterance) -> Waveform:
    """The audio of one manifest row.

    Raises:
        AudioError: The file cannot be read, or is shorter than the manifest says.
    """
    source = audio_source(utterance)
    try:
        if utterance.offset > 0:
            return read_audio(source, offset=utterance.offset, duration=utterance.duration)
        # The whole file is one utterance unless the manifest says where it begins.
        waveform: Waveform = read_audio(source)
    except AudioError as error:
        raise _of_row(utterance, error) from None
    seconds = len(waveform) / SAMPLE_RATE
    _check_length(utterance, seconds)
    # The first row of a longer recording.
    if 0 < utterance.duration < seconds - ROUNDING_S:
        waveform = waveform[: round(utterance.duration * SAMPLE_RATE)]
    return waveform


def _promised_seconds(utterance: Utterance) -> float | None:
    source = audio_source(utterance)
    try:
        return promised_seconds(source)
    except AudioError as error:
        raise _of_row(utterance, error) from None


def _of_row(utterance: Utterance, error: AudioError) -> AudioError:
    """The error of an audio file, with the row where the name of the file would not tell which."""
    if utterance.offset == 0 and utterance.byte_range is None:
        return error
    return AudioError(f"{error.what} (row {utterance.utt_id!r})", where=utterance.audio_filepath, remedy=error.remedy)


def _check_length(utterance: Utterance, seconds: float) -> None:
    """Refuses a row that goes on after the end of its file."""
    slack = TOLERANCE_S if utterance.offset else ROUNDING_S
    if seconds < utterance.offset + utterance.duration - slack:
        behind = f" from {utterance.offset:g} s on" if utterance.offset else ""
        what = f"holds {seconds:.2f} s, and the manifest says {utterance.duration:g} s{behind} of {utterance.utt_id!r}"
        raise AudioError(what, where=utterance.audio_filepath, remedy="correct the duration or copy the file again")


def collate(rows: Sequence[tuple[Utterance, Waveform]], indices: Sequence[int] = ()) -> SpeechBatch:
    """Pads waveforms into one batch."""
    waveforms, lengths = pad_waveforms([waveform for _, waveform in rows])
    return SpeechBatch(
        utt_ids=tuple(utterance.utt_id for utterance, _ in rows),
        waveforms=waveforms,
        lengths=lengths,
        texts=tuple(utterance.text or "" for utterance, _ in rows),
        indices=tuple(indices),
    )


def pad_waveforms(waveforms: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
    """Right-pads waveforms with zeros: (batch, samples) and lengths (batch,); at least one sample wide."""
    lengths = [len(waveform) for waveform in waveforms]
    padded = torch.zeros(len(waveforms), max([1, *lengths]))
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return padded, torch.tensor(lengths)
