import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.model.ctc_compression import compress
from kikitori.train.text_injection.ctc_prompts import AVERAGES, WHOLE, Compression, CTCPromptSimulator, compressed
from kikitori.train.text_injection.prompts import SimulatedPrompt

LABELS = 5
KINDS = [
    AVERAGES,
    Compression("drop", "keep"),
    Compression("keep", "average"),
    Compression("keep", "weighted"),
    Compression("drop", "weighted"),
]


def posteriors(frames, seed, blank):
    """Probabilities (frames, labels + 1) of which the last is that of blank."""
    generator = np.random.default_rng(seed)
    probs = generator.random((frames, LABELS + 1)).astype(np.float32) ** 4
    probs[:, -1] *= blank
    return probs / probs.sum(axis=1, keepdims=True)


def prompt_of(probs):
    labels = np.tile(np.arange(LABELS), (len(probs), 1))
    return SimulatedPrompt(labels, probs[:, :-1])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 3.0, 1e6]), st.sampled_from(KINDS))
def test_compressed_is_what_the_bridge_makes_of_the_same_posteriors(frames, seed, blank, how):
    probs = posteriors(frames, seed, blank)
    prompt = compressed(prompt_of(probs), LABELS, how)
    shown = np.zeros((len(prompt), LABELS), np.float32)
    np.add.at(shown, (np.arange(len(prompt))[:, None], prompt.labels), prompt.weights)
    values, lengths = torch.from_numpy(probs[None, :, :-1]), torch.tensor([frames])
    log_probs = torch.from_numpy(probs[None]).log()
    expected, counts = compress(values, lengths, log_probs, blanks=how.blanks, repeats=how.repeats)
    assert counts.tolist() == [len(prompt)]
    np.testing.assert_allclose(shown, expected[0].numpy(), atol=1e-6)


def test_of_many_labels_the_most_probable_are_kept():
    labels, weights = np.arange(20)[None], np.linspace(0.01, 0.08, 20, dtype=np.float32)[None]
    prompt = compressed(SimulatedPrompt(labels, weights), 20, AVERAGES)
    assert sorted(prompt.labels[0].tolist()) == list(range(4, 20))


class Spelling:
    """Units that are strings; a text is encoded in those of one letter."""

    def __init__(self, items):
        self.items = items

    def encode(self, text):
        return [self.items.index(letter) for letter in text]

    def decode(self, labels):
        return "".join(self.items[label] for label in labels)


class Certain:
    def simulate(self, labels, generator):
        del generator
        return SimulatedPrompt.of([*labels, None])


@pytest.mark.parametrize("how", [WHOLE, AVERAGES])
def test_an_llm_is_shown_the_letters_of_its_text_in_its_own_labels(how):
    llm, letters = Spelling(["ab", "b", "a", "ba"]), Spelling(["a", "b"])
    shown = np.array([2, 1])
    simulator = CTCPromptSimulator(Certain(), llm, letters, shown, how)
    prompt = simulator.simulate([0, 3], np.random.default_rng(0))  # "abba"
    best = [int(labels[weights.argmax()]) for labels, weights in zip(prompt.labels, prompt.weights, strict=True)]
    if how == AVERAGES:
        assert best == [2, 1, 2]  # what CTC would make of two b without a blank between
    else:
        assert best[:4] == [2, 1, 1, 2]
        assert prompt.weights[4].max() == 0.0
