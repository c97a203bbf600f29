"""Data sets as `datasets` 5.2 writes them, which are read with pyarrow alone."""

import json

import pytest

from kikitori.data.layouts.base import Columns
from kikitori.errors import ConfigError, DataError
from tests.data.layouts.sounds import read, sound, write

FEATURES = {
    "audio": {"sampling_rate": 16000, "decode": False, "_type": "Audio"},
    "gender": {"names": ["f", "m"], "_type": "ClassLabel"},
    "n": {"dtype": "int32", "_type": "Value"},
}


@pytest.fixture
def pyarrow():
    return pytest.importorskip("pyarrow")


def table(pyarrow, **changes):
    columns = {
        "id": ["a", "b", "c"],
        "audio": [
            {"bytes": sound(seed=1), "path": "x/one.flac"},
            {"bytes": sound(seed=2), "path": None},
            {"bytes": None, "path": None},
        ],
        "sentence": ["Hello", None, "gone"],
        "gender": [0, 1, -1],
        "n": [1, None, 3],
        "tags": [["x"], [], []],
    }
    found = pyarrow.table({key: value for key, value in (columns | changes).items() if value is not None})
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})


def save(pyarrow, folder, rows, split=None):
    folder.mkdir(parents=True)
    path = str(folder / "data-00000-of-00001.arrow")
    with pyarrow.OSFile(path, "wb") as file, pyarrow.ipc.new_stream(file, rows.schema) as stream:
        stream.write_table(rows)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
    write(folder / "state.json", json.dumps(state))
    write(folder / "dataset_info.json", json.dumps({"features": FEATURES}))


def expected(split):
    return [
        ("a", "Hello", sound(seed=1), split, {"gender": "f", "n": 1}),
        ("b", None, sound(seed=2), split, {"gender": "m"}),
    ]


def taken(rows):
    return [(row.utt_id, row.text, row.data and row.data.read(), row.split, row.extra) for row in rows]


def test_saved_to_disk(tmp_path, pyarrow):
    for split in ("train", "test"):
        save(pyarrow, tmp_path / "d" / split, table(pyarrow))
    write(tmp_path / "d" / "dataset_dict.json", json.dumps({"splits": ["train", "test"]}))
    rows, left_out = read("hugging-face", tmp_path / "d")
    assert taken(rows) == [*expected("train"), *expected("test")]
    assert left_out[0].endswith("train/data-00000-of-00001.arrow:3: no audio in column 'audio'")
    assert len(left_out) == 2
    save(pyarrow, tmp_path / "one", table(pyarrow), split="dev")
    assert taken(read("hugging-face", tmp_path / "one")[0]) == expected("dev")


def test_parquet_files(tmp_path, pyarrow):
    from pyarrow import parquet

    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "other"):
        parquet.write_table(table(pyarrow), tmp_path / "data" / f"{name}.parquet")
    rows, _ = read("hugging-face", tmp_path)
    assert taken(rows) == [*expected("other"), *expected("train"), *expected("train")]
    rows, _ = read("hugging-face", tmp_path / "data" / "other.parquet")
    assert taken(rows) == expected(None)


def test_columns_of_loquacious(tmp_path, pyarrow):
    from pyarrow import parquet

    sounds = [{"bytes": sound(), "path": "x.wav"}]
    columns = {"ID": ["u"], "duration": [9.0], "wav": sounds, "spk_id": ["s"], "sex": ["f"], "text": ["YES"]}
    (tmp_path / "dev").mkdir()
    parquet.write_table(pyarrow.table(columns), tmp_path / "dev" / "dev-00000-of-00006.parquet")
    (row,), _ = read("hugging-face", tmp_path)
    assert (row.utt_id, row.text, row.speaker, row.split, row.duration) == ("u", "YES", "s", "dev", None)
    assert row.extra == {"duration": 9.0, "sex": "f"}


def test_columns_that_are_named(tmp_path, pyarrow):
    from pyarrow import parquet

    columns = {"clip": [sound(seed=1), b""], "said": ["one", "two"], "text": ["no", "no"]}
    file = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table(columns), file)
    rows, left_out = read("hugging-face", file, Columns(audio="clip", text="said"))
    assert [(row.utt_id, row.text, row.extra) for row in rows] == [("x-1", "one", {"text": "no"})]
    assert len(left_out) == 1
    with pytest.raises(
        DataError, match=r"x\.parquet: no column audio, wav or the like among clip, said, text; name one"
    ):
        read("hugging-face", file)


def test_damaged_files(tmp_path, pyarrow):
    write(tmp_path / "x.parquet", b"PAR1 nothing")
    with pytest.raises(DataError, match=r"x.parquet: cannot be read \(.*copy it again"):
        read("hugging-face", tmp_path)
    save(pyarrow, tmp_path / "one", table(pyarrow))
    write(tmp_path / "one" / "state.json", "{")
    with pytest.raises(DataError, match=r"state.json: cannot be read .*; copy the data set again"):
        read("hugging-face", tmp_path / "one")
    for files in (None, [], 3, [3], [{}], [{"filename": None}]):
        write(tmp_path / "one" / "state.json", json.dumps({"_data_files": files}))
        with pytest.raises(DataError, match=r"state.json: '_data_files' names nothing; copy the data set again"):
            read("hugging-face", tmp_path / "one")
    write(tmp_path / "one" / "state.json", json.dumps({"_data_files": [{"filename": "../../gone.arrow"}]}))
    with pytest.raises(DataError, match=r"one/gone.arrow: cannot be read \(.*copy it again"):
        read("hugging-face", tmp_path / "one")


def test_the_package_is_named(tmp_path, monkeypatch):
    write(tmp_path / "x.parquet", b"")
    monkeypatch.setattr("kikitori.io.extras.find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"the package pyarrow, which is not installed; pip install 'kikitori\[data\]'"
    ):
        read("hugging-face", tmp_path)
