from string import ascii_lowercase

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTJConfig

from kikitori.model.decoder.llm import embed, forward, project
from kikitori.model.decoder.vocabulary import embedding_layers, old_labels, swap_vocabulary
from kikitori.model.folder import load_llm
from kikitori.model.safety.config import quiet_transformers
from kikitori.text.forms.text_form import text_normalizer
from kikitori.text.unit_training import unigram_units
from kikitori.text.units import SPECIALS, WORD_MARK, with_text_form
from tests.tiny import LLMS, tiny_bpe, tiny_llm, tiny_units

TIED = {"gpt_neox": False, "qwen2": True, "qwen3": True, "llama": False}
PIECES = unigram_units(
    [(p, 0.0) for p in (*SPECIALS, "[SEP]", WORD_MARK, "▁the", "▁qu", "ick", *ascii_lowercase)],
    text_normalizer("en_plain"),
)
PIECES.tokenizer.add_special_tokens({"additional_special_tokens": ["[SEP]"]})


def matrices(llm):
    return [layer.weight.detach().clone() for layer in embedding_layers(llm)]


@pytest.mark.parametrize("family", LLMS)
def test_new_rows_are_means_of_the_old_rows_of_their_text(family, tmp_path):
    old = tiny_bpe()
    llm = tiny_llm(family, old.size)
    body = {n: t.clone() for n, t in llm.get_decoder().state_dict().items() if "embed" not in n}
    before = matrices(llm)
    assert len(before) == 1 if TIED[family] else 2
    swap_vocabulary(llm, PIECES, old)
    after = matrices(llm)
    assert len(after) == len(before)
    vocabulary = PIECES.tokenizer.get_vocab()
    for rows, old_rows in zip(after, before, strict=True):
        assert rows.shape == (PIECES.size, 32)
        for piece, text in (("▁the", " the"), ("▁", " "), ("b", "b")):
            labels = old.encode(text)
            torch.testing.assert_close(rows[vocabulary[piece]], old_rows[labels].mean(0), msg=piece)
        assert torch.equal(rows[PIECES.eos_id], old_rows[old.eos_id])
        assert torch.equal(rows[PIECES.bos_id], old_rows[old.bos_id])
        assert torch.equal(rows[vocabulary["[SEP]"]], old_rows[old.special_id("[SEP]")])
    assert all(torch.equal(llm.get_decoder().state_dict()[name], tensor) for name, tensor in body.items())

    config = llm.config
    assert (config.vocab_size, config.bos_token_id, config.eos_token_id) == (PIECES.size, PIECES.bos_id, PIECES.eos_id)
    embeds = embed(llm, torch.arange(PIECES.size)[None])
    logits = project(llm, forward(llm, embeds, torch.tensor([PIECES.size])))
    assert logits.shape == (1, PIECES.size, PIECES.size)
    logits.square().mean().backward()
    assert all(bool(layer.weight.grad.any(dim=1).all()) for layer in embedding_layers(llm))
    with quiet_transformers():
        llm.save_pretrained(tmp_path)
    loaded = load_llm(tmp_path)
    assert loaded.generation_config.eos_token_id == PIECES.eos_id
    with torch.no_grad():
        again = project(loaded.eval(), forward(loaded, embeds, torch.tensor([PIECES.size])))
    torch.testing.assert_close(again, logits)


@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_old_labels_write_the_text_of_the_new_ones(kind):
    old = tiny_bpe(kind)
    for units in (tiny_units(), PIECES, tiny_bpe("bytes", extra=())):
        found = old_labels(units, with_text_form(old, "en_plain"))
        for label, labels in enumerate(found):
            if label in (units.bos_id, units.eos_id) or not labels:
                continue
            text = units.tokenizer.decode([units.encode("x")[-1], label])[1:]
            special = units.tokenizer.convert_ids_to_tokens(label) in units.tokenizer.all_special_tokens
            if "�" not in text and not special:
                written = old.tokenizer.decode([*old.encode("x"), *labels])
                assert written.replace(" ", "") == f"x{text}".replace(" ", "")
                assert written == f"x{text}" or kind == "characters"  # it begins every text with a word mark


@pytest.mark.parametrize(("kind", "text"), [("bytes", " the"), ("characters", "the")])
def test_words_keep_the_one_mark_that_the_old_vocabulary_gives_them(kind, text):
    old = tiny_bpe(kind)
    assert old_labels(PIECES, old)[PIECES.special_id("▁the")] == old.encode(text)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_without_the_old_units_rows_are_drawn_alike(family):
    llm = tiny_llm(family, 400)
    for weight in matrices(llm):
        weight += 1.0
    embedding_layers(llm)[0].weight.data += 3.0
    before = matrices(llm)
    torch.manual_seed(1)
    swap_vocabulary(llm, tiny_bpe(), None)
    after = matrices(llm)
    for rows, old_rows in zip(after, before, strict=True):
        torch.testing.assert_close(rows.mean(), old_rows.mean(), atol=0.05, rtol=0)
        torch.testing.assert_close(rows.std(), old_rows.std(), atol=0.05, rtol=0)
        assert len(rows.unique(dim=0)) == len(rows)


def test_padding_rows_learn_and_biases_follow():
    config = GPTJConfig(
        vocab_size=400, bos_token_id=1, eos_token_id=2, n_embd=32, n_layer=1, n_head=2, rotary_dim=8, pad_token_id=3
    )
    llm = AutoModelForCausalLM.from_config(config)
    llm.get_input_embeddings().padding_idx = 3
    torch.nn.init.normal_(llm.lm_head.bias)
    bias, old = llm.lm_head.bias.detach().clone(), tiny_bpe()
    swap_vocabulary(llm, PIECES, old)
    assert llm.get_input_embeddings().padding_idx is None
    assert llm.lm_head.bias.shape == (PIECES.size,)
    the = PIECES.tokenizer.get_vocab()["▁the"]
    torch.testing.assert_close(llm.lm_head.bias[the], bias[old.encode(" the")].mean())


def test_labels_that_the_old_matrix_lacks_are_left_out():
    old = tiny_bpe()
    llm = tiny_llm("llama", 50)  # smaller than its tokenizer
    swap_vocabulary(llm, PIECES, old)
    assert all(bool(rows.isfinite().all()) for rows in matrices(llm))
