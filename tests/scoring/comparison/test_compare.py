"""Scores of several systems, counted by hand and beside the reports of each."""

import pytest

from kikitori.scoring import paired
from kikitori.scoring.comparison.compare import compare, confused_words, is_certain, macro_mean
from kikitori.scoring.comparison.tables import Background, comparison_sections, examples, verdict
from kikitori.scoring.conditions import Conditions
from kikitori.scoring.metrics import ErrorCounts
from kikitori.scoring.report import build_report
from tests.scoring.comparison.systems import LARGE, SMALL, prediction

SETS = {"small": {"x": SMALL[:2], "y": SMALL[2:]}, "large": {"x": LARGE[:2], "y": LARGE[2:]}}


def test_each_system_has_the_counts_of_its_report():
    found = compare(SETS)
    for score, sets in zip(found.totals, SETS.values(), strict=True):
        report = build_report(sets, normalizer=None, decoding="d", model="m", versions={})
        assert score.words.rate == report["wer"]
        assert score.characters.rate == report["cer"]
        assert list(score.word_interval) == report["wer_ci"]
    rates = {
        (score.system, score.set_name): (score.words.errors, score.words.reference_length) for score in found.scores
    }
    assert rates == {
        ("small", "x"): (2, 6),
        ("large", "x"): (0, 6),
        ("small", "y"): (1, 5),
        ("large", "y"): (1, 5),
        ("small", None): (3, 11),
        ("large", None): (1, 11),
    }
    assert macro_mean(found, "small") == pytest.approx((2 / 6 + 1 / 5) / 2)


def test_changes_are_beside_the_first_system():
    first, second = compare(SETS).totals
    assert first.change is None
    rows = compare(SETS).rows
    assert second.change == paired.compare(*([row.words for row in each] for each in rows.values()))
    assert (second.change.better, second.change.worse) == (3, 1)
    assert not is_certain(second.change, 4)


def test_the_oracle_is_there_where_a_list_is():
    small, large = compare(SETS).totals
    assert (small.oracle, large.oracle) == (2, None)


def test_speed_failures_and_confusions():
    found = compare(
        {
            "small": {"x": SMALL},
            "large": {"x": [*LARGE[:3], prediction("u3", SMALL[3].utterance.text, "", error="missing")]},
        }
    )
    small, large = found.speeds
    assert small.rtfx == pytest.approx(30.0)
    assert (large.failed, large.missing) == (0, 1)
    assert ("end", "ant", [0, 1]) in confused_words(found)
    assert ("all", "tall", [1, 0]) in confused_words(found)


def test_a_normalizer_for_all():
    assert compare(SETS, "none").totals[0].words == ErrorCounts(3, 1, 0, 11)
    assert compare(SETS, "nfkc").rate == "CER"


def test_nothing_said():
    silent = {name: {"x": [prediction("u", "", text)]} for name, text in (("a", ""), ("b", "um yes"))}
    found = compare(silent)
    assert found.totals[1].change is None
    assert "Nothing was said" in verdict(found)
    comparison_sections([found], Background())


def test_the_verdict_names_the_best_and_says_whether_it_is_chance():
    assert verdict(compare(SETS)).startswith(
        "large makes the fewest word errors: WER 0.0909, beside 0.2727 of small (66.7 % fewer). "
        "4 utterances are too few to tell whether that is chance."
    )
    turned = {name: SETS[name] for name in ("large", "small")}
    assert verdict(compare(turned)).startswith("large makes the fewest word errors: WER 0.0909, beside 0.2727 of small")
    same = verdict(compare(dict.fromkeys("ab", SETS["small"])))
    assert same.startswith("a and b make equally many word errors: WER 0.2727. 4 utterances are too few")
    many = [prediction(f"{n}", "a b c", "a b c") for n in range(30)]
    worse = [prediction(f"{n}", "a b c", "a b" if n % 2 else "a b c") for n in range(30)]
    assert "more than chance explains" in verdict(compare({"a": {"x": worse}, "b": {"x": many}}))
    assert "19 utterances are too few" in verdict(compare({"a": {"x": worse[:19]}, "b": {"x": many[:19]}}))
    assert "chance may explain" in verdict(compare({"a": {"x": worse[:3] + many[3:]}, "b": {"x": many}}))


def test_sections_say_all_and_examples_those_that_differ_most():
    found = compare(SETS)
    first, *others = comparison_sections(
        [found, compare(SETS, "open_asr_en")],
        Background({"small": ["tiny"]}, {"small": Conditions("cpu", "float32", 8, 1, 99.6)}),
    )
    assert first.tables[0][1] == ["small", "0", "0", "tiny"]
    assert first.tables[1][1:] == [
        ["small", "30.0", "8", "cpu", "float32", "1", "100"],
        ["large", "7.5", "-", "-", "-", "-", "-"],
    ]
    assert [each.title for each in others[:2]] == ["Error rates: whisper_en", "Error rates: open_asr_en"]
    title, (small, large) = examples(found)[0]
    assert title in ("u0", "u1", "u2", "u3")
    assert abs(small.errors - large.errors) == 1
