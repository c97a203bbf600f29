from importlib.util import find_spec

import numpy as np
import pytest

from kikitori.io.audio import read_audio
from kikitori.loading import BUNDLED
from kikitori.segment import chunks, silero
from kikitori.segment.base import SPEECH, WINDOW
from kikitori.segment.levels import LevelSegmenter
from kikitori.segment.silero import SileroSegmenter, load_network
from tests.noise import soundless

installed = pytest.mark.skipif(find_spec("silero_vad") is None, reason="silero-vad is not installed")
SPEECH_FILE = BUNDLED.parents[1] / "samples" / "2136-5147-0021.opus"


@installed
def test_speech_and_nothing_else_is_speech():
    wave = read_audio(SPEECH_FILE)
    heard = SileroSegmenter()(wave)
    assert len(heard) == -(-len(wave) // WINDOW)
    assert (heard >= SPEECH).mean() > 0.7
    for name, noise in soundless(4.0).items():
        assert (SileroSegmenter()(noise) >= SPEECH).mean() < 0.1, name


@installed
def test_silence_around_speech_is_told_apart():
    wave, second = read_audio(SPEECH_FILE), np.zeros(16_000, np.float32)
    heard = SileroSegmenter()(np.concatenate([second, wave, second]))
    assert not (heard[:28] >= SPEECH).any()
    assert not (heard[-25:] >= SPEECH).any()


@installed
@pytest.mark.parametrize("windows", [1, 7, 100])
def test_blocks_give_what_the_whole_gives(windows):
    wave = read_audio(SPEECH_FILE)[: 16_000 * 4 + 100]
    segmenter = SileroSegmenter()
    parts = [segmenter(wave[at : at + windows * WINDOW]) for at in range(0, len(wave), windows * WINDOW)]
    np.testing.assert_allclose(np.concatenate(parts), SileroSegmenter()(wave), atol=1e-5)


def test_without_the_package_the_level_decides(monkeypatch):
    load_network.cache_clear()
    monkeypatch.setattr(silero, "find_spec", lambda _: None)
    assert isinstance(chunks.new_segmenter(), LevelSegmenter)
    load_network.cache_clear()


def test_damaged_weights_are_as_good_as_none(monkeypatch, tmp_path):
    load_network.cache_clear()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "silero_vad_16k.safetensors").write_bytes(b"\x00" * 20)
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(silero, "find_spec", lambda _: spec)
    assert load_network() is None
    load_network.cache_clear()
