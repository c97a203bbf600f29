"""Whisper recognisers as users meet them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
import torch

from kikitori.data.speech import pad_waveforms
from kikitori.errors import AudioError, ConfigError, ModelError
from kikitori.loading import load
from kikitori.model.safety.config import quiet_transformers
from kikitori.recognizer import PLAIN
from kikitori.search.guards import NO_SPEECH
from kikitori.segment import chunks
from tests.commands import call, one_line
from tests.segmenters import AllSpeech
from tests.tiny import save_tiny, save_tiny_whisper, tiny_waveform, tiny_waveforms, tiny_whisper

WAVEFORMS = tiny_waveforms(8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper") / "whisper-tiny"
    save_tiny_whisper(folder, tiny_whisper(multilingual=True))
    return folder


@pytest.fixture(scope="module")
def recognizer(folder):
    return load(folder, device="cpu", guards=PLAIN)


def test_text_is_that_of_transformers(recognizer):
    whisper, units = tiny_whisper(multilingual=True), recognizer.loaded.units
    with torch.inference_mode(), quiet_transformers():
        features, _ = recognizer.loaded.model.acoustic.encoder.features(*pad_waveforms(WAVEFORMS))
        rows = whisper.generate(features.transpose(1, 2), task="transcribe").tolist()
    expected = [units.decode(row) for row in rows]
    for size in (1, 3, 8):
        found = [*recognizer.transcribe_many(WAVEFORMS, batch_size=size)]
        assert [transcript.text for transcript in found] == expected
    assert len({*expected}) > 5


@pytest.mark.parametrize("search", ["beam", "sampling"])
def test_other_searches_of_the_decoder_keep_to_its_rules(recognizer, search):
    together = recognizer.recognize(WAVEFORMS, search)
    assert [recognizer.recognize([waveform], search)[0].labels for waveform in WAVEFORMS] == [
        each.labels for each in together
    ]
    config = tiny_whisper(multilingual=True).generation_config
    for each in together:
        assert each.labels
        assert not {*each.labels} & {*config.suppress_tokens}
        assert each.labels[0] not in config.begin_suppress_tokens


@pytest.mark.parametrize("search", ["ctc_greedy", "ctc_beam", "joint", "joint_time_sync", "speculative", "rescoring"])
def test_searches_over_a_ctc_head_are_refused(recognizer, search):
    with pytest.raises(ModelError, match="the model has no CTC head; use greedy"):
        recognizer.recognize(WAVEFORMS[:1], search)


def test_recordings_longer_than_the_window_are_cut(recognizer, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "new_segmenter", AllSpeech)
    long = tmp_path / "long.wav"
    sf.write(long, np.concatenate([tiny_waveform(1.5, 1), tiny_waveform(1.5, 2), tiny_waveform(1.5, 3)]), 16000)
    first, found, last = recognizer.try_transcribe_many([WAVEFORMS[0], long, WAVEFORMS[1]])
    assert [first, last] == [recognizer.transcribe(waveform) for waveform in WAVEFORMS[:2]]
    assert len(found.segments) > 1
    assert (found.duration, found.words) == (4.5, ())


def test_words_have_no_times_yet(recognizer):
    with pytest.raises(ModelError, match="whisper-tiny: word times need a CTC head, and the model has none"):
        recognizer.transcribe(WAVEFORMS[0], word_times=True)


def test_subtitles_are_estimated_and_say_so(folder, tmp_path):
    sf.write(tmp_path / "talk.wav", WAVEFORMS[1], 16000)
    result = call("transcribe", tmp_path / "talk.wav", "--model", folder, "-f", "srt")
    assert result.exit_code == 0
    assert result.stdout.startswith("1\n00:00:00,000 --> ")
    assert "times of subtitles within an utterance are estimated" in result.stderr
    refused = call("transcribe", tmp_path / "talk.wav", "--model", folder, "-f", "srt", "--highlight-words")
    assert "no words without their times" in one_line(refused)


def test_more_labels_than_positions_are_refused_and_the_window_has_no_more(recognizer):
    assert max(len(each.labels) for each in recognizer.recognize(WAVEFORMS)) == 36
    with pytest.raises(AudioError, match="40 positions"):
        recognizer.recognize(WAVEFORMS[:1], replace(recognizer.decoding, max_labels=37))


def test_silence_has_no_text(recognizer):
    transcript = recognizer.transcribe(np.zeros(16000, np.float32))
    assert (transcript.text, transcript.flags) == ("", (NO_SPEECH,))


def test_the_command_line_takes_a_language(folder, tmp_path):
    audio = tmp_path / "talk.wav"
    sf.write(audio, WAVEFORMS[1], 16000, subtype="FLOAT")
    texts = {}
    for language in ("en", "ja"):
        result = call("transcribe", audio, "--model", folder, "--language", language, "-o", tmp_path, "-f", "json")
        assert result.exit_code == 0, result.output
        written = json.loads((tmp_path / "talk.json").read_text())
        assert written["language"] == language
        texts[language] = written["text"]
        assert texts[language] == load(folder, device="cpu", language=language).transcribe(audio).text
    assert texts["en"] != texts["ja"]
    result = call("transcribe", audio, "--model", folder, "--language", "xx")
    assert "does not know the language 'xx'" in one_line(result)


def test_a_short_window_gives_the_same_in_any_batch(folder):
    short = load(folder, device="cpu", guards=PLAIN, window="speech", language="en")
    batch = short.encode(WAVEFORMS).encoded
    assert batch.window.shape[1] < 100
    assert batch.window_lengths.tolist() == [length + 25 for length in batch.lengths.tolist()]
    for search in ("greedy", "beam"):
        together = short.recognize(WAVEFORMS, search)
        assert [short.recognize([waveform], search)[0].labels for waveform in WAVEFORMS] == [
            each.labels for each in together
        ]


def test_what_is_doubtful_behind_a_short_window_is_decoded_at_30_s(folder, monkeypatch):
    padded, short = (
        load(folder, device="cpu", guards=PLAIN, window=window, language="en") for window in ("padded", "speech")
    )
    expected = [each.labels for each in padded.recognize(WAVEFORMS)]
    monkeypatch.setattr("kikitori.recognizer.is_doubtful", lambda _, seconds: seconds > 1.0)
    found = [each.labels for each in short.recognize(WAVEFORMS)]
    long = [len(waveform) > 16000 for waveform in WAVEFORMS]
    assert {True, False} == {*long}
    assert all(one == other for one, other, again in zip(found, expected, long, strict=True) if again)


def test_a_window_of_a_model_without_a_whisper_decoder(tmp_path):
    save_tiny(tmp_path)
    with pytest.raises(ConfigError, match="the model has no Whisper decoder"):
        load(tmp_path, window="speech")
