import copy
import json

import pytest
import torch
from transformers import AutoConfig, AutoModel

from kikitori.data.speech import pad_waveforms
from kikitori.errors import ModelError
from kikitori.model import SpeechLLM, SpeechLLMConfig
from kikitori.model.adapters.lora import Lora, attach_lora
from kikitori.model.safety.config import quiet_transformers
from kikitori.text.prompt import PRESETS, compile_prompt
from tests.crossed import crossed
from tests.tiny import (
    BRIDGES,
    ENCODERS,
    LLMS,
    tiny_acoustic_model,
    tiny_llm,
    tiny_speech_llm,
    tiny_units,
    tiny_waveforms,
)

VARIANTS = [
    *((encoder, "gpt_neox", "stack") for encoder in ENCODERS),
    ("hubert", "qwen2", "stack"),
    ("hubert", "llama", "stack"),
    ("hubert", "gpt_neox", "conv"),
    ("hubert", "gpt_neox", "identity"),
    ("hubert", "gpt_neox", "ctc_compress"),
]
WAVEFORMS = tiny_waveforms(3, seconds=(0.4, 1.2))
LABELS = [[5, 6, 7, 8], [], [9, 3, 9]]
UNITS = tiny_units()


def encode(model, waveforms):
    return model.acoustic.encode(*pad_waveforms(waveforms))


def by_hand(model, waveform, labels, before, after):
    """Logits of the loss positions of one row, wired without any of our own layout code."""
    encoded = encode(model, [waveform])
    speech, _ = model.speech_prompt(encoded)
    table = model.llm.get_input_embeddings().weight
    rows = [table[before], speech[0], table[after], table[labels]]
    logits = model.llm(inputs_embeds=torch.cat([row for row in rows if len(row)])[None], use_cache=False).logits[0]
    return logits[-len(labels) - 1 :]


@pytest.mark.parametrize(("encoder", "llm", "bridge"), VARIANTS)
def test_saved_and_loaded_is_bit_identical(encoder, llm, bridge, tmp_path):
    model = tiny_speech_llm(encoder, llm, bridge)
    model.save_pretrained(tmp_path)
    with quiet_transformers():
        loaded = [SpeechLLM.from_pretrained(tmp_path).eval(), AutoModel.from_pretrained(tmp_path).eval()]
    assert type(AutoConfig.from_pretrained(tmp_path)) is SpeechLLMConfig
    expected, batch = model.state_dict(), pad_waveforms(WAVEFORMS)
    for other in loaded:
        assert type(other) is SpeechLLM
        assert other.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
        table, output = other.llm.get_input_embeddings().weight, other.llm.get_output_embeddings().weight
        assert (table is output) == (llm == "qwen2")
        with torch.no_grad():
            assert torch.equal(model(*batch, LABELS)[0], other(*batch, LABELS)[0])


def test_float16_weights_load_as_float32(tmp_path):
    model = tiny_speech_llm(llm="qwen2")
    copy.deepcopy(model).half().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    with quiet_transformers():
        loaded = SpeechLLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    expected = model.state_dict()
    for name, value in loaded.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32, name
            assert torch.equal(value, expected[name].half().float()), name


