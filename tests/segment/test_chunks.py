from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.segment import chunks as chunks_module
from kikitori.segment.base import WINDOW
from kikitori.segment.chunks import OVERLAP_S, PAD_S, chunks, utterances
from kikitori.segment.levels import LevelSegmenter

SECOND = 16_000
PAD = round(PAD_S * SECOND / WINDOW) * WINDOW


class Known:
    """A segmenter for samples that are 1 in speech and 0 in pauses."""

    def __call__(self, block):
        count = -(-len(block) // WINDOW)
        padded = np.concatenate([block, np.zeros(count * WINDOW - len(block), np.float32)])
        return (padded.reshape(count, WINDOW).mean(axis=1) > 0.5).astype(np.float32)


def recording(*spans: tuple[float, float]) -> np.ndarray:
    """Seconds of speech and of the pause behind it."""
    parts = [[np.ones(round(a * SECOND), np.float32), np.zeros(round(b * SECOND), np.float32)] for a, b in spans]
    return np.concatenate([piece for part in parts for piece in part])


def blocks(wave: np.ndarray, size: int):
    return (wave[start : start + size] for start in range(0, len(wave), size))


def found_in(wave, seconds, size=10 * SECOND):
    return list(chunks(blocks(wave, size), Known(), round(seconds * SECOND)))


def test_the_cut_is_at_the_longest_pause_that_is_not_too_early():
    wave = recording((3.0, 0.5), (3.0, 0.2), (3.0, 0.4), (4.0, 0.1), (9.0, 0.0))
    found = found_in(wave, 12.0)
    ends = [(chunk.start + len(chunk.waveform)) / SECOND for chunk in found]
    assert ends[0] == pytest.approx(3.0 + 0.5 + 3.0 + 0.2 + 3.0 + 0.2, abs=0.04)
    assert [chunk.shared for chunk in found[:2]] == [0, 0]


def test_a_long_pause_always_ends_a_chunk_and_is_left_out():
    found = found_in(recording((2.0, 5.0), (1.0, 1.1), (1.0, 60.0), (1.5, 0.0)), 20.0)
    assert [chunk.start / SECOND for chunk in found] == pytest.approx(
        [0.0, 7.0 - PAD_S, 9.1 - PAD_S, 70.1 - PAD_S], abs=0.04
    )
    assert [len(chunk.waveform) / SECOND for chunk in found] == pytest.approx([2.25, 1.5, 1.5, 1.75], abs=0.08)
    assert found[1].speech[0] == pytest.approx((0.25, 1.25), abs=0.04)


def test_without_a_pause_the_cut_is_forced_and_neighbours_share_a_second():
    wave = recording((50.0, 0.0))
    found = found_in(wave, 15.0)
    assert len(found) == 4
    for before, after in pairwise(found):
        assert before.start + len(before.waveform) == after.start + after.shared
        assert after.shared / SECOND == pytest.approx(OVERLAP_S, abs=0.04)
        assert before.shares
        assert before.joined
        assert after.joined
    assert found[-1].start + len(found[-1].waveform) == len(wave)
    assert not found[-1].shares


def test_silence_has_no_chunks():
    assert found_in(np.zeros(100 * SECOND, np.float32), 10.0) == []
    assert found_in(np.zeros(0, np.float32), 10.0) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.05, 6.0), st.floats(0.0, 3.0)), min_size=1, max_size=4),
    st.floats(0.0, 4.0),
    st.floats(0.2, 5.0),
    st.integers(5_000, 40_000),
)
def test_no_chunk_is_too_long_and_no_speech_is_lost(spans, lead, longest, size):
    wave = np.concatenate([np.zeros(round(lead * SECOND), np.float32), recording(*spans)])
    found = found_in(wave, longest, size)
    covered = np.zeros(len(wave), bool)
    for chunk in found:
        assert 0 < len(chunk.waveform) <= round(longest * SECOND)
        assert np.array_equal(chunk.waveform, wave[chunk.start : chunk.start + len(chunk.waveform)])
        covered[chunk.start : chunk.start + len(chunk.waveform)] = True
        assert all(0.0 <= a < b <= len(chunk.waveform) / SECOND for a, b in chunk.speech)
    # A segmenter tells windows apart: one that holds speech in less than half of it is a pause to it.
    lost = np.add.reduceat((wave > 0) & ~covered, np.arange(0, len(wave), WINDOW), dtype=int) if len(wave) else wave
    assert lost.max(initial=0) <= WINDOW / 2
    for before, after in pairwise(found):
        overlap = before.start + len(before.waveform) - after.start
        assert after.shared == max(overlap, 0)
        assert (after.shared > 0) == before.shares
        assert after.start > before.start


@pytest.mark.parametrize("size", [1_000, 16_000, 100_000])
def test_blocks_of_any_size_give_the_same_chunks(size):
    wave = recording((3.0, 0.5), (8.0, 0.3), (20.0, 0.1), (2.0, 4.0), (5.0, 0.0))
    expected = [(chunk.start, len(chunk.waveform), chunk.shared) for chunk in found_in(wave, 9.0, len(wave))]
    assert [(chunk.start, len(chunk.waveform), chunk.shared) for chunk in found_in(wave, 9.0, size)] == expected


def test_what_is_short_enough_is_one_utterance_as_it_is(monkeypatch):
    monkeypatch.setattr(chunks_module, "new_segmenter", Known)
    wave = recording((1.0, 3.0), (1.0, 1.0))
    (chunk,) = utterances(blocks(wave, 7_000), len(wave))
    assert np.array_equal(chunk.waveform, wave)
    assert (chunk.start, chunk.shared, chunk.joined) == (0, 0, False)
    assert len([*utterances(blocks(wave, 7_000), len(wave) - 1)]) == 2
    (empty,) = utterances(iter(()), 100)
    assert len(empty.waveform) == 0


def test_no_more_than_a_chunk_and_a_block_is_read_ahead(monkeypatch):
    monkeypatch.setattr(chunks_module, "new_segmenter", Known)
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield recording((0.7, 0.3))

    found = utterances(endless(), 5 * SECOND)
    for chunk in islice(found, 20):
        assert read * SECOND <= chunk.start + len(chunk.waveform) + 6 * SECOND


def test_levels_find_pauses_above_a_noise_floor():
    generator = np.random.default_rng(0)
    wave = recording((2.0, 1.0), (1.5, 0.5), (3.0, 1.0))
    for noise in (1e-4, 1e-2):
        sound = (
            0.1 * wave * generator.standard_normal(len(wave)) + noise * generator.standard_normal(len(wave))
        ).astype(np.float32)
        heard = LevelSegmenter()(sound) >= 0.5
        truth = Known()(wave) >= 0.5
        assert (heard != truth).mean() < 0.02
    assert not (LevelSegmenter()(np.zeros(5 * SECOND, np.float32)) >= 0.5).any()
