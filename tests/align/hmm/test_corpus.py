import numpy as np
import pytest
import soundfile

from kikitori.align.hmm.corpus import Alignments, align_corpus, load_alignments, save_alignments, segments
from kikitori.align.hmm.graph import state_labels
from kikitori.align.hmm.mfcc import mfcc
from kikitori.errors import DataError
from kikitori.text.lexicon import Lexicon
from kikitori.types import Utterance
from tests.tiny import tiny_waveform

LABELS = state_labels(["ax", "t"])


def test_segments_are_phones_with_their_times():
    states = np.array([6, 6, 7, 8, 0, 1, 1, 2, 0, 1, 2, 3, 4, 5], np.uint8)
    assert segments(states, LABELS) == [
        ("<sil>", 0.0, 0.04), ("ax", 0.04, 0.08), ("ax", 0.08, 0.11), ("t", 0.11, 0.14)
    ]  # fmt: skip
    assert segments(states[:0], LABELS) == []


def test_a_file_reads_back_and_a_damaged_one_is_refused(tmp_path):
    file = tmp_path / "en.safetensors"
    made = Alignments(LABELS, {"one": np.array([0, 1, 2], np.uint8), "two": np.array([3], np.uint8)})
    save_alignments(file, made)
    read = load_alignments(file)
    assert read.labels == made.labels
    assert {name: states.tolist() for name, states in read.states.items()} == {"one": [0, 1, 2], "two": [3]}
    save_alignments(tmp_path / "none_yet.safetensors", Alignments(LABELS, {}))
    assert load_alignments(tmp_path / "none_yet.safetensors").states == {}
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(DataError, match="no alignments"):
        load_alignments(file)
    with pytest.raises(DataError, match="no alignments"):
        load_alignments(tmp_path / "none.safetensors")


def test_coefficients_come_a_hundred_times_a_second():
    rows = mfcc(tiny_waveform(0.53))
    assert rows.shape == (53, 39)
    assert np.isfinite(rows).all()


def test_a_corpus_is_aligned_as_far_as_the_lexicon_goes(tmp_path):
    lexicon = Lexicon({"a": (("ax",),), "at": (("ax", "t"),)})
    rows = []
    for number, text in enumerate(["a", "at", "at a", "a cat", "a at"]):
        soundfile.write(tmp_path / f"{number}.wav", tiny_waveform(0.5 + number / 10), 16000)
        rows.append(
            Utterance(
                utt_id=str(number),
                audio_filepath=tmp_path / f"{number}.wav",
                duration=0.5 + number / 10,
                text=text.upper(),
            )
        )
    found = align_corpus(rows, lexicon, str.lower, lambda _: None)
    assert {name: len(states) for name, states in found.states.items()} == {"0": 50, "1": 60, "2": 70, "4": 90}
    said = [name for name, _, _ in segments(found.states["2"], found.labels) if name != "<sil>"]
    assert said == ["ax", "t", "ax"]
    with pytest.raises(DataError, match="nothing to align"):
        align_corpus(rows[3:4], lexicon, str.lower, lambda _: None)
