"""Near misses, word boundaries and known words, on outputs made by hand."""

from collections import Counter

import pytest

from kikitori.scoring.errors.breakdown import scored_rows
from kikitori.scoring.errors.words import (
    FREQUENT,
    Boundary,
    WordClass,
    boundaries,
    confusions,
    count_words,
    is_near,
    known_words,
    letter_distance,
)
from kikitori.scoring.report import Prediction
from kikitori.types import Utterance


def rows_of(*texts):
    predictions = [Prediction(Utterance("a.wav", 1.0, said, language="en"), written, 0.1) for said, written in texts]
    return scored_rows({"a": predictions})


def pairs_of(said, written):
    (row,) = rows_of((said, written))
    return row.pairs


def test_letters():
    assert letter_distance("pleasant", "plesinv") == 3
    assert letter_distance("", "ab") == 2


@pytest.mark.parametrize(
    ("said", "written", "near"),
    [
        ("crow", "cow", True),
        ("the", "he", True),
        ("brownie", "brownyy", True),  # two letters
        ("beaver", "biver", True),
        ("agreeable", "agribul", False),  # four of nine
        ("newspapers", "newspiperts", True),
        ("extraordinary", "extrordanarie", True),  # four of thirteen, a third
        ("to", "me", False),  # no letter is right
        ("a", "i", False),
        ("in", "on", True),  # half of them
        ("it", "that", False),
    ],
)
def test_near_misses(said, written, near):
    assert is_near(said, written) is near


def test_confusions():
    found = confusions(rows_of(("said the crow", "the cow"), ("a crow", "a cow"), ("fly", "fly now"), ("yes", "maybe")))
    assert (found.substituted, found.near) == (3, 2)
    assert found.substitutions == (("crow", "cow", 2), ("yes", "maybe", 1))
    assert (found.deletions, found.insertions) == ((("said", 1),), (("now", 1),))
    assert found.boundaries == ()
    many = confusions(rows_of(*(("a" * n, "other") for n in range(1, FREQUENT + 5))))
    assert len(many.substitutions) == FREQUENT


def test_words_run_together_and_taken_apart():
    assert boundaries(pairs_of("he went a way home", "he went away home")) == [Boundary("a way", "away", True, 2)]
    assert boundaries(pairs_of("whenever i come", "when ever i come")) == [Boundary("whenever", "when ever", True, 2)]
    assert boundaries(pairs_of("none the less", "nonetheless")) == [Boundary("none the less", "nonetheless", True, 3)]
    nearly = boundaries(pairs_of("see the newspaper now", "see the news piper now"))
    assert nearly == [Boundary("newspaper", "news piper", False, 2)]


def test_what_is_no_boundary():
    assert boundaries(pairs_of("a dog ran", "dig ran")) == []  # "dig" is "dog" rather than "a dog"
    assert boundaries(pairs_of("one two", "three four")) == []
    assert boundaries(pairs_of("a way", "a way")) == []
    assert boundaries(()) == []
    # What is between them is right, so these errors do not follow each other.
    assert boundaries((("a", "away"), ("big", "big"), ("way", None))) == []


def test_a_word_counts_once_and_the_exact_first():
    found = boundaries((("a", "away"), ("way", "a"), ("a", "wey"), (None, "away")))
    assert [each.exact for each in found] == [True]
    together = boundaries(pairs_of("a way in side", "away inside"))
    assert [(each.reference, each.predicted) for each in together] == [("a way", "away"), ("in side", "inside")]


def test_words_of_a_text():
    assert count_words(["Mr. Crow, the crow", "", "THE"], "whisper_en") == Counter({"crow": 2, "the": 2, "mister": 1})


def test_known_words():
    text = Counter({"the": 1000, "crow": 10, "cow": 9, "said": 1})
    rows = rows_of(("said the browny crow", "the brownie cow"), ("xyz crow", "quux crow the"))
    found = known_words(rows, text)
    assert (found.words, found.distinct) == (1020, 4)
    assert found.by_count == (
        WordClass("never", 0, 1, 1, 0),  # browny, nearly; xyz, something else
        WordClass("1 to 9 times", 0, 0, 0, 1),  # said
        WordClass("10 to 99 times", 1, 1, 0, 0),  # crow
        WordClass("100 to 999 times", 0, 0, 0, 0),
        WordClass("1,000 to 9,999 times", 1, 0, 0, 0),
    )
    assert [(each.words, each.errors, each.correct) for each in found.by_count[:3]] == [(2, 2, 0), (1, 1, 0), (2, 1, 1)]
    assert (found.wrong, found.invented, found.invented_near) == (4, 2, 1)
    assert [each.words for each in found.by_rank] == [4, 2]  # all four words are among the 100 most frequent


def test_function_words_are_the_most_frequent(monkeypatch):
    monkeypatch.setattr("kikitori.scoring.errors.words.FUNCTION_WORDS", 1)
    found = known_words(rows_of(("the crow", "the cow")), Counter({"the": 2, "crow": 2, "a": 3}))
    assert [each.words for each in found.by_rank] == [0, 2]
    found = known_words(rows_of(("the crow", "the cow")), Counter({"the": 3, "crow": 2}))
    assert found.by_rank == (
        WordClass("the 1 most frequent", 1, 0, 0, 0),
        WordClass("others", 0, 1, 0, 0),
    )


def test_an_empty_text_knows_nothing():
    found = known_words(rows_of(("a", "b")), Counter())
    assert [(each.name, each.words) for each in found.by_count] == [("never", 1)]
    assert (found.words, found.invented) == (0, 1)
