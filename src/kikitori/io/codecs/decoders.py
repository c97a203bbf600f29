"""Decoders of audio files: libsndfile, and FFmpeg through PyAV (`audio` extra) for what it does not read in full.

An open file goes in, a `Track` that decodes it block by block comes out. libsndfile reads first; to FFmpeg go the
containers that it does not know (m4a, webm), the MP3 and FLAC files whose length it would guess, MP3 files with gaps
and chained Ogg files. libmpg123 may print warnings on stderr; silencing file descriptor 2 would silence all other
threads too.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import Any

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from kikitori.errors import AudioError, KikitoriWarning
from kikitori.io.codecs.containers import Overlay, data_chunk, is_chained, is_joined, mp3_is_sound

TOLERANCE_S = 0.1  # seconds that a manifest's duration or a lossy codec may be off
_HEADER_SLACK_BYTES = 64  # some writers count the header as data
_SNDFILE_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3"})
_FFMPEG_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,mp3,ogg,flac,wav,caf"
_TIMED_FORMATS = ("mov", "matroska")
_BROKEN_AT_START = 8
"""Packets before the first sound one; those of a file that is no audio would never end."""
SPLIT = "give the files one by one"
CONVERT = "convert it with `ffmpeg -i INPUT -ar 16000 -ac 1 OUTPUT.wav`"


@dataclass(frozen=True)
class Track:
    """The audio track of an open file."""

    rate_hz: int
    num_channels: int
    num_frames: int | None  # what the header promises; None where it promises nothing
    slack_s: float  # how much less than promised is still complete
    decode: Callable[[int], Iterator[NDArray[Any]]]  # first frame -> blocks of float32 (frames, channels)


@contextmanager
def only_audio_errors(where: str) -> Iterator[None]:
    """Decoders raise a dozen exception types, MemoryError and IndexError among them; the caller gets one."""
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        what = f"cannot be decoded ({type(error).__name__}: {error})"
        raise AudioError(what, where=where, remedy=f"check that it plays, or {CONVERT}") from error


class Bytes(io.BytesIO):
    """Damaged files seek before the start; an exception inside libsndfile's callback would be printed to stderr."""

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Seeks as io.BytesIO does, but never before the start."""
        base = (0, self.tell(), self.getbuffer().nbytes)[whence]
        return super().seek(max(0, base + position))


def open_track(stack: ExitStack, handle: io.FileIO | Bytes, num_bytes: int, where: str) -> Track:
    """The track of an open file.

    Raises:
        AudioError: It is no audio, or less of it is there than its header claims.
    """
    chunk = data_chunk(handle, num_bytes)
    if chunk.joined or is_joined(handle, num_bytes):  # decoders read the first alone, or lose what is at the joint
        raise AudioError("is several files joined", where=where, remedy=SPLIT)
    mp3_is_counted, chained = mp3_is_sound(handle, num_bytes), is_chained(handle, num_bytes)
    handle.seek(0)
    sound = None
    try:
        file = handle if isinstance(handle, Bytes) else handle.fileno()
        opened = Overlay(handle, chunk.sizes) if chunk.sizes else file
        sound = stack.enter_context(sf.SoundFile(opened, closefd=False))
    except (sf.SoundFileError, RuntimeError, TypeError, ValueError):
        handle.seek(0)
        if not re.search(rb"[\x00-\x08\x0e-\x1f]", handle.read(1024)):
            raise AudioError("is a text file, not audio", where=where, remedy="give an audio file") from None
    # libsndfile decodes an MP3 without a frame count only up to a length that it guesses from the first bit rate, fails
    # at the end of a FLAC file that was written to a pipe, and reads the first link of a chained Ogg file alone.
    guesses = sound is not None and (sound.frames > 2**60 or chained or (sound.format == "MP3" and not mp3_is_counted))
    if sound is None or guesses or sound.format not in _SNDFILE_FORMATS:
        handle.seek(0)
        return _open_ffmpeg(stack, handle, where)
    if chunk.claimed > chunk.there + _HEADER_SLACK_BYTES:  # libsndfile quietly clamps what the header claims
        readable_s = sound.frames / max(1, sound.samplerate)
        raise truncated(where, readable_s, readable_s * chunk.claimed / max(1, chunk.there))
    slack_s = TOLERANCE_S if sound.format in ("MP3", "OGG") else 0.0
    return Track(sound.samplerate, sound.channels, sound.frames, slack_s, lambda start: _decode_sndfile(sound, start))


def _decode_sndfile(sound: Any, start: int) -> Iterator[NDArray[Any]]:
    skip = start if sound.format == "MP3" else 0  # seeking in an MP3 of variable bit rate misses the place by far
    if start and not skip:
        sound.seek(start)
    with suppress(sf.SoundFileError):  # the caller sees that less came than the header promises
        while len(block := sound.read(sound.samplerate, dtype="float32", always_2d=True)):
            if skip < len(block):
                yield block[skip:]
            skip = max(0, skip - len(block))


def _open_ffmpeg(stack: ExitStack, handle: io.FileIO | Bytes, where: str) -> Track:
    try:
        import av  # optional, and slow to import
    except ImportError as error:
        remedy = f"run `pip install 'kikitori[audio]'`, or {CONVERT}"
        raise AudioError("is no audio that libsndfile reads in full", where=where, remedy=remedy) from error
    # FFmpeg gets an open file and may open nothing else: playlists are refused, and so is every protocol.
    options = {"format_whitelist": _FFMPEG_FORMATS, "protocol_whitelist": "none"}
    container = stack.enter_context(av.open(handle, mode="r", container_options=options))
    if not container.streams.audio:
        raise AudioError("contains no audio track", where=where, remedy="give a file with sound")
    stream = container.streams.audio[0]
    frames = _sound_frames(container, stream, where)
    first = next(frames, None)
    if first is None:
        raise AudioError("contains no samples", where=where, remedy="record or copy it again")
    rate_hz = first.sample_rate
    num_frames = None
    if container.format.name.startswith(_TIMED_FORMATS) and container.duration:  # others only estimate
        own = stream.duration * float(stream.time_base or 0) if stream.duration else inf
        num_frames = int(rate_hz * min(own, container.duration / av.time_base))

    return Track(
        rate_hz,
        first.layout.nb_channels,
        num_frames,
        0.5,
        lambda start: _decode_ffmpeg(chain([first], frames), rate_hz, start, where),
    )


def _sound_frames(container: Any, stream: Any, where: str) -> Iterator[Any]:
    """The frames of a stream; packets that cannot be decoded are left out, and the first of them is told."""
    import av

    done = num_sound = num_broken = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            num_broken += 1
            if not num_sound:
                if num_broken > _BROKEN_AT_START:
                    raise
                continue
            if num_broken > num_sound:
                what = f"is damaged: {num_broken} of its first {num_broken + num_sound} packets cannot be decoded"
                raise AudioError(what, where=where, remedy=f"copy it again, or {CONVERT}") from error
            if num_broken == 1:
                place = done / stream.codec_context.sample_rate
                what = f"{where}: what lies at {place:.2f} s cannot be decoded and is left out; copy the file again"
                warnings.warn(what, KikitoriWarning, stacklevel=2)
            continue
        num_sound += bool(frames)
        for frame in frames:
            done += frame.samples
            yield frame


def _decode_ffmpeg(frames: Iterator[Any], rate_hz: int, start: int, where: str) -> Iterator[NDArray[Any]]:
    for frame in frames:
        if frame.sample_rate != rate_hz:
            raise AudioError("changes its sampling rate midway", where=where, remedy=CONVERT)
        array = frame.to_ndarray()  # (channels, frames) when planar, else (1, frames * channels)
        array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
        if start < len(array):
            yield to_float32(array[start:], where)
        start = max(0, start - len(array))


def to_float32(samples: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Samples as float32; integers are scaled to [-1, 1)."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # _check_finite reports it
            return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / np.float32(128)
    if samples.dtype in (np.int8, np.int16, np.int32):
        return samples.astype(np.float32) / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
    raise AudioError(f"dtype {samples.dtype}", where=where, remedy="use float32, float64, int16 or int32 samples")


def truncated(where: str, readable_s: float, expected_s: float) -> AudioError:
    """The error of a file of which less can be read than its header or a request says, in seconds."""
    what = f"is truncated or damaged: {readable_s:.2f} s of {expected_s:.2f} s are readable"
    return AudioError(what, where=where, remedy="copy it again, or correct the duration asked for")
