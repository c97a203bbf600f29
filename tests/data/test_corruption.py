"""Corruptions: what each does, and that all systems hear the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kikitori.data.corruption import CLEAN, corrupt, corrupted, parse_corruption
from kikitori.errors import ConfigError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.types import Utterance
from tests.tiny import tiny_waveform

SPEECH = tiny_waveform(1.03, 3)
UTTERANCE = Utterance(Path("a.wav"), 1.03, utt_id="a")
OTHERS = (replace(UTTERANCE, utt_id="b"), 0), (replace(UTTERANCE, offset=1.0), 0), (UTTERANCE, 1)
ALL = ("noise:10", "speed:1.1", "reverb:0.5", "telephone", "clipping:12", "opus:8", "gsm", "reverb:0.3+noise:5+gsm")


def heard(text, utterance=UTTERANCE, seed=0, waveform=SPEECH):
    return corrupted(parse_corruption(text), seed)(utterance, waveform)


def power(waveform):
    return float(np.mean(np.square(waveform, dtype=np.float64)))


@pytest.mark.parametrize("text", ALL)
def test_samples_depend_on_the_utterance_and_the_seed_alone(text):
    found = heard(text)
    assert found.dtype == np.float32
    assert len(found) == pytest.approx(len(SPEECH) / 1.1 if "speed" in text else len(SPEECH), abs=1)
    assert not np.array_equal(found, SPEECH[: len(found)])
    np.testing.assert_array_equal(found, heard(text))
    drawn = "noise" in text or "reverb" in text
    for utterance, seed in OTHERS:
        assert np.array_equal(found, heard(text, utterance, seed)) != drawn
    for edge in (SPEECH[:0], SPEECH[:1], SPEECH[:2], np.zeros(800, np.float32)):
        assert np.isfinite(heard(text, waveform=edge)).all()


def test_clean_is_what_was_recorded():
    assert heard(CLEAN) is SPEECH
    assert corrupt(SPEECH, parse_corruption("clean+clean"), np.random.default_rng(0)) is SPEECH


def test_noise_has_its_ratio_and_two_levels_have_the_same_noise():
    loud, soft = heard("noise:0") - SPEECH, heard("noise:20") - SPEECH
    assert 10 * np.log10(power(SPEECH) / power(loud)) == pytest.approx(0.0, abs=0.1)
    assert np.corrcoef(loud, soft)[0, 1] > 0.999


def test_a_line_keeps_its_band_and_a_clipped_peak_is_flat():
    times = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for hertz, passes in ((100, False), (1000, True), (5000, False)):
        tone = (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)
        assert (power(heard("telephone", waveform=tone)) > 0.1 * power(tone)) == passes
    clipped = heard("clipping:6")
    assert np.abs(clipped).max() == pytest.approx(np.abs(SPEECH).max() / 10**0.3, rel=1e-6)
    assert (np.abs(clipped) == np.abs(clipped).max()).sum() > 1


def test_codecs_keep_time():
    for text in ("opus:32", "gsm", "telephone"):
        found = heard(text)
        places = range(-400, 401)
        matches = [float(np.dot(np.roll(found, place), SPEECH)) for place in places]
        assert abs(places[int(np.argmax(matches))]) <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nois:10", "did you mean 'noise'"),
        ("", "corrupt: no corruption given; write one such as"),
        ("noise", "noise: noise needs a level, -20 to 60 dB"),
        ("noise:x", "needs a level"),
        ("noise:nan", "needs a level"),
        ("speed:3", "speed needs a level, 0.5 to 2 times as fast"),
        ("gsm:8", "gsm has no level; write gsm alone"),
        ("gsm+opus:1", "opus needs a level"),
    ],
)
def test_what_is_no_corruption(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_corruption(text)


def test_names_are_those_of_the_same_level():
    assert parse_corruption("noise:10.0 + opus:08").name == "noise:10+opus:8"


def test_a_codec_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("soundfile.available_subtypes", lambda _: {"ULAW": ""})
    with pytest.raises(ConfigError, match="libsndfile is built without OPUS"):
        parse_corruption("opus:8")
