"""`kikitori transcribe -o`: many recordings, a journal, a second run, errors, a disk that fills, progress."""

import errno
import io
import json
import os
import sys
from pathlib import Path

import pytest
import soundfile as sf

from kikitori import cli
from kikitori.cli.common import SOME_FAILED, WRONG_CALL
from kikitori.errors import AudioError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.files import LOCK, locked
from kikitori.io.recordings import find_recordings
from kikitori.recognizer import Recognizer
from kikitori.types import Transcript
from kikitori.workflows.sharing.journal import JOURNAL
from kikitori.workflows.transcribe import Done, Progress
from tests.commands import call, one_line
from tests.tiny import save_tiny, tiny_acoustic_model, tiny_waveform

NAMES = ("a.wav", "b.flac", "sub/a.wav", "sub/deep/c.wav")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, tiny_acoustic_model())
    return folder


@pytest.fixture
def speech(tmp_path):
    for seed, name in enumerate(NAMES):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(tmp_path / "in" / name, tiny_waveform(0.5 + 0.2 * seed, seed), SAMPLE_RATE)
    return tmp_path / "in"


@pytest.fixture
def recognized(monkeypatch):
    """The recordings that are recognised, in the order in which they are read."""
    found = []
    original = Recognizer.try_transcribe_many

    def counted(self, audio, **options):
        def each():
            for path in audio:
                found.append(path)
                yield path

        return original(self, each(), **options)

    monkeypatch.setattr(Recognizer, "try_transcribe_many", counted)
    return found


def _contents(folder):
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in (LOCK, JOURNAL)]
    return {file.relative_to(folder).as_posix(): file.read_text() for file in files}


def test_a_folder_is_read_and_printed(model, speech):
    result = call("transcribe", speech, "--model", model)
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [str(speech / name) for name in NAMES]
    assert "-f prints one file" in one_line(call("transcribe", speech, "--model", model, "-f", "srt"))


def test_what_is_finished_is_not_done_again(model, speech, tmp_path, recognized):
    command = ["transcribe", speech, "--model", model, "-o", tmp_path / "out", "-f", "txt", "-f", "json"]
    assert call(*command).exit_code == 0
    files = {f"{name.rpartition('.')[0]}.{suffix}" for name in NAMES for suffix in ("txt", "json")}
    first = _contents(tmp_path / "out")
    assert {*first} == files
    assert recognized == [speech / name for name in NAMES]

    recognized.clear()
    again = call(*command)
    assert (again.exit_code, again.stdout, recognized) == (0, "", [])
    assert again.stderr == "kikitori: 4 of 4 files, 0:00.0 of audio, 4 done before\n"
    assert _contents(tmp_path / "out") == first

    sf.write(speech / "a.wav", tiny_waveform(0.9, 9), SAMPLE_RATE)  # another recording of that name
    (tmp_path / "out" / "sub" / "a.json").write_text("changed by someone")
    sf.write(speech / "new.wav", tiny_waveform(0.9, 10), SAMPLE_RATE)
    assert call(*command).exit_code == 0
    assert recognized == [speech / "a.wav", speech / "new.wav", speech / "sub" / "a.wav"]
    last = _contents(tmp_path / "out")
    assert {*last} == {*files, "new.txt", "new.json"}
    assert last["sub/a.json"] == first["sub/a.json"]
    assert last["a.txt"] == call("transcribe", speech / "a.wav", "--model", model).stdout.split("\t")[1]


def test_other_options_are_other_transcripts(model, speech, tmp_path, recognized):
    command = ["transcribe", speech / "a.wav", "--model", model, "-o", tmp_path]
    changes = ([], ["--on-no-speech", "keep"], ["--word-times"], ["-f", "srt"], ["--max-line-width", 9])
    for change in changes:
        assert call(*command, *change).exit_code == 0
    assert recognized == [speech / "a.wav"] * len(changes)
    assert call(*command, *changes[-1], "--batch-size", 1).exit_code == 0
    assert recognized == [speech / "a.wav"] * len(changes)


