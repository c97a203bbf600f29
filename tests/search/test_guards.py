from dataclasses import replace
from math import nan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.data.speech import pad_waveforms
from kikitori.errors import AudioError
from kikitori.model.folder import LoadedModel
from kikitori.scorers.options import ScorerOptions
from kikitori.search import guards as module
from kikitori.search.batch import EncodedBatch
from kikitori.search.ctc.best_path import ctc_greedy
from kikitori.search.guards import (
    CTC_DISAGREES,
    LONGER_THAN_CTC,
    LOOP,
    NO_SPEECH,
    REPLACED,
    CTCEvidence,
    Guards,
    agreement,
    checked,
    ctc_evidence,
    find_loop,
    guarded,
)
from kikitori.search.options import CTCBeamSearch, CTCGreedySearch, GreedySearch, SamplingSearch, ShallowFusionSearch
from kikitori.search.resources import ExternalModels
from kikitori.types import Hypothesis
from tests.noise import soundless
from tests.tiny import INTERFACES, TRAINED_ON, save_tiny_llm, tiny_speech_llm, tiny_units, tiny_waveforms

KEEP, CTC = Guards(), Guards(on_runaway="ctc")


def text(labels):
    return "".join(chr(ord("a") + label % 26) for label in labels)


def written(labels, **more):
    return Hypothesis(tuple(labels), text(labels), -1.0, **more)


def heard_as(labels, frames=None, surest=1.0, num_frames=100):
    spoken = float(len(labels) if frames is None else frames)
    return CTCEvidence(tuple(labels), text(labels), -2.0, spoken, surest, num_frames)


# Loops


