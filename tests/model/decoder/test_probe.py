"""Families whose batches, caches and trees give their own logits, and families where they do not."""

from functools import wraps
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    RwkvConfig,
    RwkvForCausalLM,
)

from kikitori.errors import ModelError
from kikitori.model.decoder import probe
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.attention.masks import layer_masks
from kikitori.model.decoder.llm import embed, max_positions
from kikitori.model.decoder.llm_decoder import LLMDecoder, text_decoder
from kikitori.model.decoder.probe import REFUSALS, check_decoding, check_scoring, check_trees, findings, reads_trees
from kikitori.scorers.incremental import IncrementalLMScorer
from kikitori.scorers.language_model import LanguageModel
from kikitori.scorers.tree import score_sequences
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.speculative import speculative
from kikitori.search.length import Limits
from tests.tiny import LLMS, shake, tiny_gpt2, tiny_llm

VOCAB, BOS, EOS, WINDOW = 50, 1, 2, 3
PLAIN: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "pad_token_id": 0,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
ENDS = {"pad_token_id": 0, "bos_token_id": BOS, "eos_token_id": EOS, "vocab_size": VOCAB}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
TEXTS = ((7, 8, 9, 10, 11, 12, 13, 14), (7, 8, 9, 20, 21), (7, 8, 9, 10, 11, 12, 13, 30, 31, 32), (40,), ())


