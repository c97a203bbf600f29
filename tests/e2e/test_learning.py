"""Training learns: a tiny speech LLM, trained by the committed recipe, knows six real recordings by heart."""

from pathlib import Path

import pytest

import kikitori
from kikitori.data.manifest import read_manifest
from kikitori.scoring.metrics import ErrorCounts, char_errors
from kikitori.train.run import train

ROOT = Path(__file__).parents[2]
CLIPS = ROOT / "tests" / "data" / "clips"


@pytest.mark.slow
def test_the_smoke_recipe_learns_its_recordings(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    train("recipes/smoke.yaml", tmp_path / "smoke")

    recognizer = kikitori.load(tmp_path / "smoke" / "model", guards=kikitori.Guards(on_runaway="keep"))
    utterances = read_manifest(CLIPS / "manifest.jsonl", split="dev").utterances
    assert len(utterances) == 6
    errors = ErrorCounts()
    for utterance in utterances:
        heard = recognizer.transcribe(utterance.audio_filepath, decoding="greedy").text
        errors += char_errors(utterance.text.lower(), heard)
    assert errors.rate < 0.1, errors
    assert "dev: wer_greedy" in (tmp_path / "smoke" / "log.txt").read_text()
