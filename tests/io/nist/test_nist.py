"""NIST's files, written and read again, and lines that are none."""

import pytest

from kikitori.errors import DataError
from kikitori.io.nist.ctm import TimedWord, read_ctm, write_ctm
from kikitori.io.nist.stm import Stretch, read_stm, write_stm
from kikitori.io.nist.trn import read_trn, write_trn

TRN = {"spk-001": "the crow (flew) home", "spk-002": "", "日本": "聞き 取り"}
STM = [Stretch("a", "1", "s", 0.0, 2.5, "the crow"), Stretch("a", "2", "t", 2.5, 3.0, "")]
CTM = [TimedWord("a", "A", 0.25, 0.5, "crow", 0.75), TimedWord("a", "A", 1.0, 0.0, "flew")]


@pytest.mark.parametrize(
    ("write", "read", "content"), [(write_trn, read_trn, TRN), (write_stm, read_stm, STM), (write_ctm, read_ctm, CTM)]
)
def test_what_is_written_is_read(tmp_path, write, read, content):
    write(tmp_path / "file", content)
    assert read(tmp_path / "file") == content


def test_labels_comments_and_stretches_that_do_not_count(tmp_path):
    file = tmp_path / "a.stm"
    file.write_text(";; a comment\n\na 1 s 0 1.5 <o,f0,male> the  crow\na 1 s 1.5 2 IGNORE_TIME_SEGMENT_IN_SCORING\n")
    crow, nothing = read_stm(file)
    assert (crow.text, crow.is_scored, nothing.is_scored) == ("the crow", True, False)


@pytest.mark.parametrize(
    ("read", "line", "message"),
    [
        (read_trn, "no id", "no id in brackets"),
        (read_trn, "a (x)\nb (x)", "'x' comes twice"),
        (read_trn, "{ a / b } (x)", "alternatives in braces"),
        (read_stm, "a 1 s 0", "fewer than five fields"),
        (read_stm, "a 1 s nan 1 b", "'nan' is no time"),
        (read_stm, "a 1 s 0 inf b", "'inf' is no time"),
        (read_stm, "a 1 s 2 1 b", "ends before it begins"),
        (read_ctm, "a 1 0 1", "fewer than five fields"),
        (read_ctm, "a 1 -1 1 b", "'-1' is no time"),
        (read_ctm, "a 1 0 x b", "'x' is no time"),
        (read_ctm, "a 1 * * <ALT_BEGIN>", "alternatives"),
    ],
)
def test_lines_that_are_none(tmp_path, read, line, message):
    file = tmp_path / "file"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match=message) as found:
        read(file)
    assert f"{file}:{line.count(chr(10)) + 1}" in str(found.value) or "(x)" in line


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_trn(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be read"):
        read_ctm(tmp_path)


def test_ids_become_one_field_or_are_refused(tmp_path):
    write_trn(tmp_path / "file", {"a b(c)": "x"})
    assert read_trn(tmp_path / "file") == {"a_b_c_": "x"}
    with pytest.raises(DataError, match="two utterances have this id"):
        write_trn(tmp_path / "file", {"a b": "x", "a_b": "y"})
