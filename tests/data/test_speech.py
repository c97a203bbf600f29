from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
import torch

from kikitori.data.rows import listed
from kikitori.data.speech import (
    SpeechLoader,
    WaveformAugment,
    check_files,
    collate,
    filter_rows,
    pad_waveforms,
    read_utterance,
)
from kikitori.errors import AudioError, DataError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.types import Utterance

AUGMENT = WaveformAugment(speeds=[0.9, 1.0, 1.1], gain_db=6.0, noise_probability=0.5)
SECONDS = (0.5, 0.8, 0.3, 1.0)


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    draws = np.random.default_rng(0)
    made = []
    for number, seconds in enumerate(SECONDS):
        path = folder / f"{number}.wav"
        sf.write(
            path, 0.2 * draws.standard_normal(round(seconds * SAMPLE_RATE)).clip(-4, 4), SAMPLE_RATE, subtype="FLOAT"
        )
        made.append(Utterance(path, seconds, f"text {number}", utt_id=f"u{number}"))
    return made


@pytest.fixture
def unreadable(tmp_path):
    path = tmp_path / "broken.wav"
    path.write_bytes(b"RIFF no audio")
    return Utterance(path, 1.0, "x", utt_id="broken")


def test_a_batch_is_padded(utterances):
    batch = SpeechLoader(listed(utterances)).batch([1, 2])
    assert batch.utt_ids == ("u1", "u2")
    assert batch.texts == ("text 1", "text 2")
    assert batch.indices == (1, 2)
    assert batch.lengths.tolist() == [12800, 4800]
    assert batch.waveforms.shape == (2, 12800)
    assert batch.waveforms.dtype == torch.float32
    assert not batch.waveforms[1, 4800:].any()
    np.testing.assert_array_equal(batch.waveforms[1, :4800], sf.read(utterances[2].audio_filepath, dtype="float32")[0])
    assert batch.seconds == pytest.approx(1.1)


def test_cache_is_the_file_to_16_bits(utterances):
    plain, cached = SpeechLoader(listed(utterances)), SpeechLoader(listed(utterances), cache=True)
    expected = plain.batch([0, 3]).waveforms
    first, second = cached.batch([0, 3]).waveforms, cached.batch([0, 3]).waveforms
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected, rtol=0, atol=0.5 / 32768 + 1e-7)


def test_cache_outlives_the_files_and_is_not_augmented_in_place(tmp_path, utterances):
    copy = tmp_path / "a.wav"
    copy.write_bytes(utterances[0].audio_filepath.read_bytes())
    loader = SpeechLoader(listed([replace(utterances[0], audio_filepath=copy)]), AUGMENT, cache=True)
    first = loader.batch([0]).waveforms
    copy.unlink()
    loader.batch([0], epoch=1)
    assert torch.equal(loader.batch([0]).waveforms, first)


@pytest.mark.parametrize("cache", [False, True])
def test_augmentation_depends_on_seed_epoch_and_index_alone(utterances, cache):
    loader = SpeechLoader(listed(utterances), AUGMENT, seed=7, cache=cache)
    whole = loader.batch([0, 1, 2, 3], epoch=2)
    loader.batch([3, 1], epoch=5)
    again = SpeechLoader(listed(utterances), AUGMENT, seed=7, cache=cache).batch([2], epoch=2)
    length = int(again.lengths[0])
    assert length == int(whole.lengths[2])
    assert torch.equal(again.waveforms[0], whole.waveforms[2, :length])
    for other in (
        SpeechLoader(listed(utterances), AUGMENT, seed=7).batch([2], epoch=3),
        SpeechLoader(listed(utterances), AUGMENT, seed=8).batch([2], epoch=2),
        SpeechLoader(listed(utterances), AUGMENT, seed=7).batch([2]),
    ):
        assert other.waveforms.shape != again.waveforms.shape or not torch.equal(other.waveforms, again.waveforms)


def test_default_augmentation_changes_nothing(utterances):
    loader = SpeechLoader(listed(utterances))
    assert torch.equal(loader.batch([0, 1], epoch=4).waveforms, loader.batch([0, 1]).waveforms)


def test_unreadable_file_stops(utterances, unreadable):
    with pytest.raises(DataError, match=r"broken\.wav: .*or set data\.on_error=skip"):
        SpeechLoader(listed([*utterances, unreadable])).batch([0, 4])


def test_unreadable_file_is_skipped_and_counted(utterances, unreadable, tmp_path):
    missing = replace(unreadable, audio_filepath=tmp_path / "missing.wav")
    loader = SpeechLoader(listed([unreadable, *utterances, missing]), on_error="skip")
    batch = loader.batch([0, 1, 5, 2])
    assert batch.utt_ids == ("u0", "u1")
    assert batch.indices == (1, 2)
    loader.batch([0, 1])
    assert sorted(loader.unreadable.values()) == [1, 2]
    assert all("broken.wav" in reason or "missing.wav" in reason for reason in loader.unreadable)
    assert loader.batch([0, 5]) is None


def test_empty_batch(utterances):
    assert SpeechLoader(listed(utterances)).batch([]) is None


def test_offset_and_duration_cut_rows_out(tmp_path):
    path = tmp_path / "long.wav"
    ramp = np.linspace(0, 0.9, 4 * SAMPLE_RATE, dtype=np.float32)
    sf.write(path, ramp, SAMPLE_RATE, subtype="FLOAT")
    rows = [Utterance(path, 1.5, "a"), Utterance(path, 1.0, "b", offset=1.5), Utterance(path, 3.9, "c")]
    batch = SpeechLoader(listed(rows)).batch([0, 1, 2])
    assert batch.lengths.tolist() == [24000, 16000, 64000]  # the last is a whole file, its duration merely rounded
    np.testing.assert_array_equal(batch.waveforms[0, :24000], ramp[:24000])
    np.testing.assert_allclose(batch.waveforms[1, :16000], ramp[24000:40000], atol=1e-6)


