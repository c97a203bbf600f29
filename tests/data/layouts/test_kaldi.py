import pytest

from kikitori.errors import DataError
from tests.data.layouts.sounds import read, sound, write


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "audio" / "r1.flac", sound(2.0))
    write(tmp_path / "wav.scp", f"r1 {tmp_path}/audio/r1.flac\nr2 audio/r1.flac\n")
    write(tmp_path / "text", "u1 HELLO  THERE\nu2 \nu9 nobody\n")
    write(tmp_path / "segments", "u1 r1 0.25 1.5\nu2 r2 1.5 -1\nu3 r7 0 1\n")
    write(tmp_path / "utt2spk", "u1 anna\nu2 bert\n")
    return tmp_path


def test_segments(folder):
    rows, left_out = read("kaldi", folder)
    assert [(row.utt_id, row.text, row.offset, row.duration, row.speaker) for row in rows] == [
        ("u1", "HELLO  THERE", 0.25, 1.25, "anna"),
        ("u2", "", 1.5, None, "bert"),
    ]
    assert {row.audio for row in rows} == {folder / "audio" / "r1.flac"}
    assert left_out == [f"{folder}/segments:3: recording 'r7' is not in wav.scp", f"{folder}/text: 'u9' has no audio"]


def test_without_segments_a_recording_is_an_utterance(folder):
    (folder / "segments").unlink()
    write(folder / "utt2dur", "r2 1.75\n")
    write(folder / "utt2lang", "r2 en\n")
    write(folder / "text", "r1 one\nr2 two\n")
    rows, left_out = read("kaldi", folder)
    assert [(row.utt_id, row.text, row.duration, row.language) for row in rows] == [
        ("r1", "one", None, None),
        ("r2", "two", 1.75, "en"),
    ]
    assert not left_out


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "wav.scp",
            "r1 touch RUN |\nr2 sph2pipe x |\n",
            r"wav.scp:1: 'touch RUN \|' is a command, which is not run \(and",
        ),
        ("wav.scp", "r1 |cat x.wav\n", "is a command, which is not run; run it yourself"),
        ("wav.scp", "r1 foo.ark:1234\n", "wav.scp:1: 'foo.ark:1234' is no plain file; write the audio into files"),
        ("wav.scp", "r1 -\n", "is no plain file"),
        ("wav.scp", "r1 a.wav\nr1 b.wav\n", "wav.scp:2: 'r1' comes twice; leave one out"),
        ("wav.scp", "r1\n", "wav.scp:1: nothing stands behind the id"),
        ("segments", "u1 r1 2 1\n", "segments:1: it ends at 1 s, before it begins"),
        ("segments", "u1 r1 now 1\n", "segments:1: 'now' is no time in seconds"),
        ("segments", "u1 r1 nan 1\n", "segments:1: 'nan' is no time in seconds"),
        ("segments", "u1 r1\n", "segments:1: no recording, start and end"),
    ],
)
def test_what_is_broken_is_named_and_nothing_is_run(folder, monkeypatch, file, content, message):
    monkeypatch.chdir(folder)
    write(folder / file, content)
    with pytest.raises(DataError, match=message):
        read("kaldi", folder)
    assert not (folder / "RUN").exists()


def test_text_that_is_no_utf8(folder):
    (folder / "text").write_bytes("u1 café\n".encode("latin-1"))
    with pytest.raises(DataError, match="not a text file in utf-8; convert it"):
        read("kaldi", folder)
