from math import nan

import pytest
import torch

from kikitori.errors import ModelError
from kikitori.loading import load
from kikitori.model.folder import save_model
from kikitori.model.heads import ctc_loss
from kikitori.model.published.convert import convert_heads
from kikitori.model.published.part import PARTS
from kikitori.recognizer import PLAIN
from kikitori.search import run
from kikitori.search.autoregressive.cascade import without_doubt
from kikitori.search.options import BeamSearch, CascadeSearch, JointSearch, decoding_yaml, load_decoding
from kikitori.types import Hypothesis, TrainedOn
from tests.model.published.test_part import UNITS, heads_on
from tests.tiny import save_tiny_whisper, tiny_waveforms, tiny_whisper

WAVEFORMS = tiny_waveforms(8)
SURE = torch.tensor([[0.9, 0.02, 0.08], [0.02, 0.02, 0.96], [0.02, 0.9, 0.08], [0.05, 0.05, 0.9]]).log()[None]
LENGTHS = torch.tensor([4])


def written(labels, least=-0.1, *, complete=True):
    return Hypothesis(tuple(labels), score=-1.0, complete=complete, scores={"speech_llm": -1.0}, least_log_prob=least)


def judged(hypothesis, log_probs=SURE, **limits):
    return without_doubt([hypothesis], log_probs, LENGTHS, list, CascadeSearch(**limits))[0]


def test_what_both_are_sure_of_stays():
    found = judged(written([0, 1]))
    ctc = -float(ctc_loss(SURE.double(), LENGTHS, [[0, 1]]).total)
    assert found.scores == {"speech_llm": -1.0, "ctc": pytest.approx(ctc)}


@pytest.mark.parametrize("labels", [[], [0], [1], [1, 0], [0, 1, 1], [0, 1, 0, 1]])
def test_what_ctc_does_not_hear_is_in_doubt(labels):
    assert judged(written(labels)) is None


def test_what_the_decoder_doubts_is_in_doubt():
    assert judged(written([0, 1], -1.4))
    assert judged(written([0, 1], -1.6)) is None
    assert judged(written([0, 1], -1.6), least_log_prob=-2.0)
    assert judged(written([0, 1], None)) is None
    assert judged(written([0, 1], complete=False)) is None


def test_limits_of_the_gap():
    best = float(SURE.max(dim=-1).values.sum())
    for labels in ([0], [1, 0], [0, 1, 1]):
        loss = ctc_loss(SURE.double(), LENGTHS, [labels])
        gap = (best + float(loss.total)) / (len(labels) + 1)
        assert judged(written(labels), most_ctc_gap=gap + 1e-4)
        assert judged(written(labels), most_ctc_gap=gap - 1e-4) is None


def test_what_is_no_number_is_in_doubt():
    assert judged(written([0, 1], nan)) is None
    assert judged(written([0, 1]), SURE.clone().fill_(nan)) is None


def test_labels_without_letters_are_in_doubt():
    rows = [written([0, 1]), None, written([0, 1])]
    found = without_doubt(rows, SURE.expand(3, -1, -1), LENGTHS.expand(3), lambda _: None, CascadeSearch())
    assert found == [None, None, None]


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    root = tmp_path_factory.mktemp("cascade")
    save_tiny_whisper(root / "whisper-tiny", tiny_whisper())
    save_model(root / "run", heads_on(root / "whisper-tiny"), UNITS, TrainedOn(20.0, 2.0, "en"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PARTS, str(root))
        convert_heads(root / "run", "someone/whisper-tiny", root / "part")
        return load(root / "part", device="cpu", guards=PLAIN)


def by_decoder(best, _log_probs, _lengths, _letters, options):
    """What the decoder is sure of; random networks write nothing that a CTC head could hear."""
    return [each if each.least_log_prob >= options.least_log_prob else None for each in best]


@pytest.mark.parametrize("second", [BeamSearch(beam=3), JointSearch(beam=3)])
def test_each_recording_has_what_its_search_finds(recognizer, second, monkeypatch):
    monkeypatch.setattr(run, "without_doubt", by_decoder)
    greedy, wide = recognizer.try_recognize(WAVEFORMS, "greedy"), recognizer.try_recognize(WAVEFORMS, second)
    least = sorted(nbest[0].least_log_prob for nbest in greedy)
    middle = (least[3] + least[4]) / 2
    options = CascadeSearch(second=second, least_log_prob=middle)
    found = recognizer.try_recognize(WAVEFORMS, options)
    kept = 0
    for nbest, first, other in zip(found, greedy, wide, strict=True):
        expected = first if first[0].least_log_prob >= middle else other
        kept += expected is first
        assert [each.labels for each in nbest] == [each.labels for each in expected]
        assert nbest[0].score == pytest.approx(expected[0].score, abs=1e-4)
        assert nbest[0].text == expected[0].text
    assert 0 < kept < len(WAVEFORMS)
    alone = [recognizer.recognize([waveform], options)[0].labels for waveform in WAVEFORMS]
    assert alone == [nbest[0].labels for nbest in found]


def test_the_least_probable_label(recognizer):
    batch = recognizer.encode(WAVEFORMS)
    for row, (found,) in enumerate(recognizer.try_recognize(WAVEFORMS, "greedy")):
        decoder = batch.rows([row]).decoder()
        with torch.inference_mode():
            hidden, _ = decoder.prefill(torch.tensor([found.labels]))
            log_probs = decoder.project(hidden)[0].log_softmax(dim=-1)
        each = [float(log_probs[place, label]) for place, label in enumerate(found.labels)]
        if found.complete:
            each.append(float(log_probs[len(found.labels), decoder.eos_id]))
        assert found.least_log_prob == pytest.approx(min(each), abs=1e-4)
        assert found.score == pytest.approx(sum(each), abs=1e-3)


def test_hotwords_are_left_to_the_second_search(recognizer, monkeypatch):
    monkeypatch.setattr(run, "without_doubt", by_decoder)
    options = CascadeSearch(second=JointSearch(beam=3), least_log_prob=-100.0)
    [found] = recognizer.transcribe_many(WAVEFORMS[:1], decoding=options, hotwords=["fox"])
    [expected] = recognizer.transcribe_many(WAVEFORMS[:1], decoding=options.second, hotwords=["fox"])
    assert found == expected


def test_it_needs_a_ctc_head(tmp_path):
    save_tiny_whisper(tmp_path / "whisper", tiny_whisper())
    with pytest.raises(ModelError, match="the model has no CTC head; use greedy"):
        load(tmp_path / "whisper", device="cpu").recognize(WAVEFORMS[:1], "cascade")


def test_options():
    assert CascadeSearch().second == JointSearch()
    options = load_decoding("cascade", ["decoding.second.search=beam", "decoding.second.beam=6"])
    assert options.second == BeamSearch(beam=6)
    assert "second" in decoding_yaml(options)
