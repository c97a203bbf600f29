"""Rows of several systems brought together, and what is refused."""

from dataclasses import replace

import pytest

from kikitori.errors import DataError
from kikitori.scoring.comparison.match import MISSING, match
from tests.scoring.comparison.systems import LARGE, SMALL


def ids(sets):
    return {name: [row.utterance.utt_id for row in rows] for name, rows in sets.items()}


def test_rows_come_in_the_order_of_the_first():
    matched = match({"a": {"x": SMALL[:2], "y": SMALL[2:]}, "b": {"y": LARGE[:1:-1], "x": LARGE[1::-1]}})
    assert ids(matched["a"]) == ids(matched["b"]) == {"x": ["u0", "u1"], "y": ["u2", "u3"]}
    assert matched["b"]["y"][0].pred_text == "the ant"


def test_sets_of_other_names_are_those_of_the_first():
    matched = match({"a": {"here/test.jsonl": SMALL}, "b": {"there/test.jsonl": LARGE}})
    assert ids(matched["b"]) == {"here/test.jsonl": ["u0", "u1", "u2", "u3"]}


def test_cuts_of_one_recording_are_told_apart_by_their_offset():
    cuts = [replace(SMALL[0], utterance=replace(SMALL[0].utterance, offset=offset)) for offset in (0.0, 3.0)]
    assert len(match({"a": {"x": cuts}, "b": {"x": cuts}})["b"]["x"]) == 2
    with pytest.raises(DataError, match="b: 1 of 2 utterances are missing: u0 from 3 s on;"):
        match({"a": {"x": cuts}, "b": {"x": cuts[:1]}})


def test_missing_rows_are_named_or_deletions():
    with pytest.raises(DataError, match=r"b: 2 of 4 utterances are missing: u2, u3; .*--missing delete"):
        match({"a": {"x": SMALL}, "b": {"x": LARGE[:2]}})
    with pytest.raises(DataError, match="a: 3 of 4 utterances are missing"):
        match({"a": {"x": SMALL[:1]}, "b": {"x": LARGE}})
    matched = match({"a": {"x": SMALL[:1]}, "b": {"x": LARGE}}, missing="delete")
    assert [(row.pred_text, row.error) for row in matched["a"]["x"][1:]] == [("", MISSING)] * 3
    assert ids(matched["a"]) == ids(matched["b"])


@pytest.mark.parametrize("names", [("x", "x"), ("x", "y")])
def test_a_row_twice_is_refused(names):
    with pytest.raises(DataError, match="b: u0: it has two rows"):
        match({"a": {names[0]: SMALL}, "b": {names[1]: [*LARGE, LARGE[0]]}})


def test_another_reference_is_refused():
    other = replace(LARGE[1], utterance=replace(LARGE[1].utterance, text="cows fly"))
    with pytest.raises(DataError, match="b: u1: its reference is another"):
        match({"a": {"x": SMALL}, "b": {"x": [LARGE[0], other, *LARGE[2:]]}})
