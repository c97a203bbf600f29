"""Scores of merged label sequences are those of one pass for each."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm_decoder import LLMDecoder
from kikitori.model.encoder import EncoderOutput
from kikitori.scorers import tree as tree_scores
from kikitori.scorers.tree import score_sequences
from tests.crossed import crossed
from tests.tiny import DIM, INTERFACES, LLMS, tiny_gpt2, tiny_llm, tiny_speech_llm

EOS = 2
NBEST = st.lists(st.lists(st.integers(3, 6), max_size=7), max_size=9)
NONE = torch.zeros(0, dtype=torch.int64)


def prefix_of(sizes: Sequence[int], dtype: torch.dtype = torch.float32) -> AssembledInput:
    lengths = torch.tensor(sizes)
    embeds = torch.zeros(len(sizes), max(sizes), DIM, dtype=dtype)
    for row, size in enumerate(sizes):
        embeds[row, :size] = torch.randn(size, DIM, dtype=dtype, generator=torch.Generator().manual_seed(row))
    return AssembledInput(embeds, lengths, lengths, (NONE, NONE), NONE)


def one_by_one(llm: PreTrainedModel, prefix: AssembledInput, row: int, sequence: Sequence[int]) -> float:
    """The LLM's own uncached pass over a single sequence."""
    size = int(prefix.lengths[row])
    labels = llm.get_input_embeddings()(torch.tensor(sequence, dtype=torch.int64))
    with torch.no_grad():
        logits = llm(inputs_embeds=torch.cat([prefix.embeds[row, :size], labels])[None], use_cache=False).logits[0]
    log_probs = logits.log_softmax(dim=-1)
    return sum(float(log_probs[size - 1 + place, label]) for place, label in enumerate([*sequence, EOS]))


@pytest.mark.parametrize(("family", "precision"), crossed(LLMS, ((torch.float64, 1e-9), (torch.float32, 1e-4))))
@settings(max_examples=8, deadline=None)
@given(nbests=st.lists(NBEST, min_size=3, max_size=3))
def test_scores_are_those_of_each_sequence_alone(family, precision, nbests):
    dtype, error = precision
    llm, prefix = tiny_llm(family).to(dtype), prefix_of([4, 1, 6], dtype)
    found = score_sequences(LLMDecoder(llm, prefix, EOS), nbests)
    for row, nbest in enumerate(nbests):
        expected = [one_by_one(llm, prefix, row, sequence) for sequence in nbest]
        assert found.scores[row] == pytest.approx(expected, abs=error)


def test_learned_positions_and_sequences_too_long_for_them():
    llm, prefix = tiny_gpt2(max_positions=8).double(), prefix_of([5], torch.float64)
    fits = [[3], [3, 4, 5], []]
    found = score_sequences(LLMDecoder(llm, prefix, EOS), [[*fits, [3, 4, 5, 6]]]).scores[0]
    assert found[:3] == pytest.approx([one_by_one(llm, prefix, 0, sequence) for sequence in fits], abs=1e-9)
    assert found[3] == -torch.inf


def test_nodes_and_labels_are_counted():
    found = score_sequences(
        LLMDecoder(tiny_llm(), prefix_of([2]), EOS), [[[3, 4, 5], [3, 4, 6], [3, 4], [3, 4, 5], []]]
    )
    assert (found.labels, found.nodes) == (11, 4)
    assert found.scores[0][0] == found.scores[0][3]


def test_no_utterance_and_none_with_hypotheses():
    assert score_sequences(LLMDecoder(tiny_llm(), prefix_of([2]), EOS), [[]]).scores == [[]]


def test_scores_do_not_depend_on_what_else_is_scored():
    llm, sizes = tiny_llm("qwen3"), [3, 9, 1, 5]
    nbests = [[[3] * n, [4] * n, [3, 4, 5]] for n in (1, 12, 4, 7)]
    together = score_sequences(LLMDecoder(llm, prefix_of(sizes), EOS), nbests).scores
    for row in range(4):
        prefix = prefix_of(sizes)
        alone = AssembledInput(
            prefix.embeds[row : row + 1], prefix.lengths[row : row + 1], prefix.lengths[:1], (NONE, NONE), NONE
        )
        assert together[row] == pytest.approx(
            score_sequences(LLMDecoder(llm, alone, EOS), [nbests[row]]).scores[0], abs=1e-5
        )


@pytest.mark.parametrize("limit", ["MAX_NODES", "MAX_CELLS", "MAX_LOGITS"])
def test_small_limits_change_nothing(limit, monkeypatch):
    llm, prefix = tiny_llm("llama").double(), prefix_of([3, 2], torch.float64)
    nbests = [[[3, 4, 5, 6], [3, 4, 6], [5], []], [[6, 6], [6, 5, 4, 3]]]
    whole = score_sequences(LLMDecoder(llm, prefix, EOS), nbests)
    monkeypatch.setattr(tree_scores, limit, 2)
    parts = score_sequences(LLMDecoder(llm, prefix, EOS), nbests)
    for row in range(2):
        assert parts.scores[row] == pytest.approx(whole.scores[row], abs=1e-9)


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("family", LLMS)
def test_speech_llms_score_as_in_training(interface, family):
    model = tiny_speech_llm(llm=family, interface=interface).double()
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(2, 12, model.acoustic.encoder.dim, dtype=torch.float64, generator=generator)
    encoded = EncoderOutput(frames, torch.tensor([12, 7]), (frames,))
    nbests = [[[5, 6, 7], [5, 6], [5, 8, 7]], [[9], []]]
    with torch.inference_mode():
        found = score_sequences(model.decoder(encoded), nbests)
        for row, nbest in enumerate(nbests):
            for sequence, score in zip(nbest, found.scores[row], strict=True):
                logits, labels = model.label_logits(encoded, [sequence if r == row else [] for r in range(2)])
                losses = logits.log_softmax(dim=-1).gather(1, labels[:, None])[:, 0]
                mine = losses[: len(sequence) + 1] if row == 0 else losses[1:]
                assert score == pytest.approx(float(mine.sum()), abs=1e-9)
