"""Reads audio files: anything that libsndfile or FFmpeg can decode goes in, mono float32 at 16 kHz comes out.

Files are hostile input: no length in a header is believed without decoding, memory does not grow with the length of
the file, and every failure becomes an `AudioError` that names the file. libsndfile reads first; the containers it does
not know (m4a, webm) and the MP3 and FLAC files whose length it would guess go to FFmpeg through PyAV (`audio` extra).
libmpg123 may print warnings on stderr; silencing file descriptor 2 would silence all other threads too.
"""

import io
import math
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from kikitori.errors import AudioError

SAMPLE_RATE = 16_000
_TOLERANCE_S = 0.1  # seconds that a manifest's duration or a lossy codec may be off
_LOUDEST = 1e10  # larger magnitudes are no samples and could overflow float32 in the resampler
_HEADER_SLACK_BYTES = 64  # some writers count the header as data
_SNDFILE_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3"})
_FFMPEG_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,mp3,ogg,flac,wav"
_CONVERT = "convert it with `ffmpeg -i INPUT -ar 16000 -ac 1 OUTPUT.wav`"


@dataclass(frozen=True)
class AudioLimits:
    """What is refused before it costs memory or time; the limit of seconds counts the audio that is read."""

    max_bytes: int = 2 * 1024**3
    max_seconds: float = 24 * 3600.0
    max_channels: int = 16
    min_rate_hz: int = 4_000
    max_rate_hz: int = 384_000


_DEFAULT_LIMITS = AudioLimits()


@dataclass(frozen=True)
class _Track:
    rate_hz: int
    num_channels: int
    num_frames: int | None  # what the header promises; None where it promises nothing
    slack_s: float  # how much less than promised is still complete
    decode: Callable[[int], Iterator[NDArray[Any]]]  # first frame -> blocks of float32 (frames, channels)


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
        with _only_audio_errors(where):
            handle, num_bytes = _open_source(source, where, limits)
            stack.enter_context(handle)
            track = _open_track(stack, handle, num_bytes, where)
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
    """Return the blocks of `stream_audio` as one array, (samples,); arguments in seconds and `AudioError` as there."""
    blocks = list(stream_audio(source, offset=offset, duration=duration, limits=limits))
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


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
    mono = _to_mono(_to_float32(samples, where))
    _check_finite(mono, where, 0, rate_hz)
    return np.concatenate(list(_resample(iter([mono]), rate_hz)))


@contextmanager
def _only_audio_errors(where: str) -> Iterator[None]:
    """Decoders raise a dozen exception types, MemoryError and IndexError among them; the caller gets one."""
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        what = f"cannot be decoded ({type(error).__name__}: {error})"
        raise AudioError(what, where=where, remedy=f"check that it plays, or {_CONVERT}") from error


class _Bytes(io.BytesIO):
    """Damaged files seek before the start; an exception inside libsndfile's callback would be printed to stderr."""

    def seek(self, position: int, whence: int = 0, /) -> int:
        base = (0, self.tell(), self.getbuffer().nbytes)[whence]
        return super().seek(max(0, base + position))


def _check_request(where: str, offset: float, duration: float | None, block_seconds: float) -> None:
    positive = all(
        math.isfinite(value) and value > 0 for value in (block_seconds, 1.0 if duration is None else duration)
    )
    if not (positive and math.isfinite(offset) and offset >= 0):
        what = f"offset {offset} s, duration {duration} s, block {block_seconds} s"
        raise AudioError(what, where=where, remedy="use an offset from 0 on, and a duration and block above 0")


def _open_source(source: str | Path | bytes, where: str, limits: AudioLimits) -> tuple[io.FileIO | _Bytes, int]:
    path = None if isinstance(source, bytes) else Path(source)
    try:
        num_bytes = path.stat().st_size if path else len(source)  # type: ignore[arg-type]
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error.strerror})"
        raise AudioError(what, where=where, remedy="check the path") from error
    if path and not path.is_file():  # opening a pipe would wait for its writer
        kind = "a directory" if path.is_dir() else "not a regular file"
        raise AudioError(f"is {kind}", where=where, remedy="give the path of an audio file")
    if num_bytes == 0:
        raise AudioError("is empty (0 bytes)", where=where, remedy="record or copy it again")
    if num_bytes > limits.max_bytes:
        what = f"is too large: {num_bytes} bytes, the limit is {limits.max_bytes}"
        raise AudioError(what, where=where, remedy="split it or convert it to FLAC")
    # Without Python's buffer, because libsndfile reads from the same file descriptor.
    return (_Bytes(source) if isinstance(source, bytes) else Path(source).open("rb", buffering=0)), num_bytes


