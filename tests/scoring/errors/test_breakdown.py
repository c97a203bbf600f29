"""Groups of utterances and lengths of outputs, counted by hand."""

import pytest

from kikitori.errors import DataError
from kikitori.scoring import report
from kikitori.scoring.errors import breakdown
from kikitori.scoring.errors.breakdown import scored_rows, units_of
from kikitori.scoring.metrics import ErrorCounts, confidence_interval
from kikitori.scoring.report import Prediction, build_report
from kikitori.types import Utterance


def prediction(said, written, *, seconds=1.0, speaker=None, language="en", **more):
    return Prediction(Utterance("a.wav", seconds, said, speaker=speaker, language=language), written, 0.1, **more)


def rows_of(*predictions):
    return scored_rows({"a": predictions})


def shape(groups):
    return [(each.name, each.utterances, each.words.errors, each.words.reference_length) for each in groups]


def test_counts_are_those_of_the_report():
    sets = {
        "a": [prediction("The CROW flew.", "the cow flew away"), prediction(None, "left out"), prediction("yes", "")],
        "b": [prediction("Ja", "nein", language="de")],
    }
    whole = breakdown.group("total", scored_rows(sets))
    expected = build_report(sets, normalizer=None, decoding="d", model="m", versions={})
    assert (whole.words.rate, whole.characters.rate, list(whole.interval)) == (
        expected["wer"],
        expected["cer"],
        expected["wer_ci"],
    )
    assert (whole.words.substitutions, whole.words.deletions, whole.words.insertions) == (2, 1, 1)
    assert [each.words for each in breakdown.by_set(scored_rows(sets))] == [
        ErrorCounts(1, 1, 1, 4),
        ErrorCounts(1, 0, 0, 1),
    ]


def test_without_a_reference_there_is_nothing_to_count():
    with pytest.raises(DataError, match="no utterance has a reference"):
        rows_of(prediction(None, "a"))


def test_characters_where_there_are_no_words():
    (row,) = rows_of(prediction("聞き取り。", "聞取り", language="ja"))
    assert row.reference == ("聞", "き", "取", "り")
    assert row.words == row.characters == ErrorCounts(0, 1, 0, 4)
    assert units_of("whisper_en", "Mr. Crow") == ("mister", "crow")


def test_what_is_too_long_to_be_aligned_is_counted_all_the_same(monkeypatch):
    monkeypatch.setattr(breakdown, "MAX_ALIGNED_PAIRS", 3)
    long, short = rows_of(prediction("a b", "a c"), prediction("a", "b"))
    assert (long.words, long.pairs) == (ErrorCounts(1, 0, 0, 2), ())
    assert short.pairs == (("a", "b"),)
    assert report.MAX_ALIGNED_PAIRS > 1000


def test_speakers_worst_first_with_intervals():
    one = [prediction("a b", "a b", speaker="one"), prediction("a b", "a c", speaker="one")]
    two = [prediction("a", "b", speaker="two")]
    nameless = [prediction("a", "")]
    groups = breakdown.by_speaker(rows_of(*one, *two, *nameless))
    assert shape(groups) == [("two", 1, 1, 1), ("one", 2, 1, 4)]
    assert groups[1].interval == confidence_interval([ErrorCounts(0, 0, 0, 2), ErrorCounts(1, 0, 0, 2)])


def test_durations_words_and_rates():
    rows = rows_of(
        prediction("a", "b", seconds=2.0),  # an edge belongs to the group above it
        prediction("a b c d e", "a b c d e", seconds=1.9),
        prediction("a b c d", "a b c", seconds=31.0),
    )
    assert shape(breakdown.by_seconds(rows)) == [
        ("under 2 s", 1, 0, 5),
        ("2 to 5 s", 1, 1, 1),
        ("30 and more s", 1, 1, 4),
    ]
    assert shape(breakdown.by_words(rows)) == [("under 5 words", 2, 2, 5), ("5 to 10 words", 1, 0, 5)]
    rates = breakdown.by_rate(rows_of(*(prediction("a " * n, "", seconds=2.0) for n in range(1, 9))))
    assert [each.utterances for each in rates] == [2, 2, 2, 2]
    assert rates[0].name == "under 1.38 words/s"
    same = breakdown.by_rate(rows_of(*[prediction("a b", "a b")] * 3, prediction("a b", "", seconds=0.0)))
    assert sum(each.utterances for each in same) == 4  # a rate cannot be had, and it is in a group all the same


def test_flags_and_failures():
    rows = rows_of(
        prediction("a b", "a", flags=("loop", "replaced")), prediction("a", "", error="lost"), prediction("a", "a")
    )
    assert shape(breakdown.by_flag(rows)) == [("loop", 1, 1, 2), ("replaced", 1, 1, 2), ("failed", 1, 1, 1)]


def test_lengths():
    found = breakdown.lengths(
        rows_of(
            prediction("a b c d", "a b c d"),
            prediction("a b c d", ""),
            prediction("a b c d", "a b"),  # two missing at the end
            prediction("a b c d", "b c d x y z"),
            prediction("", ""),
            prediction("", "a"),
        )
    )
    assert (found.reference, found.predicted) == (16, 13)
    assert found.difference == (0 + 4 + 2 + 2 + 0 + 1) / 6
    assert (found.equal, found.empty, found.short, found.long, found.cut) == (2, 1, 1, 2, 2)
    assert breakdown.lengths([]).difference == 0.0
