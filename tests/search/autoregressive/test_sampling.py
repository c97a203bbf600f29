import random

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from kikitori.data.speech import pad_waveforms
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.sampling import Sampling, cut, draw_labels, sample, utterance_seed
from kikitori.search.length import Limits
from tests.tiny import tiny_speech_llm, tiny_waveforms

WAVEFORMS = tiny_waveforms(15)
SETTINGS = [
    Sampling(),
    Sampling(temperature=0.5),
    Sampling(temperature=3.0),
    Sampling(top_k=1),
    Sampling(top_k=7),
    Sampling(top_k=500),
    Sampling(top_p=0.01),
    Sampling(top_p=0.5),
    Sampling(top_p=0.999),
    Sampling(temperature=0.7, top_k=20, top_p=0.9),
    Sampling(temperature=1.5, top_k=5, top_p=0.6),
]


def theirs(settings):
    warpers = [TemperatureLogitsWarper(settings.temperature)]
    warpers += [TopKLogitsWarper(settings.top_k)] if settings.top_k else []
    warpers += [TopPLogitsWarper(settings.top_p)] if settings.top_p < 1 else []
    return LogitsProcessorList(warpers)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_distribution_is_that_of_transformers(settings):
    torch.manual_seed(1)
    for spread in (0.1, 1.0, 5.0, 30.0):
        logits = spread * torch.randn(50, 60)
        got = cut(logits.log_softmax(-1), settings).softmax(-1)
        expected = theirs(settings)(torch.zeros(50, 1, dtype=torch.long), logits.clone()).double().softmax(-1)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(got > 0, expected > 0)


def test_ruled_out_labels_stay_out():
    log_probs = torch.randn(4, 9).log_softmax(-1)
    log_probs[:, 3] = -torch.inf
    for settings in SETTINGS:
        probs = cut(log_probs, settings).softmax(-1)
        assert not probs.isnan().any()
        assert bool((probs[:, 3] == 0).all())


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 5e-324])
def test_a_tiny_temperature_leaves_the_best(temperature):
    log_probs = torch.randn(20, 30).log_softmax(-1)
    probs = cut(log_probs, Sampling(temperature=temperature)).softmax(-1)
    assert not probs.isnan().any()
    assert torch.equal(probs.argmax(-1), log_probs.argmax(-1))
    assert float(probs.amax(-1).min()) > 0.99


def test_draws_follow_the_distribution():
    probs = torch.tensor([0.5, 0.0, 0.3, 0.2])
    points = torch.linspace(0, 1, 10001, dtype=torch.float64)[:-1]
    labels = draw_labels(probs.log().expand(len(points), -1), points)
    counts = torch.bincount(labels, minlength=4) / len(points)
    torch.testing.assert_close(counts, probs, atol=1e-3, rtol=0)
    assert draw_labels(probs.log()[None], torch.tensor([1 - 2**-53], dtype=torch.float64)).tolist() == [3]
    assert draw_labels(torch.tensor([[-torch.inf, 0.0]]), torch.tensor([0.0], dtype=torch.float64)).tolist() == [1]


def decode(model, waveforms, settings, seed=1234, **limits):
    encoded = model.acoustic.encode(*pad_waveforms(waveforms))
    seeds = [utterance_seed(seed, waveform) for waveform in waveforms]
    limits = Limits(**{"max_labels": [20] * len(waveforms), **limits})
    return [best for (best,) in sample(model.decoder(encoded), settings, seeds, limits)]


@pytest.fixture(scope="module")
def model():
    return tiny_speech_llm("hubert", "gpt_neox")


@pytest.fixture(scope="module")
def alone(model):
    with torch.inference_mode():
        return [decode(model, [waveform], Sampling(temperature=4.0, top_p=0.95))[0] for waveform in WAVEFORMS]


def test_the_examples_are_worth_testing_with(model, alone):
    assert len({tuple(row.labels) for row in alone}) == len(alone)
    assert len({len(row.labels) for row in alone}) > 3
    assert {row.complete for row in alone} == {True, False}
    with torch.inference_mode():
        other = decode(model, WAVEFORMS, Sampling(temperature=4.0, top_p=0.95), seed=7)
        assert sum(a.labels != b.labels for a, b in zip(alone, other, strict=True)) > 12


@pytest.mark.parametrize("batch_size", [1, 3, 5])
@torch.inference_mode()
def test_draws_depend_on_the_utterance_alone(model, alone, batch_size):
    order = random.Random(batch_size).sample(range(15), 15)  # noqa: S311
    for rows in (order, range(15)):
        for start in range(0, 15, batch_size):
            places = rows[start : start + batch_size]
            got = decode(model, [WAVEFORMS[place] for place in places], Sampling(temperature=4.0, top_p=0.95))
            for place, row in zip(places, got, strict=True):
                assert (row.labels, row.complete) == (alone[place].labels, alone[place].complete)
                assert row.score == pytest.approx(alone[place].score, abs=1e-3, rel=1e-4)


@torch.inference_mode()
def test_a_small_temperature_is_greedy(model):
    encoded = model.acoustic.encode(*pad_waveforms(WAVEFORMS))
    expected = [best for (best,) in greedy(model.decoder(encoded), Limits([20] * 15))]
    for settings in (Sampling(temperature=1e-4), Sampling(top_k=1), Sampling(top_p=1e-6)):
        assert decode(model, WAVEFORMS, settings) == expected


@torch.inference_mode()
def test_score_is_the_models_own(model):
    """Whatever sharpens the distribution, and where EOS is ruled out."""
    encoded = model.acoustic.encode(*pad_waveforms(WAVEFORMS))
    results = decode(model, WAVEFORMS, Sampling(temperature=2.0, top_k=9), min_labels=4)
    logits, next_labels = model.label_logits(encoded, [row.labels for row in results])
    scores = logits.log_softmax(-1).gather(1, next_labels[:, None])[:, 0].split([len(r.labels) + 1 for r in results])
    for row, own in zip(results, scores, strict=True):
        expected = own.sum() if row.complete else own[:-1].sum()
        assert row.score == pytest.approx(float(expected), abs=1e-3, rel=1e-4)
        assert len(row.labels) >= 4


def test_seed_of_an_utterance():
    waveform = WAVEFORMS[0]
    seed = utterance_seed(1234, waveform)
    assert seed == utterance_seed(1234, waveform.copy()) == utterance_seed(1234, np.repeat(waveform, 2)[::2])
    assert 0 <= seed < 2**63
    others = {utterance_seed(1235, waveform), utterance_seed(1234, waveform[:-1]), utterance_seed(1234, WAVEFORMS[1])}
    assert len(others - {seed}) == 3
