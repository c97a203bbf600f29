import json

import numpy as np
import pytest

from kikitori.data.manifest import BOM, read_manifest
from kikitori.data.rows import AT_ONCE, COLUMNS, joined, listed, read_rows
from kikitori.errors import DataError
from kikitori.types import Utterance

TEXTS = ("a cat", "", None, "!!", "ねこ")


def write(path, count, **values):
    lines = [
        {"audio_filepath": f"{i % 3}.wav", "duration": 1.0 + i, "text": TEXTS[i % 5], "id": f"u{i}", "offset": i / 2}
        | ({"split": "dev"} if i % 2 else {})
        | ({"recognized": True} if i % 7 == 0 else {})
        | values
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "0.wav").touch()
    return write(tmp_path / "m.jsonl", 12)


@pytest.mark.parametrize("split", [None, "dev"])
def test_rows_are_those_of_the_manifest(manifest, split):
    expected, rows = read_manifest(manifest, split=split).utterances, read_rows(manifest, split=split).rows
    assert (*rows,) == expected
    assert [rows[i] for i in (-1, 0, 3)] == [expected[i] for i in (-1, 0, 3)]
    assert (*rows[2:5],) == expected[2:5]
    chosen = np.array([4, 1, 1])
    assert [*rows.take(chosen)] == [expected[i] for i in chosen]
    assert [*rows.take(rows.durations > 4.0)] == [row for row in expected if row.duration > 4.0]
    assert rows.durations.tolist() == [row.duration for row in expected]
    assert rows.table["recognized"].tolist() == [row.extra.get("recognized", False) for row in expected]
    assert rows.table["characters"].tolist() == [-1 if row.text is None else len(row.text) for row in expected]
    assert rows.table["there"].tolist() == [row.audio_filepath.name == "0.wav" for row in expected]


def test_rows_take_little_memory():
    assert COLUMNS.itemsize <= 35


def test_more_rows_than_are_in_memory_at_a_time(tmp_path):
    manifest = write(tmp_path / "m.jsonl", AT_ONCE + 3, text="a")
    rows = read_rows(manifest).rows
    assert (*rows,) == read_manifest(manifest).utterances


def test_rows_of_several_sources_keep_their_order(manifest, tmp_path):
    other = write(tmp_path / "other.jsonl", 3, speaker="s")
    mine = [Utterance(tmp_path / "x.wav", 2.0, "x", utt_id="x")]
    parts = [read_rows(manifest).rows, listed(mine), read_rows(other).rows]
    both = joined([*parts, joined(parts).take(slice(10, 14))])
    plain = [*read_manifest(manifest).utterances, *mine, *read_manifest(other).utterances]
    assert [*both] == plain + plain[10:14]
    order = np.random.default_rng(0).permutation(len(both))
    assert [*both.take(order)] == [(plain + plain[10:14])[i] for i in order]
    assert [*joined([])] == []


def test_labels_are_asked_for_of_texts_that_are_there(manifest):
    asked = []

    def have_labels(texts):
        asked.extend(texts)
        return [text != "!!" for text in texts]

    rows = read_rows(manifest, have_labels=have_labels).rows
    assert rows.table["labelled"].tolist() == [row.text not in ("", None, "!!") for row in rows]
    assert None not in asked
    assert "" not in asked
    noise = read_rows(manifest, have_labels=have_labels, nonspeech=True).rows
    assert noise.table["labelled"].all()
    assert {row.text for row in noise} == {""}
    assert read_rows(manifest).rows.table["labelled"].all()


def test_broken_lines_and_marks_do_not_move_the_others(manifest):
    first, *others = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(BOM + first + b"\r\n" + b"{broken\n" + BOM + b"\n" + BOM + b"".join(others).rstrip(b"\n"))
    rows, problems = read_rows(manifest, on_error="skip")
    assert [row.utt_id for row in rows] == [f"u{i}" for i in range(12)]
    assert len(problems) == 1
    assert ":3: not JSON" in problems[0]
    with pytest.raises(DataError, match=r"m\.jsonl:3: not JSON"):
        read_rows(manifest)


def test_nothing_usable(manifest):
    with pytest.raises(DataError, match="no usable row of split 'test'"):
        read_rows(manifest, split="test")


def test_the_digest_is_of_what_is_learnt_and_of_the_order(manifest, tmp_path):
    rows = read_rows(manifest).rows
    assert rows.digest() == listed(rows).digest() == joined([rows[:5], rows[5:]]).digest()
    assert rows.digest() == read_rows(write(tmp_path / "again.jsonl", 12, speaker="other")).rows.digest()
    others = [
        rows[::-1],
        rows[1:],
        *(read_rows(write(tmp_path / "new.jsonl", 12, **{k: v})).rows for k, v in CHANGES.items()),
    ]
    assert len({each.digest() for each in [rows, *others]}) == len(others) + 1


CHANGES = {"text": "b", "duration": 2.0, "offset": 0.0, "id": "x"}


@pytest.mark.parametrize("change", CHANGES)
def test_a_manifest_that_changes_meanwhile_is_refused(manifest, change):
    rows = read_rows(manifest).rows
    with manifest.open("a") as more:
        more.write("{}\n")  # behind what was read
    assert rows[3].utt_id == "u3"
    write(manifest, 12, **{change: CHANGES[change]})
    with pytest.raises(DataError, match=r"changed since it was first read.*--resume"):
        _ = rows[8]
    manifest.unlink()
    with pytest.raises(DataError, match=r"m\.jsonl: has changed since it was first read \(.*No such file"):
        _ = rows[3]
