import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from kikitori.data.layouts.index import index, is_sharded
from kikitori.data.rows import read_rows
from kikitori.data.speech import audio_source, read_utterance
from kikitori.errors import AudioError, DataError
from tests.data.layouts.sounds import sound, tar, write
from tests.data.layouts.test_lhotse import cut, shar


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def samples(folder, shards=3, each=4):
    """Tars of WebDataset, the second sample of each without audio."""
    for number in range(shards):
        files = {}
        for row in range(each):
            name = f"{number}-{row}"
            known = {"text": f"text {name}", "speaker": "p"} | ({"duration": 0.5} if row else {})
            files[f"{name}.json"] = json.dumps(known).encode()
            if row != 1:
                files[f"{name}.flac"] = sound(seed=10 * number + row)
        tar(folder / f"s-{number:03}.tar", files)
    return folder


def test_rows_of_tars(tmp_path):
    folder, said = samples(tmp_path / "set"), []
    assert is_sharded(folder)
    assert is_sharded(folder / "s-000.tar")
    manifest, left_out = index(folder, said.append)
    assert [line.rpartition(": ")[2] for line in left_out] == ["no audio"] * 3
    rows = read_rows(manifest).rows
    assert [row.utt_id for row in rows] == [f"{shard}-{row}" for shard in range(3) for row in (0, 2, 3)]
    assert [row.text for row in rows][:2] == ["text 0-0", "text 0-2"]
    assert rows.durations.tolist() == [0.5] * 9
    assert audio_source(rows[4]) == sound(seed=12)
    assert len(read_utterance(rows[4])) == 8000
    assert len({*rows.table["shard"].tolist()}) == 3
    assert len(said) == 1
    assert index(folder, said.append) == (manifest, left_out)
    assert len(said) == 1  # it was kept
    samples(folder, each=3)
    again, _ = index(folder, said.append)
    assert again != manifest
    assert len(read_rows(again).rows) == 6
    one, _ = index(folder / "s-001.tar", said.append)
    assert [row.utt_id for row in read_rows(one).rows] == ["1-0", "1-2"]


def test_rows_of_shar(tmp_path):
    files = [("a.flac", sound(seed=1)), ("a.json", b"{}"), ("b.flac", sound(seed=2)), ("b.json", b"{}")]
    folder = shar(tmp_path / "shar", [cut("a", duration=0.5), cut("b", duration=0.4)], files)
    rows = read_rows(index(folder, print)[0]).rows
    assert [(row.utt_id, row.text, row.duration, row.offset) for row in rows] == [
        ("a", "one", 0.5, 0.0),
        ("b", "one", 0.4, 0.0),
    ]
    assert audio_source(rows[1]) == sound(seed=2)
    (folder / "recording.000000.tar").unlink()
    with pytest.raises(DataError, match=r"recording\.000000\.tar: is no whole tar \(No such file"):
        index(folder, print)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["s-000.tar", "s-002.tar"], "s-001.tar"),
        (["s-1.tar", "s-2.tar", "s-4.tar"], "s-3.tar"),
        (["t-00000-of-00003.tar", "t-00001-of-00003.tar"], "t-00002-of-00003.tar"),
        (["t-1-of-2.tar"], "t-2-of-2.tar"),
    ],
)
def test_a_missing_shard_is_named(tmp_path, names, missing):
    for name in names:
        tar(tmp_path / "set" / name, {"1.flac": sound(), "1.txt": b"a"})
    with pytest.raises(DataError, match=rf"set/{missing}: this shard is missing"):
        index(tmp_path / "set", print)
    tar(tmp_path / "set" / missing, {"1.flac": sound(), "1.txt": b"a"})
    assert len(read_rows(index(tmp_path / "set", print)[0]).rows) == len(names) + 1


