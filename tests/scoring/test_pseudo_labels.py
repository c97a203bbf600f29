from math import inf
from pathlib import Path

import pytest

from kikitori.scoring.pseudo_labels import PseudoLabelFilter, Recognized, summarize
from kikitori.types import Utterance


def utterance(text=None, seconds=2.0, **more):
    return Utterance(Path("x.wav"), seconds, text, utt_id=f"utt {text}", language="en", **more)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Recognized("a good text", -0.5), None),
        (Recognized("", -0.5, error="x.wav: gone"), "unreadable"),
        (Recognized("", 0.0, ("no_speech",)), "flagged: no_speech"),
        (Recognized("la la la la", -9.0, ("loop", "ctc_disagrees")), "flagged: loop, ctc_disagrees"),
        (Recognized("", -0.5), "no text"),
        (Recognized(" '. ", -0.5), "no text"),
        (Recognized("abc", -0.5), "unlikely length"),  # in two seconds
        (Recognized("abcd", -0.5), None),
        (Recognized("a b" * 30, -0.5), None),
        (Recognized("a b" * 31, -0.5), "unlikely length"),
        (Recognized("きょう", -0.5), "unlikely length"),
        (Recognized("a good text", -1.0), None),
        (Recognized("a good text", -1.001), "too little confidence"),
        (Recognized("a good text", -inf), "too little confidence"),
    ],
)
def test_reasons(found, reason):
    assert PseudoLabelFilter(min_confidence=-1.0).rejection(utterance(), found) == reason


def test_without_a_threshold_only_the_impossible_is_left_out():
    assert PseudoLabelFilter().rejection(utterance(), Recognized("a good text", -99.0)) is None
    assert PseudoLabelFilter().rejection(utterance(), Recognized("a good text", -inf)) == "too little confidence"
    assert PseudoLabelFilter().rejection(utterance(seconds=0.0), Recognized("a good text", -1.0)) == "unlikely length"


def test_errors_by_hand():
    rows = [utterance("a b c d"), utterance("a b"), utterance("x y"), utterance(), utterance("a b c d e f")]
    found = [
        Recognized("a b c x", -0.5),
        Recognized("a b", -0.1),
        Recognized("", 0.0, ("no_speech",)),
        Recognized("q", -0.3),
        Recognized("q", -2.0),
    ]
    rejections = [None, None, "flagged: no_speech", None, "too little confidence"]
    labels = summarize(rows, found, rejections)
    assert (labels.kept.utterances, labels.kept.seconds, labels.kept.errors.rate) == (3, 6.0, 1 / 6)
    assert {reason: part.errors.rate for reason, part in labels.left_out.items()} == {
        "flagged: no_speech": 1.0,
        "too little confidence": 1.0,
    }
    assert [group.lowest for group in labels.groups] == [-0.1, -0.3, -0.5, -2.0]  # silence has no confidence
    assert [group.kept.rate for group in labels.groups] == [0.0, 0.0, 1 / 6, 7 / 12]
    assert labels.lines() == [
        "3 utterances, 0.00 h, WER 0.167",
        "left out 1: flagged: no_speech (utt x y), WER 1.000",
        "left out 1: too little confidence (utt a b c d e f), WER 1.000",
        "confidence at least  utterances  hours    WER  of all surer  of the rest",
        "-0.1000                       1   0.00  0.000         0.000        0.700",
        "-0.3000                       1   0.00      -         0.000        0.700",
        "-0.5000                       1   0.00  0.250         0.167        1.000",
        "-2.0000                       1   0.00  1.000         0.583            -",
    ]
    assert labels.summary()["by_confidence"][2] == {
        "lowest": -0.5,
        "utterances": 1,
        "seconds": 2.0,
        "error_rate": 0.25,
        "error_rate_of_all_surer": 1 / 6,
        "error_rate_of_the_rest": 1.0,
    }


def test_no_references_no_rates():
    labels = summarize([utterance()] * 2, [Recognized("a b", -1.0)] * 2, [None, None])
    assert labels.lines() == [
        "2 utterances, 0.00 h",
        "confidence at least  utterances  hours",
        "-1.0000                       2   0.00",
    ]


def test_recognised_text_is_no_reference():
    labels = summarize([utterance("a", extra={"recognized": True})], [Recognized("b", -1.0)], [None])
    assert labels.kept.errors is None


def test_japanese_is_counted_in_characters():
    row = Utterance(Path("x.wav"), 1.0, "きょうは", language="ja")
    labels = summarize([row], [Recognized("きょうわ", -1.0)], [None])
    assert labels.lines()[0] == "1 utterance, 0.00 h, CER 0.250"
    assert labels.summary()["errors"] == "characters"
