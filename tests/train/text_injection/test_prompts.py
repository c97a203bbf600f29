from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.train.text_injection.prompts import (
    NO_PROMPT,
    SHOWN,
    PhonePromptSimulator,
    PosteriorSampler,
    RandomErrors,
    SimulatedPrompt,
    implied_log_probs,
    posterior_sampler,
    stack,
)

SIZE = 30
SENTENCES = st.lists(st.integers(3, SIZE - 1), min_size=1, max_size=20)


def shown_of(labels, seed, **changes):
    prompt = RandomErrors(range(3, SIZE), **changes).simulate(labels, np.random.default_rng(seed))
    assert set(prompt.weights.flatten().tolist()) <= {0.0, 1.0}
    return [int(label) if weight else None for (label,), (weight,) in zip(prompt.labels, prompt.weights, strict=True)]


def collapsed(items):
    return [label for label, _ in groupby(items) if label is not None]


@settings(max_examples=200, deadline=None)
@given(SENTENCES, st.integers(0, 10**6), st.floats(0.5, 5.0))
def test_without_errors_a_prompt_shows_the_labels_in_order(labels, seed, frames):
    shown = shown_of(labels, seed, max_error_rate=0.0, frames_per_label=frames)
    # Neighbouring equal labels may stand without a blank between them, so compare up to true repeats.
    assert [label for label, _ in groupby(item for item in shown if item is not None)] == collapsed(labels)
    runs = [len(list(group)) for item, group in groupby(shown) if item is not None]
    repeats = [len(list(group)) for _, group in groupby(labels)]
    assert sum(runs) <= 2 * sum(repeats)
    assert len(shown) >= len(labels)


@settings(max_examples=200, deadline=None)
@given(SENTENCES, st.integers(0, 10**6), st.floats(0.0, 1.0), st.floats(0.5, 5.0))
def test_prompts_hold_only_valid_labels_and_repeat_with_their_seed(labels, seed, error_rate, frames):
    shown = shown_of(labels, seed, max_error_rate=error_rate, frames_per_label=frames)
    assert all(item is None or 3 <= item < SIZE for item in shown)
    assert shown == shown_of(labels, seed, max_error_rate=error_rate, frames_per_label=frames)


@pytest.mark.parametrize("frames", [1.0, 2.5, 4.0])
def test_prompts_are_as_long_as_speech(frames):
    labels = list(range(3, SIZE))
    lengths = [len(shown_of(labels, seed, max_error_rate=0.0, frames_per_label=frames)) for seed in range(300)]
    assert np.mean(lengths) == pytest.approx(frames * len(labels), rel=0.03)
    if frames == 1.0:
        assert set(lengths) == {len(labels)}


def test_errors_come_as_often_as_asked():
    labels = [3 + i % (SIZE - 3) for i in range(200)]
    wrong = []
    for seed in range(100):
        shown = set(enumerate(shown_of(labels, seed, max_error_rate=1.0, frames_per_label=1.0)))
        wrong.append(len(shown & set(enumerate(labels))) / len(labels))
    assert np.mean(wrong) < 0.5  # one slip moves all that follows
    lengths = [len(shown_of(labels, seed, max_error_rate=1.0, frames_per_label=1.0)) for seed in range(300)]
    assert np.mean(lengths) == pytest.approx(len(labels), rel=0.05)  # as many missed as added


def utterance(path: list[int | None], labels: list[int], sure: float = 0.7) -> tuple[np.ndarray, list[int]]:
    """Posteriors whose best outputs spell the path, None being blank; each frame doubts in its own way."""
    probs = np.random.default_rng(len(path)).random((len(path), SIZE + 1)).astype(np.float32)
    probs *= (1.0 - sure) / probs.sum(axis=1, keepdims=True)
    for frame, output in enumerate(path):
        probs[frame, SIZE if output is None else output] += sure
    return np.log(probs), labels


SPOKEN = [
    utterance([None, 5, 5, None, 6, None], [5, 6]),
    utterance([7, None, None, 5, None, 5], [7, 5, 5]),
    utterance([6], [6, 6, 6]),  # does not fit
    utterance([None, None, 6, 9], [6, 7]),  # 7 is mistaken for 9
]


@pytest.fixture(scope="module")
def sampler() -> PosteriorSampler:
    return posterior_sampler(SPOKEN, SIZE)


def pieces_of(sampler: PosteriorSampler) -> list[tuple[int, np.ndarray, np.ndarray]]:
    starts = [0, *sampler.ends[:-1]]
    spans = zip(sampler.spoken, starts, sampler.ends, strict=True)
    return [(int(label), sampler.labels[a:b], sampler.weights[a:b]) for label, a, b in spans]


def test_a_bank_holds_every_frame_once_cut_behind_each_label(sampler):
    assert sampler.spoken.tolist() == [5, 6, 7, 5, 5, 6, 7]
    assert sampler.ends.tolist() == [3, 6, 7, 10, 12, 15, 16]
    assert sampler.before.tolist() == [-1, 5, -1, 7, 5, -1, 6]
    frames = np.concatenate([log_probs for index, (log_probs, _) in enumerate(SPOKEN) if index != 2])
    assert len(sampler.labels) == len(frames)
    for frame, labels, weights in zip(frames, sampler.labels, sampler.weights, strict=True):
        heard = np.exp(frame[:-1])
        assert len(set(labels.tolist())) == SHOWN
        np.testing.assert_allclose(weights, heard[labels], atol=1e-3)
        assert weights.min() >= np.sort(heard)[-SHOWN] - 1e-3


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([5, 6, 7]), min_size=1, max_size=12), st.integers(0, 10**6))
def test_a_prompt_is_put_together_from_pieces_of_its_labels(labels, seed):
    sampler = posterior_sampler(SPOKEN, SIZE)
    prompt = sampler.simulate(labels, np.random.default_rng(seed))
    again = sampler.simulate(labels, np.random.default_rng(seed))
    assert np.array_equal(prompt.labels, again.labels)
    assert np.array_equal(prompt.weights, again.weights)
    ends = {0}  # where a reading of the prompt, label by label, can stand
    for label in labels:
        ends = {
            end + len(weights)
            for end in ends
            for spoken, shown, weights in pieces_of(sampler)
            if spoken == label
            and np.array_equal(prompt.labels[end : end + len(shown)], shown)
            and np.array_equal(prompt.weights[end : end + len(weights)], weights.astype(np.float32))
        }
    assert len(prompt) in ends