@pytest.mark.parametrize("period", [1, 2, 3, 7])
def test_a_loop_is_found_wherever_it_is(period):
    rng = np.random.default_rng(period)
    unit = [int(label) for label in 50 + rng.permutation(20)[:period]]
    times = max(4, -(-12 // period))
    for before, after in ((0, 0), (5, 0), (0, 5), (9, 9)):
        labels = [*range(before), *unit * times, *unit[: period // 2], *range(100, 100 + after)]
        loop = find_loop(labels)
        assert loop is not None
        assert sorted(loop.labels) == sorted(unit)
        assert loop.repeats == times + (period // 2) / period


def test_what_is_said_thrice_or_is_short_is_no_loop():
    assert find_loop([]) is None
    assert find_loop([1, 2, 3, 4] * 3) is None
    assert find_loop([7] * 11) is None
    assert find_loop([7] * 12) is not None
    assert find_loop(list(range(300))) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40))
def test_loops_are_those_of_a_search_by_hand(labels):
    longest = 0
    for start in range(len(labels)):
        for period in range(1, len(labels)):
            end = start + period
            while end < len(labels) and labels[end] == labels[end - period]:
                end += 1
            if end - start >= max(12, 4 * period):
                longest = max(longest, end - start)
    loop = find_loop(labels)
    assert (0 if loop is None else round(loop.repeats * len(loop.labels))) == longest


# Evidence and agreement


def test_evidence_is_the_best_path_and_what_is_not_blank():
    logits = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(0)) * 3
    lengths = torch.tensor([9, 4, 0])
    log_probs = logits.log_softmax(dim=-1)
    for row, (found, (best,)) in enumerate(
        zip(ctc_evidence(logits, lengths, text), ctc_greedy(log_probs, lengths), strict=True)
    ):
        spoken = 1 - log_probs[row, : lengths[row], -1].exp()
        assert found.labels == best.labels
        assert found.text == text(best.labels)
        assert found.score == pytest.approx(best.score, abs=1e-4)
        assert found.label_frames == pytest.approx(float(spoken.sum()), abs=1e-5)
        assert found.surest == pytest.approx(float(spoken.max()) if lengths[row] else 0.0, abs=1e-6)


def test_agreement_is_between_0_and_1():
    assert agreement("", "") == agreement("same", "same") == 1.0
    assert agreement("abc", "") == agreement("", "abc") == agreement("abc", "xyz") == 0.0
    assert agreement("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert agreement("ab", "abab") == agreement("abab", "ab") == 0.5


# Doubts


def test_a_sound_transcript_has_no_warnings():
    (best,) = checked((written(range(20)),), heard_as(range(19)), text, CTC)
    assert best.warnings == {}
    assert best.ctc_agreement == pytest.approx(0.95)
    assert best.labels == tuple(range(20))


def test_a_loop_is_named_with_its_words():
    (best,) = checked((written([*range(10), *[20, 21] * 7]),), None, text, CTC)
    assert best.warnings == {LOOP: "'uv' 7 times in a row"}
    assert best.ctc_agreement is None


def test_who_says_a_word_ten_times_is_no_loop():
    said = [3, 4] * 10
    assert checked((written(said),), heard_as(said), text, CTC)[0].warnings == {}
    assert LOOP in checked((written(said * 3),), heard_as(said), text, KEEP)[0].warnings


def test_more_labels_than_label_frames():
    short = heard_as(range(10), frames=10.0)
    assert short.most_labels == 25
    assert LONGER_THAN_CTC not in checked((written(range(25)),), short, text, KEEP)[0].warnings
    warnings = checked((written(range(26)),), short, text, KEEP)[0].warnings
    assert warnings[LONGER_THAN_CTC] == "26 labels; the CTC head supports 25"


def test_something_else_than_was_heard():
    (best,) = checked((written(range(13)),), heard_as(range(13, 26)), text, KEEP)
    assert best.warnings == {CTC_DISAGREES: "agreement 0.00 with the CTC head's text"}
    assert CTC_DISAGREES in checked((written(range(13)),), heard_as([]), text, KEEP)[0].warnings
    assert checked((written([]),), heard_as([]), text, KEEP)[0].warnings == {}


def test_texts_that_cannot_be_compared_are_counted_alone():
    (best,) = checked((written(range(13)),), heard_as(range(13, 26)), text, CTC, in_form=lambda _: None)
    assert (best.warnings, best.ctc_agreement) == ({}, None)
    (instead, _) = checked((written(range(26)),), heard_as(range(10)), text, CTC, in_form=lambda _: None)
    assert list(instead.warnings) == [LONGER_THAN_CTC, REPLACED]


def test_the_ctc_text_stands_in_and_the_llms_stays_behind_it():
    spoken = heard_as(range(13, 26))
    wrong = written(range(13), llm_passes=13, complete=False, scores={"llm": -1.0})
    instead, best, other = checked((wrong, written([1])), spoken, text, CTC)
    assert (instead.labels, instead.text, instead.score) == (spoken.labels, spoken.text, spoken.score)
    assert (instead.llm_passes, instead.complete, instead.scores) == (13, False, {"ctc": -2.0})
    assert list(instead.warnings) == [CTC_DISAGREES, REPLACED]
    assert (best.labels, list(best.warnings)) == (wrong.labels, [CTC_DISAGREES])
    assert instead.ctc_agreement == best.ctc_agreement == 0.0
    assert other == written([1])
    assert checked((wrong,), spoken, text, KEEP)[0].labels == wrong.labels
    assert checked((replace(wrong, labels=(1,) * 20),), None, text, CTC)[0].labels == (1,) * 20


# Whole searches


def test_what_nobody_is_sure_of_is_no_speech():
    """A wah-wah or a bark: Whisper writes "You", the CTC head a letter here and there."""
    heard = heard_as([22, 22, 13], num_frames=100)
    you = Hypothesis((24, 14, 20), "you", -9.0, scores={"speech_llm": -5.0})
    empty, best, other = checked((you, written([1])), heard, text, CTC)
    assert (empty.labels, empty.text, set(empty.warnings)) == ((), "", {NO_SPEECH, CTC_DISAGREES})
    assert (best.text, other) == ("you", written([1]))
    (kept,) = checked((you,), heard, text, Guards(on_no_speech="keep"))
    assert (kept.text, set(kept.warnings)) == ("you", {NO_SPEECH, CTC_DISAGREES})
    (sure,) = checked((replace(you, scores={"speech_llm": -4.0}),), heard, text, KEEP)
    assert set(sure.warnings) == {CTC_DISAGREES}
    (speech,) = checked((you,), replace(heard, num_frames=30), text, KEEP)
    assert set(speech.warnings) == {CTC_DISAGREES}
    (alike,) = checked((you,), replace(heard, text="you"), text, KEEP)
    assert alike.warnings == {}


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    save_tiny_llm(folder)
    return str(folder)


def encode(waveforms, model=None, *, change=lambda encoded: encoded):
    model = tiny_speech_llm() if model is None else model
    units = tiny_units()
    encoded = model.acoustic.encode(*pad_waveforms(waveforms))
    models = ExternalModels(None, units, torch.device("cpu"))
    return EncodedBatch(LoadedModel(model, units, TRAINED_ON), models, waveforms, change(encoded))


def searches(lm):
    return (
        GreedySearch(),
        SamplingSearch(),
        CTCGreedySearch(),
        CTCBeamSearch(),
        ShallowFusionSearch(scorers={"lm": ScorerOptions(path=lm)}),
    )


@torch.inference_mode()
def test_silence_and_noise_give_empty_text_in_every_search(lm):
    spoken = tiny_waveforms(3, seconds=(0.6, 1.0))
    sounds = soundless(0.6)
    waveforms = [spoken[0], *sounds.values(), *spoken[1:]]
    heard, speech = encode(waveforms), encode(spoken)
    for options in searches(lm):
        first, *quiet, second, third = guarded(heard, options, CTC)
        for name, (best,) in zip(sounds, quiet, strict=True):
            assert (best.text, best.labels, best.score, best.llm_passes) == ("", (), 0.0, 0), (name, options.search)
            assert best.warnings == {NO_SPEECH: "its spectrum varies less than that of speech"}
        assert [row[0].labels for row in (first, second, third)] == [
            row[0].labels for row in guarded(speech, options, CTC)
        ]


@torch.inference_mode()
def test_what_is_found_in_silence_may_be_kept(lm):
    waveforms = list(soundless(0.6).values())
    for options in searches(lm):
        results = guarded(encode(waveforms), options, Guards(on_no_speech="keep"))
        assert all(row[0].warnings == {NO_SPEECH: "its spectrum varies less than that of speech"} for row in results)
        assert any(row[0].text for row in results)


@torch.inference_mode()
def test_a_ctc_head_that_is_sure_of_blank_hears_no_speech():
    model = tiny_speech_llm()
    with torch.no_grad():
        model.acoustic.ctc_heads["2"].linear.bias[-1] = 100.0
    ((best,),) = guarded(encode(tiny_waveforms(1), model), GreedySearch(), KEEP)
    assert (best.text, best.warnings) == ("", {NO_SPEECH: "the CTC head is sure of blank in every frame"})
    with torch.no_grad():  # but one that has learnt nothing yet does not silence the LLM
        model.acoustic.ctc_heads["2"].linear.weight.zero_()
        model.acoustic.ctc_heads["2"].linear.bias[-1] = 6.0
    ((best,),) = guarded(encode(tiny_waveforms(1), model), GreedySearch(), KEEP)
    assert best.labels
    assert NO_SPEECH not in best.warnings


@torch.inference_mode()
@pytest.mark.parametrize("interface", INTERFACES)
def test_without_a_ctc_head_there_are_still_loops(interface, monkeypatch):
    monkeypatch.setattr(module, "REPEATS", 2)
    monkeypatch.setattr(module, "LOOP_LABELS", 2)
    model = tiny_speech_llm(llm="llama", ctc_layers=(), interface=interface)
    results = guarded(encode(tiny_waveforms(12), model), GreedySearch(), CTC)
    assert {name for (best,) in results for name in best.warnings} == {LOOP}
    assert all(best.ctc_agreement is None for (best,) in results)


@torch.inference_mode()
def test_flags_do_not_depend_on_the_batch():
    waveforms = [*tiny_waveforms(10), *soundless(0.5).values()]
    together = guarded(encode(waveforms), GreedySearch(), CTC)
    for waveform, nbest in zip(waveforms, together, strict=True):
        (alone,) = guarded(encode([waveform]), GreedySearch(), CTC)
        assert [hypothesis.labels for hypothesis in alone] == [hypothesis.labels for hypothesis in nbest]
        assert list(alone[0].warnings) == list(nbest[0].warnings)
        assert alone[0].ctc_agreement == nbest[0].ctc_agreement
    assert {name for nbest in together for name in nbest[0].warnings} >= {REPLACED, CTC_DISAGREES, NO_SPEECH}


# Numbers that are not finite


@torch.inference_mode()
def test_frames_that_are_not_finite_are_the_error_of_their_recording(lm):
    waveforms = tiny_waveforms(3, seconds=(0.6, 1.0))

    def change(encoded):
        frames = encoded.frames.clone()
        frames[1, 3, 0] = nan
        return replace(encoded, frames=frames)

    for options in searches(lm):
        first, broken, third = guarded(encode(waveforms, change=change), options, CTC)
        assert isinstance(broken, AudioError)
        assert "infinite" in broken.what
        plain = guarded(encode(waveforms), options, CTC)
        assert [first[0].labels, third[0].labels] == [plain[0][0].labels, plain[2][0].labels]


@torch.inference_mode()
def test_logits_that_are_not_finite_are_an_error_in_every_search(lm):
    model = tiny_speech_llm()
    with torch.no_grad():
        model.acoustic.ctc_heads["2"].linear.bias[5] = torch.inf
    for options in searches(lm):
        assert all(
            isinstance(result, AudioError) for result in guarded(encode(tiny_waveforms(2), model), options, KEEP)
        )
    model = tiny_speech_llm(ctc_layers=())
    with torch.no_grad():
        model.llm.get_output_embeddings().weight[7, 3] = nan
    for options in (GreedySearch(), SamplingSearch()):
        assert all(
            isinstance(result, AudioError) for result in guarded(encode(tiny_waveforms(2), model), options, KEEP)
        )


# Bad input


@torch.inference_mode()
@pytest.mark.parametrize("interface", INTERFACES)
def test_speech_that_a_bridge_compresses_away_is_no_error_and_does_not_disturb_others(interface):
    model = tiny_speech_llm(llm="llama", bridge="ctc_compress", interface=interface)
    waveforms = tiny_waveforms(4, seconds=(0.6, 1.0))
    with torch.no_grad():
        head = model.acoustic.ctc_heads["2"].linear
        head.weight[-1] *= 2.0  # some recordings keep frames, some next to none
    counts = []
    for bias in (0.0, 6.0, 12.0, 30.0):
        with torch.no_grad():
            head.bias[-1] = bias
        heard = encode(waveforms, model)
        lengths = model.speech_prompt(heard.encoded)[1].tolist()
        counts += lengths
        together = guarded(heard, GreedySearch(), KEEP)
        for waveform, nbest in zip(waveforms, together, strict=True):
            assert not isinstance(nbest, AudioError)
            (alone,) = guarded(encode([waveform], model), GreedySearch(), KEEP)
            assert alone[0].labels == nbest[0].labels
            assert list(alone[0].warnings) == list(nbest[0].warnings)
    assert min(counts) == 1 < max(counts)  # the least that a bridge leaves
