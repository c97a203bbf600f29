import io
import os
import re
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from kikitori.errors import AudioError
from kikitori.io.audio import SAMPLE_RATE, AudioLimits, read_audio, stream_audio, to_mono_16k

FORMATS = [
    ("WAV", "PCM_16", 8000, 1),
    ("WAV", "PCM_16", 44100, 2),
    ("WAV", "FLOAT", 48000, 2),
    ("WAV", "PCM_24", 16000, 1),
    ("WAV", "IMA_ADPCM", 16000, 1),
    ("RF64", "PCM_16", 16000, 1),
    ("AIFF", "PCM_16", 22050, 1),
    ("FLAC", "PCM_16", 44100, 2),
    ("OGG", "VORBIS", 44100, 2),
    ("OGG", "OPUS", 48000, 1),
    ("MP3", "MPEG_LAYER_III", 44100, 2),
    ("MP3", "MPEG_LAYER_III", 16000, 1),
]
IDS = [f"{fmt}-{subtype}-{rate}-{channels}" for fmt, subtype, rate, channels in FORMATS]


def signal(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(time))
    left = 0.3 * np.sin(2 * np.pi * (300 + 40 * time) * time) + 0.02 * noise
    return np.stack([left * (0.5**channel) for channel in range(channels)], axis=1).astype(np.float32)


def encode(samples: np.ndarray, rate: int, fmt: str = "WAV", subtype: str = "PCM_16", **options) -> bytes:
    buffer = io.BytesIO()
    with sf.SoundFile(buffer, "w", rate, samples.shape[1], format=fmt, subtype=subtype, **options) as sound:
        sound.write(samples)
    return buffer.getvalue()


def resampled(data: bytes, first: int = 0, last: int | None = None) -> np.ndarray:
    samples, rate = sf.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1, dtype=np.float32)[first:last], rate, SAMPLE_RATE)


def strip_xing(data: bytes) -> bytes:
    bitrates = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
    return data[144_000 * bitrates[data[2] >> 4] // 44100 + (data[2] >> 1 & 1) :]


def with_data_length(wav: bytes, length: int) -> bytes:
    start = wav.index(b"data") + 4
    return wav[:start] + struct.pack("<I", length) + wav[start + 4 :]


def num_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


@pytest.mark.parametrize(("fmt", "subtype", "rate", "channels"), FORMATS, ids=IDS)
def test_reads_every_format_like_one_shot_resampling(tmp_path, fmt, subtype, rate, channels):
    data = encode(signal(2.5, rate, channels), rate, fmt, subtype)
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) - 2.5 * SAMPLE_RATE) <= (1100 if subtype == "IMA_ADPCM" else 1)
    np.testing.assert_allclose(samples, resampled(data), atol=1e-6)
    np.testing.assert_array_equal(samples, read_audio(str(path)))
    np.testing.assert_array_equal(samples, read_audio(data))


@pytest.mark.parametrize("block_seconds", [0.001, 0.37, 1.0, 2.5, 100.0])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_stream_equals_read_for_any_block_size(rate, block_seconds):
    data = encode(signal(2.5, rate), rate)
    blocks = list(stream_audio(data, block_seconds=block_seconds))
    assert {len(block) for block in blocks[:-1]} <= {round(block_seconds * SAMPLE_RATE)}
    assert 0 < len(blocks[-1]) <= round(block_seconds * SAMPLE_RATE)
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(data))


@pytest.mark.parametrize(("fmt", "subtype", "rate", "channels"), FORMATS, ids=IDS)
@pytest.mark.parametrize("offset", [0.0, 0.013, 1.5])
def test_cut_equals_the_same_samples_of_the_whole(fmt, subtype, rate, channels, offset):
    data = encode(signal(3.0, rate, channels), rate, fmt, subtype)
    first, last = round(offset * rate), round(offset * rate) + round(0.7 * rate)
    atol = 1e-3 if subtype in ("OPUS", "IMA_ADPCM") else 1e-5
    np.testing.assert_allclose(read_audio(data, offset=offset, duration=0.7), resampled(data, first, last), atol=atol)
    np.testing.assert_allclose(read_audio(data, offset=offset), resampled(data, first), atol=atol)


