"""Files that end early, were joined or have gaps: read in full, or refused, and what is left out is said.

The reports behind these: wav2letter 900 (unfinished headers), libsndfile 277 (chained Ogg), faster-whisper 988 (joined
MP3 files).
"""

import io
import struct

import numpy as np
import pytest

from kikitori.errors import AudioError, KikitoriWarning
from kikitori.io.audio import SAMPLE_RATE, read_audio
from tests.io.test_audio import encode, signal

SOUND = signal(1, 16000)
MP3 = encode(SOUND, 16000, "MP3", "MPEG_LAYER_III")


def with_zeros(data, chunk, count=4, behind=4):
    place = data.index(chunk) + behind
    return data[:place] + bytes(count) + data[place + count :]


def made(fmt, codec):
    """The sound by FFmpeg, in one of its containers."""
    av = pytest.importorskip("av")
    out, sound = io.BytesIO(), signal(1, 48000)
    with av.open(out, "w", format=fmt) as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        kind = "fltp" if codec == "aac" else "s16"
        for start in range(0, len(sound), 4096):
            block = sound[start : start + 4096].T
            block = block if kind == "fltp" else np.round(block * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format=kind, layout="mono")
            frame.rate, frame.pts = 48000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def seconds(data):
    return len(read_audio(data)) / SAMPLE_RATE


@pytest.mark.parametrize(
    "unfinished",
    [
        with_zeros(encode(SOUND, 16000), b"data"),
        with_zeros(with_zeros(encode(SOUND, 16000), b"data"), b"RIFF"),
        with_zeros(encode(SOUND, 16000, "WAVEX"), b"data"),
        with_zeros(encode(SOUND, 16000, "RF64"), b"ds64", 24, 8),
        with_zeros(with_zeros(encode(SOUND, 16000, "AIFF"), b"SSND"), b"FORM"),
        with_zeros(encode(SOUND, 16000, "W64"), b"data", 8, 16),
        *(
            encode(SOUND, 16000).replace(b"data" + struct.pack("<I", 32000), b"data" + struct.pack("<I", size))
            for size in (10**9, 2 * 10**9, 4 * 10**9)
        ),
    ],
    ids=["wav", "wav-riff", "wavex", "rf64", "aiff", "w64", "1e9", "2e9", "4e9"],
)
def test_sizes_that_the_recorder_did_not_write(unfinished, tmp_path):
    (tmp_path / "a.wav").write_bytes(unfinished)
    expected = read_audio(encode(SOUND, 16000))
    np.testing.assert_allclose(read_audio(unfinished), expected, atol=1e-6)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), expected, atol=1e-6)
    np.testing.assert_allclose(read_audio(unfinished, offset=0.5, duration=0.25), expected[8000:12000], atol=1e-6)


def test_a_chunk_behind_no_samples_is_no_sound():
    empty = encode(np.zeros((0, 1)), 16000) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    with pytest.raises(AudioError, match="contains no samples"):
        read_audio(empty)


@pytest.mark.parametrize(("fmt", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_chained_ogg_files_are_read_in_full(fmt, subtype):
    pytest.importorskip("av")
    first, second = encode(SOUND, 16000, fmt, subtype), encode(0.5 * SOUND[:8000], 16000, fmt, subtype)
    assert seconds(first + second) == pytest.approx(1.5, abs=0.03)
    np.testing.assert_allclose(read_audio(first + second)[:15000], read_audio(first)[:15000], atol=0.02)


def test_joined_webm_files_are_read_in_full():
    data = made("matroska", "pcm_s16le")
    assert seconds(data + data) == pytest.approx(2, abs=0.03)


@pytest.mark.parametrize(
    "data",
    [encode(SOUND, 16000), encode(SOUND, 16000, "AIFF"), encode(SOUND, 16000, "FLAC"), pytest.param(None, id="m4a")],
)
def test_joined_files_that_cannot_be_read_in_full_are_refused(data):
    data = made("mp4", "aac") if data is None else data
    with pytest.raises(AudioError, match=r"is several files joined.*give the files one by one"):
        read_audio(data + data)


def test_joined_files_of_different_rates_are_refused():
    pytest.importorskip("av")
    other = encode(signal(1, 44100), 44100, "OGG", "VORBIS")
    with pytest.raises(AudioError):
        read_audio(encode(SOUND, 16000, "OGG", "VORBIS") + other)


def test_an_mp3_with_a_tag_in_the_middle_is_read_in_full_and_said():
    pytest.importorskip("av")
    tag = b"ID3\x04\0\0" + bytes((0, 0, 1, 0)) + b"TIT2\0\0\0\x0a\0\0\x03our title" + bytes(108)
    with pytest.warns(KikitoriWarning, match=r"audio bytes: what lies at 1\.0\d s cannot be decoded and is left out"):
        assert seconds(MP3 + tag + MP3) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("junk", [bytes(range(256)), b""])
def test_gaps_in_an_mp3_are_said_though_its_header_counts_the_frames(junk):
    pytest.importorskip("av")
    middle = len(MP3) // 2
    with pytest.warns(KikitoriWarning, match=r"what lies at 0\.\d\d s cannot be decoded"):
        assert seconds(MP3[:middle] + junk + MP3[middle + 100 :]) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    "tag", [b"TAG" + bytes(125), b"APETAGEX" + bytes(24), bytes(500), b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)]
)
def test_tags_at_the_end_of_an_mp3_are_no_gaps(tag):
    assert seconds(MP3 + tag) == seconds(MP3)


def test_a_cut_webm_is_refused_as_its_header_says_how_long_it_was():
    data = made("matroska", "pcm_s16le")
    assert seconds(data) == pytest.approx(1, abs=0.01)
    with pytest.raises(AudioError, match=r"truncated or damaged: 0\.\d\d s of 1\.00 s"):
        read_audio(data[: len(data) * 4 // 10])


def test_a_cut_aac_without_a_header_is_said():
    data = made("adts", "aac")
    with pytest.warns(KikitoriWarning, match="cannot be decoded"):
        assert 0.4 < seconds(data[: len(data) * 6 // 10]) < 0.9


@pytest.mark.parametrize(("fmt", "subtype"), [("OGG", "VORBIS"), ("FLAC", "PCM_16")])
def test_holes_in_the_middle_are_no_shorter_recordings(fmt, subtype):
    data = bytearray(encode(signal(3, 16000), 16000, fmt, subtype))
    data[len(data) // 2 : len(data) // 2 + 20] = bytes(20)
    with pytest.raises(AudioError, match=r"truncated or damaged: [12]\.\d\d s of 3\.00 s"):
        read_audio(bytes(data))
