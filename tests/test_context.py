"""Hotwords of whole recognisers; prompts are tested with Whisper (`test_whisper_recognizer.py`)."""

from dataclasses import replace

import pytest

from kikitori.errors import ConfigError, KikitoriWarning, ModelError
from kikitori.loading import load
from kikitori.recognizer import PLAIN
from kikitori.scorers.hotwords import phrases as module
from kikitori.scorers.options import ScorerOptions, with_scales
from kikitori.search.options import (
    BeamSearch,
    CTCBeamSearch,
    JointSearch,
    JointTimeSyncSearch,
    RescoringSearch,
    ShallowFusionSearch,
)
from kikitori.search.options import load_decoding as search_of
from tests.tiny import save_tiny, tiny_waveforms

WAVEFORMS = tiny_waveforms(2)
MUCH = {"hotwords": ScorerOptions(scale=20.0)}
TAKERS = (
    CTCBeamSearch(beam=4, scorers=MUCH),
    BeamSearch(max_labels=5, scorers=MUCH),
    JointSearch(max_labels=5, scorers=MUCH),
    JointTimeSyncSearch(beam=3, scorers=MUCH),
    RescoringSearch(first=CTCBeamSearch(beam=4, scorers=MUCH), scorers={"length": ScorerOptions(scale=0.1)}),
    RescoringSearch(first=JointSearch(max_labels=5, scorers=MUCH), scorers={"ctc": ScorerOptions(scale=0.1)}),
)


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("recogniser") / "tiny"
    save_tiny(path)
    return load(path, device="cpu", guards=PLAIN)


@pytest.fixture(autouse=True)
def all_evident(monkeypatch):
    monkeypatch.setattr(module, "LEAST_EVIDENCE", -1000.0)


@pytest.mark.parametrize("search", TAKERS, ids=lambda each: each.search)
def test_a_high_scale_makes_searches_write_hotwords_and_batches_do_not_matter(recognizer, search):
    phrases = ("a", "we", "o")
    before = recognizer.try_recognize(WAVEFORMS, search)
    boosted = replace(recognizer, hotwords=phrases)
    found = boosted.try_recognize(WAVEFORMS, search)
    counts = [sum(word in phrases for nbest in each for word in nbest[0].text.split()) for each in (before, found)]
    assert counts[1] > counts[0]
    assert all("hotwords" in each.scores for nbest in found for each in nbest)
    assert not any("hotwords" in each.scores for nbest in before for each in nbest)
    (alone,) = boosted.try_recognize(WAVEFORMS[1:], search)
    assert alone[0].text == found[1][0].text
    assert alone[0].score == pytest.approx(found[1][0].score, abs=1e-4)
    given = recognizer.transcribe(WAVEFORMS[0], decoding=search, hotwords=phrases)
    assert given.text == found[0][0].text


@pytest.mark.parametrize("search", TAKERS[::2], ids=lambda each: each.search)
def test_what_is_not_heard_changes_nothing(recognizer, search, monkeypatch):
    monkeypatch.setattr(module, "LEAST_EVIDENCE", 0.0)
    plain = [nbest[0] for nbest in recognizer.try_recognize(WAVEFORMS, search)]
    found = [nbest[0] for nbest in replace(recognizer, hotwords=("quizzing",)).try_recognize(WAVEFORMS, search)]
    assert [each.labels for each in found] == [each.labels for each in plain]
    assert [each.score for each in found] == pytest.approx([each.score for each in plain], abs=1e-5)


@pytest.mark.parametrize("search", ["greedy", "sampling", "speculative", "ctc_greedy", "delayed_fusion"])
def test_searches_that_take_none_say_so(recognizer, search):
    with pytest.raises(ModelError, match=f"'{search}' takes no hotwords; use ctc_beam, shallow_fusion, joint, "):
        recognizer.transcribe(WAVEFORMS[0], decoding=search_of(search), hotwords=["a"])


def test_what_cannot_be_written_is_told_once(recognizer):
    with pytest.warns(KikitoriWarning, match="1 of 2 are left out .* cannot write 7$") as told:
        [*recognizer.transcribe_many(WAVEFORMS, batch_size=1, decoding="ctc_beam", hotwords=["route 7", "fox"])]
    assert len(told) == 1
    with pytest.raises(ConfigError, match=r"hotwords: a text is no list of phrases; give \['fox'\]"):
        recognizer.transcribe(WAVEFORMS[0], decoding="ctc_beam", hotwords="fox")
    with pytest.raises(ConfigError, match="hotwords: none of 1 can be used"):
        recognizer.transcribe(WAVEFORMS[0], decoding="ctc_beam", hotwords=["777"])


def test_the_scale_of_rescoring_is_that_of_its_first_search():
    assert ShallowFusionSearch().hotword_scale == RescoringSearch().hotword_scale == 0.4
    first = JointSearch(scorers=with_scales({}, {"hotwords": 0.3}))
    assert RescoringSearch(first=first).hotword_scale == 0.3
    assert RescoringSearch(first=first, scorers=MUCH).hotword_scale == 20.0
