import pytest

from kikitori.errors import DataError, KikitoriWarning
from kikitori.text.normalize import normalize
from kikitori.text.words import FILLERS, check_coverage, count_fillers, join_texts, join_words, writes_spaces


@pytest.mark.parametrize(
    ("language", "spaces"), [("ja", False), ("ja-JP", False), ("zh", False), ("en", True), (None, True)]
)
def test_words_are_joined_as_their_language_writes_them(language, spaces):
    assert writes_spaces(language) is spaces
    assert join_words(["東京", "に"], language) == ("東京 に" if spaces else "東京に")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Um, I think, uh... yes", 2),
        ("ummm hmm MHM mm er erm ah", 7),
        ("the umbrella, a hummer, her, mammal", 0),
        ("um's uh'm", 0),  # no fillers, if no words either
        ("", 0),
    ],
)
def test_english(text, count):
    assert count_fillers(text, "en") == count_fillers(text, "en-US") == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("えーと、今日はあのー天気がいい", 2),
        ("えーーっと", 1),
        ("えぇと", 0),
        ("あの〜そのーまあんー", 4),
        ("ｴｰと", 0),
        ("今日は天気がいい", 0),
    ],
)
def test_japanese(text, count):
    assert count_fillers(text, "ja") == count


def test_each_filler_counts_once():
    for language, fillers in FILLERS.items():
        for filler in fillers:
            assert count_fillers(filler, language) == 1
        assert count_fillers("、".join(fillers), language) == len(fillers)


def test_other_languages_have_none():
    assert count_fillers("euh", "fr") is None
    assert count_fillers("um", None) is None


def test_normalizing_would_hide_them():
    assert count_fillers(normalize("whisper_en", "um yes"), "en") == 0


def test_texts_of_several_languages_are_joined_as_each_writes_them():
    assert join_texts([]) == ""
    assert join_texts([("one", "en"), ("two", None), ("three", "en")]) == "one two three"
    assert join_texts([("今日は", "ja"), ("雨です", "ja"), ("OK", "en"), ("はい", "ja")]) == "今日は雨です OK はい"


LOWER = [f"word{i}'s" for i in range(20)]


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ([word.upper() for word in LOWER], "but for capitals and apostrophes they are the same: make both with one"),
        ([word.replace("'", "\u2019") for word in LOWER], "but for capitals and apostrophes they are the same"),
        ([f"\ufeff{word}" for word in LOWER], "but for capitals and apostrophes they are the same"),
        ([*(f"слово{i}" for i in range(30)), LOWER[0]], "give both the same form of words"),
        ([f"▁{word}" for word in LOWER], "give both the same form of words"),
    ],
)
def test_vocabularies_that_hardly_meet_are_refused(known, reason):
    for words in ((LOWER, known), (known, LOWER)):
        with pytest.raises(DataError, match=f"here: words: [01] of 20 are known, and .*{reason}"):
            check_coverage(*words, what="words", where="here")


def test_vocabularies_that_meet_badly_are_said_and_small_ones_may_be_part_of_large_ones():
    with pytest.warns(KikitoriWarning, match="here: words: 8 of 20 are known"):
        check_coverage(LOWER, [*LOWER[:8], *map(str, range(30))], what="words", where="here")
    check_coverage(LOWER[:3], LOWER, what="words", where="here")
    check_coverage(LOWER, LOWER[:3], what="words", where="here")
    check_coverage(["odd"], LOWER, what="words", where="here")  # too few to tell
    check_coverage([], LOWER, what="words", where="here")
