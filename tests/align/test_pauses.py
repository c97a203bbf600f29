from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.align.pauses import LEAST_S, REACH_S, beside_pauses, pauses
from kikitori.types import Word

SPEECH = ((0.3, 0.9), (1.2, 1.26), (1.31, 2.0))
"""When something is said; between the last two there is no more than a closure."""


def recording(noise_db, seconds=2.4):
    generator = np.random.default_rng(0)
    times = np.arange(round(seconds * 16000)) / 16000
    said = np.any([(times >= start) & (times < end) for start, end in SPEECH], axis=0)
    sound = 0.1 * said + 10 ** (noise_db / 20) * 0.1
    return (generator.standard_normal(len(times)) * sound).astype(np.float32)


@pytest.mark.parametrize("noise_db", [-80, -40, -20])
def test_pauses_are_found_in_silence_and_noise(noise_db):
    found = pauses(recording(noise_db))
    assert np.array(found) == pytest.approx(np.array([(0.0, 0.3), (0.9, 1.2), (2.0, 2.4)]), abs=0.021)
    assert pauses(3.0 * recording(noise_db)) == found
    shifted = pauses(recording(noise_db) + np.float32(0.2))  # an offset is no sound
    assert np.array(shifted) == pytest.approx(np.array(found), abs=0.011)


def test_noise_that_drowns_pauses_has_none():
    assert pauses(recording(-6)) == []
    assert pauses(recording(20)) == []
    assert pauses(np.zeros(16000, np.float32)) == []
    assert pauses(np.zeros(399, np.float32)) == pauses(np.zeros(0, np.float32)) == []


def words(*borders):
    return [Word(f"w{number}", *span) for number, span in enumerate(pairwise(borders))]


def spans(found):
    return [(word.start, word.end) for word in found]


def test_words_stop_where_a_pause_begins():
    found = beside_pauses(words(0.1, 1.25, 2.0, 2.5, 3.0), [(0.0, 0.3), (1.0, 1.2), (2.6, 2.8)], seconds=3.2)
    assert spans(found) == [(0.3, 1.0), (1.2, 2.0), (2.0, 2.6), (2.8, 3.0)]
    late = beside_pauses(words(0.5, 1.0), [(0.9, 1.6)], seconds=1.6)
    assert spans(late) == [(0.5, 0.9)]
    # Two borders in one pause: that in its middle moves, and the word behind it keeps some time.
    inside = beside_pauses(words(0.0, 1.0, 1.3, 2.0), [(0.7, 1.4)], seconds=2.0)
    assert np.array(spans(inside)) == pytest.approx(np.array([(0.0, 0.7), (1.4, 1.42), (1.42, 2.0)]))
    # Two pauses at one border: the longer one.
    assert spans(beside_pauses(words(0.0, 1.0, 2.0), [(0.8, 0.95), (1.05, 1.4)], seconds=2.0)) == [(0, 1.05), (1.4, 2)]
    assert beside_pauses([], [(0.0, 1.0)], seconds=1.0) == ()


def test_borders_far_from_pauses_stay():
    kept = words(0.2, 1.0, 2.0)
    assert spans(beside_pauses(kept, [], seconds=2.5)) == spans(kept)
    assert spans(beside_pauses(kept, [(1.0 + REACH_S + 0.01, 1.5)], seconds=2.5)) == spans(kept)
    assert spans(beside_pauses(kept, [(1.0 + REACH_S - 0.01, 1.5)], seconds=2.5)) == [(0.2, 1.19), (1.5, 2.0)]


times = st.lists(st.floats(0.0, 5.0), min_size=2, max_size=8, unique=True).map(sorted)


@settings(max_examples=100, deadline=None)
@given(borders=times, edges=times)
def test_words_stay_in_order_and_inside(borders, edges):
    quiet = [span for span in zip(edges[::2], edges[1::2], strict=False) if span[1] - span[0] >= LEAST_S]
    found = beside_pauses(words(*borders), quiet, seconds=5.0)
    assert [word.word for word in found] == [word.word for word in words(*borders)]
    assert all(word.start < word.end for word in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(0.0 <= word.start <= word.end <= 5.0 for word in found)