def _open_track(stack: ExitStack, handle: io.FileIO | _Bytes, num_bytes: int, where: str) -> _Track:
    data_bytes, data_bytes_there = _data_chunk(handle, num_bytes)
    mp3_is_counted = _mp3_is_counted(handle, num_bytes)
    handle.seek(0)
    sound = None
    try:
        file = handle if isinstance(handle, _Bytes) else handle.fileno()
        sound = stack.enter_context(sf.SoundFile(file, closefd=False))
    except (sf.SoundFileError, RuntimeError, TypeError, ValueError):
        handle.seek(0)
        if not re.search(rb"[\x00-\x08\x0e-\x1f]", handle.read(1024)):
            raise AudioError("is a text file, not audio", where=where, remedy="give an audio file") from None
    # libsndfile decodes an MP3 without a frame count only up to a length that it guesses from the first bit rate, and
    # fails at the end of a FLAC file that was written to a pipe.
    guesses = sound is not None and (sound.frames > 2**60 or (sound.format == "MP3" and not mp3_is_counted))
    if sound is None or guesses or sound.format not in _SNDFILE_FORMATS:
        handle.seek(0)
        return _open_ffmpeg(stack, handle, where)
    if data_bytes > data_bytes_there + _HEADER_SLACK_BYTES:  # libsndfile quietly clamps what the header claims
        readable_s = sound.frames / max(1, sound.samplerate)
        raise _truncated(where, readable_s, readable_s * data_bytes / max(1, data_bytes_there))
    slack_s = _TOLERANCE_S if sound.format in ("MP3", "OGG") else 0.0
    return _Track(sound.samplerate, sound.channels, sound.frames, slack_s, lambda start: _decode_sndfile(sound, start))


def _mp3_is_counted(handle: io.FileIO | _Bytes, num_bytes: int) -> bool:
    """Whether a Xing header counts the frames of the whole file, not just of the first of several joined ones."""
    handle.seek(0)
    head = handle.read(10).ljust(10, b"\0")
    start = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    start = start if head.startswith(b"ID3") else 0
    handle.seek(start)
    found = re.search(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f]....(....)", handle.read(256), re.DOTALL)
    return found is not None and num_bytes - start <= int.from_bytes(found[1]) * 1.01 + 1024


def _data_chunk(handle: io.FileIO | _Bytes, num_bytes: int) -> tuple[int, int]:
    """Bytes of samples that a WAV, RF64 or AIFF header claims and bytes that follow it; (0, 0) when it claims none."""
    handle.seek(0)
    order = {b"RIFF": "<", b"RF64": "<", b"FORM": ">"}.get(handle.read(12)[:4])
    start, large = 20, 0
    for _ in range(1000 if order else 0):
        chunk = handle.read(8)
        if len(chunk) < 8:
            break
        name, length = struct.unpack(f"{order}4sI", chunk)
        if name == b"ds64":
            large = int.from_bytes(handle.read(16)[8:], "little")
        if name in (b"data", b"SSND"):
            # Programs that write to a pipe (ffmpeg, sox) put the largest number where they do not know the size.
            if 0x7FFFF000 <= length <= 0x80000000 or length >= 0xFFFFF000:
                length = large if large < 2**63 else 0
            return length, num_bytes - start
        start += 8 + length + length % 2
        handle.seek(start - 8)
    return 0, 0


def _decode_sndfile(sound: Any, start: int) -> Iterator[NDArray[Any]]:
    skip = start if sound.format == "MP3" else 0  # seeking in an MP3 of variable bit rate misses the place by far
    if start and not skip:
        sound.seek(start)
    with suppress(sf.SoundFileError):  # the caller sees that less came than the header promises
        while len(block := sound.read(sound.samplerate, dtype="float32", always_2d=True)):
            if skip < len(block):
                yield block[skip:]
            skip = max(0, skip - len(block))


