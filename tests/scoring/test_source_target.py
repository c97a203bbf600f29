from pathlib import Path

import pytest

from kikitori.scoring.report import Prediction
from kikitori.scoring.source_target import compare, format_comparison
from kikitori.types import Utterance


def prediction(text, pred_text, language="en", error=None):
    return Prediction(Utterance(Path("a.wav"), 1.0, text=text, language=language), pred_text, 0.1, error=error)


def side(pairs, language="en", default=None):
    """A side from (reference, before, after)."""
    before = [prediction(reference, text, language) for reference, text, _ in pairs]
    after = [prediction(reference, text, language) for reference, _, text in pairs]
    return compare(before, after, language=default)


def test_numbers_by_hand():
    found = side([("a cat sat", "a bat", "a cat sat um"), ("uh dogs", "big dogs", "um uh big dogs")])
    # The normalizer drops um and uh: references are "a cat sat" and "dogs".
    assert found["normalizer"] == "whisper_en"
    assert (found["utterances"], found["scored"], found["reference_fillers"]) == (2, 2, 1)
    assert found["before"]["wer"] == pytest.approx((2 + 1) / 4)  # cat for bat, no sat; big
    assert found["after"]["wer"] == pytest.approx((0 + 1) / 4)
    assert found["wer_change"] == pytest.approx(-2 / 3)
    assert (found["before"]["insertions"], found["after"]["insertions"]) == (1, 1)
    assert (found["before"]["fillers"], found["after"]["fillers"]) == (0, 3)
    assert found["before"]["cer"] == pytest.approx((4 + 3) / 11)
    assert found["after"]["character_insertions"] == 3
    assert found["cer_change"] == pytest.approx(-4 / 7)


def test_japanese_is_counted_in_characters_and_keeps_its_fillers():
    found = side([("えーと、猫です", "猫です", "えーと猫です")], language="ja")
    assert found["normalizer"] == "nfkc_ja"
    assert (found["reference_fillers"], found["before"]["fillers"], found["after"]["fillers"]) == (1, 0, 1)
    assert (found["before"]["cer"], found["after"]["cer"]) == (0.5, 0.0)
    assert found["cer_change"] == -1.0


def test_rows_without_language_take_the_models():
    assert side([("um a", "a", "a")], language=None, default="en")["reference_fillers"] == 1
    assert side([("um a", "a", "a")], language=None)["reference_fillers"] is None


def test_a_perfect_or_unscored_base_has_no_relative_change():
    assert side([("a", "a", "b")])["wer_change"] is None
    unscored = side([(None, "um a", "b")])
    assert unscored["before"]["wer"] is unscored["before"]["fillers"] is unscored["wer_change"] is None


def test_failures_are_counted():
    rows = [prediction("a", "", error="a.wav: no such file")]
    assert compare(rows, rows, language=None)["after"]["failed"] == 1


def test_table():
    table = format_comparison({"target": side([("a b", "a", "a b")]), "source": side([(None, "", "")])}).splitlines()
    assert " ".join(table[0].split()) == "domain rows WER change CER change insertions fillers in reference"
    assert " ".join(table[1].split()) == "target 1 0.5000 -> 0.0000 -100.0 % 0.5000 -> 0.0000 -100.0 % 0 -> 0 0 -> 0 0"
    assert " ".join(table[2].split()) == "source 0 - -> - - - -> - - 0 -> 0 - -> - -"
    assert len({len(line) for line in table}) == 1
