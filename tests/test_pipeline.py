"""Recognisers in `transformers.pipeline`."""

import io
from dataclasses import replace

import pytest
import soundfile
from transformers import pipeline

import kikitori
from kikitori.loading import load
from tests.tiny import save_tiny, tiny_acoustic_model, tiny_waveform

WAVES = [tiny_waveform(seconds, seed) for seed, seconds in enumerate((0.8, 0.5))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def recognize(folder):
    return pipeline("automatic-speech-recognition", model=str(folder), pipeline_class=kikitori.RecognizerPipeline)


@pytest.fixture(scope="module")
def recognizer(folder):
    return load(folder)


@pytest.fixture(scope="module")
def texts(recognizer):
    return [transcript.text for transcript in recognizer.transcribe_many(WAVES)]


def test_recordings_in_every_form(recognize, texts, tmp_path):
    assert all(texts)
    soundfile.write(tmp_path / "a.wav", WAVES[0], 16_000, subtype="FLOAT")
    as_bytes = io.BytesIO((tmp_path / "a.wav").read_bytes()).getvalue()
    row, raw = ({name: WAVES[0], "sampling_rate": 16_000} for name in ("array", "raw"))
    for recording in (WAVES[0], tmp_path / "a.wav", str(tmp_path / "a.wav"), as_bytes, row, raw):
        assert recognize(recording) == {"text": texts[0]}


def test_many_recordings(recognize, texts):
    expected = [{"text": text} for text in texts]
    assert recognize(WAVES) == expected
    found = recognize(iter(WAVES), batch_size=1)
    assert next(found) == expected[0]
    assert [*found] == expected[1:]


def test_times(recognize, recognizer):
    transcript = recognizer.transcribe(WAVES[0], word_times=True)
    segment = transcript.segments[0]
    assert recognize(WAVES[0], return_timestamps=True)["chunks"] == [
        {"text": segment.text, "timestamp": (segment.start, segment.end)}
    ]
    assert recognize(WAVES[0], return_timestamps="word") == {
        "text": transcript.text,
        "chunks": [{"text": word.word, "timestamp": (word.start, word.end)} for word in transcript.words],
    }
    with pytest.raises(kikitori.ConfigError, match="return_timestamps: no times of 'char'; use True or 'word'"):
        recognize(WAVES[0], return_timestamps="char")


def test_an_acoustic_model_with_another_search(tmp_path):
    save_tiny(tmp_path, tiny_acoustic_model())
    made = kikitori.RecognizerPipeline
    recognize = pipeline(
        "automatic-speech-recognition", model=str(tmp_path), pipeline_class=made, device="cpu", decoding="ctc_greedy"
    )
    assert isinstance(recognize, made)
    assert recognize(WAVES[0])["text"] == recognize.recognizer.transcribe(WAVES[0], decoding="ctc_greedy").text
    assert recognize(WAVES[0], decoding=kikitori.CTCGreedySearch()) == recognize(WAVES[0])


def test_a_recogniser_in_8_bits_stays_so(recognizer):
    quick = replace(recognizer, dtype="int8")
    assert kikitori.RecognizerPipeline(quick).recognizer.dtype == "int8"
    with pytest.raises(kikitori.ConfigError, match="dtype: the recogniser was loaded in int8; load it in float32"):
        kikitori.RecognizerPipeline(quick, dtype="float32")


def test_half_precision_is_refused(recognizer):
    assert kikitori.RecognizerPipeline(recognizer, dtype="bfloat16").recognizer.dtype == "bfloat16"
    with pytest.raises(kikitori.ConfigError, match="dtype: no arithmetic float16; use float32 or bfloat16"):
        kikitori.RecognizerPipeline(recognizer, dtype="float16")
