"""The command runs every suite, and both sides of each row do the same work."""

import pytest

import speech_llm_decoding
from speech_llm_decoding import decoding, missing_peers

pytestmark = pytest.mark.slow


def test_every_row_is_there():
    rows = list(decoding(1, ["prefix_scoring", "beam"], small=True))
    names = [row.name for row in rows]
    assert names.count("kikitori") == 3
    assert "transformers" in names
    assert ("espnet" in names) == (not missing_peers())
    assert all(row.seconds > 0 for row in rows)
    share = next(row.note for row in rows if row.work.startswith("joint"))
    assert 0 < float(share.removeprefix("CTC takes ").removesuffix("%")) < 100


def test_command(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["speech_llm_decoding.py", "speculative", "--small"])
    speech_llm_decoding.main()
    output = capsys.readouterr().out
    assert output.splitlines()[0].split() == ["work", "contender", "ms", "ratio", "note"]
    assert "16 utterances" in output
    assert "output matrix" in output


def test_no_such_suite(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["speech_llm_decoding.py", "nothing"])
    with pytest.raises(SystemExit):
        speech_llm_decoding.main()
    assert "no such suite: nothing" in capsys.readouterr().err
