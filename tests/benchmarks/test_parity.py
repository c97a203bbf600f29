import sys

import pytest
import soundfile as sf
from transformers import WhisperFeatureExtractor

from benchmarks import parity
from kikitori.data.manifest import write_manifest
from tests.tiny import save_tiny_whisper, tiny_waveforms, tiny_whisper


@pytest.fixture
def parts(tmp_path):
    for name, multilingual in (("whisper-one.en", False), ("whisper-two", True)):
        save_tiny_whisper(tmp_path / "parts" / name, tiny_whisper(multilingual=multilingual))
        WhisperFeatureExtractor(chunk_length=2).save_pretrained(tmp_path / "parts" / name)
    rows = []
    for number, waveform in enumerate(tiny_waveforms(4)):
        file = tmp_path / f"{number}.wav"
        sf.write(file, waveform, 16000, subtype="FLOAT")
        row = {"id": file.stem, "audio_filepath": file.name, "duration": len(waveform) / 16000, "text": ""}
        rows.append({**row, "split": "test"})
    write_manifest(tmp_path / "manifest.jsonl", rows)
    return tmp_path / "parts"


def compared(parts, monkeypatch, capsys, *options):
    manifest = str(parts.parent / "manifest.jsonl")
    monkeypatch.setattr(sys, "argv", ["parity.py", str(parts), manifest, *options])
    with pytest.raises(SystemExit) as ended:
        parity.main()
    return ended.value.code, capsys.readouterr().out.splitlines()


def test_equal_texts_are_counted(parts, monkeypatch, capsys):
    assert compared(parts, monkeypatch, capsys, "--batch-sizes", "1,3") == (
        0,
        [f"{name}, batch {size}: 4 of 4 equal" for name in ("whisper-one.en", "whisper-two") for size in (1, 3)],
    )


def test_texts_that_differ_are_named(parts, monkeypatch, capsys):
    monkeypatch.setattr(parity, "theirs", lambda _, waveforms: [(7,) for _ in waveforms])
    status, lines = compared(
        parts, monkeypatch, capsys, "--models", "whisper-two", "--batch-sizes", "2", "--count", "2"
    )
    assert (status, lines) == (1, ["whisper-two, batch 2: 0 of 2 equal 0 1"])
