"""tools/demo.py: what `make demo` prints."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from kikitori.data.manifest import read_manifest, write_manifest
from kikitori.loading import BUNDLED, load
from tests.tiny import save_tiny

DEMO = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "tools" / "demo.py")))
WER = re.compile(r"WER (\w+) (\d+\.\d{4})")


def test_prints_recordings_then_error_rates(tmp_path, capsys):
    save_tiny(tmp_path)
    assert DEMO.main(tmp_path) == 0
    output = capsys.readouterr()
    assert output.err == ""
    *recordings, rates = output.out.strip().split("\n\n")
    for recording, row in zip(recordings, read_manifest(DEMO.SAMPLES).utterances, strict=True):
        file, *lines = recording.splitlines()
        assert file == row.audio_filepath.name
        assert [line.split()[0] for line in lines] == ["reference", *DEMO.SEARCHES]
        assert lines[0].endswith(f"  {row.text}")
        assert {line[:14].rstrip() == f"  {line.split()[0]}" for line in lines} == {True}  # one column of texts
    matches = [WER.fullmatch(line) for line in rates.splitlines()]
    assert [match and match[1] for match in matches] == list(DEMO.SEARCHES)


def test_missing_model_is_one_line(tmp_path, capsys):
    assert DEMO.main(tmp_path / "missing") == 2
    assert "no such model folder" in capsys.readouterr().err


@pytest.mark.skipif(not (BUNDLED / "model.safetensors").is_file(), reason="the bundled model is not in this checkout")
@pytest.mark.parametrize("some", [slice(1, None, 4), pytest.param(slice(None), marks=pytest.mark.slow)])
def test_bundled_model_understands(some, tmp_path, capsys, monkeypatch):
    heard = read_manifest(DEMO.SAMPLES).utterances[some]
    rows = [{"audio_filepath": str(row.audio_filepath), "duration": row.duration, "text": row.text} for row in heard]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    monkeypatch.setitem(DEMO.main.__globals__, "SAMPLES", tmp_path / "manifest.jsonl")
    assert DEMO.main() == 0
    rates = {match[1]: float(match[2]) for match in WER.finditer(capsys.readouterr().out)}
    best = load().decoding.search
    assert set(rates) == {*DEMO.SEARCHES, best}
    assert all(rate < 0.5 for rate in rates.values())
    assert rates[best] == min(rates.values())