def _open_ffmpeg(stack: ExitStack, handle: io.FileIO | _Bytes, where: str) -> _Track:
    try:
        import av  # optional, and slow to import
    except ImportError as error:
        remedy = f"run `pip install 'kikitori[audio]'`, or {_CONVERT}"
        raise AudioError("is no audio that libsndfile reads in full", where=where, remedy=remedy) from error
    # FFmpeg gets an open file and may open nothing else: playlists are refused, and so is every protocol.
    options = {"format_whitelist": _FFMPEG_FORMATS, "protocol_whitelist": "none"}
    container = stack.enter_context(av.open(handle, mode="r", container_options=options))
    if not container.streams.audio:
        raise AudioError("contains no audio track", where=where, remedy="give a file with sound")
    stream = container.streams.audio[0]
    frames = container.decode(stream)
    first = next(frames, None)
    if first is None:
        raise AudioError("contains no samples", where=where, remedy="record or copy it again")
    rate_hz = first.sample_rate
    num_frames = None
    if container.format.name.startswith("mov") and stream.duration and container.duration:  # others only estimate
        num_frames = int(
            rate_hz * min(stream.duration * float(stream.time_base or 0), container.duration / av.time_base)
        )

    return _Track(
        rate_hz,
        first.layout.nb_channels,
        num_frames,
        0.5,
        lambda start: _decode_ffmpeg(chain([first], frames), rate_hz, start, where),
    )


def _decode_ffmpeg(frames: Iterator[Any], rate_hz: int, start: int, where: str) -> Iterator[NDArray[Any]]:
    for frame in frames:
        if frame.sample_rate != rate_hz:
            raise AudioError("changes its sampling rate midway", where=where, remedy=_CONVERT)
        array = frame.to_ndarray()  # (channels, frames) when planar, else (1, frames * channels)
        array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
        if start < len(array):
            yield _to_float32(array[start:], where)
        start = max(0, start - len(array))


def _read_cut(
    track: _Track, where: str, offset: float, duration: float | None, limits: AudioLimits
) -> Iterator[NDArray[np.float32]]:
    """Yield the mono blocks of the cut at the file's own rate, checked against header, request and limits."""
    rate_hz, promised = track.rate_hz, track.num_frames
    start = round(offset * rate_hz)
    count = None if duration is None else max(1, round(duration * rate_hz))
    if promised is not None:
        _check_span(where, promised + round(track.slack_s * rate_hz) * (promised > 0), start, count, rate_hz)
        _check_length(where, min(promised - start, promised if count is None else count) / rate_hz, limits)
    done = 0
    with _only_audio_errors(where):
        for block in track.decode(start):
            mono = _to_mono(block if count is None else block[: count - done])
            _check_finite(mono, where, start + done, rate_hz)
            done += len(mono)
            _check_length(where, done / rate_hz, limits)
            yield mono
            if done == count:
                return
    if promised is not None and start + done < promised - track.slack_s * rate_hz:
        raise _truncated(where, (start + done if done else 0) / rate_hz, promised / rate_hz)
    _check_span(where, start + done if done else min(start, promised or 0), start, count, rate_hz)


def _check_span(where: str, num_frames: int, start: int, count: int | None, rate_hz: int) -> None:
    if num_frames == 0 and start == 0:
        raise AudioError("contains no samples", where=where, remedy="record or copy it again")
    if start >= num_frames:
        what = f"offset {start / rate_hz:.2f} s lies beyond the end of the audio"
        raise AudioError(what, where=where, remedy="correct the offset or copy the file again")
    if count is not None and start + count - num_frames > _TOLERANCE_S * rate_hz:
        raise _truncated(where, num_frames / rate_hz, (start + count) / rate_hz)


def _truncated(where: str, readable_s: float, expected_s: float) -> AudioError:
    what = f"is truncated or damaged: {readable_s:.2f} s of {expected_s:.2f} s are readable"
    return AudioError(what, where=where, remedy="copy it again, or correct the duration asked for")


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
        raise AudioError(f"sample at {second:.3f} s is not finite (NaN, Inf or huge)", where=where, remedy=_CONVERT)


def _to_float32(samples: NDArray[Any], where: str) -> NDArray[np.float32]:
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # _check_finite reports it
            return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / np.float32(128)
    if samples.dtype in (np.int8, np.int16, np.int32):
        return samples.astype(np.float32) / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
    raise AudioError(f"dtype {samples.dtype}", where=where, remedy="use float32, float64, int16 or int32 samples")


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
