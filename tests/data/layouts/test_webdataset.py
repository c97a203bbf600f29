import json

import pytest

from kikitori.data.layouts.base import Columns
from kikitori.data.layouts.choose import choose_layout
from kikitori.errors import DataError
from tests.data.layouts.sounds import read, sound, tar, write

ONE, TWO = sound(seed=1), sound(seed=2)


def test_samples(tmp_path):
    known = {"sentence": "Two.", "spk_id": 7, "locale": "de", "snr": 3.5, "words": ["Two"], "nothing": None}
    known["duration"] = None
    files = {"a/1.flac": ONE, "a/1.txt": b" One.\n", "a/1.cls": b"3", "a/2.json": json.dumps(known).encode()}
    tar(tmp_path / "00.tar", {**files, "a/2.FLAC": TWO, "3.txt": b"no audio", "4.wav": ONE})
    rows, left_out = read("webdataset", tmp_path)
    assert [row.data.read() for row in rows] == [ONE, TWO, ONE]
    assert [(row.utt_id, row.text, row.speaker, row.language, row.audio.name) for row in rows] == [
        ("a/1", "One.", None, None, "1.flac"),
        ("a/2", "Two.", "7", "de", "2.flac"),
        ("4", None, None, None, "4.wav"),
    ]
    assert rows[1].extra == {"snr": 3.5, "nothing": None}
    assert left_out == [f"{tmp_path}/00.tar: 3: no audio"]
    assert choose_layout(tmp_path, None)[:2] == ("webdataset", "00.tar")
    assert choose_layout(tmp_path / "00.tar", None)[0] == "webdataset"
    other = json.dumps({"text": "no", "said": "yes"}).encode()
    tar(tmp_path / "00.tar", {"1.json": other, "1.flac": ONE})
    assert [row.text for row in read("webdataset", tmp_path, Columns(text="said"))[0]] == ["yes"]
    tar(tmp_path / "00.tar", {"1.json": other, "1.flac": ONE, "2.txt": b"not asked for", "2.flac": ONE})
    rows, left_out = read("webdataset", tmp_path, Columns(text="said"))
    assert [row.text for row in rows] == ["yes"]
    assert left_out == [f"{tmp_path}/00.tar: 2: its .json has no text 'said'"]


def test_tars_of_which_something_else_says_what_they_hold(tmp_path):
    tar(tmp_path / "recording.000000.tar", {"1.flac": ONE, "1.json": b"{}"})
    assert choose_layout(tmp_path, None)[0] == "webdataset"
    write(tmp_path / "cuts.000000.jsonl.gz", b"")
    assert choose_layout(tmp_path, None)[0] == "lhotse"
    tar(tmp_path / "audio" / "1.tar", {"1.flac": ONE})
    with pytest.raises(DataError, match="nothing of a layout that is known"):
        choose_layout(tmp_path / "audio", None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.flac": ONE, "1.json": b"{"}, r"00.tar: 1: its .json is none \("),
        ({"1.flac": ONE, "1.json": b"[]"}, r"00.tar: 1: its .json is no object; write the tar again"),
        ({"1.flac": ONE, "1.txt": b"\xff"}, r"00.tar: 1: its .txt is no text in UTF-8"),
    ],
)
def test_what_is_broken_is_named(tmp_path, files, message):
    tar(tmp_path / "00.tar", files)
    with pytest.raises(DataError, match=message):
        read("webdataset", tmp_path)
