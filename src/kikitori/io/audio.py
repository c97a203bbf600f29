"""Reads audio files: anything that libsndfile or FFmpeg can decode goes in, mono float32 at 16 kHz comes out.

Files are hostile input: no length in a header is believed without decoding, memory does not grow with the length of
the file, and every failure becomes an `AudioError` that names the file. `kikitori.io.codecs.decoders` decodes.
"""

import io
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from kikitori.errors import AudioError
from kikitori.io.codecs.decoders import (
    CONVERT,
    TOLERANCE_S,
    Bytes,
    Track,
    only_audio_errors,
    open_track,
    to_float32,
    truncated,
)
from kikitori.io.files import describe_folder

SAMPLE_RATE = 16_000
_LOUDEST = 1e10  # larger magnitudes are no samples and could overflow float32 in the resampler


@dataclass(frozen=True)
class AudioLimits:
    """What is refused before it costs memory or time; the limit of seconds counts the audio that is read."""

    max_bytes: int = 2 * 1024**3
    max_seconds: float = 24 * 3600.0
    max_channels: int = 16
    min_rate_hz: int = 4_000
    max_rate_hz: int = 384_000


_DEFAULT_LIMITS = AudioLimits()


def stream_audio(
    source: str | Path | bytes,
    *,
    offset: float = 0.0,
    duration: float | None = None,
    block_seconds: float = 10.0,
    limits: AudioLimits = _DEFAULT_LIMITS,
) -> Iterator[NDArray[np.float32]]:
    """Yield a file, or a cut of it, as blocks of mono float32 samples at 16 kHz, in memory bounded by the block.

    The blocks put together equal one-shot resampling of the cut; all but the last hold `block_seconds`. Nothing is
    opened before the first block is asked for. Cuts of MP3 and of FFmpeg's containers decode the file from its start,
    because seeking in them is not exact to the sample.

    Args:
        source: Path of a regular file, or the bytes of one.
        offset: Seconds from the start of the file.
        duration: Seconds to read; None reads to the end.
        block_seconds: Seconds in a block.
        limits: What to refuse.

    Raises:
        AudioError: The file is missing, unreadable, empty, truncated, beyond the limits, shorter than the cut by more
            than 0.1 s, or holds samples that are not finite.
    """
    where = "audio bytes" if isinstance(source, bytes) else str(source)
    _check_request(where, offset, duration, block_seconds)
    with ExitStack() as stack:
        with only_audio_errors(where):
            handle, num_bytes = _open_source(source, where, limits)
            stack.enter_context(handle)
            track = open_track(stack, handle, num_bytes, where)
        _check_format(where, track.rate_hz, track.num_channels, limits)
        pieces = _resample(_read_cut(track, where, offset, duration, limits), track.rate_hz)
        yield from _rebuffer(pieces, max(1, round(block_seconds * SAMPLE_RATE)))


def read_audio(
    source: str | Path | bytes,
    *,
    offset: float = 0.0,
    duration: float | None = None,
    limits: AudioLimits = _DEFAULT_LIMITS,
) -> NDArray[np.float32]:
    """Return a file, or a cut of it, as one array of mono float32 samples at 16 kHz, (samples,); see `stream_audio`.

    Raises:
        AudioError: As `stream_audio` raises it.
    """
    blocks = list(stream_audio(source, offset=offset, duration=duration, limits=limits))
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def promised_seconds(source: Path | bytes) -> float | None:
    """The length of a file, or of its bytes, by its header; nothing is decoded. None where the header does not say.

    Raises:
        AudioError: The file is missing, empty or no audio, or its header is beyond the limits.
    """
    where = "audio bytes" if isinstance(source, bytes) else str(source)
    with ExitStack() as stack, only_audio_errors(where):
        handle, num_bytes = _open_source(source, where, _DEFAULT_LIMITS)
        stack.enter_context(handle)
        track = open_track(stack, handle, num_bytes, where)
        _check_format(where, track.rate_hz, track.num_channels, _DEFAULT_LIMITS)
        return None if track.num_frames is None else track.num_frames / track.rate_hz


def to_mono_16k(samples: np.ndarray, rate_hz: int) -> NDArray[np.float32]:
    """Return an array as a new array of mono float32 samples at 16 kHz; channels are averaged.

    Args:
        samples: (samples,) or (samples, channels). Floats are taken as they are; int8, int16, int32 and offset-binary
            uint8 are scaled to [-1, 1).
        rate_hz: Sampling rate of `samples`.

    Raises:
        AudioError: The array is empty, has another shape or dtype, too many channels, an absurd rate or samples that
            are not finite.
    """
    where = "samples"
    if samples.ndim not in (1, 2):
        raise AudioError(f"shape {samples.shape}", where=where, remedy="pass (samples,) or (samples, channels)")
    if samples.size == 0:
        raise AudioError("contains no samples", where=where, remedy="pass at least one sample")
    _check_format(where, rate_hz, 1 if samples.ndim == 1 else samples.shape[1], _DEFAULT_LIMITS)
    mono = _to_mono(to_float32(samples, where))
    _check_finite(mono, where, 0, rate_hz)
    return np.concatenate(list(_resample(iter([mono]), rate_hz)))


def _check_request(where: str, offset: float, duration: float | None, block_seconds: float) -> None:
    positive = all(
        math.isfinite(value) and value > 0 for value in (block_seconds, 1.0 if duration is None else duration)
    )
    if not (positive and math.isfinite(offset) and offset >= 0):
        what = f"offset {offset} s, duration {duration} s, block {block_seconds} s"
        raise AudioError(what, where=where, remedy="use an offset from 0 on, and a duration and block above 0")


