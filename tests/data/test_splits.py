import shutil
from itertools import product
from pathlib import Path

import pytest

from kikitori.data.splits import shared
from kikitori.types import Utterance
from tests.data.layouts.sounds import sound, write


def utterance(name, path="x.wav", start=0.0, seconds=1.0, **changes):
    return Utterance(Path(path), seconds, utt_id=name, offset=start, **changes)


def test_texts_and_speakers():
    train = [
        utterance("a", "a", text="One two three, four five six seven", speaker="x"),
        utterance("b", "b", text="short one", speaker="y"),
        utterance("c", "c", text="another", speaker="z"),
        utterance("d", "d"),
    ]
    kept = [
        utterance("k", "k", text="two three four five six seven", speaker="z"),
        utterance("l", "l", text="Short one!", speaker="x"),
        utterance("m", "m"),
    ]
    found = shared(train, kept)
    assert (found.texts, found.audio, found.speakers) == (("a", "b"), (), ("x", "z"))


@pytest.mark.parametrize("copied", [False, True])
def test_audio_is_the_same_where_stretches_overlap(tmp_path, copied):
    file = write(tmp_path / "a.flac", sound(seed=1))
    write(tmp_path / "other.flac", sound(seed=2))
    other = Path(shutil.copy(file, tmp_path / "copy.flac")) if copied else tmp_path / "." / "a.flac"
    starts = (0.0, 0.5, 1.0, 2.0)
    train = [utterance(f"{start}", file, start) for start in starts]
    for kept_start, seconds in product(starts, (0.25, 1.0)):
        kept = [utterance("k", other, kept_start, seconds), utterance("o", tmp_path / "other.flac", 0.0, 9.0)]
        expected = [f"{start}" for start in starts if start < kept_start + seconds and kept_start < start + 1.0]
        assert list(shared(train, kept).audio) == expected


def test_files_that_are_missing_are_like_no_other(tmp_path):
    train, kept = [utterance("a", tmp_path / "a.wav")], [utterance("k", tmp_path / "b.wav")]
    assert shared(train, kept).audio == ()
