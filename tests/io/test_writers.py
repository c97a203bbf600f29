"""Transcript files: their content, their names, and that none is half written."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.errors import ConfigError, DataError
from kikitori.io.writers import FORMATS, render, unique_stems, write_transcript
from kikitori.types import Hypothesis, Segment, Transcript, Word

WORDS = (Word("hello", 0.0, 0.4, 0.9), Word("there", 0.5, 1.0), Word("がっこう", 2.1, 2.5))
TRANSCRIPT = Transcript(
    text="hello there がっこう",
    segments=(Segment(0.0, 1.0, " hello\nthere"), Segment(2.0, 2.5, "がっこう")),
    nbest=(
        Hypothesis((1, 2), "hello there", -1.23456, scores={"ctc": -1.0004}),
        Hypothesis((), "", float("-inf"), complete=False),
    ),
    flags=("length_limit",),
    duration=3.0,
)


def test_txt_has_one_segment_a_line() -> None:
    assert render(TRANSCRIPT, "txt", audio="a.wav") == "hello there\nがっこう\n"
    assert render(Transcript("only text"), "txt", audio="a.wav") == "only text\n"
    assert render(Transcript(""), "txt", audio="a.wav") == ""


def test_json_has_whispers_keys() -> None:
    content = render(TRANSCRIPT, "json", audio="a.wav", language="en")
    value = json.loads(content, parse_constant=pytest.fail)
    assert value["text"] == TRANSCRIPT.text
    assert value["segments"][1] == {"id": 1, "start": 2.0, "end": 2.5, "text": "がっこう"}
    assert (value["language"], value["duration"], value["flags"]) == ("en", 3.0, ["length_limit"])
    assert value["nbest"][0] == {
        "text": "hello there",
        "score": -1.235,
        "scores": {"ctc": -1.0},
        "complete": True,
    }
    assert value["nbest"][1]["score"] is None
    assert "がっこう" in content


def test_jsonl_is_the_same_on_one_line_that_a_manifest_can_hold() -> None:
    content = render(TRANSCRIPT, "jsonl", audio="a.wav")
    assert content.count("\n") == 1
    value = json.loads(content)
    assert list(value)[:3] == ["audio_filepath", "duration", "text"]
    assert value == json.loads(render(TRANSCRIPT, "json", audio="a.wav"))
    assert value["language"] is None


def test_words_stand_in_their_segments() -> None:
    timed = Transcript(TRANSCRIPT.text, TRANSCRIPT.segments, words=WORDS)
    first, second = json.loads(render(timed, "json", audio="a"))["segments"]
    assert first["words"][0] == {"word": "hello", "start": 0.0, "end": 0.4, "probability": 0.9}
    assert [word["word"] for word in first["words"]] == ["hello", "there"]
    assert second["words"] == [{"word": "がっこう", "start": 2.1, "end": 2.5}]
    own = Transcript("hello", (Segment(0.0, 1.0, "hello", WORDS[:1]),), words=WORDS)
    assert len(json.loads(render(own, "json", audio="a"))["segments"][0]["words"]) == 1
    whole = json.loads(render(Transcript("hello there", words=WORDS[:2], duration=1.5), "json", audio="a"))
    assert (whole["segments"][0]["end"], len(whole["segments"][0]["words"])) == (1.5, 2)


def test_unknown_format_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"docx.*txt, srt, vtt, tsv, json, jsonl"):
        write_transcript(TRANSCRIPT, Path("a.wav"), tmp_path, ["txt", "docx"])
    assert not list(tmp_path.iterdir())


def test_files(tmp_path: Path) -> None:
    paths = write_transcript(TRANSCRIPT, Path("in/talk.part1.flac"), tmp_path / "new", FORMATS)
    assert paths == [tmp_path / "new" / f"talk.part1.{fmt}" for fmt in FORMATS]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    for path, fmt in zip(paths, FORMATS, strict=True):
        assert path.read_bytes().decode() == render(TRANSCRIPT, fmt, audio="in/talk.part1.flac")
    assert write_transcript(TRANSCRIPT, Path("a.wav"), tmp_path, ["txt"], stem="b") == [tmp_path / "b.txt"]


def test_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    (path,) = write_transcript(TRANSCRIPT, Path("\udce9.wav"), tmp_path, ["json"])
    assert json.loads(path.read_text("utf-8"))["audio_filepath"] == "\udce9.wav"


def test_failed_write_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(DataError, match=r"a\.txt: cannot be written"):
        write_transcript(TRANSCRIPT, Path("a.wav"), tmp_path / "file", ["txt"])
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(DataError, match=r"a\.txt: cannot be written"):
        write_transcript(TRANSCRIPT, Path("a.wav"), tmp_path, ["txt"])
    assert not list(tmp_path.glob(".*.tmp"))


def test_unique_stems() -> None:
    names = ["x/a.wav", "y/a.wav", "a.flac", "a-2.wav", "A.mp3", "b.c.wav"]
    assert unique_stems([Path(name) for name in names]) == ["a", "a-3", "a-4", "a-2", "A-5", "b.c"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "A", "a-2", "a-3", "ß", "ss"]), max_size=8))
def test_stems_never_collide(names: list[str]) -> None:
    stems = unique_stems([Path(f"{index}/{name}.wav") for index, name in enumerate(names)])
    assert len({stem.casefold() for stem in stems}) == len(names)
    assert all(stem.startswith(name) for stem, name in zip(stems, names, strict=True))
