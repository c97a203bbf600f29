import json
import runpy
import sys
from pathlib import Path

import numpy as np
import soundfile as sf

from kikitori.data.manifest import read_manifest, write_manifest
from kikitori.data.speech import read_utterance
from kikitori.types import Utterance
from tests.tiny import save_tiny, tiny_speech_llm, tiny_waveform

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "hard_speech.py"
KINDS = {"silence", "noise", "music", "moving", "reversed", "cut", "doubled", "after_silence"}


def make(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_a_manifest_of_each_kind_the_same_on_every_call(tmp_path, monkeypatch):
    save_tiny(tmp_path / "model", tiny_speech_llm())
    rows = []
    for index, words in enumerate(("the quick brown fox jumps", "it's a small world")):
        sf.write(tmp_path / f"{index}.wav", tiny_waveform(1.5, index), 16000)
        rows.append({"audio_filepath": f"{index}.wav", "duration": 1.5, "text": words, "language": "en"})
    write_manifest(tmp_path / "manifest.jsonl", rows)
    for folder in ("one", "two"):
        make(monkeypatch, tmp_path / "manifest.jsonl", tmp_path / folder, "--model", tmp_path / "model")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert {path.removesuffix(".jsonl") for path in files if path.endswith(".jsonl")} == KINDS
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    sets = {kind: read_manifest(tmp_path / "one" / f"{kind}.jsonl").utterances for kind in KINDS}
    assert {row.text for kind in ("silence", "noise", "music", "moving", "reversed") for row in sets[kind]} == {""}
    assert [row.text for row in sets["doubled"]] == [f"{row['text']} {row['text']}" for row in rows]
    for row, first in zip(sets["doubled"], rows, strict=True):
        wave = read_utterance(row)
        assert np.array_equal(wave[: len(wave) // 2], wave[len(wave) // 2 :])
        assert row.duration == 2 * float(str(first["duration"]))
    for index, row in enumerate(sets["reversed"]):
        forwards = read_utterance(Utterance(tmp_path / f"{index}.wav", 1.5))
        assert np.array_equal(read_utterance(row), forwards[::-1])
    for row in [*sets["music"], *sets["moving"]]:
        assert 0.01 < np.abs(read_utterance(row)).max() < 1.0
    for row, first in zip(sets["after_silence"], rows, strict=True):
        assert (row.duration, row.text) == (11.5, first["text"])
        assert np.abs(read_utterance(row)[:160000]).max() < 0.01
    for row in sets["cut"]:
        (whole,) = [first for first in rows if str(first["text"]).startswith(row.text or "?")]
        assert 0.0 < row.duration < 1.5
        assert len((row.text or "").split()) == round(0.6 * len(str(whole["text"]).split()))
    assert json.loads((tmp_path / "one" / "cut.jsonl").read_text().splitlines()[0])["kind"] == "cut"
