import pytest

from kikitori.data.layouts.choose import choose_layout
from kikitori.errors import ConfigError, DataError
from tests.data.layouts.sounds import write


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("wav.scp", "", ("kaldi", "wav.scp")),
        ("dataset_dict.json", "{}", ("hugging-face", "dataset_dict.json")),
        ("dev/dev-00000-of-00006.parquet", "", ("hugging-face", "*.parquet")),
        ("cuts.000000.jsonl.gz", "", ("lhotse", "cuts.*.jsonl.gz")),
        ("dev-clean/1/2/1-2.trans.txt", "", ("librispeech", "*.trans.txt")),
        ("basic5000/transcript_utf8.txt", "", ("jsut", "transcript_utf8.txt")),
        ("MORPH/SDB/core/A01F0001.sdb", "", ("csj", "*.sdb")),
        ("tiny.tsv", "000/a.flac\ttext\n", ("reazonspeech", "tiny.tsv")),
    ],
)
def test_what_lies_in_a_folder(tmp_path, file, content, expected):
    write(tmp_path / "set" / file, content)
    assert choose_layout(tmp_path / "set", None)[:2] == expected


def test_what_lies_in_a_file(tmp_path):
    write(tmp_path / "clips" / "a.mp3", "")
    table = write(tmp_path / "train.tsv", "path\tsentence\n")
    assert choose_layout(table, None)[0] == "common-voice"  # rather than any table
    assert choose_layout(table, "table")[0] == "table"
    assert choose_layout(tmp_path, None)[0] == "common-voice"
    assert choose_layout(write(tmp_path / "x" / "a.csv", "path\n"), None)[0] == "table"
    assert choose_layout(write(tmp_path / "x" / "cuts.jsonl", '{"id": "a", "type": "MonoCut"}\n'), None)[0] == "lhotse"


def test_what_cannot_be_told(tmp_path):
    with pytest.raises(DataError, match="no such file or folder; check the path"):
        choose_layout(tmp_path / "none", None)
    with pytest.raises(
        DataError, match="nothing of a layout that is known lies there; name the data set's folder or file, or"
    ):
        choose_layout(tmp_path, None)
    with pytest.raises(DataError, match="nothing of kaldi lies there"):
        choose_layout(tmp_path, "kaldi")
    with pytest.raises(ConfigError, match="--from: there is no layout 'kalid'; did you mean 'kaldi'"):
        choose_layout(tmp_path, "kalid")
    write(tmp_path / "wav.scp", "")
    write(tmp_path / "a.parquet", "")
    with pytest.raises(ConfigError, match="may be kaldi or hugging-face; say which with --from"):
        choose_layout(tmp_path, None)
    manifest = write(tmp_path / "m.jsonl", '{"audio_filepath": "a.wav"}\n[]\n')
    with pytest.raises(DataError, match="nothing of a layout that is known lies there"):
        choose_layout(manifest, None)
