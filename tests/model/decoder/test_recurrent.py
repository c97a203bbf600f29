"""LLMs with recurrent layers go label by label, as their own full pass does: their states are copied."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GraniteMoeHybridConfig,
    Lfm2Config,
    MambaConfig,
    PreTrainedModel,
    Qwen3_5TextConfig,
)

from kikitori.errors import ModelError
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.base import start, step
from kikitori.model.decoder.llm import embed
from kikitori.model.decoder.llm_decoder import LLMDecoder
from kikitori.model.decoder.probe import check_decoding, check_trees
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.options import SPEECH_LLM
from kikitori.scorers.tree import score_sequences
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.joint import decoder_beam
from kikitori.search.autoregressive.speculative import speculative
from kikitori.search.length import Limits
from kikitori.search.options import BeamSearch
from tests.tiny import shake

VOCAB, BOS, EOS = 40, 1, 2
SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0, "bos_token_id": BOS}
HEADS = {**SIZES, "eos_token_id": EOS, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32}
LINEAR = {f"linear_{what}": 8 for what in ("key_head_dim", "value_head_dim")} | {
    f"linear_num_{what}_heads": 2 for what in ("key", "value")
}
MAMBA = {f"mamba_{name}": size for name, size in (("n_heads", 4), ("d_head", 16), ("expand", 2), ("d_state", 8))}
MIXED = ["linear_attention", "full_attention"]
FAMILIES = {
    "mamba": lambda: MambaConfig(**SIZES, eos_token_id=EOS, state_size=4),
    "qwen3_5": lambda: Qwen3_5TextConfig(**HEADS, **LINEAR, head_dim=8, layer_types=MIXED),
    "lfm2": lambda: Lfm2Config(**HEADS, layer_types=["conv", "full_attention"]),
    "granite4": lambda: GraniteMoeHybridConfig(
        **HEADS, **MAMBA, layer_types=["mamba", "attention"], num_local_experts=2
    ),
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def llm(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[request.param]()).eval()
    shake(model, 0, 0.3)
    check_decoding(model)
    return model


def own(llm, labels):
    """Log-probabilities of the label after each (n, vocab), by the model's own pass without batch, cache or mask."""
    with torch.no_grad():
        return llm(input_ids=torch.tensor([labels]), use_cache=False).logits[0].log_softmax(-1)


def behind(llm, *prompts):
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True)
    lengths, none = torch.tensor([len(prompt) for prompt in prompts]), torch.zeros(0, dtype=torch.int64)
    with torch.no_grad():
        return LLMDecoder(llm, AssembledInput(embed(llm, rows), lengths, lengths, (none, none), none), EOS)


PROMPTS = ([5, 9, 14, 7, 33, 21, 12], [5, 11, 6], [4, 13, 27, 19, 31, 10, 8])
LIMITS = Limits([7, 5, 6], 2)


def score(llm, prompt, labels, *, ended):
    written = [*labels, EOS] if ended else [*labels]
    scores = own(llm, [*prompt, *labels])[len(prompt) - 1 :]
    return sum(float(scores[place, label]) for place, label in enumerate(written))


def test_greedy_and_beam_search(llm):
    decoder = behind(llm, *PROMPTS)
    written = greedy(decoder, LIMITS)
    for prompt, (found, *_) in zip(PROMPTS, written, strict=True):
        scores = own(llm, [*prompt, *found.labels])[len(prompt) - 1 :]
        scores[:2, EOS] = -torch.inf
        best = scores.argmax(dim=1).tolist()
        assert best[: len(found.labels)] == list(found.labels)
        assert found.score == pytest.approx(score(llm, prompt, found.labels, ended=found.complete), abs=1e-3)
        assert greedy(behind(llm, prompt), Limits([len(found.labels)], 2))[0][0].labels == found.labels
    for prompt, found in zip(PROMPTS, decoder_beam(decoder, BeamSearch(beam=3, nbest=3), LIMITS), strict=True):
        for each in found:
            expected = score(llm, prompt, each.labels, ended=True)
            assert each.scores[SPEECH_LLM] == pytest.approx(expected, abs=1e-3)


def test_a_state_stays_as_it_was(llm):
    decoder = behind(llm, *PROMPTS)
    with torch.inference_mode():
        logits, state = start(decoder)
        first, _ = step(decoder, torch.tensor([[20, 21], [22, 3], [4, 4]]), state, torch.tensor([2, 1, 0]))
        forked = state.reorder(torch.tensor([2, 1, 0, 1]))
        again, _ = step(decoder, torch.tensor([[4, 30], [22, 30], [20, 21], [30, 4]]), forked)
    for row, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(logits[row].log_softmax(-1), own(llm, prompt)[-1], atol=1e-3, rtol=0)
    torch.testing.assert_close(first[0], again[2], atol=1e-3, rtol=0)
    torch.testing.assert_close(first[1, 0], again[1, 0], atol=1e-3, rtol=0)
    expected = own(llm, [*PROMPTS[1], 30, 4])[-1]
    torch.testing.assert_close(again[3, 1].log_softmax(-1), expected, atol=1e-3, rtol=0)


def test_label_wise_fusion(llm):
    scorer = LMScorer(llm, VOCAB, bos_id=BOS, eos_id=EOS)
    with torch.inference_mode():
        state = scorer.start(1)
        state, given = scorer.extend(
            state, torch.tensor([0, 0]), torch.tensor([[20, 30, 7], [21, 0, 0]]), torch.tensor([3, 1])
        )
        assert float(given[0].sum()) == pytest.approx(score(llm, [BOS], [20, 30, 7], ended=False), abs=1e-3)
        state, _ = scorer.extend(state, torch.tensor([1, 0, 1]), torch.tensor([[9], [8], [0]]), torch.tensor([1, 1, 0]))
        found = scorer.log_probs(state, torch.arange(3))[:, :VOCAB]
    for row, labels in zip(found, ([21, 9], [20, 30, 7, 8], [21]), strict=True):
        torch.testing.assert_close(row, own(llm, [BOS, *labels])[-1], atol=1e-3, rtol=0)


def test_rescoring_reads_a_row_for_each_hypothesis(llm):
    texts = [(7, 8, 9, 10), (7, 8, 9, 20, 21), (), (30,)]
    for prompt, scores in zip(PROMPTS, score_sequences(behind(llm, *PROMPTS), [texts] * 3).scores, strict=True):
        assert scores == pytest.approx([score(llm, prompt, text, ended=True) for text in texts], abs=1e-3)


def test_nothing_is_taken_back(llm):
    decoder = behind(llm, *PROMPTS)
    with pytest.raises(
        ModelError, match="speculative search takes labels back, which recurrent layers cannot; use dec"
    ):
        speculative(decoder, [[5, 6], [7], []], LIMITS)
    with torch.inference_mode():
        _, state = start(decoder)
    with pytest.raises(ModelError, match="no label can be taken back from a recurrent state"):
        state.crop(state.lengths - 1)
    assert state.crop(state.lengths).num_slots == 7
    with pytest.raises(ModelError, match="it cannot read trees of hypotheses: its layers keep a recurrent state"):
        check_trees(llm)
