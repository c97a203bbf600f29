"""tools/japanese_words.py: words, readings and a lexicon from Japanese text."""

import runpy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from kikitori.data.overlap import held_out
from kikitori.text.lexicon import Lexicon

TOOL = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "tools" / "japanese_words.py")))


def test_the_commonest_words_with_their_usual_readings():
    readings = {
        "上": Counter({"ウエ": 60, "ジョー": 38, "カミ": 2}),
        "いる": Counter({"イル": 30}),
        "稀": Counter({"マレ": 1}),
    }
    found = TOOL.pronunciations(readings, min_count=2, most=2)
    ways = (("u", "e"), ("o", "e"), ("j", "o", "o"))
    assert found == Lexicon({"上": ways, "いる": (("i", "r", "u"), ("e", "r", "u"))})
    assert [*TOOL.pronunciations(readings, min_count=2, most=1).pronunciations] == ["上"]


def test_words_of_a_dictionary_join_behind_those_of_the_text(tmp_path):
    file = tmp_path / "words.tsv"
    file.write_text("上\tカミ\n上\tウエ\n缶ビール\tカンビール\n×\t×\n", encoding="utf-8")
    others = TOOL.read_words(file)
    found = TOOL.pronunciations({"上": Counter({"ウエ": 2}), "稀": Counter({"マレ": 1})}, 2, 0, others)
    beer = ("k", "a", "N", "b", "i", "i", "r", "u")
    assert found == Lexicon({"上": (("u", "e"), ("o", "e"), ("k", "a", "m", "i")), "缶ビール": (beer,)})


def test_sentences_of_a_column_without_those_for_measuring(tmp_path):
    text = tmp_path / "text.tsv"
    text.write_text("1\t雨が降る。農業。風が吹く。\n2\t農業\n", encoding="utf-8")
    found = TOOL.sentences([text], 2, 0, held_out(["農業"]))
    assert [*found] == ["雨が降る。", "風が吹く。"]


def test_words_with_their_readings():
    pytest.importorskip("pyopenjtalk")
    assert TOOL.cut("東京は雨。") == [("東京", "トーキョー"), ("は", "ワ"), ("雨", "アメ"), ("。", "")]
    assert TOOL.cut("3月") == []
