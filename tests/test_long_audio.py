"""Recordings longer than a model's utterances: cut, recognised in batches, joined; and the times of words."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile as sf

from kikitori.errors import AudioError
from kikitori.io.audio import read_audio
from kikitori.loading import BUNDLED, find_model, load
from kikitori.recognizer import PLAIN
from kikitori.segment import chunks
from kikitori.transcript import clock
from tests.segmenters import AllSpeech, LoudIsSpeech
from tests.tiny import TRAINED_ON, save_tiny, tiny_waveform

SPOKEN = [tiny_waveform(seconds, seed) for seed, seconds in enumerate((1.2, 0.8, 1.1, 0.9, 1.2, 1.0))]
PAUSE = np.zeros(8_000, np.float32)
LONG = np.concatenate([part for wave in SPOKEN for part in (wave, PAUSE)])


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("recogniser") / "tiny"
    save_tiny(path)
    return load(path, device="cpu", guards=PLAIN)


@pytest.fixture(autouse=True)
def loud_is_speech(monkeypatch):
    monkeypatch.setattr(chunks, "new_segmenter", LoudIsSpeech)


def test_longest_utterance(recognizer):
    assert recognizer.longest == round(TRAINED_ON.max_seconds * 16000)


def test_segments_are_what_is_said_between_pauses(recognizer):
    found = recognizer.transcribe(LONG)
    expected = chunks.chunks([LONG], LoudIsSpeech(), recognizer.longest)
    texts = [recognizer.transcribe(chunk.waveform).text for chunk in expected]
    assert len(texts) == len(SPOKEN)
    assert [segment.text for segment in found.segments] == [text for text in texts if text]
    assert found.text == " ".join(text for text in texts if text)
    assert found.duration == len(LONG) / 16000
    assert (found.words, found.nbest) == ((), ())
    edges = [edge for segment in found.segments for edge in (segment.start, segment.end)]
    assert all(a < b for a, b in pairwise(edges))


def test_text_and_times_do_not_depend_on_the_batch_or_the_source(recognizer, tmp_path):
    sf.write(tmp_path / "long.wav", LONG, 16000, subtype="FLOAT")
    expected = recognizer.transcribe(LONG, word_times=True)
    for size in (1, 3, 20):
        audio = [SPOKEN[0], tmp_path / "long.wav", SPOKEN[1], LONG]
        found = [*recognizer.transcribe_many(audio, batch_size=size, word_times=True)]
        for each in (found[1], found[3]):
            assert [(s.start, s.end, s.text) for s in each.segments] == [
                (s.start, s.end, s.text) for s in expected.segments
            ]
            assert [(w.word, w.start, w.end) for w in each.words] == [(w.word, w.start, w.end) for w in expected.words]
        assert [found[0].text, found[2].text] == [recognizer.transcribe(wave).text for wave in SPOKEN[:2]]


def test_the_stream_gives_the_same_segments_early(recognizer):
    assert [*recognizer.transcribe_stream(LONG)] == [*recognizer.transcribe(LONG).segments]
    sound = iter(recognizer.transcribe_stream(LONG, batch_size=1, word_times=True))
    assert next(sound).words
    with pytest.raises(AudioError, match="no such file"):
        next(recognizer.transcribe_stream("missing.wav"))


def test_forced_cuts_are_joined(recognizer, monkeypatch):
    monkeypatch.setattr(chunks, "new_segmenter", AllSpeech)
    wave = np.concatenate(SPOKEN)
    found = recognizer.transcribe(wave, word_times=True)
    assert len(found.segments) > 3
    assert found.text == " ".join(word.word for word in found.words)
    assert [word.text for word in found.segments] == [
        " ".join(word.word for word in segment.words) for segment in found.segments
    ]
    plain = recognizer.transcribe(wave)
    assert plain.text == found.text
    assert plain.words == ()
    assert [(s.start, s.end) for s in plain.segments] == [(s.start, s.end) for s in found.segments]


def test_doubts_say_where(recognizer):
    careful = replace(recognizer, decoding=replace(recognizer.decoding, max_labels=1))
    found = careful.transcribe(LONG)
    assert found.flags
    assert found.reasons[found.flags[0]].startswith("from 0:0")
    assert clock(3723.44) == "1:02:03.4"
    assert clock(59.96) == "1:00.0"


def test_a_file_that_ends_too_early_is_an_error_after_its_segments(recognizer, tmp_path):
    sf.write(tmp_path / "whole.flac", np.concatenate([LONG] * 3), 16000)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) * 2 // 3])
    given = []
    with pytest.raises(AudioError, match=r"cut\.flac"):
        given.extend(recognizer.transcribe_stream(tmp_path / "cut.flac"))
    error, after = recognizer.try_transcribe_many([tmp_path / "cut.flac", SPOKEN[0]])
    assert isinstance(error, AudioError)
    assert after.text == recognizer.transcribe(SPOKEN[0]).text


def test_words_of_every_search_have_times(recognizer):
    for search in ("greedy", "ctc_greedy", "ctc_beam", "joint", "speculative", "beam"):
        found = recognizer.transcribe(SPOKEN[2], decoding=search, word_times=True)
        assert [word.word for word in found.words] == found.text.split()
        edges = [edge for word in found.words for edge in (word.start, word.end)]
        assert all(a <= b for a, b in pairwise(edges))
        assert not edges or (edges[0] >= 0.0 and edges[-1] <= found.duration + 1e-9)
        assert all(word.end > word.start for word in found.words)


def test_words_of_real_speech_move_with_the_silence_before_them():
    recognizer = load(find_model("mini-en"), device="cpu")
    wave = read_audio(BUNDLED.parents[1] / "samples" / "2136-5147-0021.opus")
    alone = recognizer.transcribe(wave, word_times=True)
    assert len(alone.words) > 4
    for seconds in (1.0, 2.24):
        silence = np.zeros(round(seconds * 16000), np.float32)
        later = recognizer.transcribe(np.concatenate([silence, wave]), word_times=True)
        assert later.text == alone.text
        moved = [b.start - a.start - seconds for a, b in zip(alone.words, later.words, strict=True)]
        assert np.abs(moved).max() <= 0.08 + 1e-6  # one frame
