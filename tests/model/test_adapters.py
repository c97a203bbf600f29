import copy

import pytest
import torch

from kikitori.errors import ModelError
from kikitori.model.adapters import attach_lora, is_adapted, merged_copy
from kikitori.model.llm import forward, project
from kikitori.model.safety import quiet_transformers
from tests.tiny import LLMS, tiny_llm

SETTINGS = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": None}
TARGETS = {"gpt_neox": ["query_key_value", "dense_h_to_4h"], "qwen2": ["q_proj", "up_proj"], "llama": ["v_proj"]}


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
    llm = attach_lora(plain, **SETTINGS | {"targets": TARGETS[family] if own_targets else None})
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
    llm = learned(attach_lora(tiny_llm(family), **SETTINGS)).eval()
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
        attach_lora(tiny_llm(), **SETTINGS | {"targets": ["no_such_layer"]})
    assert "llm.lora" in str(caught.value)
    assert "set llm.lora.targets" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scale_is_alpha_over_rank():
    llm = learned(attach_lora(tiny_llm("llama"), **SETTINGS | {"targets": ["v_proj"]}))
    layer = llm.base_model.model.model.layers[0].self_attn.v_proj
    update = 8.0 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merged = merged_copy(copy.deepcopy(llm)).model.layers[0].self_attn.v_proj.weight
    torch.testing.assert_close(merged, layer.base_layer.weight + update)
