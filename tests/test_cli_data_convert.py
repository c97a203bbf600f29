"""`kikitori data convert` as it is called."""

import pytest

from kikitori.cli.common import SOME_FAILED
from kikitori.data.manifest import read_manifest
from tests.commands import call, one_line
from tests.data.layouts.sounds import sound, write


@pytest.fixture
def kaldi(tmp_path):
    write(tmp_path / "kaldi" / "a.flac", sound())
    write(tmp_path / "kaldi" / "wav.scp", f"a {tmp_path}/kaldi/a.flac\n")
    write(tmp_path / "kaldi" / "text", "a yes\n")
    return tmp_path / "kaldi"


def test_a_folder_of_kaldi(kaldi, tmp_path):
    result = call("data", "convert", kaldi, "-o", tmp_path / "out", "--language", "en")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path}/out/manifest.jsonl\n")
    assert result.stderr == "kikitori: read as kaldi (wav.scp)\nkikitori: 1 utterance, 0.00 h\n"
    (row,) = read_manifest(tmp_path / "out" / "manifest.jsonl").utterances
    assert (row.text, row.language, row.duration) == ("yes", "en", 0.5)
    assert "is there already" in one_line(call("data", "convert", kaldi, "-o", tmp_path / "out"))


def test_rows_that_are_left_out_are_named(kaldi, tmp_path):
    write(kaldi / "text", "a yes\nb no\n")
    result = call("data", "convert", kaldi, "-o", tmp_path / "m.jsonl", "--from", "kaldi")
    assert result.exit_code == SOME_FAILED
    assert result.stdout == f"{tmp_path}/m.jsonl\n"
    assert f"kikitori: {kaldi}/text: 'b' has no audio; left out\n" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "-o: no manifest given; name a file .jsonl or a folder"),
        (("-o", "OUT", "--from", "kali"), "--from: there is no layout 'kali'; did you mean 'kaldi'?"),
        (("-o", "OUT", "--language", "English"), "--language: 'English' is no code of a language"),
        (("-o", "OUT", "--from", "csj"), "nothing of csj lies there"),
        (
            ("-o", "OUT", "--from", "kaldi", "--text-column", "sentence"),
            "--text-column: is of no use for kaldi; it names a column of hugging-face, table, webdataset",
        ),
    ],
)
def test_wrong_calls(kaldi, tmp_path, arguments, line):
    arguments = [tmp_path / "out" if each == "OUT" else each for each in arguments]
    assert line in one_line(call("data", "convert", kaldi, *arguments))
    assert not (tmp_path / "out").exists()


def test_nothing_is_run(kaldi, tmp_path):
    write(kaldi / "wav.scp", f"a touch {tmp_path}/RUN |\n")
    result = call("data", "convert", kaldi, "-o", tmp_path / "out", "--from", "kaldi")
    assert "is a command, which is not run; run it yourself" in one_line(result)
    assert not (tmp_path / "RUN").exists()
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