def test_errors_are_listed_at_the_end_of_a_long_job_and_tried_again(model, speech, tmp_path, monkeypatch, recognized):
    (speech / "b.flac").write_text("no audio")
    monkeypatch.setattr(cli.transcribe, "MANY", 3)
    command = ["transcribe", speech, tmp_path / "missing.wav", "--model", model, "-o", tmp_path / "out"]
    for status in ("4 of 5 files", "5 of 5 files"):
        result = call(*command)
        assert (result.exit_code, result.stdout) == (SOME_FAILED, "")
        lines = result.stderr.splitlines()
        bad = [line for line in lines if "b.flac" in line or "missing.wav" in line]
        assert bad[:2] == bad[2:] == lines[-2:]
        assert lines[-3] == "kikitori: all errors:"
        assert "5 of 5 files" in lines[-4], status
        assert "2 failed" in lines[-4]
        assert {*_contents(tmp_path / "out")} == {"a.txt", "sub/a.txt", "sub/deep/c.txt"}
    assert recognized[5:] == [speech / "b.flac", tmp_path / "missing.wav"]


def test_a_full_disk_stops_the_job_in_one_line_and_leaves_no_half_file(model, speech, tmp_path, monkeypatch):
    written = []
    original = Path.write_bytes

    def full(self, content):
        if len(written) == 2:  # a disk takes what there is room for
            original(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        written.append(self)
        return original(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    command = ["transcribe", speech, "--model", model, "-o", tmp_path / "out", "-f", "srt", "--batch-size", 2]
    result = call(*command)
    assert "sub/a.srt: cannot be written: No space left on device; make room and run" in one_line(result, SOME_FAILED)
    monkeypatch.undo()
    assert {*_contents(tmp_path / "out")} == {"a.srt", "b.srt"}
    assert call(*command).exit_code == 0
    whole = _contents(tmp_path / "out")
    assert call(*command[:-4], "-f", "srt").exit_code == 0
    assert _contents(tmp_path / "out") == whole
    assert {*whole} == {"a.srt", "b.srt", "sub/a.srt", "sub/deep/c.srt"}


def test_half_files_of_a_killed_run_are_removed(model, speech, tmp_path):
    left = tmp_path / "out" / "sub" / f".{'0123456789abcdef' * 2}.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    (left.parent / ".mine.tmp").write_text("not ours")
    assert call("transcribe", speech, "--model", model, "-o", tmp_path / "out").exit_code == 0
    assert {file.name for file in left.parent.iterdir()} == {"a.txt", "deep", ".mine.tmp"}


def test_a_folder_has_one_writer(model, speech, tmp_path):
    with locked(tmp_path):
        message = one_line(call("transcribe", speech, "--model", model, "-o", tmp_path), WRONG_CALL)
    assert "another run is writing to this folder" in message


def test_progress_by_bytes(tmp_path):
    for name, size in (("a.wav", 100), ("b.wav", 300), ("c.wav", 600)):
        (tmp_path / name).write_bytes(bytes(size))
    recordings = find_recordings([tmp_path])
    times = iter([0.0, 10.0, 20.0, 30.0])
    progress = Progress(recordings, lambda: next(times))
    progress.add(Done(recordings[0]))
    assert progress.fraction == pytest.approx(0.1)
    assert str(progress) == "1 of 3 files, 0:00.0 of audio, 1 done before"
    progress.add(Done(recordings[1], Transcript("text", duration=600.0)))
    assert str(progress) == "2 of 3 files, 10:00.0 of audio, 1 done before, RTFx 30.0, 0:40 left"
    progress.add(Done(recordings[2], Transcript("text", duration=3300.0)))
    assert str(progress) == "3 of 3 files, 1:05:00.0 of audio, 1 done before, RTFx 130.0"
    assert progress.fraction == pytest.approx(1.0)


def test_lines_of_progress_without_a_terminal(model, speech, tmp_path, monkeypatch):
    monkeypatch.setattr("kikitori.io.progress.EVERY_S", 0.0)
    result = call("transcribe", speech, "--model", model, "-o", tmp_path / "out", "--batch-size", 1)
    assert [line.split(",")[0] for line in result.stderr.splitlines() if "files" in line] == [
        f"kikitori: {count} of 4 files" for count in range(1, 5)
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(tmp_path, monkeypatch):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(bytes(100))
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    recordings = find_recordings([tmp_path])
    done = [Done(recordings[0], Transcript("text", duration=60.0)), Done(recordings[1], error=AudioError("is noise"))]
    assert not cli.transcribe._follow(recordings, iter(done))
    shown = terminal.getvalue()
    assert "2 of 2 files, 1:00.0 of audio, 1 failed, RTFx" in shown
    assert "kikitori: is noise" in shown


def test_a_journal_names_what_it_belongs_to(model, speech, tmp_path):
    assert call("transcribe", speech, "--model", model, "-o", tmp_path / "out").exit_code == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / JOURNAL).read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a", "b", "sub/a", "sub/deep/c"]
    assert len({line["recipe"] for line in lines}) == 1