def _open_source(source: str | Path | bytes, where: str, limits: AudioLimits) -> tuple[io.FileIO | Bytes, int]:
    path = None if isinstance(source, bytes) else Path(source)
    try:
        num_bytes = path.stat().st_size if path else len(source)  # type: ignore[arg-type]
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error.strerror})"
        raise AudioError(what, where=where, remedy="check the path") from error
    if path and not path.is_file():  # opening a pipe would wait for its writer
        if path.is_dir():
            found, remedy = describe_folder(path)
            raise AudioError(f"is a directory and no audio file: it {found}", where=where, remedy=remedy)
        raise AudioError("is not a regular file", where=where, remedy="give the path of an audio file")
    if num_bytes == 0:
        raise AudioError("is empty (0 bytes)", where=where, remedy="record or copy it again")
    if num_bytes > limits.max_bytes:
        what = f"is too large: {num_bytes} bytes, the limit is {limits.max_bytes}"
        raise AudioError(what, where=where, remedy="split it or convert it to FLAC")
    # Without Python's buffer, because libsndfile reads from the same file descriptor.
    return (Bytes(source) if isinstance(source, bytes) else Path(source).open("rb", buffering=0)), num_bytes


def _read_cut(
    track: Track, where: str, offset: float, duration: float | None, limits: AudioLimits
) -> Iterator[NDArray[np.float32]]:
    """Yield the mono blocks of the cut at the file's own rate, checked against header, request and limits."""
    rate_hz, promised = track.rate_hz, track.num_frames
    start = round(offset * rate_hz)
    count = None if duration is None else max(1, round(duration * rate_hz))
    if promised is not None:
        _check_span(where, promised + round(track.slack_s * rate_hz) * (promised > 0), start, count, rate_hz)
        _check_length(where, min(promised - start, promised if count is None else count) / rate_hz, limits)
    done = 0
    with only_audio_errors(where):
        for block in track.decode(start):
            mono = _to_mono(block if count is None else block[: count - done])
            _check_finite(mono, where, start + done, rate_hz)
            done += len(mono)
            _check_length(where, done / rate_hz, limits)
            yield mono
            if done == count:
                return
    if promised is not None and start + done < promised - track.slack_s * rate_hz:
        raise truncated(where, (start + done if done else 0) / rate_hz, promised / rate_hz)
    _check_span(where, start + done if done else min(start, promised or 0), start, count, rate_hz)


def _check_span(where: str, num_frames: int, start: int, count: int | None, rate_hz: int) -> None:
    if num_frames == 0 and start == 0:
        raise AudioError("contains no samples", where=where, remedy="record or copy it again")
    if start >= num_frames:
        what = f"offset {start / rate_hz:.2f} s lies beyond the end of the audio"
        raise AudioError(what, where=where, remedy="correct the offset or copy the file again")
    if count is not None and start + count - num_frames > TOLERANCE_S * rate_hz:
        raise truncated(where, num_frames / rate_hz, (start + count) / rate_hz)


def _check_length(where: str, seconds: float, limits: AudioLimits) -> None:
    if seconds > limits.max_seconds:
        what = f"is too long: {seconds:.1f} s or more, the limit is {limits.max_seconds:g} s"
        raise AudioError(what, where=where, remedy="split it")


def _check_format(where: str, rate_hz: int, num_channels: int, limits: AudioLimits) -> None:
    if not 1 <= num_channels <= limits.max_channels:
        what = f"has {num_channels} channels, the limit is {limits.max_channels}"
        raise AudioError(what, where=where, remedy="arrays are (samples, channels); mix files down to mono")
    if not limits.min_rate_hz <= rate_hz <= limits.max_rate_hz:
        what = f"sampling rate {rate_hz} Hz is not between {limits.min_rate_hz} and {limits.max_rate_hz} Hz"
        raise AudioError(what, where=where, remedy="check the header, or resample to 16000 Hz")


def _check_finite(mono: NDArray[np.float32], where: str, start: int, rate_hz: int) -> None:
    good = np.abs(mono) <= _LOUDEST  # False for NaN
    if not good.all():
        second = (start + int(np.argmin(good))) / rate_hz
        raise AudioError(f"sample at {second:.3f} s is not finite (NaN, Inf or huge)", where=where, remedy=CONVERT)


def _to_mono(samples: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):  # _check_finite reports it
        mono = samples if samples.ndim == 1 else samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    return np.ascontiguousarray(mono, np.float32)


def _resample(pieces: Iterator[NDArray[np.float32]], rate_hz: int) -> Iterator[NDArray[np.float32]]:
    if rate_hz == SAMPLE_RATE:
        yield from pieces
        return
    resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE, 1, dtype="float32")
    for piece in pieces:
        yield resampler.resample_chunk(piece)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def _rebuffer(pieces: Iterator[NDArray[np.float32]], block_size: int) -> Iterator[NDArray[np.float32]]:
    """Cut pieces of any length into blocks of one length; the last may be shorter, and none is empty."""
    held: list[NDArray[np.float32]] = []
    num_held = 0
    for piece in pieces:
        held.append(piece)
        num_held += len(piece)
        if num_held >= block_size:
            joined = np.concatenate(held)
            whole = num_held - num_held % block_size
            for start in range(0, whole, block_size):
                yield joined[start : start + block_size]
            held, num_held = [joined[whole:].copy()], num_held - whole
    if num_held:
        yield np.concatenate(held)