@pytest.mark.parametrize(("encoder", "llm", "bridge"), VARIANTS)
def test_label_logits_equal_the_wiring_by_hand(encoder, llm, bridge):
    model = tiny_speech_llm(encoder, llm, bridge)
    with torch.no_grad():
        logits, next_labels = model(*pad_waveforms(WAVEFORMS), LABELS)
        expected = [by_hand(model, w, row, [], [1]) for w, row in zip(WAVEFORMS, LABELS, strict=True)]
    assert next_labels.tolist() == [label for row in LABELS for label in (*row, 2)]
    torch.testing.assert_close(logits, torch.cat(expected), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("llm", LLMS)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_of_both_papers(preset, llm):
    sep = UNITS.special_id("[SEP]")
    before, after = {
        "nue_asr": ([1], [sep]),  # paper A: <s> speech [SEP]
        "rwth": (UNITS.encode("USER: "), [*UNITS.encode("Transcribe speech to text. ASSISTANT: "), 1]),  # paper B
        "plain": ([], [1]),
    }[preset]
    model = tiny_speech_llm(llm=llm, prompt=preset)
    with torch.no_grad():
        logits, _ = model(*pad_waveforms(WAVEFORMS), LABELS)
        expected = [by_hand(model, w, row, before, after) for w, row in zip(WAVEFORMS, LABELS, strict=True)]
    torch.testing.assert_close(logits, torch.cat(expected), atol=2e-4, rtol=1e-4)
    prompt, compiled = model.config.prompt, compile_prompt(PRESETS[preset], UNITS)
    assert (prompt.before, prompt.after) == (tuple(before), tuple(after))
    assert prompt.eos == compiled.eos == 2


@pytest.mark.parametrize("llm", LLMS)
def test_batch_equals_single(llm):
    model = tiny_speech_llm(llm=llm)
    waveforms = tiny_waveforms(8)
    labels = [[3 + (i + j) % 20 for j in range(i % 5)] for i in range(8)]
    with torch.no_grad():
        together, _ = model(*pad_waveforms(waveforms), labels)
        alone = [model(*pad_waveforms([w]), [row])[0] for w, row in zip(waveforms, labels, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("llm", LLMS)
def test_no_label_sees_the_future(llm):
    model, (waveforms, lengths) = tiny_speech_llm(llm=llm), pad_waveforms(WAVEFORMS[:1])
    with torch.no_grad():
        one, _ = model(waveforms, lengths, [[5, 6, 7, 8]])
        other, _ = model(waveforms, lengths, [[5, 6, 20, 21]])
    torch.testing.assert_close(one[:3], other[:3], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(one[3:], other[3:], atol=1e-2)


@pytest.mark.parametrize("llm", LLMS)
def test_prefix_is_the_input_before_the_labels(llm):
    model = tiny_speech_llm(llm=llm, prompt="nue_asr")
    with torch.no_grad():
        encoded = encode(model, WAVEFORMS)
        prefix = model.prefix(encoded)
        logits, _ = model.label_logits(encoded, [[]] * 3)
        for row, length in enumerate(prefix.lengths.tolist()):
            alone = model.llm(inputs_embeds=prefix.embeds[row : row + 1, :length], use_cache=False).logits[0, -1]
            torch.testing.assert_close(logits[row], alone, atol=2e-4, rtol=1e-4)
    _, speech_lengths = model.speech_prompt(encoded)
    assert torch.equal(prefix.lengths, speech_lengths + 2)


def test_gradients_reach_encoder_bridge_and_llm():
    model = tiny_speech_llm(prompt="nue_asr").train()
    logits, next_labels = model(*pad_waveforms(WAVEFORMS), LABELS)
    torch.nn.functional.cross_entropy(logits, next_labels).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for part in ("acoustic.encoder.model.feature_extractor", "acoustic.encoder.model.encoder", "bridge", "llm"):
        assert any(g.abs().sum() > 0 for name, g in grads.items() if name.startswith(part)), part
    table = model.llm.get_input_embeddings().weight.grad
    used = {1, UNITS.special_id("[SEP]"), *(label for row in LABELS for label in row)}
    assert {row for row in range(len(table)) if table[row].abs().sum() > 0} == used


@pytest.mark.parametrize("llm", LLMS)
def test_adopted_parts_keep_weights_and_attention(llm):
    acoustic, body = tiny_acoustic_model(), tiny_llm(llm, UNITS.size)
    before = {name: value.clone() for name, value in body.state_dict().items()}
    heard = {name: value.clone() for name, value in acoustic.state_dict().items()}
    config = SpeechLLMConfig(acoustic.config, body.config, bridge="stack", prompt_after=[1])
    model = SpeechLLM(config, acoustic=acoustic, llm=body)
    assert model.llm.config._attn_implementation == "sdpa"
    assert model.acoustic.encoder.model.config._attn_implementation == "sdpa"
    assert all(torch.equal(value, before[name]) for name, value in model.llm.state_dict().items())
    assert all(torch.equal(value, heard[name]) for name, value in model.acoustic.state_dict().items())


def test_adopted_adapters_start_at_zero():
    body = attach_lora(tiny_llm("llama", UNITS.size), Lora(rank=2, alpha=4.0))
    before = {name: value.clone() for name, value in body.state_dict().items()}
    model = SpeechLLM(tiny_speech_llm(llm="llama").config, acoustic=tiny_acoustic_model(), llm=body)
    assert all(torch.equal(value, before[name]) for name, value in model.llm.state_dict().items())


def test_show_ctc_adds_the_expected_embedding_of_what_the_head_hears() -> None:
    plain = tiny_speech_llm(encoder="parakeet")  # stack bridge, stride 3
    config = copy.deepcopy(plain.config)
    config.show_ctc = True
    model = SpeechLLM(config, acoustic=plain.acoustic, llm=plain.llm).eval()
    waveforms, lengths = torch.randn(2, 16000) * 0.1, torch.tensor([16000, 9000])
    encoded = model.acoustic.encode(waveforms, lengths)
    shown, positions = model.speech_prompt(encoded)
    log_probs, frames = model.acoustic.log_probs(encoded)
    table = model.llm.get_input_embeddings().weight
    for row in range(2):
        assert int(positions[row]) == -(-int(frames[row]) // 3)
        for position in range(shown.shape[1]):
            expected = torch.zeros(table.shape[1])
            for frame in range(3 * position, min(3 * position + 3, int(frames[row]))):
                expected += log_probs[row, frame, :-1].exp() @ table[: log_probs.shape[2] - 1]
            torch.testing.assert_close(shown[row, position], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "compression"), crossed(ENCODERS, (("drop", "keep"), ("drop", "average"), ("keep", "weighted")))
)
def test_compressed_speech_is_the_same_in_any_batch(encoder, compression):
    model, waveforms = tiny_speech_llm(encoder, bridge="ctc_compress", compression=compression), tiny_waveforms(8)
    with torch.no_grad():
        encoded = encode(model, waveforms)
        embeds, lengths = model.speech_prompt(encoded)
        assert (lengths <= encoded.lengths).all()
        for row, waveform in enumerate(waveforms):
            alone, alone_lengths = model.speech_prompt(encode(model, [waveform]))
            assert alone_lengths.tolist() == [lengths[row]]
            torch.testing.assert_close(embeds[row, : lengths[row]], alone[0], atol=1e-4, rtol=1e-4)


def test_compression_follows_the_ctc_head_of_its_layer():
    model = tiny_speech_llm(bridge="ctc_compress", ctc_layers=(1, 2))
    with torch.no_grad():
        encoded, found = encode(model, WAVEFORMS), {}
        for layer in (1, 2, None):
            model.config.bridge_ctc_layer = layer
            log_probs, lengths = model.acoustic.log_probs(encoded, layer)
            blank = log_probs.shape[2] - 1
            heard = [log_probs[row, :length].argmax(-1) != blank for row, length in enumerate(lengths.tolist())]
            _, counts = model.speech_prompt(encoded)
            found[layer] = counts.tolist()
            assert found[layer] == [max(1, int(frames.sum())) for frames in heard]
    assert found[1] != found[2] == found[None]


def test_compression_settings_are_kept_and_old_configurations_load(tmp_path):
    model = tiny_speech_llm(bridge="ctc_compress", ctc_layers=(1, 2), compression=("keep", "weighted"))
    model.config.bridge_ctc_layer = 1
    model.save_pretrained(tmp_path)
    config = SpeechLLMConfig.from_pretrained(tmp_path)
    assert (config.bridge, config.bridge_blanks, config.bridge_repeats) == ("ctc_compress", "keep", "weighted")
    assert config.bridge_ctc_layer == 1
    with quiet_transformers():
        loaded = SpeechLLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        for mine, other in zip(*(m.speech_prompt(encode(m, WAVEFORMS)) for m in (model, loaded)), strict=True):
            assert torch.equal(mine, other)
    values = json.loads((tmp_path / "config.json").read_text())
    old = {key: value for key, value in values.items() if not key.startswith(("bridge_blanks", "bridge_repeats"))}
    del old["bridge_ctc_layer"]
    (tmp_path / "config.json").write_text(json.dumps({**old, "bridge": "stack"}))
    config = SpeechLLMConfig.from_pretrained(tmp_path)
    assert (config.bridge_blanks, config.bridge_repeats, config.bridge_ctc_layer) == ("drop", "keep", None)


def test_the_text_loss_reaches_the_ctc_head_through_weighted_averages_alone():
    for compression, reached in ((("drop", "keep"), False), (("keep", "average"), False), (("keep", "weighted"), True)):
        model = tiny_speech_llm(bridge="ctc_compress", compression=compression)
        logits, next_labels = model(*pad_waveforms(WAVEFORMS), LABELS)
        torch.nn.functional.cross_entropy(logits, next_labels).backward()
        gradients = [p.grad for p in model.acoustic.ctc_heads.parameters()]
        assert [gradient is not None and bool(gradient.any()) for gradient in gradients] == [reached] * 2
        assert all(p.grad is not None and p.grad.any() for p in model.bridge.parameters())
        assert model.acoustic.encoder.model.encoder.layers[0].attention.q_proj.weight.grad.any()


def test_compression_needs_its_ctc_head():
    model = tiny_speech_llm(ctc_layers=(2,))
    for layer, heads, word in (
        (1, model.acoustic, "on encoder layer 1"),
        (None, tiny_acoustic_model(ctc_layers=()), ""),
    ):
        config = copy.deepcopy(model.config)
        config.bridge, config.bridge_stride, config.bridge_ctc_layer = "ctc_compress", 1, layer
        with pytest.raises(ModelError, match=f"needs a CTC head {word}".strip()):
            SpeechLLM(config, acoustic=heads, llm=model.llm)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_prefix_lengths_are_foretold_where_the_bridge_allows(bridge):
    model = tiny_speech_llm(bridge=bridge, prompt="rwth")
    encoded = encode(model, WAVEFORMS)
    foretold, found = model.prefix_lengths(encoded.lengths), model.prefix(encoded)
    if bridge == "ctc_compress":
        assert foretold is None
    else:
        assert foretold.tolist() == found.lengths.tolist()
    prompt = len(model.config.prompt_before) + len(model.config.prompt_after)
    assert (found.lengths - found.speech_lengths).tolist() == [prompt] * 3


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("interface", ["merged_attention", "cross_attention"])
def test_speech_beside_the_text_takes_no_prefix(interface, bridge):
    model = tiny_speech_llm("hubert", "llama", bridge, interface=interface, prompt="rwth")
    encoded = encode(model, WAVEFORMS)
    found, (_, speech_lengths) = model.prefix(encoded), model.speech_prompt(encoded)
    prompt = len(model.config.prompt_before) + len(model.config.prompt_after)
    assert model.prefix_lengths(encoded.lengths).tolist() == found.lengths.tolist() == [prompt] * 3
    assert torch.equal(found.speech_lengths, speech_lengths)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_every_bridge_shows_what_the_head_hears(bridge):
    plain = tiny_speech_llm("parakeet", bridge=bridge)
    config = copy.deepcopy(plain.config)
    config.show_ctc = True
    model = SpeechLLM(config, acoustic=plain.acoustic, llm=plain.llm).eval()
    with torch.no_grad():
        encoded = encode(model, WAVEFORMS)
        shown, lengths = model.speech_prompt(encoded)
        for row, waveform in enumerate(WAVEFORMS):
            alone, _ = model.speech_prompt(encode(model, [waveform]))
            torch.testing.assert_close(shown[row, : lengths[row]], alone[0], atol=1e-4, rtol=1e-4)
        assert not shown[lengths.argmin(), lengths.min() :].any()


def test_show_ctc_needs_a_head() -> None:
    model = tiny_speech_llm(ctc_layers=())
    config = copy.deepcopy(model.config)
    config.show_ctc = True
    with pytest.raises(ModelError, match="show_ctc"):
        SpeechLLM(config, acoustic=model.acoustic, llm=model.llm)
