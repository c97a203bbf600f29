"""Scores of growing sequences against those of whole ones."""

from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.model.decoder.llm import embed, forward, project
from kikitori.scorers import incremental as module
from kikitori.scorers.incremental import IncrementalLMScorer
from kikitori.scorers.language_model import LanguageModel
from tests.tiny import LLMS, tiny_gpt2, tiny_llm, tiny_units

EOS, TOKENS = 2, 6
LLM = tiny_llm("llama", 30).double()
UNITS = tiny_units()


def lm(llm=LLM, start=(1,)):
    return LanguageModel(llm, UNITS, start, EOS)


def from_scratch(sequence, ended, start=(1,)):
    ids = torch.tensor([[*start, *sequence]])
    with torch.inference_mode():
        scores = project(LLM, forward(LLM, embed(LLM, ids), torch.tensor([ids.shape[1]])))[0].log_softmax(-1)
    first, labels = len(start) - 1, (*sequence, EOS) if ended else sequence
    return sum(float(scores[first + place, label]) for place, label in enumerate(labels))


texts = st.lists(st.lists(st.integers(0, TOKENS - 1), max_size=5).map(tuple), max_size=6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(texts, texts), max_size=4), st.sampled_from([(1,), (1, 4, 3)]), st.sampled_from([2, 99]))
def test_scores_are_those_of_whole_sequences_whatever_was_read_before(rounds, start, most):
    growing = IncrementalLMScorer(lm(start=start), 2)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(module, "MAX_NODES", most)
        for ended, sequences in enumerate(rounds):
            found = growing.ended(sequences) if ended == 3 else growing.scores(sequences)
            for row, members in zip(found, sequences, strict=True):
                assert row == pytest.approx([from_scratch(each, ended == 3, start) for each in members], abs=1e-9)


@pytest.mark.parametrize("family", LLMS)
def test_every_family_reads_trees(family):
    llm = tiny_llm(family, 30).double()
    generator = np.random.default_rng(0)
    with torch.inference_mode():
        growing = IncrementalLMScorer(lm(llm), 3)
        for _ in range(3):
            lengths = generator.integers(0, 9, (3, 4))
            drawn = [[tuple(generator.integers(0, 3, length).tolist()) for length in row] for row in lengths]
            expected = lm(llm).log_probs(drawn).scores
            for row, scores in zip(growing.ended(drawn), expected, strict=True):
                assert row == pytest.approx(scores, abs=1e-9)


@torch.inference_mode()
def test_only_what_is_new_is_read(monkeypatch):
    read = []
    real = module.read_tree

    def watched(llm, labels, layers, reads):
        read.append((layers[0][0].shape[2] if layers else 0, labels.tolist()))
        return real(llm, labels, layers, reads)

    monkeypatch.setattr(module, "read_tree", watched)
    growing = IncrementalLMScorer(lm(), 2)
    growing.scores([[(3, 4), (3, 4, 5), (6,), (3, 4)], [(3,)]])
    assert read == [(0, [[1, 3, 0, 0, 0], [1, 3, 4, 5, 6]])]  # shared beginnings once
    read.clear()
    growing.scores([[(3, 4, 5), (3,), ()], []])
    assert not read
    growing.scores([[(3, 4, 7, 8), (3, 4, 5, 9)], []])  # an earlier token changed; the other goes on
    assert read == [(4, [[7, 8, 9]])]
    read.clear()
    growing.ended([[(3, 4)], [(3,)]])
    assert not read


@torch.inference_mode()
def test_large_calls_are_split(monkeypatch):
    sequences = [[(a, b, a) for b in range(5)] for a in range(5)]
    expected = IncrementalLMScorer(lm(), 5).scores(sequences)
    monkeypatch.setattr(module, "MAX_CELLS", 500)
    for row, scores in zip(IncrementalLMScorer(lm(), 5).scores(sequences), expected, strict=True):
        assert row == pytest.approx(scores, abs=1e-9)


@torch.inference_mode()
def test_what_is_too_long_is_impossible():
    growing = IncrementalLMScorer(lm(tiny_gpt2(30, max_positions=4)), 1)
    ((short, just, too_long),) = growing.scores([[(3,), (3, 4, 5), (3, 4, 5, 6)]])
    assert -inf < just < short
    assert too_long == -inf
    ((possible, impossible),) = growing.ended([[(3, 4, 5), (3, 4, 5, 6)]])
    assert possible < just
    assert impossible == -inf
