import warnings

import pytest
import torch

from kikitori.errors import ConfigError, DataError, KikitoriWarning
from kikitori.scorers.hotwords import phrases as module
from kikitori.scorers.hotwords.phrases import compile_hotwords, letters_of, read_hotwords
from kikitori.text.unit_training import character_units
from tests.tiny import tiny_bpe, tiny_units

UNITS = tiny_units()
JAPANESE = character_units(["東京タワーへ行くがか"], "as_is")


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("  Anna  KARENINA ", "anna karenina"),
        ("O’Brien-Łódź's", "o brien lodz s"),
        ("Jørgensen", "jorgensen"),
        ("Straße", "strasse"),
        ("Boeing 747", "boeing 747"),
        ("がか", "がか"),  # voicing is no accent
        ("हिन्दी", "हिन्दी"),
        ("...", ""),
    ],
)
def test_case_accents_and_punctuation_do_not_count(text, letters):
    assert letters_of(text) == letters


def test_without_spaces_between_words_nothing_separates_letters():
    assert letters_of("東京 タワー・A", spaced=False) == "東京タワーa"


def test_a_file_holds_a_phrase_a_line(tmp_path):
    (tmp_path / "words.txt").write_text("\ufeffAnna Karenina\n\n  Vronsky \nAnna Karenina\n", encoding="utf-8")
    assert read_hotwords(tmp_path / "words.txt") == ("Anna Karenina", "Vronsky")


@pytest.mark.parametrize(
    ("content", "error", "what"),
    [
        (None, DataError, "no such text file"),
        (b"\xff\xfe\x00", DataError, "cannot be read as UTF-8 text"),
        (b"\n \n", ConfigError, "there is no phrase; write one a line"),
        (b"\n".join(b"w%d" % number for number in range(10_001)), ConfigError, "10001 hotwords are more than 10000"),
        (b"word\n" + b"a " * 201, ConfigError, "201 letters are no phrase: 'a a a"),
    ],
)
def test_a_file_that_is_no_list_is_refused_in_one_line(tmp_path, content, error, what):
    file = tmp_path / "words.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(error, match=what) as caught:
        read_hotwords(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_characters_that_the_units_lack_are_named():
    with pytest.warns(KikitoriWarning, match=r"2 of 4 are left out \('Route 66', '東京'\): .* cannot write 6 東 京$"):
        hotwords = compile_hotwords(("Zoë", "Route 66", "東京", "O'Neill"), UNITS, "en")
    assert hotwords.letters == ("zoe", "o neill")
    with pytest.raises(
        ConfigError, match="none of 1 can be used: the CTC head cannot write 4 2; write them in letters"
    ):
        compile_hotwords(("42",), UNITS, "en")
    with pytest.raises(ConfigError, match="none of 1 can be used: they hold no letters"):
        compile_hotwords(("?!",), UNITS, "en")


@pytest.mark.parametrize("phrases", [(), ("w",) * 10_001, ("a" * 201,)])
def test_no_phrases_too_many_and_too_long_ones_are_refused(phrases):
    with pytest.raises(ConfigError, match=r"^hotwords: .*;"):
        compile_hotwords(phrases, UNITS, "en")


@pytest.mark.parametrize("units", [UNITS, tiny_units("pieces"), tiny_bpe(), JAPANESE])
def test_what_greedy_decoding_writes_is_evident(units):
    text, phrase = ("東京タワーへ行く", "タワー") if units is JAPANESE else ("the quick brown fox", "quick Brown")
    phrase = phrase.lower() if units is not UNITS else phrase  # BPE knows case
    labels = units.encode(text)
    logits = torch.full((1, 2 * len(labels) + 3, units.size + 1), -9.0)
    logits[0, :, -1] = 1.0
    logits[0, torch.arange(len(labels)) * 2, labels] = 9.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hotwords = compile_hotwords((phrase, text[::-1]), units, "ja" if units is JAPANESE else "en")
    assert hotwords.spaced is (units is not JAPANESE)
    assert hotwords.evident(logits, torch.tensor([logits.shape[1]])) == [[letters_of(phrase, spaced=hotwords.spaced)]]
    assert hotwords.evident(logits, torch.tensor([1])) == [[]]


def test_the_most_evident_come_first_and_are_enough(monkeypatch):
    logits = torch.zeros(1, 6, UNITS.size + 1)
    logits[0, :, UNITS.encode("a")[-1]] = 0.5
    hotwords = compile_hotwords(("bed", "add", "aa"), UNITS, "en")
    assert hotwords.evident(logits, torch.tensor([6]))[0][0] == "aa"
    monkeypatch.setattr(module, "MOST_EVIDENT", 2)
    assert len(hotwords.evident(logits, torch.tensor([6]))[0]) == 2


def test_a_list_is_compiled_once():
    assert compile_hotwords(("quick", "fox"), UNITS, "en") is compile_hotwords(("quick", "fox"), UNITS, "en")
