from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf

from kikitori import loading
from kikitori.align.calibration import WordCalibration, calibration_error, load_calibration
from kikitori.data.manifest import read_manifest, write_manifest
from kikitori.errors import DataError
from kikitori.types import Word
from kikitori.workflows.calibrate import border_offsets, calibrate, right_words
from tests.commands import call
from tests.tiny import save_tiny, tiny_waveform

SECONDS = (0.9, 1.3, 1.1, 0.7)


def words(text):
    return [Word(word, float(number), number + 1.0, 0.5) for number, word in enumerate(text.split())]


@pytest.mark.parametrize(
    ("text", "reference", "normalizer", "right"),
    [
        ("the cat, sat", "The cat sat", "whisper_en", [True, True, True]),
        ("the cat sat down", "a cat down", "whisper_en", [False, True, False, True]),
        ("can't stop", "cannot stop", "whisper_en", [False, True]),
        ("今日 は 雨", "今日は雪", "nfkc_ja", [True, True, False]),
        ("a b", "", "whisper_en", [False, False]),
    ],
)
def test_which_words_are_right(text, reference, normalizer, right):
    assert right_words(words(text), reference, normalizer) == right


def test_borders_of_rightly_found_words():
    spans = [("the", 0.1, 0.9), ("cat", 0.9, 2.0), ("sat", 2.0, 3.2)]
    found = border_offsets(words("the dog sat"), spans, "whisper_en")
    assert found == pytest.approx([-0.1, 0.1, 0.0, -0.2])


def test_a_recogniser_is_calibrated_on_transcribed_speech(tmp_path):
    save_tiny(tmp_path / "model")
    model = loading.load(tmp_path / "model", device="cpu", decoding="ctc_greedy")
    waves = [tiny_waveform(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    found = [model.transcribe(wave, word_times=True) for wave in waves]
    rows = []
    for number, (wave, transcript) in enumerate(zip(waves, found, strict=True)):
        sf.write(tmp_path / f"{number}.wav", wave, 16000, subtype="FLOAT")
        text = "nobody said so" if number % 2 else transcript.text
        rows.append({"audio_filepath": f"{number}.wav", "duration": len(wave) / 16000, "text": text, "language": "en"})
    write_manifest(tmp_path / "dev.jsonl", rows)
    utterances = read_manifest(tmp_path / "dev.jsonl").utterances
    spans = {
        row.utt_id: [(word.word, word.start - 0.05, word.end - 0.05) for word in transcript.words]
        for row, transcript in zip(utterances, found, strict=True)
    }
    measured = calibrate(model, utterances, spans, batch_size=3)
    assert measured.calibration.delay == pytest.approx(0.05)
    assert measured.words == sum(len(transcript.words) for transcript in found)
    assert measured.offsets == pytest.approx((0.05, 0.0))
    assert measured.errors[0] > measured.errors[1]

    result = call("calibrate", "--data", tmp_path / "dev.jsonl", "--model", tmp_path / "model",
                  "--decoding", "ctc_greedy", "-o", tmp_path / "model" / "words.yaml")  # fmt: skip
    assert f"calibration error {measured.errors[0]:.4f} -> {measured.errors[1]:.4f}" in result.stdout
    calibration = load_calibration(tmp_path / "model")
    expected = measured.calibration
    assert (calibration.delay, expected.slope > 0.0) == (0.0, True)
    assert (calibration.slope, calibration.offset) == pytest.approx((expected.slope, expected.offset), abs=1e-4)
    again = loading.load(tmp_path / "model", device="cpu", decoding="ctc_greedy")
    sure = [word.confidence for wave in waves for word in again.transcribe(wave, word_times=True).words]
    raw = [word.confidence for transcript in found for word in transcript.words]
    assert sure == pytest.approx(calibration.confidences(raw).tolist())
    late = replace(again, words=WordCalibration(delay=-0.04)).transcribe(waves[0], word_times=True).words
    assert [word.end for word in late[:-1]] == pytest.approx([word.end + 0.04 for word in found[0].words[:-1]])
    right = np.array([1 - number % 2 for number, transcript in enumerate(found) for _ in transcript.words])
    assert calibration_error(sure, right) == pytest.approx(measured.errors[1], abs=1e-3)
    with pytest.raises(DataError, match="no transcripts"):
        calibrate(model, [], {})
