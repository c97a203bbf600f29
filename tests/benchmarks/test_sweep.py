"""The sweep over LLM families tells right, refused and wrong apart, and keeps the rows that it does not measure."""

import pytest

import sweep as module
from kikitori.model.decoder.probe import REFUSALS
from sweep import main, read_rows, sweep

pytestmark = pytest.mark.slow


def kinds(family):
    return [each.kind for each in sweep(family, {}).values()]


def test_right_and_refused():
    assert kinds("gemma3_text") == ["right"] * 5
    assert kinds("mpt") == ["refused", "refused", "refused", "right", "right"]


def test_wrong_without_the_probe(monkeypatch):
    monkeypatch.setattr("kikitori.model.decoder.probe.findings", lambda *_: dict.fromkeys(REFUSALS, ""))
    assert kinds("mpt") == ["wrong", "wrong", "wrong", "wrong", "right"]


def test_rows_are_kept(tmp_path, monkeypatch):
    table = tmp_path / "llms.md"
    table.write_text(f"Introduction\n\n{module.MARK}\n", encoding="utf-8")
    monkeypatch.setattr(module, "TABLE", table)
    module.write({"llama": ["no"] * 5 + ["old"], "gpt2": ["yes", "yes", "no", "**wrong**", "–", "why"]})
    main(["llama"])
    assert read_rows() == {"llama": ["yes"] * 5 + [""], "gpt2": ["yes", "yes", "no", "**wrong**", "–", "why"]}
    assert table.read_text(encoding="utf-8").startswith("Introduction\n")
    assert "| rescoring, perplexity | 1 | 0 | 1 | 0 | 0 |" in table.read_text(encoding="utf-8")