def build(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    match family:
        case "bert":
            sizes = {name: PLAIN[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
            llm = BertLMHeadModel(BertConfig(**sizes, **ENDS, intermediate_size=64))
        case "bloom":
            llm = BloomForCausalLM(BloomConfig(**ENDS, hidden_size=32, n_layer=2, n_head=4))
        case "cohere":
            llm = CohereForCausalLM(CohereConfig(**PLAIN, logit_scale=0.0625))
        case "gemma2":
            llm = Gemma2ForCausalLM(Gemma2Config(**PLAIN, **ALTERNATING, head_dim=8, final_logit_softcapping=3.0))
        case "granite":
            llm = GraniteForCausalLM(GraniteConfig(**PLAIN, logits_scaling=8.0, embedding_multiplier=12.0))
        case "mamba":
            llm = MambaForCausalLM(MambaConfig(**ENDS, hidden_size=32, num_hidden_layers=2, state_size=4))
        case "mistral":
            llm = MistralForCausalLM(MistralConfig(**PLAIN, sliding_window=WINDOW))
        case "mpt":
            llm = MptForCausalLM(MptConfig(vocab_size=VOCAB, d_model=32, n_layers=2, n_heads=4))
        case "rwkv":
            llm = RwkvForCausalLM(RwkvConfig(**ENDS, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32))
        case _:
            return tiny_llm(family, VOCAB)
    shake(llm.eval(), 0, 0.3)
    return llm


EXACT = (*LLMS, "mistral", "gemma2", "cohere", "granite")
WINDOWED = ("mistral", "gemma2")


def own(llm, before, text, *, ended=True):
    """Log-probability of a text by the model's own pass, without a batch, a cache or a mask."""
    with torch.no_grad():
        scores = llm(input_ids=torch.tensor([[*before, *text]]), use_cache=False).logits[0].log_softmax(-1)
    labels = (*text, EOS) if ended else text
    return sum(float(scores[len(before) - 1 + place, label]) for place, label in enumerate(labels))


def prompts(llm, sizes=(9, 4)):
    rows = torch.arange(3, 3 + len(sizes) * max(sizes)).reshape(len(sizes), -1) % VOCAB
    none = torch.zeros(0, dtype=torch.int64)
    with torch.no_grad():
        embeds = embed(llm, rows)
    lengths = torch.tensor(sizes)
    prefix = AssembledInput(embeds, lengths, lengths, (none, none), none)
    return prefix, [row[:size].tolist() for row, size in zip(rows, sizes, strict=True)]


def all_is_well(llm):
    return not any(findings(llm, *REFUSALS).values())


@pytest.mark.parametrize("family", EXACT)
def test_what_the_probe_lets_through_is_right_beyond_windows_too(family):
    llm = build(family)
    check_trees(llm)
    prefix, before = prompts(llm)
    decoder = LLMDecoder(llm, prefix, EOS)
    written = greedy(decoder, Limits([12, 12], 3))
    for prompt, (found, *_) in zip(before, written, strict=True):
        whole = own(llm, prompt, found.labels, ended=found.complete)
        assert found.score == pytest.approx(whole, abs=1e-3)
    drafts = [[*found.labels[:4], 3, *found.labels[5:]] for found, *_ in written]
    again = speculative(decoder, drafts, Limits([12, 12], 3))
    assert [row[0].labels for row in again] == [row[0].labels for row in written]
    scores = score_sequences(decoder, [TEXTS, TEXTS]).scores
    for prompt, row in zip(before, scores, strict=True):
        assert row == pytest.approx([own(llm, prompt, text) for text in TEXTS], abs=1e-3)
    units: Any = None
    growing = IncrementalLMScorer(LanguageModel(llm, units, (BOS,), EOS), 1)
    with torch.inference_mode():
        for most in (2, 4, 10):
            texts = [text[:most] for text in TEXTS]
            (row,) = growing.scores([texts])
            assert row == pytest.approx([own(llm, (BOS,), text, ended=False) for text in texts], abs=1e-3)


@pytest.mark.parametrize(
    ("family", "check", "finding"),
    [
        ("bert", check_scoring, "it sees the labels that follow"),
        ("mamba", check_trees, "its layers keep a recurrent state"),
        ("mpt", check_decoding, "behind a cache"),
        ("rwkv", check_decoding, "its key-value cache has not grown"),
        ("bloom", check_trees, "it cannot read trees of hypotheses"),
    ],
)
def test_what_does_not_hold_is_refused_for_that_use(family, check, finding):
    llm = build(family)
    with pytest.raises(ModelError, match=f"{type(llm).__name__}: .*{finding}.*docs/llms.md") as error:
        check(llm)
    assert "\n" not in str(error.value)


def test_searches_refuse_too_where_nobody_has_checked():
    llm = build("mpt")
    with pytest.raises(ModelError, match="it cannot go label by label"):
        greedy(LLMDecoder(llm, prompts(llm)[0], EOS), Limits([3, 3]))
    with pytest.raises(ModelError, match="it sees the labels that follow"):
        score_sequences(text_decoder(build("bert"), [BOS], eos_id=EOS), [TEXTS])


@pytest.mark.parametrize("family", ["bloom", "mamba", "mpt", "rwkv"])
def test_without_trees_every_branch_is_a_row(family, monkeypatch):
    llm = build(family)
    prefix, before = prompts(llm)
    for most in (2**14, 20):
        monkeypatch.setattr("kikitori.model.decoder.llm_decoder.MAX_POSITIONS", most)
        scores = score_sequences(LLMDecoder(llm, prefix, EOS), [TEXTS, TEXTS[2:]]).scores
        for prompt, texts, row in zip(before, (TEXTS, TEXTS[2:]), scores, strict=True):
            assert row == pytest.approx([own(llm, prompt, text) for text in texts], abs=1e-3)


def test_the_probe_leaves_the_llm_as_it_was():
    llm = build("gemma2")
    llm.train()
    llm.model.layers[1].eval()
    before = {name: tensor.clone() for name, tensor in llm.state_dict().items()}
    modes = [module.training for module in llm.modules()]
    findings(llm, *REFUSALS)
    assert [module.training for module in llm.modules()] == modes
    assert llm.config.sliding_window == WINDOW
    assert all(torch.equal(tensor, before[name]) for name, tensor in llm.state_dict().items())
    other = build("llama")
    with torch.inference_mode():
        findings(other, *REFUSALS)
    other(input_ids=torch.tensor([[3, 4, 5]])).logits.sum().backward()


def test_an_llm_is_probed_once_for_each_use(monkeypatch):
    llm = build("bloom")
    assert not reads_trees(llm)
    check_decoding(llm)  # what does not hold for trees says nothing of this
    monkeypatch.setattr(probe, "_probe", lambda *_: pytest.fail("probed again"))
    check_scoring(llm)
    check_decoding(llm)
    with pytest.raises(ModelError, match="it cannot read trees"):
        check_trees(llm)
    fresh = build("mpt")
    monkeypatch.undo()
    with pytest.raises(ModelError, match="it cannot go label by label"):
        check_decoding(fresh)
    assert set(findings(fresh)) == {"rows", "cache"}


def test_uses_that_are_probed_at_once_share_passes(monkeypatch):
    passes, real = [], LlamaModel.forward

    @wraps(real)  # the probe reads its signature
    def forward(self, *args, **values):
        passes.append(None)
        return real(self, *args, **values)

    monkeypatch.setattr(LlamaModel, "forward", forward)
    check_trees(build("llama"))
    assert len(passes) == 6  # its own, a batch, two behind a cache, a tree, one behind a cache
    llm = build("llama")
    passes.clear()
    for check in (check_scoring, check_decoding, check_trees):
        check(llm)
    assert len(passes) > 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("family", EXACT)
def test_coarser_and_finer_numbers(family, dtype):
    assert all_is_well(build(family).to(dtype))


def test_logits_that_are_not_finite_are_found_elsewhere():
    llm = build("llama")
    with torch.no_grad():
        llm.get_output_embeddings().weight[7, 3] = torch.nan
    assert all_is_well(llm)


def test_few_positions():
    assert all_is_well(tiny_gpt2(30, max_positions=4))
    assert all_is_well(tiny_gpt2(30, max_positions=3))


def test_a_wrong_factor_of_logits_is_found():
    llm = build("granite")
    llm.config.model_type = "hyperclovax"  # which multiplies
    with pytest.raises(ModelError, match="in a padded batch are not those of its own forward pass"):
        check_scoring(llm)


def test_a_cache_that_is_not_taken_is_an_error(monkeypatch):
    real = LlamaModel.forward

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, inputs_embeds=None, **_):
        """As of a release that calls its cache otherwise."""
        return real(self, input_ids, attention_mask, position_ids, inputs_embeds=inputs_embeds, use_cache=False)

    monkeypatch.setattr(LlamaModel, "forward", forward)
    with pytest.raises(ModelError, match="its key-value cache has not grown with a pass"):
        check_decoding(LlamaForCausalLM(LlamaConfig(**PLAIN)).eval())


def test_positions_that_share_one_choice_of_rotary_factors():
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 24,
    }
    config = Phi3Config(**PLAIN, max_position_embeddings=96, original_max_position_embeddings=24, rope_parameters=rope)
    llm = Phi3ForCausalLM(config).eval()
    assert max_positions(llm) == 24
    assert all_is_well(llm)


def test_windows_are_counted_in_labels_that_are_read():
    config = Gemma2Config(**PLAIN, **ALTERNATING)
    reads = torch.tensor([[[1, 0, 1, 1, 0, 1, 1]]], dtype=torch.bool)
    masks = layer_masks(config, reads, torch.float32)
    assert isinstance(masks, dict)
    assert masks["full_attention"][0, 0, 0].eq(0).tolist() == reads[0, 0].tolist()
    assert masks["sliding_attention"][0, 0, 0].eq(0).tolist() == [False, False, False, True, False, True, True]
    chunked = LlamaConfig(**PLAIN, attention_chunk_size=2)
    mask = layer_masks(chunked, reads, torch.float32)
    assert isinstance(mask, torch.Tensor)
    assert mask[0, 0, 0].eq(0).tolist() == [False] * 6 + [True]
