"""Cuts as Lhotse writes them (1.33); `benchmarks/layouts.py` has Lhotse itself write them."""

import contextlib
import gzip
import io
import json
import tarfile

import pytest

from kikitori.data.layouts import lhotse
from kikitori.data.layouts.base import Columns
from kikitori.errors import DataError
from tests.data.layouts.sounds import read, sound, write


def cut(name: str, **changes) -> dict:
    source = {"type": "file", "channels": [0], "source": "r.wav"}
    said = {"id": "s", "recording_id": "r", "start": 0.0, "duration": 1.0, "channel": 0, "text": "one", "speaker": "p"}
    values = {
        "id": name,
        "start": 0.5,
        "duration": 1.5,
        "channel": 0,
        "supervisions": [said],
        "recording": {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 48000, "duration": 3.0},
        "type": "MonoCut",
    }
    return values | changes


def with_source(**changes) -> dict:
    values = cut("c")
    values["recording"]["sources"][0] |= changes
    return values


def lines(*cuts: dict) -> bytes:
    return gzip.compress("".join(json.dumps(each) + "\n" for each in cuts).encode())


def test_a_file_of_cuts(tmp_path):
    later = cut("a")["supervisions"][0] | {"start": 1.0, "text": "two", "language": "en"}
    both = cut("b", supervisions=[later, cut("a")["supervisions"][0] | {"custom": {"snr": 3}}])
    known = cut("d", supervisions=[later | {"custom": {"snr": 3}}])
    rows, left_out = read("lhotse", write(tmp_path / "cuts.jsonl.gz", lines(cut("a"), both, known)))
    assert [(row.utt_id, row.text, row.offset, row.duration, row.speaker) for row in rows] == [
        ("a", "one", 0.5, 1.5, "p"),
        ("b", "one two", 0.5, 1.5, "p"),
        ("d", "two", 0.5, 1.5, "p"),
    ]
    assert [row.extra for row in rows] == [{}, {}, {"snr": 3}]
    assert [row.language for row in rows] == [None, "en", "en"]
    assert rows[0].audio == tmp_path / "r.wav"
    assert not left_out


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"id": "m", "tracks": [], "type": "MixedCut"},
            "m is a MixedCut without a recording of its own; write the cuts",
        ),
        (
            cut("c", recording=cut("c")["recording"] | {"transforms": [{"name": "Speed"}]}),
            "c: its recording is changed",
        ),
        (with_source(type="memory"), "c: its audio is no single file"),
        (with_source(channels=[0, 1]), "c: is some of the channels of its file; write the cuts with to_shar"),
    ],
)
def test_what_lhotse_would_change_is_left_out(tmp_path, changed, reason):
    rows, left_out = read("lhotse", write(tmp_path / "cuts.jsonl.gz", lines(cut("a"), changed)))
    assert [row.utt_id for row in rows] == ["a"]
    assert len(left_out) == 1
    assert left_out[0].startswith(f"{tmp_path}/cuts.jsonl.gz:2: {reason}")


def test_channels_of_a_multi_cut_are_those_of_its_file(tmp_path):
    stereo = with_source(channels=[0, 1]) | {"channel": [0, 1], "type": "MultiCut"}
    rows, left_out = read("lhotse", write(tmp_path / "cuts.jsonl.gz", lines(stereo)))
    assert len(rows) == 1
    assert not left_out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lines(cut("a"), with_source(type="command")),
            "cuts.jsonl.gz:2: its audio is to come from a command, which is",
        ),
        (
            lines(cut("a"), {"id": "r", "sources": []}),
            "cuts.jsonl.gz:2: is no cut; name a file of cuts, not of recordings",
        ),
        (lines(cut("a"))[:-12], "cannot be read"),
    ],
)
def test_what_is_broken_is_named(tmp_path, content, message):
    path = write(tmp_path / "cuts.jsonl.gz", content)
    with pytest.raises(DataError, match=message):
        list(lhotse.read(path, Columns(), print))


def shar(folder, cuts, files):
    folder.mkdir(exist_ok=True)
    write(folder / "cuts.000000.jsonl.gz", lines(*cuts))
    with tarfile.open(folder / "recording.000000.tar", "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return folder


def test_shar(tmp_path):
    one, two = sound(seed=1), sound(seed=2)
    files = [
        ("a.flac", one),
        ("a.json", b"{}"),
        ("no.nodata", b""),
        ("no.nometa", b""),
        ("b.original", two),
        ("b.json", b""),
    ]
    folder = shar(tmp_path / "shar", [cut("a", start=0), cut("no"), cut("b", start=0)], files)
    rows, left_out = read("lhotse", folder)
    assert [(row.utt_id, row.data and row.data.read(), row.offset, row.audio.name) for row in rows] == [
        ("a", one, 0.0, "a.flac"),
        ("b", two, 0.0, "b.original"),
    ]
    assert left_out == [f"{folder}/cuts.000000.jsonl.gz:2: no has no recording of its own"]
    with pytest.raises(
        DataError, match=r"cuts.000000.jsonl.gz:2: the next recording of recording.000000.tar is no.nodata"
    ):
        read("lhotse", shar(folder, [cut("a"), cut("b"), cut("c")], files))
    with pytest.raises(DataError, match=r"recording\.000000\.tar has another number of recordings"):
        read("lhotse", shar(folder, [cut("a")], files))
    (folder / "recording.000000.tar").unlink()
    with pytest.raises(DataError, match=r"recording.000000.tar: is no whole tar \(No such file"):
        read("lhotse", folder)


NO_VALUES = (None, -1, "x", [], [1], {}, {"a": []}, float("nan"), 10**400)


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


def test_a_cut_of_wrong_values_is_a_row_or_one_error(tmp_path):
    """Each value of a cut in turn as something else: whatever comes of it, it is not an exception of another kind."""
    path = tmp_path / "cuts.jsonl"
    for place in places(cut("a")):
        for value in NO_VALUES:
            changed = cut("a")
            if place:
                inner = changed
                for key in place[:-1]:
                    inner = inner[key]
                inner[place[-1]] = value
            path.write_text(json.dumps(changed if place else value) + "\n")
            with contextlib.suppress(DataError):
                for row in lhotse.read(path, Columns(), lambda _: None):
                    assert isinstance(row.utt_id, str)
                    assert row.duration is None or 0.0 <= row.duration < 1e9
                    assert 0.0 <= row.offset < 1e9
