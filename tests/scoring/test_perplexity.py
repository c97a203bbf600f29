from math import exp, inf

import pytest
import torch
from typer.testing import CliRunner

from kikitori.cli import app
from kikitori.errors import DataError
from kikitori.scorers.language_model import LanguageModel, language_model
from kikitori.scorers.options import LMOptions
from kikitori.scoring import perplexity as module
from kikitori.scoring.perplexity import Perplexity, perplexity
from kikitori.text.units import TokenizerUnits
from tests.tiny import TEXTS, save_tiny_llm, tiny_bpe, tiny_gpt2, tiny_llm, tiny_units


def lm_over(units: TokenizerUnits, text_form: str = "as_is") -> LanguageModel:
    return language_model(tiny_llm("qwen3", units.size), units, LMOptions("here", text_form=text_form))


def lines_of(texts: list[str]) -> list[tuple[str, str]]:
    return [(f"file:{number}", text) for number, text in enumerate(texts, 1)]


def test_it_is_exp_of_the_mean_loss():
    units = tiny_units()
    lm = lm_over(units)
    total, labels = 0.0, 0
    for text in TEXTS[:3]:
        row = [units.bos_id, *units.encode(text), units.eos_id]
        with torch.no_grad():
            log_probs = lm.llm(torch.tensor([row])).logits[0].log_softmax(dim=-1)
        total += sum(float(log_probs[i, label]) for i, label in enumerate(row[1:]))
        labels += len(row) - 2
    found = perplexity(lm, lines_of(TEXTS[:3]))
    assert found.log_prob == pytest.approx(total, abs=1e-3)
    assert (found.lines, found.labels) == (3, labels)
    assert found.per_label == pytest.approx(exp(-total / (labels + 3)), rel=1e-4)
    words = sum(len(units.normalize(text).split()) for text in TEXTS[:3])
    assert found.per_word == pytest.approx(exp(-total / (words + 3)), rel=1e-4)
    assert found.characters == sum(len(units.normalize(text)) for text in TEXTS[:3])


@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_words_are_the_same_in_all_units(kind):
    text = [("here", "the  Cat sat")]
    found = perplexity(lm_over(tiny_bpe(kind), "en_plain"), text)
    assert (found.words, found.characters) == (3, 11)


def test_batches_change_nothing(monkeypatch):
    lm, lines = lm_over(tiny_units("sentencepiece")), lines_of([*TEXTS, TEXTS[0][:7]])
    whole = perplexity(lm, lines)
    monkeypatch.setattr(module, "LINES", 1)
    assert perplexity(lm, lines[::-1]).log_prob == pytest.approx(whole.log_prob, rel=1e-6)


def test_lines_without_labels_are_left_out():
    units = tiny_units()
    assert perplexity(lm_over(units), lines_of([TEXTS[0], "...", " "])) == perplexity(
        lm_over(units), lines_of(TEXTS[:1])
    )
    with pytest.raises(DataError, match="no text to score"):
        perplexity(lm_over(units), [])


def test_a_line_too_long_is_named():
    units = tiny_units()
    lm = language_model(tiny_gpt2(units.size, max_positions=10), units, LMOptions("here"))
    assert perplexity(lm, [("here", "a" * 8)]).lines == 1
    with pytest.raises(DataError, match=r"file:2: \d+ labels; the language model can read 9; split the line"):
        perplexity(lm, lines_of(["a", "a" * 10]))


def test_a_hopeless_model_is_infinitely_perplexed():
    assert Perplexity(-inf, 1, 1, 1, 1).per_word == inf


def test_command(tmp_path):
    save_tiny_llm(tmp_path / "lm")
    (tmp_path / "text.txt").write_text("\n".join(TEXTS))
    arguments = ["perplexity", "--model", str(tmp_path / "lm"), "--text", str(tmp_path / "text.txt")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows[:4]] == ["per", "token", "word", "character"]
    assert f"{len(TEXTS)} lines" in result.stdout
    assert "name its folder" in CliRunner().invoke(app, ["perplexity"]).stderr
    assert "name at least one file" in CliRunner().invoke(app, arguments[:3]).stderr
