import copy
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, OlmoConfig

from kikitori.errors import ModelError
from kikitori.model.adapters.lora import (
    Lora,
    attach_encoder_lora,
    attach_lora,
    dead_layers,
    is_adapted,
    is_live,
    merged_copy,
    merged_encoder,
    save_lora,
)
from kikitori.model.decoder.llm import forward, project
from kikitori.model.encoder import SpeechEncoder, freeze
from kikitori.model.safety.config import quiet_transformers
from tests.tiny import ENCODERS, LLMS, tiny_encoder_config, tiny_llm

SETTINGS = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": None}
TARGETS = {
    "gpt_neox": ["query_key_value", "dense_h_to_4h"],
    "qwen2": ["q_proj", "up_proj"],
    "qwen3": ["k_proj", "o_proj"],
    "llama": ["v_proj"],
}


def logits(llm, embeds):
    with torch.no_grad():
        return project(llm, forward(llm, embeds, torch.tensor([7, 4])))[:, :4]


@pytest.fixture
def embeds():
    torch.manual_seed(1)
    return torch.randn(2, 7, 32)


def learned(llm):
    """Adapters as after some training; LoRA's second matrix starts at zero."""
    torch.manual_seed(2)
    for name, parameter in llm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return llm


@pytest.mark.parametrize("own_targets", [False, True])
@pytest.mark.parametrize("family", LLMS)
def test_only_the_adapters_learn(family, own_targets, embeds):
    plain = tiny_llm(family)
    before = logits(plain, embeds)
    weights = {name: value.clone() for name, value in plain.state_dict().items()}
    llm = attach_lora(plain, Lora(**SETTINGS | {"targets": TARGETS[family] if own_targets else None}))
    assert is_adapted(llm)
    torch.testing.assert_close(logits(llm, embeds), before, atol=1e-6, rtol=0)  # nothing learned yet

    trainable = [name for name, parameter in llm.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)
    optimizer = torch.optim.SGD([p for p in llm.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        project(llm, forward(llm, embeds, torch.tensor([7, 4]))).square().mean().backward()
        optimizer.step()
    assert not torch.allclose(logits(llm, embeds), before, atol=1e-3)
    merged_back = llm.unload().state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in merged_back.items())


@pytest.mark.parametrize("family", LLMS)
def test_merged_copy_equals_the_adapted_model_and_leaves_it_alone(family, embeds, tmp_path):
    llm = learned(attach_lora(tiny_llm(family), Lora(**SETTINGS))).eval()
    before = {name: value.clone() for name, value in llm.state_dict().items()}
    expected = logits(llm, embeds)
    merged = merged_copy(llm)
    assert type(merged) is type(tiny_llm(family))
    assert not is_adapted(merged)
    torch.testing.assert_close(logits(merged, embeds), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(tiny_llm(family), embeds), expected, atol=1e-2)

    assert is_adapted(llm)
    assert llm.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in llm.state_dict().items())
    for parameter in merged.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(logits(llm, embeds), expected, atol=0, rtol=0)

    again = merged_copy(llm)
    with quiet_transformers():
        again.save_pretrained(tmp_path)
        loaded = type(again).from_pretrained(tmp_path).eval()
    assert not list(tmp_path.glob("adapter*"))
    torch.testing.assert_close(logits(loaded, embeds), logits(again, embeds), atol=0, rtol=0)


def test_without_adapters_the_model_itself_is_given():
    llm = tiny_llm()
    assert not is_adapted(llm)
    assert merged_copy(llm) is llm


def test_unknown_layers_are_one_line():
    with pytest.raises(ModelError) as caught:
        attach_lora(tiny_llm(), Lora(**SETTINGS | {"targets": ["no_such_layer"]}))
    assert str(caught.value) == (
        "llm.lora.targets: LoRA finds no layer 'no_such_layer' (there are dense, dense_4h_to_h, dense_h_to_4h,"
        " embed_in, lm_head, query_key_value); set llm.lora.targets to some of them"
    )


def test_architectures_that_peft_does_not_know_need_targets():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    llm = AutoModelForCausalLM.from_config(OlmoConfig(**sizes, vocab_size=30, pad_token_id=0))
    with pytest.raises(ModelError) as caught:
        attach_lora(llm, Lora(**SETTINGS))
    assert str(caught.value).startswith("llm.lora: LoRA finds no layers (")
    assert str(caught.value).endswith(
        "; there are down_proj, embed_tokens, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj);"
        " set llm.lora.targets"
    )
    attach_lora(llm, Lora(**SETTINGS | {"targets": ["q_proj"]}))


