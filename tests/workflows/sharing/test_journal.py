"""The journal of `kikitori transcribe -o`: what counts as finished, and what a crash may leave of it."""

import errno
import json
import os
from pathlib import Path

import pytest

from kikitori.errors import DataError
from kikitori.io.files import DiskFullError, write_text
from kikitori.io.recordings import Recording
from kikitori.workflows.sharing.journal import JOURNAL, Journal, file_digest, recipe_digest

TALK = Recording(Path("in/talk.wav"), "talk")


@pytest.fixture
def journal(tmp_path):
    (tmp_path / "talk.txt").write_text("a text\n")
    journal = Journal(tmp_path, "recipe")
    journal.add(TALK, "digest", [tmp_path / "talk.txt"])
    return journal


def test_a_finished_recording_is_known_to_the_next_run(journal, tmp_path):
    for known in (journal, Journal(tmp_path, "recipe")):
        assert known.knows(TALK, "digest")
        assert not known.knows(TALK, "other digest")
        assert not known.knows(Recording(TALK.audio, "talk-2"), "digest")
        assert not known.knows(Recording(Path("elsewhere/talk.wav"), "talk"), "digest")
    assert not Journal(tmp_path, "other recipe").knows(TALK, "digest")
    assert (tmp_path / JOURNAL).read_bytes().count(b"\n") == 1


def test_files_that_changed_are_not_finished(journal, tmp_path):
    (tmp_path / "talk.txt").write_text("")
    assert not journal.knows(TALK, "digest")
    (tmp_path / "talk.txt").unlink()
    assert not Journal(tmp_path, "recipe").knows(TALK, "digest")


def test_a_journal_cut_anywhere_keeps_its_whole_lines(journal, tmp_path):
    other = Recording(Path("\udce9 \n.wav"), "sub/\udce9 \n")  # a name that is not UTF-8, with a line break
    write_text(tmp_path / "sub" / "x.txt", "x")
    journal.add(other, "1", [tmp_path / "sub" / "x.txt"])
    content = (tmp_path / JOURNAL).read_bytes()
    first = content.index(b"\n") + 1
    for size in range(0, len(content) + 1, 3):
        (tmp_path / JOURNAL).write_bytes(content[:size])
        found = Journal(tmp_path, "recipe")
        assert (found.knows(TALK, "digest"), found.knows(other, "1")) == (size >= first, size == len(content))
        if not found.knows(TALK, "digest"):
            found.add(TALK, "digest", [tmp_path / "talk.txt"])
        if not found.knows(other, "1"):
            found.add(other, "1", [tmp_path / "sub" / "x.txt"])
        assert (tmp_path / JOURNAL).read_bytes() == content


@pytest.mark.usefixtures("journal")
def test_lines_that_are_none_of_ours_are_left_alone(tmp_path):
    with (tmp_path / JOURNAL).open("ab") as out:
        out.write(b'\xff\xfe\n[1]\n{"name": "talk-2", "files": 3}\n')
    found = Journal(tmp_path, "recipe")
    assert found.knows(TALK, "digest")
    assert not found.knows(Recording(TALK.audio, "talk-2"), "digest")


@pytest.mark.usefixtures("journal")
def test_the_later_line_of_a_name_counts(tmp_path):
    Journal(tmp_path, "other").add(TALK, "digest", [tmp_path / "talk.txt"])
    assert Journal(tmp_path, "other").knows(TALK, "digest")
    assert not Journal(tmp_path, "recipe").knows(TALK, "digest")


def test_a_full_disk_leaves_the_journal_as_it_was(journal, tmp_path, monkeypatch):
    before = (tmp_path / JOURNAL).read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"\.journal: cannot be written: No space left on device; make room"):
        journal.add(Recording(Path("b.wav"), "b"), "2", [])
    monkeypatch.undo()
    assert (tmp_path / JOURNAL).read_bytes()[: len(before)] == before
    assert Journal(tmp_path, "recipe").knows(TALK, "digest")


def test_a_journal_that_is_none(tmp_path):
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(DataError, match=r"\.journal: cannot be"):
        Journal(tmp_path, "recipe")


def test_digests(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path) is file_digest(tmp_path / "missing") is None
    assert recipe_digest({"a": 1, "b": Path("x")}) == recipe_digest({"b": Path("x"), "a": 1})
    assert recipe_digest({"a": 1}) != recipe_digest({"a": 2})


@pytest.mark.usefixtures("journal")
def test_lines_say_what_they_are_about(tmp_path):
    (line,) = (tmp_path / JOURNAL).read_text().splitlines()
    assert json.loads(line) == {
        "name": "talk",
        "audio": "in/talk.wav",
        "sha256": "digest",
        "recipe": "recipe",
        "files": {"talk.txt": file_digest(tmp_path / "talk.txt")},
    }
