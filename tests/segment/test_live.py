"""Utterances of a stream: nothing is lost or doubled however it arrives, none is too long, pauses end them."""

from itertools import pairwise

import numpy as np
import pytest

from kikitori.segment.base import WINDOW
from kikitori.segment.live import PAD_S, LiveUtterances
from tests.segmenters import AllSpeech, LoudIsSpeech
from tests.tiny import tiny_waveform

SPOKEN = [tiny_waveform(seconds, seed) for seed, seconds in enumerate((1.2, 0.8, 1.1))]
PAUSE = np.zeros(16_000, np.float32)
STREAM = np.concatenate([PAUSE, *(part for wave in SPOKEN for part in (wave, PAUSE))])


def utterances(stream, segmenter, longest, step):
    live = LiveUtterances(segmenter, longest)
    for at in range(0, len(stream), step):
        yield from live.add(stream[at : at + step])
    yield from live.end()


@pytest.mark.parametrize("step", [160, 1_000, 48_000, 10**6])
def test_pauses_end_utterances(step):
    found = [*utterances(STREAM, LoudIsSpeech(), 160_000, step)]
    assert [each.number for each in found] == [0, 1, 2]
    at = len(PAUSE)
    for wave, each in zip(SPOKEN, found, strict=True):
        assert each.ended
        assert np.array_equal(each.waveform, STREAM[each.start : each.start + len(each.waveform)])
        assert at - (PAD_S * 16_000 + 2 * WINDOW) <= each.start <= at
        assert at + len(wave) <= each.start + len(each.waveform) <= at + len(wave) + PAD_S * 16_000 + WINDOW
        at += len(wave) + len(PAUSE)


@pytest.mark.parametrize("step", [700, 48_000])
def test_speech_without_pauses_is_cut_and_whole(step):
    stream = tiny_waveform(7.3, 5)
    found = [*utterances(stream, AllSpeech(), 32_000, step)]
    assert len(found) > 3
    assert all(len(each.waveform) <= 32_000 for each in found)
    assert all(a.start + len(a.waveform) == b.start for a, b in pairwise(found))
    assert np.array_equal(np.concatenate([each.waveform for each in found]), stream)


def test_what_is_being_said():
    live = LiveUtterances(LoudIsSpeech(), 160_000)
    assert [*live.add(STREAM[: len(PAUSE)])] == []
    assert live.open is None
    assert [*live.add(STREAM[len(PAUSE) : len(PAUSE) + 8_000])] == []
    assert live.open is not None
    assert not live.open.ended
    assert (live.open.number, live.open.end_s) == (0, pytest.approx(1.5, abs=WINDOW / 16_000))
    assert len([*live.add(STREAM[len(PAUSE) + 8_000 : len(PAUSE) + 33_000])]) == 1
    assert live.open is None


def test_silence_has_no_utterance_and_is_not_kept():
    live = LiveUtterances(LoudIsSpeech(), 160_000)
    assert [*live.add(np.zeros(160_000, np.float32)), *live.end()] == []
    assert len(live._held) < 16_000