def test_pieces_that_followed_the_same_label_come_first(sampler):
    natural = sampler.labels[7:10]  # 5 after 7, as it was spoken; the sampler has two other pieces of 5
    prompts = [sampler.simulate([7, 5], np.random.default_rng(seed)) for seed in range(100)]
    assert sum(np.array_equal(prompt.labels[-3:], natural) for prompt in prompts) >= 80


def test_labels_that_nobody_spoke_are_shown_plainly(sampler):
    prompt = sampler.simulate([20], np.random.default_rng(0))
    assert prompt.weights.sum(axis=1).tolist() == [0.0, 1.0]
    assert prompt.labels[prompt.weights > 0].tolist() == [20]
    assert len(sampler.simulate([], np.random.default_rng(0))) == 0


def test_prompts_of_all_shapes_are_stacked(sampler):
    prompts = [NO_PROMPT, SimulatedPrompt.of([4, None]), sampler.simulate([5, 6], np.random.default_rng(0))]
    stacked = stack(prompts)
    assert stacked.labels.shape == stacked.weights.shape == (3, len(prompts[2]), SHOWN)
    assert not stacked.weights[0].any()
    assert stacked.weights[1].sum() == 1.0
    assert stacked.labels[1, 0, 0] == 4
    np.testing.assert_array_equal(stacked.weights[2], prompts[2].weights)
    assert stack([NO_PROMPT]).labels.shape == (1, 0, 1)


def test_outputs_of_a_frame_share_a_position():
    heard = np.log(np.array([[0.9, 0.06, 0.04], [0.05, 0.05, 0.9], [0.1, 0.8, 0.1]], np.float32))
    sampler = posterior_sampler([(heard, [0, 1])], 2)
    say = {(7,): [0, 1], (8,): [1]}.get
    prompts = PhonePromptSimulator(sampler, lambda labels: say(tuple(labels)), num_phones=2, upsample=2, offset=10)
    prompt = prompts.simulate([7], np.random.default_rng(0))
    dense = np.zeros((2, 4))  # two positions, each with two outputs of two phones
    for row, (labels, weights) in enumerate(zip(prompt.labels, prompt.weights, strict=True)):
        np.add.at(dense[row], labels - 10, weights)
    np.testing.assert_allclose(dense, [[0.9, 0.06, 0.05, 0.05], [0.1, 0.8, 0, 0]], atol=1e-3)
    assert len(prompts.simulate([8], np.random.default_rng(0))) == 1
    assert prompts.simulate([9], np.random.default_rng(0)) is NO_PROMPT


def test_a_prompt_implies_what_the_head_said():
    heard = np.log(np.array([[0.9, 0.06, 0.04], [0.05, 0.05, 0.9], [0.1, 0.8, 0.1]], np.float32))
    sampler = posterior_sampler([(heard, [0, 1])], 2)
    shown = sampler.simulate([0, 1], np.random.default_rng(0))
    np.testing.assert_allclose(np.exp(implied_log_probs(shown, 2)), np.exp(heard), atol=1e-3)
    certain = implied_log_probs(SimulatedPrompt.of([1, None]), 2)
    assert certain.argmax(axis=1).tolist() == [1, 2]
    assert np.isfinite(certain).all()


def test_a_draft_is_made_of_all_outputs():
    heard = np.log(np.array([[0.9, 0.06, 0.04], [0.05, 0.05, 0.9], [0.1, 0.8, 0.1]], np.float32))
    given = []

    def draft(log_probs):
        given.append(log_probs)
        return [7, 8]

    sampler = posterior_sampler([(heard, [0, 1])], 2)
    prompts = PhonePromptSimulator(sampler, lambda _: [0, 1], num_phones=2, upsample=2, offset=10, draft=draft)
    assert prompts.simulate([7], np.random.default_rng(0)).draft == (7, 8)
    np.testing.assert_allclose(np.exp(given[0]), np.exp(heard), atol=1e-3)
    assert NO_PROMPT.draft == ()


def test_invented_errors_among_phones_are_phones():
    def outputs(error_rate, seed):
        invented = RandomErrors(range(3), error_rate)
        prompts = PhonePromptSimulator(invented, lambda _: [0, 1, 2, 1], num_phones=3, upsample=2, offset=10)
        prompt = prompts.simulate([7], np.random.default_rng(seed))
        assert prompt.labels.shape == prompt.weights.shape == (len(prompt), 2)
        rows = prompt.labels - 10 - np.arange(2) * 3  # each output of a position has rows of its own
        return [int(row) if weight else None for row, weight in zip(rows.flat, prompt.weights.flat, strict=True)]

    assert [phone for phone, _ in groupby(item for item in outputs(0.0, 0) if item is not None)] == [0, 1, 2, 1]
    heard = [tuple(phone for phone in outputs(1.0, seed) if phone is not None) for seed in range(50)]
    assert {phone for row in heard for phone in row} == {0, 1, 2}
    assert len(set(heard)) > 25