def test_cut_of_a_variable_bit_rate_mp3_is_exact():
    loud_and_quiet = signal(12, 44100) * np.repeat([0, 1, 0, 0.01, 1, 0], 2 * 44100)[:, None]
    data = encode(loud_and_quiet, 44100, "MP3", "MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.3)
    expected = resampled(data, 7 * 44100, 9 * 44100)
    np.testing.assert_allclose(read_audio(data, offset=7, duration=2), expected, atol=1e-5)


def test_channels_are_averaged():
    samples = np.stack([np.full(1600, 0.5), np.full(1600, -0.25)], axis=1)
    np.testing.assert_allclose(read_audio(encode(samples, 16000, subtype="FLOAT")), 0.125)


def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for seconds in (60, 240):
        sf.write(tmp_path / "a.wav", signal(seconds, 8000), 8000)
        tracemalloc.start()
        assert sum(len(block) for block in stream_audio(tmp_path / "a.wav", block_seconds=2)) == seconds * SAMPLE_RATE
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 4e6


def test_file_is_closed_when_the_consumer_stops_early(tmp_path):
    sf.write(tmp_path / "a.wav", signal(30, 16000), 16000)
    before = num_open_files()
    blocks = stream_audio(tmp_path / "a.wav", block_seconds=1)
    next(blocks)
    blocks.close()
    assert num_open_files() == before


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192000])
def test_one_sample_is_no_error(rate):
    assert len(read_audio(encode(np.full((1, 1), 0.5), rate))) == {8000: 2, 16000: 1}.get(rate, 0)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0xFFFFFFDB, 0x7FFFF000, 0x7FFFFFFF])
def test_wav_from_a_pipe_is_read_to_its_end(length):
    data = encode(signal(1.0, 16000), 16000)
    np.testing.assert_array_equal(read_audio(with_data_length(data, length)), read_audio(data))