def test_numbers_that_are_no_row(tmp_path):
    for number in (0, 1000, 2000):  # the first samples, or speakers, or a few that were chosen
        tar(tmp_path / "set" / f"s-{number:04}.tar", {f"{number}.flac": sound(), f"{number}.txt": b"a"})
    said = list[str]()
    manifest, _ = index(tmp_path / "set", said.append)
    assert len(read_rows(manifest).rows) == 3
    assert said[0] == f"warning: {tmp_path / 'set' / 's-'}*.tar: 3 of the numbers 0 to 2000 are there, and read"


def test_a_shard_that_is_cut_is_named_and_nothing_is_kept(tmp_path, cache):
    folder = samples(tmp_path / "set")
    content = (folder / "s-001.tar").read_bytes()
    (folder / "s-001.tar").write_bytes(content[: len(content) // 4])
    for _ in range(2):
        with pytest.raises(DataError, match=r"s-001\.tar: is no whole tar .*; copy it again"):
            index(folder, print)
    assert not [*cache.rglob("*.jsonl")]
    (folder / "s-001.tar").write_bytes(content)
    rows = read_rows(index(folder, print)[0]).rows
    (folder / "s-002.tar").write_bytes(b"")  # after it was indexed
    with pytest.raises(AudioError, match=r"s-002\.tar: has not all of '2-0' \(it ends at byte"):
        read_utterance(rows[6])
    (folder / "s-002.tar").write_bytes(bytes(100_000))
    with pytest.raises(AudioError, match=r"s-002\.tar: .*\(row '2-0'\)"):
        read_utterance(rows[6])


def test_compressed_shards_are_refused(tmp_path):
    folder = samples(tmp_path / "set", shards=1)
    (folder / "s-000.tar.gz").write_bytes(gzip.compress((folder / "s-000.tar").read_bytes()))
    (folder / "s-000.tar").unlink()
    with pytest.raises(DataError, match=r"s-000\.tar\.gz: is compressed.*decompress it"):
        index(folder, print)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    folder = samples(tmp_path / "set")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "s-000.tar"))
    with pytest.raises(DataError, match=r"s-000\.tar/kikitori/shards: "):
        index(folder, print)


def test_a_cache_that_can_only_be_read_is_read(tmp_path, monkeypatch):
    folder = samples(tmp_path / "set")
    expected = index(folder, print)

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Path, "touch", refuse)
    assert index(folder, print) == expected


def test_other_folders_are_no_shards(tmp_path):
    write(tmp_path / "kaldi" / "wav.scp", "a a.wav\n")
    write(tmp_path / "kaldi" / "text", "a A\n")
    with pytest.raises(DataError, match="is a folder of Kaldi's; make a manifest"):
        index(tmp_path / "kaldi", print)
    write(tmp_path / "kaldi" / "sub" / "train.jsonl", "{}\n")
    with pytest.raises(DataError, match=r"sub: is no manifest: it is a folder; name the manifest in it, .*train"):
        index(tmp_path / "kaldi" / "sub", print)


def test_a_first_shard_that_cannot_be_read_is_named(tmp_path):
    folder = samples(tmp_path / "set")
    (folder / "s-000.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"s-000\.tar: is no whole tar"):
        index(folder, print)


def test_rows_of_arrow_files(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    sounds = [sound(seed=number) for number in range(40)]
    column = pyarrow.array([{"bytes": each, "path": f"{i}.flac"} for i, each in enumerate(sounds)])
    table = pyarrow.table({"audio": column, "text": [f"text {i}" for i in range(40)]})
    folder = tmp_path / "saved"
    write(folder / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    path = str(folder / "data-00000-of-00001.arrow")
    with pyarrow.OSFile(path, "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as out:
        out.write_table(table, max_chunksize=25)
    rows = read_rows(index(folder, print)[0]).rows
    order = np.random.default_rng(0).permutation(40)
    assert [audio_source(row) for row in rows.take(order)] == [sounds[i] for i in order]
    assert rows[33].text == "text 33"
