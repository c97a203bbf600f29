import json
from pathlib import Path

import pytest
from filelock import FileLock

from kikitori.data import convert as conversion
from kikitori.data.convert import convert, manifest_path
from kikitori.data.layouts import keep
from kikitori.data.layouts.base import SourceRow
from kikitori.data.layouts.stored import held
from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.errors import ConfigError, DataError
from tests.data.layouts.sounds import sound, write


def converted(rows, manifest, **options):
    left_out: list[str] = []
    result = convert(rows, manifest, leave_out=left_out.append, **options)
    return result, left_out, [json.loads(line) for line in manifest.read_text().splitlines()]


def test_rows_of_files(tmp_path):
    inside = write(tmp_path / "set" / "audio" / "a.flac", sound(2.0))
    outside = write(tmp_path / "b.wav", sound(0.5, "WAV"))
    rows = [
        SourceRow("u1", inside, text="Hello", offset=0.25, duration=1.25, speaker="s", split="train"),
        SourceRow("u2", inside, text="", offset=1.5, extra={"room": 3, "prompt": "no", "duration": 7}),
        SourceRow("u3", outside, language="en-US", where="x:3"),
        SourceRow("u4", outside, language="English"),
        SourceRow("u5", tmp_path / "none.wav", duration=1.0, where="x:5"),
        SourceRow("u6", outside, offset=0.5, where="x:6"),
        SourceRow("u7", outside, text="\ud800", where="x:7"),
    ]
    result, left_out, written = converted(rows, tmp_path / "set" / "m.jsonl")
    assert written == [
        {
            "audio_filepath": "audio/a.flac",
            "duration": 1.25,
            "text": "Hello",
            "offset": 0.25,
            "id": "u1",
            "speaker": "s",
            "split": "train",
        },
        {"audio_filepath": "audio/a.flac", "duration": 0.5, "text": "", "offset": 1.5, "id": "u2", "room": 3},
        {"audio_filepath": str(outside), "duration": 0.5, "text": None, "id": "u3", "language": "en-US"},
        {"audio_filepath": str(outside), "duration": 0.5, "text": None, "id": "u4"},
    ]
    assert left_out == [
        f"x:5: {tmp_path}/none.wav: no such file; check the path",
        f"x:6: {outside}: ends before 0.5 s; correct the data set",
        "x:7: 'text' holds half a character (a lone surrogate)",
    ]
    assert result.lines() == [
        "4 utterances, 0.00 h",
        "2 without text",
        "warning: language 'English' of 1 row is no code; give --language",
    ]
    assert not (tmp_path / "set" / "m_audio").exists()
    (first, *_) = read_manifest(tmp_path / "set" / "m.jsonl").utterances
    assert len(read_utterance(first)) == 20_000


def test_audio_inside_other_files_is_written_beside(tmp_path):
    rows = [
        SourceRow("a/../b", Path("x.flac"), data=held(Path(), sound(seed=1)), split="train"),
        SourceRow("a/../b", Path("x.flac"), data=held(Path(), sound(seed=2)), split="train"),
        SourceRow("..", Path("x.original"), data=held(Path(), sound(0.5, "WAV"))),
        SourceRow("名前" * 100, Path(), data=held(Path(), sound(seed=3))),
        SourceRow("text", Path("x.flac"), data=held(Path(), b"no audio")),
    ]
    result, left_out, written = converted(rows, tmp_path / "out" / "manifest.jsonl", language="ja")
    names = [row["audio_filepath"] for row in written]
    assert names == ["audio/train/a_.._b.flac", "audio/train/a_.._b~2.flac", "audio/_.wav", f"audio/{'名前' * 30}.flac"]
    assert [row["id"] for row in written] == ["a/../b", "a/../b", "..", "名前" * 100]
    assert {row["language"] for row in written} == {"ja"}
    assert [(tmp_path / "out" / name).read_bytes() for name in names] == [row.data.read() for row in rows[:4]]
    assert len(left_out) == 1
    assert result.written == 5
    with pytest.raises(DataError, match=r"manifest\.jsonl: is there already; delete it or choose another"):
        manifest_path(tmp_path / "out")


def test_killed_it_goes_on(tmp_path, monkeypatch):
    rows = [SourceRow(f"u{i}", Path("x.flac"), data=held(Path(), sound(seed=i)), text=f"{i}") for i in range(4)]

    def killed():
        yield from rows[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(killed(), tmp_path / "m.jsonl", leave_out=print)
    assert not (tmp_path / "m.jsonl").exists()
    with (
        FileLock(tmp_path / ".m.jsonl.lock"),
        pytest.raises(DataError, match=r"m.jsonl: another run is writing it; wait"),
    ):
        convert(rows, tmp_path / "m.jsonl", leave_out=print)
    half = write(tmp_path / "m_audio" / f".{'0' * 32}.tmp", b"half a file")
    written = []
    write_bytes = keep.write_bytes
    monkeypatch.setattr(keep, "write_bytes", lambda path, data: (written.append(path.name), write_bytes(path, data)))
    converted(rows, tmp_path / "m.jsonl")
    assert written == ["u2.flac", "u3.flac"]
    assert not half.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"m.jsonl", "m_audio"}
    whole = converted(rows, tmp_path / "other" / "m.jsonl")[2]
    assert [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()] == whole


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="of Linux")
def test_a_folder_that_takes_no_files_is_not_one_that_another_run_writes():
    with pytest.raises(DataError, match=r"/proc/m.jsonl: cannot be written: .*; choose another folder"):
        convert([], Path("/proc/m.jsonl"), leave_out=print)


def test_other_audio_of_that_name_is_not_overwritten(tmp_path):
    converted([SourceRow("a", Path("x.flac"), data=held(Path(), sound(seed=1)))], tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").unlink()
    other = SourceRow("a", Path("x.flac"), data=held(Path(), sound(seed=2)))
    with pytest.raises(DataError, match=r"a.flac: holds other audio; delete that folder or choose another -o"):
        convert([other], tmp_path / "m.jsonl", leave_out=print)
    assert (tmp_path / "m_audio" / "a.flac").read_bytes() == sound(seed=1)


def test_splits(tmp_path):
    audio = write(tmp_path / "a.flac", sound())
    rows = [SourceRow(f"u{i}", audio, split=split) for i, split in enumerate(("train", "dev", "train", None))]
    _, _, written = converted(rows, tmp_path / "m.jsonl", splits=("train",))
    assert [row["id"] for row in written] == ["u0", "u2"]
    with pytest.raises(ConfigError, match="--split: there is no split 'eval'; it has train, dev"):
        convert(rows, tmp_path / "n.jsonl", splits=("train", "eval"), leave_out=print)
    with pytest.raises(DataError, match=r"n.jsonl: the data set has no row; check its files"):
        convert([], tmp_path / "n.jsonl", leave_out=print)
    assert {path.name for path in tmp_path.iterdir()} == {"a.flac", "m.jsonl"}


def test_lengths_that_no_header_says_are_counted(tmp_path, monkeypatch):
    audio = write(tmp_path / "a.flac", sound(0.75))
    monkeypatch.setattr(conversion, "promised_seconds", lambda _: None)
    assert conversion.seconds_of(audio) == 0.75


def test_where_all_rows_were_left_out_the_lines_above_say_why(tmp_path):
    with pytest.raises(DataError, match="no row could be taken; see the lines above"):
        convert([SourceRow("u", tmp_path / "none.wav")], tmp_path / "m.jsonl", leave_out=[].append)