@pytest.mark.parametrize("length", [36000 * 32000, 3_175_200_000, 64_000])
def test_wav_that_claims_more_than_it_holds_is_truncated(length):
    data = with_data_length(encode(signal(1.0, 16000), 16000), length)
    tracemalloc.start()
    with pytest.raises(AudioError, match=rf"truncated.*: 1\.00 s of {length / 32000:.2f} s"):
        read_audio(data)
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("fmt", "subtype"),
    [("WAV", "PCM_16"), ("RF64", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")],
)
def test_truncated_file(tmp_path, fmt, subtype):
    data = encode(signal(4, 44100), 44100, fmt, subtype)
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(AudioError, match=r"truncated or damaged: [12]\.\d\d s of 4\.00 s are readable; ") as caught:
        read_audio(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_mp3_without_frame_count_is_read_in_full():
    pytest.importorskip("av")
    samples = signal(12, 44100) * np.repeat([1, 0.001, 0.001, 0.001], 3 * 44100)[:, None]
    data = encode(samples, 44100, "MP3", "MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.3)
    assert sf.info(io.BytesIO(strip_xing(data))).duration < 8  # libsndfile's guess, and all that it would read
    assert abs(len(read_audio(strip_xing(data))) / SAMPLE_RATE - 12) < 0.1


def test_joined_mp3_files_are_read_in_full():
    pytest.importorskip("av")
    data = encode(signal(3, 16000), 16000, "MP3", "MPEG_LAYER_III")
    assert abs(len(read_audio(data + data)) / SAMPLE_RATE - 6) < 0.2


def test_flac_of_unknown_length_is_read_in_full():
    pytest.importorskip("av")
    data = bytearray(encode(signal(3, 16000), 16000, "FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert len(read_audio(bytes(data))) == 3 * SAMPLE_RATE


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (encode(np.zeros((0, 1)), 16000), "contains no samples"),
        (encode(np.zeros((0, 1)), 16000)[:44], "contains no samples"),
        (b"this is not audio\n" * 100, "is a text file"),
        (b"RIFF is only text here\n" * 100, "is a text file"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", "is a text file"),
        (bytes(1000), "cannot be decoded"),
        (encode(np.zeros((100, 17)), 16000), "has 17 channels, the limit is 16"),
        (encode(np.zeros((100, 1)), 1), "sampling rate 1 Hz"),
        (encode(np.zeros((100, 1)), 400_000), "sampling rate 400000 Hz"),
    ],
)
def test_bad_file(tmp_path, data, message):
    path = tmp_path / "bad.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=f"^{re.escape(str(path))}: .*{message}.*; ") as caught:
        read_audio(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy
    with pytest.raises(AudioError, match=f"^audio bytes: .*{message}"):
        read_audio(data)


def test_bad_paths(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        read_audio(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="no such file"):
        read_audio("http://127.0.0.1/a.wav")
    with pytest.raises(AudioError, match="is a directory"):
        read_audio(tmp_path)
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(AudioError):
            read_audio(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="not a regular file"):
        read_audio(tmp_path / "pipe.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_samples_that_are_not_finite(value):
    samples = signal(3, 44100, 2)
    samples[2 * 44100 + 441] = value
    with pytest.raises(AudioError, match=r"sample at 2\.010 s is not finite"):
        read_audio(encode(samples, 44100, subtype="FLOAT"))
    with pytest.raises(AudioError, match=r"sample at 2\.010 s is not finite"):
        read_audio(encode(samples, 44100, subtype="FLOAT"), offset=1.5)


def test_limits():
    data = encode(signal(3, 16000), 16000)
    with pytest.raises(AudioError, match="is too large: 96044 bytes, the limit is 1000"):
        read_audio(data, limits=AudioLimits(max_bytes=1000))
    with pytest.raises(AudioError, match=r"is too long: 3\.0 s or more, the limit is 2 s"):
        read_audio(data, limits=AudioLimits(max_seconds=2))
    assert len(read_audio(data, offset=1, duration=2, limits=AudioLimits(max_seconds=2))) == 2 * SAMPLE_RATE


def test_length_limit_holds_without_a_promise_in_the_header():
    pytest.importorskip("av")
    data = encode(signal(3, 44100), 44100, "MP3", "MPEG_LAYER_III", bitrate_mode="CONSTANT")
    with pytest.raises(AudioError, match="is too long"):
        read_audio(strip_xing(data), limits=AudioLimits(max_seconds=2))


@pytest.mark.parametrize("fmt", ["WAV", "FLAC", "OGG", "MP3"])
def test_cut_beyond_the_end(fmt):
    data = encode(signal(3, 16000), 16000, fmt, {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(fmt, "PCM_16"))
    with pytest.raises(AudioError, match=r"offset 5\.00 s lies beyond the end"):
        read_audio(data, offset=5)
    with pytest.raises(AudioError, match="beyond the end"):
        read_audio(data, offset=3.0)
    with pytest.raises(AudioError, match=r"truncated.*3\.\d\d s of 4\.00 s"):
        read_audio(data, offset=2, duration=2)
    assert len(read_audio(data, offset=2, duration=1.09)) == SAMPLE_RATE


@pytest.mark.parametrize(
    "request_",
    [{"offset": -1}, {"offset": np.nan}, {"duration": 0}, {"duration": np.inf}, {"block_seconds": 0}],
)
def test_impossible_request(request_):
    with pytest.raises(AudioError, match="audio bytes: offset"):
        list(stream_audio(encode(signal(1, 16000), 16000), **request_))


def mutants(data: bytes, count: int, rng: np.random.Generator):
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(rng.integers(1, 12)):
            reach = 64 if rng.random() < 0.5 else len(mutant)
            mutant[rng.integers(min(reach, len(mutant)))] = rng.integers(256)
        if rng.random() < 0.3:
            del mutant[rng.integers(1, len(mutant)) :]
        yield bytes(mutant)


@pytest.mark.parametrize(
    ("fmt", "subtype"),
    [("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")],
)
def test_damaged_files_give_audio_error_or_finite_samples(tmp_path, fmt, subtype):
    rng = np.random.default_rng(20260101)
    data = encode(signal(0.5, 16000, 2), 16000, fmt, subtype)
    for number, mutant in enumerate(mutants(data, 50, rng)):
        (tmp_path / "mutant").write_bytes(mutant)
        try:
            samples = read_audio(mutant if number % 2 else tmp_path / "mutant")
        except AudioError:
            continue
        assert np.isfinite(samples).all()
        assert len(samples) < 60 * SAMPLE_RATE


@pytest.fixture(params=["aac", "alac"])
def m4a(request, tmp_path):
    av = pytest.importorskip("av")
    samples = signal(3, 44100)
    path = tmp_path / "made.m4a"
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(request.param, rate=44100, layout="mono")
        for start in range(0, len(samples), 4096):
            kind = "fltp" if request.param == "aac" else "s16p"
            block = samples[start : start + 4096].T
            block = block if kind == "fltp" else np.round(block * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format=kind, layout="mono")
            frame.rate, frame.pts = 44100, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def test_m4a(tmp_path, m4a):
    (tmp_path / "a.m4a").write_bytes(m4a)
    samples = read_audio(tmp_path / "a.m4a")
    assert abs(len(samples) - 3 * SAMPLE_RATE) <= 1024
    expected = soxr.resample(signal(3, 44100)[:, 0], 44100, SAMPLE_RATE)
    assert np.corrcoef(samples[:40000], expected[:40000])[0, 1] > 0.98
    np.testing.assert_array_equal(samples, read_audio(m4a))
    cut = read_audio(m4a, offset=1, duration=1.5)
    np.testing.assert_allclose(cut[200:-200], samples[16200:39800], atol=1e-4)
    with pytest.raises(AudioError, match="beyond the end"):
        read_audio(m4a, offset=9)
    with pytest.raises(AudioError, match="truncated"):
        read_audio(m4a, offset=1, duration=5)


def test_damaged_m4a(m4a):
    with pytest.raises(AudioError, match=r"truncated or damaged: 1\.\d\d s of 3\.\d\d s|cannot be decoded"):
        read_audio(m4a[: len(m4a) // 2])
    for mutant in mutants(m4a, 30, np.random.default_rng(7)):
        try:
            assert np.isfinite(read_audio(mutant)).all()
        except AudioError:
            continue


def test_ffmpeg_opens_no_playlist(tmp_path):
    pytest.importorskip("av")
    sf.write(tmp_path / "secret.wav", signal(1, 16000), 16000)
    playlist = f"ffconcat version 1.0\nfile '{tmp_path}/secret.wav'\n#\0".encode()
    with pytest.raises(AudioError, match="cannot be decoded"):
        read_audio(playlist)


def test_message_names_the_extra_when_pyav_is_missing(m4a, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"pip install 'kikitori\[audio\]'"):
        read_audio(m4a)


def test_arrays():
    samples = signal(1, 44100, 2)
    expected = soxr.resample(samples.mean(axis=1), 44100, SAMPLE_RATE)
    np.testing.assert_allclose(to_mono_16k(samples, 44100), expected, atol=1e-6)
    np.testing.assert_allclose(to_mono_16k(samples.astype(np.float64), 44100), expected, atol=1e-6)
    mono = samples[:, 0].copy()
    assert not np.shares_memory(to_mono_16k(mono, 16000), mono)
    np.testing.assert_array_equal(to_mono_16k(mono, 16000), mono)
    assert len(to_mono_16k(mono[:1], 44100)) == 0


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_integers_are_scaled(dtype):
    lowest = np.iinfo(dtype).min
    np.testing.assert_array_equal(to_mono_16k(np.array([lowest, 0, -(lowest // 2)], dtype), 16000), [-1, 0, 0.5])


def test_unsigned_bytes_are_offset_binary():
    np.testing.assert_array_equal(to_mono_16k(np.array([0, 128, 192], np.uint8), 16000), [-1, 0, 0.5])


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0), 16000, "contains no samples"),
        (np.zeros((0, 2)), 16000, "contains no samples"),
        (np.float32(1), 16000, "shape"),
        (np.zeros((1, 2, 3)), 16000, "shape"),
        (np.zeros((2, 16000)), 16000, r"16000 channels.*\(samples, channels\)"),
        (np.zeros(10), 0, "sampling rate 0 Hz"),
        (np.zeros(10), 10**6, "sampling rate 1000000 Hz"),
        (np.zeros(10, complex), 16000, "dtype complex128"),
        (np.zeros(10, np.uint16), 16000, "dtype uint16"),
        (np.zeros(10, bool), 16000, "dtype bool"),
        (np.array([0.0] * 80 + [np.nan]), 8000, r"sample at 0\.010 s is not finite"),
        (np.array([1e300]), 16000, "not finite"),
    ],
)
def test_bad_arrays(samples, rate, message):
    with pytest.raises(AudioError, match=f"^samples: .*{message}"):
        to_mono_16k(samples, rate)
