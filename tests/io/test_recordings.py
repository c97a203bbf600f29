from pathlib import Path

from kikitori.io.recordings import Recording, find_recordings


def _make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_stand_for_the_recordings_below_them(tmp_path):
    _make(tmp_path, "in/b.wav", "in/a.MP3", "in/a.flac", "in/deep/er/c.opus", "in/deep/a.m4a", "in/notes.txt")
    _make(tmp_path, "in/.hidden.wav", "in/.git/x.wav", "alone.bin", "other/b.wav")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    found = find_recordings([tmp_path / "alone.bin", tmp_path / "in", tmp_path / "other"])
    assert found == [
        Recording(tmp_path / "alone.bin", "alone"),
        Recording(tmp_path / "in" / "a.MP3", "a"),
        Recording(tmp_path / "in" / "a.flac", "a-2"),
        Recording(tmp_path / "in" / "b.wav", "b"),
        Recording(tmp_path / "in" / "deep" / "a.m4a", "deep/a"),
        Recording(tmp_path / "in" / "deep" / "er" / "c.opus", "deep/er/c"),
        Recording(tmp_path / "other" / "b.wav", "b-2"),
    ]


def test_a_folder_without_recordings_stands_for_itself(tmp_path):
    _make(tmp_path, "in/notes.txt")
    assert find_recordings([tmp_path / "in", Path("missing")]) == [
        Recording(tmp_path / "in", "in"),
        Recording(Path("missing"), "missing"),
    ]
