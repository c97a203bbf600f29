"""tools/kana_manifest.py: readings of a manifest as the text of another."""

import runpy
import sys
from pathlib import Path

from kikitori.data.manifest import read_manifest, write_manifest

TOOL = str(Path(__file__).parents[1] / "tools" / "kana_manifest.py")


def test_readings_become_the_text(tmp_path, monkeypatch):
    row = {"audio_filepath": "a.flac", "duration": 1.0, "language": "ja", "speaker": "f"}
    row |= {"offset": 2.5, "bytes": [512, 99]}
    rows = [
        row | {"text": "均等", "reading": "きんとう", "split": "train"},
        row | {"text": "上", "reading": "うえ", "split": "test"},
        row | {"text": "東", "split": "train"},
    ]
    write_manifest(tmp_path / "words.jsonl", rows)
    output = tmp_path / "kana" / "manifest.jsonl"
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "words.jsonl"), "-o", str(output), "--split", "train"])
    runpy.run_path(TOOL, run_name="__main__")
    (found,) = read_manifest(output).utterances
    assert (found.text, found.extra, found.split, found.speaker) == ("キントー", {"written": "均等"}, "train", "f")
    assert (found.offset, found.byte_range) == (2.5, (512, 99))
    assert found.audio_filepath.resolve() == tmp_path.resolve() / "a.flac"
