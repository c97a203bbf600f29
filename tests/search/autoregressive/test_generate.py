import random
from dataclasses import replace

import pytest
import torch

from kikitori.data.speech import pad_waveforms
from kikitori.model.decoder.llm import forward
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.length import Limits
from kikitori.types import Hypothesis
from tests.crossed import crossed, together
from tests.tiny import LLMS, tiny_speech_llm, tiny_waveforms

WAVEFORMS = tiny_waveforms(24)[12:]
LIMITS = [20 + index % 7 for index in range(12)]
MODELS = [
    *crossed(("hubert", "parakeet"), ("gpt_neox", "llama"), ("prefix",)),
    pytest.param("hubert", "gpt_neox", "merged_attention", marks=pytest.mark.slow),
    pytest.param("hubert", "qwen3", "merged_attention"),
    pytest.param("hubert", "qwen2", "cross_attention"),
]


def naive(model, waveform, limit, least=0):
    """One utterance alone, and the whole sequence through the model anew for every label."""
    prefix = model.prefix(model.acoustic.encode(*pad_waveforms([waveform])))
    written, score = [], 0.0
    while True:
        labels = torch.tensor([written], dtype=torch.long)
        embeds = torch.cat([prefix.embeds, model.llm.get_input_embeddings()(labels)], dim=1)
        hidden = forward(model.llm, embeds, torch.tensor([embeds.shape[1]]), prefix.memory)
        scores = model.llm.get_output_embeddings()(hidden)[0, -1].log_softmax(-1)
        allowed = scores.clone()
        if len(written) < least:
            allowed[model.config.eos_id] = -torch.inf
        label = int(allowed.argmax())
        ended = label == model.config.eos_id
        if ended or len(written) < limit:
            score += float(scores[label])
        if ended or len(written) == limit:
            return Hypothesis(tuple(written), score=score, complete=ended, llm_passes=len(written))
        written.append(label)


def decode(model, waveforms, limits, least=0):
    encoded = model.acoustic.encode(*pad_waveforms(waveforms))
    return [best for (best,) in greedy(model.decoder(encoded), Limits(limits, least))]


def same(got, expected):
    assert [(r.labels, r.complete, r.llm_passes) for r in got] == [
        (r.labels, r.complete, r.llm_passes) for r in expected
    ]
    assert [r.score for r in got] == pytest.approx([r.score for r in expected], abs=1e-3, rel=1e-4)


@pytest.fixture(scope="module", params=together(MODELS))
def decoded(request):
    """A model and what the naive loop writes with it."""
    encoder, llm, interface = request.param
    model = tiny_speech_llm(encoder, llm, interface=interface)
    with torch.inference_mode():
        return model, [naive(model, *row) for row in zip(WAVEFORMS, LIMITS, strict=True)]


def test_the_examples_are_worth_testing_with(decoded):
    _, expected = decoded
    assert len({tuple(result.labels) for result in expected}) > 6
    assert len({len(result.labels) for result in expected}) > 5
    assert 3 <= sum(result.complete for result in expected) < 12


@pytest.mark.parametrize("batch_size", [1, 5, 12])
@torch.inference_mode()
def test_any_batch_equals_the_naive_loop(decoded, batch_size):
    model, expected = decoded
    got = []
    for start in range(0, 12, batch_size):
        rows = slice(start, start + batch_size)
        got += decode(model, WAVEFORMS[rows], LIMITS[rows])
    same(got, expected)


@torch.inference_mode()
def test_any_order_equals_the_naive_loop(decoded):
    model, expected = decoded
    order = random.Random(5).sample(range(12), 12)  # noqa: S311
    for start in range(0, 12, 5):
        rows = order[start : start + 5]
        got = decode(model, [WAVEFORMS[row] for row in rows], [LIMITS[row] for row in rows])
        same(got, [expected[row] for row in rows])


@pytest.mark.parametrize("limit", [0, 1, 2])
@torch.inference_mode()
def test_short_limits(decoded, limit):
    model, expected = decoded
    got = decode(model, WAVEFORMS, [limit] * 12)
    for result, full in zip(got, expected, strict=True):
        assert result.labels == full.labels[:limit]
        assert result.complete == (full.complete and len(full.labels) <= limit)
        assert result.llm_passes == len(result.labels)
        if not result.labels and not result.complete:
            assert result.score == 0.0


@torch.inference_mode()
def test_each_row_has_its_own_limit(decoded):
    model, expected = decoded
    limits = [row % 4 for row in range(12)]
    got = decode(model, WAVEFORMS, limits)
    assert [r.labels for r in got] == [r.labels[:limit] for r, limit in zip(expected, limits, strict=True)]


@pytest.mark.parametrize("least", [pytest.param(1, marks=pytest.mark.slow), 5])
@torch.inference_mode()
def test_fewest_labels(decoded, least):
    model, free = decoded
    expected = [naive(model, *row, least) for row in zip(WAVEFORMS, LIMITS, strict=True)]
    for start in range(0, 12, 5):
        rows = slice(start, start + 5)
        same(decode(model, WAVEFORMS[rows], LIMITS[rows], least), expected[rows])
    assert all(len(result.labels) >= least for result in expected)
    for before, after in zip(free, expected, strict=True):
        assert after == before or len(before.labels) < least
    if least == 5:
        assert [result.labels for result in expected] != [result.labels for result in free]


@torch.inference_mode()
def test_the_most_labels_are_stronger_than_the_fewest(decoded):
    model, _ = decoded
    results = decode(model, WAVEFORMS, [1] * 12, least=3)
    assert all(len(result.labels) == 1 and not result.complete for result in results)


@pytest.mark.parametrize("llm", LLMS)
@torch.inference_mode()
def test_score_is_the_log_probability_of_labels_and_eos(llm):
    model = tiny_speech_llm("wav2vec2", llm)
    encoded = model.acoustic.encode(*pad_waveforms(WAVEFORMS))
    results = [best for (best,) in greedy(model.decoder(encoded), Limits([12] * 12))]
    logits, next_labels = model.label_logits(encoded, [result.labels for result in results])
    scores = logits.log_softmax(-1).gather(1, next_labels[:, None])[:, 0].split([len(r.labels) + 1 for r in results])
    for result, row in zip(results, scores, strict=True):
        expected = row.sum() if result.complete else row[:-1].sum()
        assert result.score == pytest.approx(float(expected), abs=1e-3, rel=1e-4)
    assert {result.complete for result in results} == {True, False}


def test_no_gradients_are_kept():
    model = tiny_speech_llm()
    decoder = model.decoder(model.acoustic.encode(*pad_waveforms(WAVEFORMS[:2])))
    assert decoder.prefix.embeds.requires_grad
    embeds = decoder.prefix.embeds.detach().requires_grad_()
    results = greedy(replace(decoder, prefix=replace(decoder.prefix, embeds=embeds)), Limits([3, 3]))
    assert [len(best.labels) <= 3 for (best,) in results] == [True, True]
    assert embeds.grad is None