def test_each_target_must_match():
    with pytest.raises(ModelError, match="finds no layer 'v_prj'"):
        attach_lora(tiny_llm("llama"), Lora(**SETTINGS | {"targets": ["q_proj", "v_prj"]}))
    llm = attach_lora(tiny_llm("llama"), Lora(**SETTINGS | {"targets": ["layers.1.mlp.up_proj"]}))
    assert {n for n, p in llm.named_parameters() if p.requires_grad and "layers.1.mlp.up_proj" not in n} == set()


@pytest.mark.parametrize(("stabilised", "scale"), [(False, 8.0 / 4), (True, 8.0 / math.sqrt(4))])
def test_scale_is_alpha_over_rank_or_its_root(stabilised, scale):
    llm = learned(
        attach_lora(tiny_llm("llama"), Lora(**SETTINGS | {"targets": ["v_proj"], "rank_stabilised": stabilised}))
    )
    layer = llm.base_model.model.model.layers[0].self_attn.v_proj
    update = scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merged = merged_copy(copy.deepcopy(llm)).model.layers[0].self_attn.v_proj.weight
    torch.testing.assert_close(merged, layer.base_layer.weight + update)


def tiny_encoder(family):
    torch.manual_seed(0)
    return SpeechEncoder(tiny_encoder_config(family)).eval()


def frames(encoder):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        return encoder(torch.randn(2, 16000, generator=generator), torch.tensor([16000, 9000])).frames


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_learns_in_its_adapters_alone_and_takes_them_in(family):
    encoder = tiny_encoder(family)
    before = frames(encoder)
    freeze(encoder, "none")
    attach_encoder_lora(encoder, Lora(**SETTINGS))
    trainable = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)
    assert is_adapted(encoder)
    torch.testing.assert_close(frames(encoder), before, atol=1e-6, rtol=0)
    assert dead_layers(encoder) == []
    assert not is_live(encoder)  # nothing learned yet

    learned(encoder)
    assert is_live(encoder)
    adapted, weights = frames(encoder), {n: t.clone() for n, t in encoder.state_dict().items()}
    assert not torch.allclose(adapted, before, atol=1e-3)
    merged = merged_encoder(encoder)
    assert not is_adapted(merged)
    assert merged.state_dict().keys() == tiny_encoder(family).state_dict().keys()
    torch.testing.assert_close(frames(merged), adapted, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.state_dict().items())
    plain = tiny_encoder(family)
    assert merged_encoder(plain) is plain


def test_layers_whose_weights_alone_are_read_are_refused():
    # WavLM's attention hands its weights to torch: a low-rank update beside them would be learned by nobody.
    for targets, named in ((["q_proj"], "q_proj"), (["q_proj", "output_dense", "v_proj"], "q_proj, v_proj")):
        with pytest.raises(ModelError) as caught:
            attach_encoder_lora(tiny_encoder("wavlm"), Lora(**SETTINGS | {"targets": targets}))
        assert str(caught.value) == (
            f"encoder.lora.targets: LoRA would learn nothing in {named}: the model reads these weights without calling"
            " the layers; set encoder.lora.targets to other layers"
        )


def test_frozen_batch_norms_do_not_drift():
    encoder = tiny_encoder("parakeet").train()
    attach_encoder_lora(encoder, Lora(**SETTINGS))
    statistics = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    assert encoder.training
    frames(encoder)
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in encoder.named_buffers())
    encoder = tiny_encoder("parakeet").train()
    frames(encoder)
    assert not all(torch.equal(buffer, statistics[name]) for name, buffer in encoder.named_buffers())


@pytest.mark.parametrize("family", LLMS)
def test_an_adapter_shows_whether_it_is_live(family):
    llm = attach_lora(tiny_llm(family), Lora(**SETTINGS))
    state = torch.get_rng_state()
    assert dead_layers(llm) == []
    assert not is_live(llm)
    learned(llm)
    before = {name: value.clone() for name, value in llm.state_dict().items()}
    with torch.inference_mode():
        assert is_live(llm)
        assert dead_layers(llm) == []
    for name, parameter in llm.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad == ("lora" in name)
        assert parameter.grad is None
        if "lora_A" in name:
            parameter.data.zero_()  # as if it had been loaded under other names
    assert not is_live(llm)
    assert len(dead_layers(llm)) == sum("lora_B" in name for name in before)
    llm.train()
    is_live(llm)
    assert llm.training
    torch.set_rng_state(state)


def test_new_embeddings_go_into_the_adapter(tmp_path):
    for learn in (False, True):
        llm = attach_lora(tiny_llm("llama"), Lora(**SETTINGS))
        llm.get_input_embeddings().requires_grad_(learn)
        save_lora(tmp_path / str(learn), llm)
        names = load_file(tmp_path / str(learn) / "adapter_model.safetensors")
        assert any("embed_tokens" in name for name in names) is learn
        assert any("lora_B" in name for name in names)