def test_pad_waveforms_of_none_one_and_empty():
    assert [tensor.shape for tensor in pad_waveforms([])] == [(0, 1), (0,)]
    for waveforms in ([np.zeros(0, np.float32)], [np.ones(3, np.float32)]):
        padded, lengths = pad_waveforms(waveforms)
        assert padded.shape == (1, max(1, len(waveforms[0])))
        assert lengths.tolist() == [len(waveforms[0])]


def test_collate_without_text():
    assert collate([(Utterance("a", 1.0), np.ones(2, np.float32))]).texts == ("",)


def test_filter_names_every_reason(utterances):
    base = utterances[0]
    rows = [
        *utterances,
        replace(base, text=None, utt_id="n1"),
        replace(base, text="...", utt_id="n2"),
        replace(base, duration=0.05, utt_id="short"),
        replace(base, duration=31.0, utt_id="long"),
        *(replace(base, audio_filepath=base.audio_filepath.parent / "none", utt_id=f"m{i}") for i in range(5)),
    ]
    table = listed(rows, lambda texts: [text != "..." for text in texts])
    kept, report = filter_rows(table, min_seconds=0.1, max_seconds=30.0)
    assert [*kept] == utterances
    assert report.kept == 4
    assert report.seconds == pytest.approx(sum(SECONDS))
    assert report.lines() == [
        "4 utterances, 0.00 h",
        "left out 2: no text (n1, n2)",
        "left out 1: shorter than 0.1 s (short)",
        "left out 1: longer than 30 s (long)",
        "left out 5: audio file missing (m0, m1, m2, ...)",
    ]


def test_speech_that_needs_no_text_is_kept_without(utterances):
    rows = [
        replace(utterances[0], text=None),
        replace(utterances[0], text="..."),
        replace(utterances[0], duration=0.05),
    ]
    kept, report = filter_rows(listed(rows), min_seconds=0.1, max_seconds=30.0)
    assert [*kept] == rows[:2]
    assert report.lines()[1:] == [f"left out 1: shorter than 0.1 s ({rows[2].utt_id})"]


def test_filter_bounds_are_inclusive(utterances):
    kept, report = filter_rows(listed(utterances, lambda texts: [*map(bool, texts)]), min_seconds=0.3, max_seconds=1.0)
    assert len(kept) == 4
    assert not report.dropped


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_a_file_shorter_than_its_row_says_is_refused(tmp_path, offset):
    sf.write(tmp_path / "a.wav", np.full(2 * SAMPLE_RATE, 0.1), SAMPLE_RATE)
    with pytest.raises(AudioError, match=r"a\.wav: .*2\.00 s.*'row'"):
        read_utterance(Utterance(tmp_path / "a.wav", 4.0, "a", offset=offset, utt_id="row"))
    assert len(read_utterance(Utterance(tmp_path / "a.wav", 2.4, "a"))) == 2 * SAMPLE_RATE  # merely rounded
    assert len(read_utterance(Utterance(tmp_path / "a.wav", 0.0, "a"))) == 2 * SAMPLE_RATE  # not known


def test_durations_are_compared_with_headers(utterances, unreadable, tmp_path):
    """Siblings of lhotse's report 1437: durations of another file, in milliseconds, and cuts beyond the end."""
    one, other = utterances[0].audio_filepath, utterances[3].audio_filepath  # 0.5 s and 1 s
    (tmp_path / "empty.wav").write_bytes(b"")
    sf.write(tmp_path / "long.wav", np.full(3 * SAMPLE_RATE, 0.1), SAMPLE_RATE)
    rows = {
        "milliseconds": Utterance(one, 500.0, "a"),
        "beyond": Utterance(other, 1.0, "a", offset=0.6),
        "no samples": Utterance(tmp_path / "empty.wav", 1.0, "a"),
        "gone": Utterance(tmp_path / "gone.wav", 1.0, "a"),
        "rounded": Utterance(other, 1.4, "a"),
        "beginning": Utterance(tmp_path / "long.wav", 1.0, "a"),
        "not known": Utterance(other, 0.0, "a"),
    }
    told = []
    report = check_files([*(replace(row, utt_id=name) for name, row in rows.items()), unreadable], told.append)
    assert sum(told) == len(rows) + 1
    assert list(report.problems) == ["milliseconds", "beyond", "no samples", "gone", "broken"]
    assert "holds 0.50 s, and the manifest says 500 s of 'milliseconds'" in report.problems["milliseconds"]
    assert "holds 1.00 s, and the manifest says 1 s from 0.6 s on of 'beyond'" in report.problems["beyond"]
    assert report.cut == ["beginning: 1 s of 3.00 s"]
    beyond = replace(rows["beyond"], duration=0.6)  # 0.2 s too far, which reading would not forgive
    assert check_files([beyond], told.append).problems
    rest = replace(rows["beginning"], offset=1.0, duration=2.0)
    assert not check_files([rows["beginning"], rest], told.append).cut
    inside = replace(rows["gone"], audio_filepath=tmp_path / "long.wav", utt_id="inside", byte_range=(100, 50))
    (problem,) = check_files([inside], told.append).problems.values()
    assert problem.startswith(f"{tmp_path}/long.wav: ")
    assert "(row 'inside')" in problem
