from pathlib import Path

from kikitori.data.description import describe_utterances, unknown_characters
from kikitori.text.unit_training import character_units
from kikitori.types import Utterance
from tests.tiny import tiny_bpe


def utterance(name, text, duration=1.0, **changes):
    return Utterance(Path(f"{name}.wav"), duration, text, utt_id=name, **changes)


def test_what_a_set_looks_like():
    rows = [
        utterance("a", "ten of it", 2.0, speaker="x", language="en"),
        utterance("b", "abcd efgh", 2.0, speaker="y", language="en"),
        utterance("c", "a", 4.0, speaker="x", language="de"),
        utterance("d", "abcdefgh" * 4),
        utterance("d", None, 0.0),
    ]
    found = describe_utterances(rows)
    assert (found.utterances, found.seconds, found.durations) == (5, 9.0, (0.0, 2.0, 4.0))
    assert (found.without_text, found.speakers, found.languages) == (1, 2, {"en": 2, "de": 1})
    assert found.rate == (7 / 2 + 8 / 2) / 2
    assert found.unusual == {"c": 0.25, "d": 32.0}
    assert found.repeated_ids == ("d",)
    assert found.characters["a"] == 6


def test_a_set_without_text():
    found = describe_utterances([utterance("a", None), utterance("b", "")])
    assert (found.rate, found.unusual, found.without_text) == (None, {}, 2)


def test_unknown_characters():
    units = character_units(["abc"], "lower")
    assert unknown_characters(["A b", "ça va ça"], units) == {"ç": 2, "v": 1}
    assert not unknown_characters(["日本"], tiny_bpe("bytes"))
