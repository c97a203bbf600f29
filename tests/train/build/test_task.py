import json

import numpy as np
import pytest
import torch

from kikitori.errors import ConfigError, KikitoriError
from kikitori.model.acoustic_model import AcousticModel
from kikitori.model.adapters.lora import is_adapted, is_live
from kikitori.model.decoder.llm import embed_mixture
from kikitori.model.decoder.vocabulary import embedding_layers
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.folder import load_config, load_ctc_units, load_llm, load_model
from kikitori.model.heads import ctc_loss
from kikitori.text.unit_training import character_units
from kikitori.text.units import load_units
from kikitori.train.build.acoustic import build_acoustic_model
from kikitori.train.build.speech_llm import build_speech_llm
from kikitori.train.build.task import build_task, build_units
from kikitori.train.loop.optim import build_optimizer
from kikitori.train.recipe.optim import Optim
from kikitori.train.recipe.recipe import resolve
from kikitori.train.run import train
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.tasks.speech import AcousticTask
from kikitori.train.tasks.speech_llm import SpeechLLMTask
from kikitori.train.tasks.text import TextTask
from kikitori.train.text_injection.prompts import PhonePromptSimulator, posterior_sampler, stack
from tests.tiny import save_tiny_llm, tiny_bpe
from tests.train.helpers import (
    HUBERT,
    LLAMA,
    PARAKEET,
    TEXTS,
    acoustic_recipe,
    make_recipe,
    speech_llm_recipe,
    text_recipe,
    write_recipe,
)

SHORT = {"run": {"epochs": 1}}
peft = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def runs(corpus):
    """A CTC run and an LLM run over the same units, `ctc` and `lm` in the folder given."""
    train(
        write_recipe(corpus / "ctc.yaml", corpus, acoustic_recipe(ctc={"weights": {1: 0.5, 2: 1.0}}, **SHORT)),
        corpus / "ctc",
    )
    units = {"kind": "run", "path": str(corpus / "ctc")}
    train(write_recipe(corpus / "lm.yaml", corpus, text_recipe(units=units, **SHORT)), corpus / "lm")
    return corpus


@pytest.fixture
def build(corpus, tmp_path):
    def build(values):
        lines = []
        return build_task(make_recipe(tmp_path, corpus, values), lines.append), lines

    return build


def equal(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (acoustic_recipe(), AcousticTask),
        (acoustic_recipe(encoder={"config": HUBERT}), AcousticTask),
        (text_recipe(), TextTask),
        (speech_llm_recipe(), SpeechLLMTask),
        (speech_llm_recipe(ctc={"weights": {}}, bridge={"kind": "conv", "stride": 4}), SpeechLLMTask),
        (speech_llm_recipe(bridge={"kind": "ctc_compress", "stride": 1}), SpeechLLMTask),
        (speech_llm_recipe(interface="merged_attention", llm={"auxiliary_layer": 1}), SpeechLLMTask),
        (speech_llm_recipe(interface="cross_attention", llm={"auxiliary_layer": 1}), SpeechLLMTask),
        (acoustic_recipe(ctc={"weights": {2: 1.0}, "character_layer": 1}), AcousticTask),
        (acoustic_recipe(units={"kind": "sentencepiece", "size": 20}), AcousticTask),
    ],
    ids=[
        *("parakeet", "hubert", "text", "speech llm", "no ctc", "ctc compression", "merged", "aed"),
        *("character head", "sentencepiece"),
    ],
)
def test_each_task_builds_and_gives_a_loss_with_gradients(build, values, kind):
    from kikitori.train.tasks.base import BatchPosition

    task, lines = build(values)
    assert type(task) is kind
    assert lines[0].startswith(f"label units: {task.units.size} (")
    task.module.eval()  # LayerDrop would leave layers out
    batch = task.load(task.batches(0)[0], 0)
    loss, parts = task.loss(batch, BatchPosition(0, 0, 0.0))
    assert bool(loss.isfinite())
    assert parts
    loss.backward()
    without = [n for n, p in task.module.named_parameters() if p.requires_grad and p.grad is None]
    assert [name for name in without if "masked_spec_embed" not in name and "lora" not in name] == []
    assert task.describe(batch)


def test_an_encoder_and_its_heads_go_on_from_a_run(runs, tmp_path):
    trained = load_model(runs / "ctc" / "model").model
    same = {"kind": "run", "path": str(runs / "ctc")}
    recipe = resolve(make_recipe(tmp_path, runs, acoustic_recipe(units=same, encoder={"init": str(runs / "ctc")})))
    model = build_acoustic_model(recipe.encoder, recipe.ctc, build_units(recipe))
    assert equal(model.encoder, trained.encoder)
    assert list(model.ctc_heads) == ["2"]
    assert equal(model.ctc_heads["2"], trained.ctc_heads["2"])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_heads_over_other_units_start_afresh(runs, tmp_path):
    trained = load_model(runs / "ctc" / "model").model
    size = load_units(runs / "ctc" / "model").size
    (tmp_path / "other.txt").write_text("".join(chr(ord("ぁ") + i) for i in range(size - 4)))  # as many, but others
    other = acoustic_recipe(
        units={"kind": "characters", "text_form": "as_is"},
        text={"files": [str(tmp_path / "other.txt")]},
        encoder={"init": str(runs / "ctc")},
    )
    recipe = resolve(make_recipe(tmp_path, runs, other))
    units = build_units(recipe)
    assert units.size == size
    model = build_acoustic_model(recipe.encoder, recipe.ctc, units)
    assert equal(model.encoder, trained.encoder)
    assert not equal(model.ctc_heads["2"], trained.ctc_heads["2"])


def test_frozen_heads_keep_their_letters_beside_an_llm_that_reads_them(runs, tmp_path, build):
    units = tiny_bpe()
    save_tiny_llm(tmp_path / "llm", "llama", units=units)
    values = speech_llm_recipe(
        units={"kind": "llm", "text_form": "as_is"},
        encoder={"init": str(runs / "ctc"), "policy": "frozen"},
        ctc={"policy": "frozen", "weights": {2: 0.0}},
        bridge={"kind": "ctc_compress", "stride": 1, "repeats": "average", "show_ctc": True},
        llm={"init": str(tmp_path / "llm")},
    )
    task, _ = build(values)
    letters = load_model(runs / "ctc" / "model").ctc_units
    assert [units.decode([label]) for label in task.speech_llm.config.shown_labels[4:]] == [
        letters.decode([label]) for label in range(4, letters.size)
    ]
    assert equal(task.acoustic.ctc_heads["2"], load_model(runs / "ctc" / "model").model.ctc_heads["2"])

    batch = task.load(task.batches(0)[0], 0)
    encoded = task.encode(batch, BatchPosition(0, 0, 0.0))
    log_probs, _ = task.acoustic.log_probs(encoded)
    table = task.speech_llm.llm.get_input_embeddings().weight
    for label, spelled in enumerate(task.speech_llm.config.shown_labels[3:], start=3):
        certain = log_probs.new_full(log_probs.shape, -torch.inf)
        certain[..., label] = 0.0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AcousticModel, "log_probs", lambda *_, certain=certain: (certain, encoded.lengths))
            embeds, lengths = task.speech_llm.speech_prompt(encoded)
        assert lengths.tolist() == [1] * len(lengths)
        torch.testing.assert_close(embeds, table[spelled].expand_as(embeds))

    _, parts = task.loss(batch, BatchPosition(0, 0, 0.0))
    reference = ctc_loss(log_probs, encoded.lengths, [letters.encode(text) for text in batch.texts])
    assert parts["ctc2"] == pytest.approx(float(reference.total) / reference.num_labels)
    task.export(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.units.size == units.size
    assert loaded.own_ctc_units is not None
    assert loaded.ctc_units.size == letters.size
    assert load_ctc_units(tmp_path / "model").size == letters.size


def test_heads_over_more_than_characters_are_not_shown(runs, tmp_path, build):
    units = character_units(["no letter of the corpus"], "as_is")
    save_tiny_llm(tmp_path / "llm", "llama", units=units)
    values = speech_llm_recipe(
        units={"kind": "llm", "text_form": "as_is"},
        encoder={"init": str(runs / "ctc"), "policy": "frozen"},
        ctc={"policy": "frozen"},
        bridge={"show_ctc": True},
        llm={"init": str(tmp_path / "llm")},
    )
    with pytest.raises(ConfigError, match="is no single item of the LLM's vocabulary"):
        build(values)


def test_a_speech_llm_is_joined_from_two_runs(runs, tmp_path):
    start = {"units": {"kind": "run", "path": str(runs / "ctc")}, "encoder": {"init": str(runs / "ctc")}}
    recipe = resolve(make_recipe(tmp_path, runs, speech_llm_recipe(**start, llm={"init": str(runs / "lm")})))
    model = build_speech_llm(recipe, build_units(recipe))
    trained = load_model(runs / "ctc" / "model").model
    assert equal(model.acoustic.encoder, trained.encoder)
    assert equal(model.acoustic.ctc_heads["2"], trained.ctc_heads["2"])
    assert equal(model.llm, load_llm(runs / "lm" / "model"))


def test_a_bridge_and_an_encoder_go_on_from_a_speech_llm(runs, tmp_path):
    units = {"kind": "run", "path": str(runs / "ctc")}
    first = write_recipe(tmp_path / "first.yaml", runs, speech_llm_recipe(units=units, **SHORT))
    train(first, tmp_path / "first")
    trained = load_model(tmp_path / "first" / "model").model
    start = str(tmp_path / "first")
    again = speech_llm_recipe(
        units=units, encoder={"init": start}, bridge={"kind": "stack", "stride": 2, "init": start, "policy": "frozen"}
    )
    recipe = resolve(make_recipe(tmp_path, runs, again))
    model = build_speech_llm(recipe, build_units(recipe))
    assert equal(model.bridge, trained.bridge)
    assert equal(model.acoustic, trained.acoustic)
    assert not any(parameter.requires_grad for parameter in model.bridge.parameters())
    for bridge, problem in (({"stride": 3}, "another shape"), ({"init": str(runs / "ctc")}, "no speech LLM")):
        recipe = resolve(make_recipe(tmp_path, runs, speech_llm_recipe(units=units, bridge={"init": start, **bridge})))
        with pytest.raises(ConfigError, match=problem):
            build_speech_llm(recipe, build_units(recipe))


@pytest.mark.parametrize("interface", ["merged_attention", "cross_attention"])
def test_an_interface_starts_closed_beside_a_trained_llm_and_goes_on_from_a_run(runs, tmp_path, interface):
    units = {"kind": "run", "path": str(runs / "ctc")}

    def build(**changes):
        values = {"units": units, "interface": interface, "llm": {"init": str(runs / "lm")}}
        recipe = resolve(make_recipe(tmp_path, runs, speech_llm_recipe(**{**values, **changes})))
        return build_speech_llm(recipe, build_units(recipe))

    closed, opened = build(), build(llm={"config": dict(LLAMA)})  # nothing to keep in an LLM from scratch
    assert max(layer.gate.abs().max() for layer in closed.interface.layers) < 1e-6
    assert all(layer.gate.tolist() == pytest.approx([0.1] * len(layer.gate)) for layer in opened.interface.layers)

    values = speech_llm_recipe(units=units, interface=interface, llm={"init": str(runs / "lm")}, **SHORT)
    train(write_recipe(tmp_path / "first.yaml", runs, values), tmp_path / "first")
    trained = load_model(tmp_path / "first" / "model").model
    assert not any(
        torch.equal(a.gate, b.gate) for a, b in zip(trained.interface.layers, closed.interface.layers, strict=True)
    )
    bridge = {"init": str(tmp_path / "first")}
    for llm in ({"init": str(runs / "lm")}, {"config": dict(LLAMA)}):
        model = build(bridge={**bridge, "policy": "frozen"}, llm=llm)
        assert equal(model.bridge, trained.bridge)
        assert equal(model.interface, trained.interface)
        assert not any(parameter.requires_grad for parameter in model.interface.parameters())
    other = build(interface="prefix", bridge=bridge)  # the bridge alone
    assert equal(other.bridge, trained.bridge)
    with pytest.raises(ConfigError, match="another shape"):
        build(bridge=bridge, llm={"config": {**LLAMA, "num_key_value_heads": 1}})


def test_the_front_end_of_a_fresh_encoder_lets_the_signal_through(corpus, tmp_path):
    # Joining the parts must not draw them anew: transformers' own initialisation is blind to speech.
    values = speech_llm_recipe(encoder={"config": {**PARAKEET, "subsampling_conv_channels": 32}})
    recipe = resolve(make_recipe(tmp_path, corpus, values))
    model = build_speech_llm(recipe, build_units(recipe))
    alone = SpeechEncoder(model.acoustic.encoder.config)
    for name, parameter in model.acoustic.encoder.model.subsampling.named_parameters():
        if parameter.ndim > 1:
            other = alone.model.subsampling.get_parameter(name)
            assert parameter.std().item() == pytest.approx(other.std().item(), rel=0.5), name


@pytest.mark.parametrize(
    ("changes", "learning"),
    [
        ({}, {"encoder", "ctc_heads", "bridge", "llm"}),
        ({"encoder": {"policy": "frozen"}}, {"ctc_heads", "bridge", "llm"}),
        ({"llm": {"policy": "frozen"}}, {"encoder", "ctc_heads", "bridge"}),
        ({"bridge": {"policy": "frozen"}}, {"encoder", "ctc_heads", "llm"}),
        ({"interface": "cross_attention"}, {"encoder", "ctc_heads", "bridge", "interface", "llm"}),
        (
            {"interface": "cross_attention", "llm": {"policy": "frozen"}},
            {"encoder", "ctc_heads", "bridge", "interface"},
        ),
        ({"interface": "merged_attention", "bridge": {"policy": "frozen"}}, {"encoder", "ctc_heads", "llm"}),
    ],
)
def test_policies_decide_what_learns(build, changes, learning):
    task, _ = build(speech_llm_recipe(**changes))
    model = task.speech_llm
    parts = {"encoder": model.acoustic.encoder, "ctc_heads": model.acoustic.ctc_heads}
    parts |= {"bridge": model.bridge, "interface": model.interface, "llm": model.llm}
    if not list(model.interface.parameters()):
        del parts["interface"]
    assert {n for n, part in parts.items() if all(p.requires_grad for p in part.parameters())} == learning
    assert {n for n, part in parts.items() if any(p.requires_grad for p in part.parameters())} == learning


def test_biases_of_two_dimensions_do_not_decay(build):
    task, _ = build(acoustic_recipe())
    optimizer = build_optimizer(task.module, Optim(lr=0.1, weight_decay=0.5), task.lr_factor)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: (p.ndim, decays[id(p)]) for name, p in task.module.named_parameters()}
    attention = "model.encoder.model.layers.0.self_attn"
    assert found[f"{attention}.bias_u"] == found[f"{attention}.bias_v"] == (2, 0.0)
    assert found[f"{attention}.q_proj.weight"] == (2, 0.5)


def test_the_front_end_alone_can_be_frozen(build):
    task, _ = build(acoustic_recipe(encoder={"config": HUBERT, "freeze_conv_front_end": True}))
    model = task.acoustic.encoder.model
    assert not any(parameter.requires_grad for parameter in model.feature_extractor.parameters())
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())


@peft
def test_lora_starts_as_no_change_and_learns_alone(build):
    task, _ = build(speech_llm_recipe(llm={"policy": "lora", "lora": {"rank": 2}}))
    names = dict(task.speech_llm.llm.named_parameters())
    assert {name for name, p in names.items() if p.requires_grad} == {name for name in names if "lora" in name}
    assert all(not p.any() for name, p in names.items() if "lora_B" in name)
    assert any("lora_B" in name for name in names)


@peft
def test_lora_is_merged_into_the_exported_model(runs, tmp_path):
    units = {"kind": "run", "path": str(runs / "ctc")}
    lora = {"init": str(runs / "lm"), "policy": "lora", "lora": {"rank": 2}}
    recipe = write_recipe(tmp_path / "r.yaml", runs, speech_llm_recipe(units=units, llm=lora, **SHORT))
    train(recipe, tmp_path / "run")
    before, after = (
        load_llm(runs / "lm" / "model").state_dict(),
        load_model(tmp_path / "run" / "model").model.llm.state_dict(),
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{i}.self_attn.{part}_proj.weight" for i in (0, 1) for part in "qv"}
    assert (tmp_path / "run" / "model" / "adapter" / "adapter_model.safetensors").is_file()


@peft
@pytest.mark.parametrize("interface", ["merged_attention", "cross_attention"])
def test_an_interface_is_exported_beside_merged_adapters(runs, tmp_path, interface):
    lora = {"init": str(runs / "lm"), "policy": "lora", "lora": {"rank": 2}}
    values = speech_llm_recipe(units={"kind": "run", "path": str(runs / "ctc")}, interface=interface, llm=lora)
    task = build_task(make_recipe(tmp_path, runs, values), lambda _: None)
    task.module.eval()
    for name, parameter in task.speech_llm.named_parameters():
        if "lora_B" in name or name.endswith("gate"):
            torch.nn.init.normal_(parameter, std=0.3)
    batch = task.load([0, 3], 0)
    task.export(tmp_path / "model")
    exported = load_model(tmp_path / "model").model
    labels = [task.units.encode(text) for text in batch.texts]
    with torch.no_grad():
        expected, _ = task.speech_llm(batch.waveforms, batch.lengths, labels)  # still reads after the export
        got, _ = exported(batch.waveforms, batch.lengths, labels)
    assert equal(exported.interface, task.speech_llm.interface)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@peft
def test_a_language_model_with_lora_is_exported_whole(runs, tmp_path):
    lora = {"init": str(runs / "lm"), "policy": "lora"}
    values = text_recipe(units={"kind": "run", "path": str(runs / "ctc")}, llm=lora, **SHORT)
    train(write_recipe(tmp_path / "r.yaml", runs, values), tmp_path / "run")
    before, after = load_llm(runs / "lm" / "model").state_dict(), load_llm(tmp_path / "run" / "model").state_dict()
    assert before.keys() == after.keys()
    assert not equal_tensors(before, after, "model.layers.0.self_attn.q_proj.weight")
    assert equal_tensors(before, after, "model.layers.0.mlp.up_proj.weight")


def heard_practice(runs, **changes):
    speech = [{"path": "manifest.jsonl", "split": "train"}]
    return text_recipe(
        units={"kind": "run", "path": str(runs / "ctc")},
        text_injection={"share": 1.0, "ctc": str(runs / "ctc"), "speech": speech},
        **changes,
    )


def test_reading_practice_can_be_what_a_ctc_head_heard(runs, build):
    augment = {"speeds": [0.9, 1.1], "spec_augment": {"ramp": 0.0}}
    task, lines = build(heard_practice(runs, augment=augment))
    again, _ = build(heard_practice(runs, augment=augment))
    assert isinstance(task, TextTask)
    assert any(line.startswith("text injection: ") for line in lines)
    spoken = sum(len(task.units.encode(text)) for text in TEXTS)
    assert 0 < len(task.simulator.spoken) <= spoken
    assert np.array_equal(task.simulator.weights, again.simulator.weights)  # augmentation follows the seed
    batch = task.load(task.batches(0)[0], 0)
    assert all(len(prompt) > 0 for prompt in batch.prompts)
    loss, parts = task.loss(batch, BatchPosition(0, 0, 0.0))
    assert parts == {"text_injection": pytest.approx(loss.item())}


def test_reading_practice_shows_letters_to_an_llm_that_has_each_of_them(runs, tmp_path, build):
    units = tiny_bpe()
    save_tiny_llm(tmp_path / "llm", "llama", units=units)
    changes = {"units": {"kind": "llm", "text_form": "as_is"}, "llm": {"init": str(tmp_path / "llm")}}
    practice = heard_practice(runs)
    plain, _ = build(practice | changes)
    practice["text_injection"]["compress"] = True
    short, _ = build(practice | changes)
    letters = load_model(runs / "ctc" / "model").ctc_units
    shown = [units.decode([label]) for label in plain.simulator.shown[4:]]
    assert shown == [letters.decode([label]) for label in range(4, letters.size)]
    frames, positions = (task.load(task.batches(0)[0], 0).prompts for task in (plain, short))
    assert all(0 < len(few) < len(all_) for few, all_ in zip(positions, frames, strict=True))
    assert all({*prompt.labels.flat} <= {*plain.simulator.shown} for prompt in (*frames, *positions))


def test_reading_practice_needs_a_head_whose_labels_the_llm_has(runs, build):
    other_units = heard_practice(runs) | {"units": {"kind": "characters", "text_form": "as_is"}}
    other_units["text"] = {"files": ["more.txt"], "dev_lines": 1}
    (runs / "more.txt").write_text("a cat\nsat\n")
    with pytest.raises(ConfigError, match=r"text_injection\.ctc: label \d+ of the CTC head, .*, is no single item"):
        build(other_units)
    with pytest.raises(ConfigError, match="ctc and speech go together"):
        build(text_recipe(text_injection={"ctc": str(runs / "ctc")}))


def equal_tensors(left, right, name):
    return torch.equal(left[name], right[name])


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (acoustic_recipe(ctc={"weights": {3: 1.0}}), "the encoder has layers 1 to 2"),
        (acoustic_recipe(ctc={"character_layer": 3}), "the encoder has layers 1 to 2"),
        (acoustic_recipe(encoder={"config": {"model_type": "no_such"}}), r"encoder\.config: transformers refuses it"),
        (
            speech_llm_recipe(llm={"auxiliary_layer": 2}),
            r"llm\.auxiliary_layer: the last of the LLM's 2 layers has its loss already",
        ),
        (speech_llm_recipe(llm={"config": {**LLAMA, "vocab_size": 5}}), "the LLM knows 5 labels, the units are"),
        (text_recipe(llm={"config": {**LLAMA, "vocab_size": 5}}), "the LLM knows 5 labels, the units are"),
        (text_recipe(llm={"config": {"model_type": "no_such"}}), r"llm\.config: transformers refuses it"),
        (
            text_recipe(llm={"config": {**LLAMA, "hidden_size": "wide"}}),
            r"llm\.config: .* refuses it .*hidden_size.*'wide'",
        ),
        (text_recipe(llm={"config": {**LLAMA, "num_attention_heads": 3}}), r"llm\.config: transformers refuses it"),
        (acoustic_recipe(encoder={"config": {**HUBERT, "conv_dim": [8]}}), r"encoder\.config: .* refuses it"),
    ],
)
def test_what_does_not_fit_is_a_config_error(build, values, problem):
    with pytest.raises(ConfigError, match=problem):
        build(values)


def test_missing_starts_are_named(build, tmp_path):
    for values in (
        acoustic_recipe(encoder={"init": str(tmp_path / "nothing")}),
        text_recipe(llm={"init": str(tmp_path / "nothing")}),
        acoustic_recipe(units={"kind": "run", "path": str(tmp_path / "nothing")}),
        acoustic_recipe(data={"train": [{"path": "nothing.jsonl"}]}),
    ):
        with pytest.raises(KikitoriError, match="nothing"):
            build(values)


def test_units_follow_their_settings(runs, tmp_path):
    def units(**settings):
        return build_units(resolve(make_recipe(tmp_path, runs, acoustic_recipe(units=settings))))

    letters = set("".join(TEXTS)) - {" "}
    assert units(kind="characters").size == 4 + len(letters)
    spelled = resolve(
        make_recipe(tmp_path, runs, {**acoustic_recipe(), "units": {"kind": "run", "path": str(runs / "ctc")}})
    )
    assert build_units(spelled).tokenizer.get_vocab() == load_units(runs / "ctc" / "model").tokenizer.get_vocab()
    own = resolve(make_recipe(tmp_path, runs, text_recipe(units={"kind": "llm"}, llm={"init": str(runs / "lm")})))
    assert build_units(own).tokenizer.get_vocab() == load_units(runs / "lm" / "model").tokenizer.get_vocab()


def test_the_vocabulary_of_a_config_may_be_padded(build):
    task, _ = build(text_recipe(llm={"config": {**LLAMA, "vocab_size": 64}}))
    assert task.llm.get_input_embeddings().num_embeddings == 64


def test_the_exported_configuration_is_json(runs):
    config = json.loads((runs / "ctc" / "model" / "config.json").read_text())
    assert config["ctc_layers"] == [1, 2]


@pytest.fixture(scope="module")
def llms(tmp_path_factory):
    """Tiny LLMs over their own BPE: `llama` with an output matrix of its own, `qwen2` without."""
    folder = tmp_path_factory.mktemp("llms")
    for family in ("llama", "qwen2"):
        save_tiny_llm(folder / family, family, units=tiny_bpe())
    return folder


def learning(part):
    return {name for name, parameter in part.named_parameters() if parameter.requires_grad}


def test_an_llms_units_in_lower_case_leave_the_prompt_as_it_is(build, llms, tmp_path):
    own = tiny_bpe()
    values = speech_llm_recipe(
        units={"kind": "llm", "text_form": "lower"}, llm={"init": str(llms / "llama")}, prompt={"preset": "rwth"}
    )
    task, _ = build(values)
    assert task.units.encode("A Cat") == own.encode("a cat")
    assert task.speech_llm.config.prompt_before == own.encode("USER: ")
    assert task.speech_llm.config.prompt_after == [*own.encode("Transcribe speech to text. ASSISTANT: "), own.bos_id]
    task.export(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.units.encode("A Cat") == own.encode("a cat")
    # A run that goes on from there spells its prompt as before.
    again, _ = build({**values, "units": {"kind": "llm"}, "llm": {"init": str(tmp_path / "model")}})
    assert again.speech_llm.config.prompt_before == own.encode("USER: ")
    assert again.units.encode("A Cat") == own.encode("a cat")
    text, _ = build(text_recipe(units={"kind": "llm", "text_form": "lower"}, llm={"init": str(llms / "llama")}))
    assert text.sentences[0] == own.encode(own.decode(text.sentences[0]).lower())


def test_other_units_get_new_embeddings_on_the_old_body(build, llms, tmp_path):
    for family, count in (("llama", 2), ("qwen2", 1)):
        before = load_llm(llms / family)
        task, lines = build(speech_llm_recipe(llm={"init": str(llms / family)}))
        llm, units = task.speech_llm.llm, task.units
        assert f"the LLM gets new embeddings for the {units.size} units, which learn whatever its policy" in lines
        layers = embedding_layers(llm)
        assert [layer.weight.shape[0] for layer in layers] == [units.size] * count
        letter = units.special_id("d")
        old = tiny_bpe().special_id("d")
        assert torch.equal(layers[0].weight[letter], before.get_input_embeddings().weight[old])
        assert equal(llm.model.layers, before.model.layers)
        config = llm.config
        assert (config.vocab_size, config.bos_token_id, config.eos_token_id) == (units.size, units.bos_id, units.eos_id)
        assert task.acoustic.config.num_units == units.size
        task.export(tmp_path / family)
        exported = load_model(tmp_path / family).model
        assert equal(exported.llm, llm)
        assert exported.config.llm_config.vocab_size == units.size


def test_the_units_of_a_run_fit_its_llm_and_no_other(runs, llms, build, tmp_path):
    units = {"kind": "run", "path": str(runs / "ctc")}
    task, lines = build(speech_llm_recipe(units=units, llm={"init": str(runs / "lm")}))
    assert equal(task.speech_llm.llm, load_llm(runs / "lm" / "model"))
    assert not any("new embeddings" in line for line in lines)
    _, lines = build(speech_llm_recipe(units=units, llm={"init": str(llms / "llama")}))
    assert any("new embeddings" in line for line in lines)
    lost = tmp_path / "lost"
    lost.mkdir()
    for file in (llms / "llama").glob("[!t]*"):
        (lost / file.name).write_bytes(file.read_bytes())
    task, lines = build(speech_llm_recipe(units=units, llm={"init": str(lost)}))
    assert any("new embeddings" in line for line in lines)
    assert task.speech_llm.llm.get_input_embeddings().num_embeddings == task.units.size


@peft
@pytest.mark.parametrize(
    ("policy", "learns"),
    [
        ("frozen", {"model.embed_tokens.weight", "lm_head.weight"}),
        ("lora", {"base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"}),
    ],
)
def test_new_embeddings_learn_whatever_the_policy(build, llms, tmp_path, policy, learns):
    task, _ = build(text_recipe(llm={"init": str(llms / "llama"), "policy": policy}))
    assert {name for name in learning(task.llm) if "lora" not in name} == learns
    task, _ = build(speech_llm_recipe(llm={"init": str(llms / "qwen2"), "policy": policy}))
    assert {name for name in learning(task.speech_llm.llm) if "lora" not in name} == learns - {
        "lm_head.weight",
        "base_model.model.lm_head.weight",
    }
    task.export(tmp_path / "model")
    assert load_model(tmp_path / "model").model.llm.get_input_embeddings().num_embeddings == task.units.size


def test_frozen_embeddings_take_a_tied_output_along(build, llms):
    for family in ("llama", "qwen2"):
        llm = {"init": str(llms / family), "freeze_embeddings": True}
        task, _ = build(speech_llm_recipe(units={"kind": "llm"}, llm=llm))
        names = {name for name, _ in task.speech_llm.llm.named_parameters()}
        assert learning(task.speech_llm.llm) == names - {"model.embed_tokens.weight"}
        assert ("lm_head.weight" in names) is (family == "llama")
    with pytest.raises(ConfigError, match=r"llm\.freeze_embeddings: the embeddings are new and have to learn"):
        build(speech_llm_recipe(llm={"init": str(llms / "llama"), "freeze_embeddings": True}))


def test_a_random_llm_has_the_shape_of_the_named_one(build, llms):
    pretrained = load_llm(llms / "llama")
    task, _ = build(text_recipe(units={"kind": "llm"}, llm={"init": str(llms / "llama"), "random": True}))
    assert task.units.size == tiny_bpe().size
    assert shapes(task.llm) == shapes(pretrained)
    assert not any(
        torch.equal(p, pretrained.state_dict()[n]) for n, p in task.llm.named_parameters() if "norm" not in n
    )
    task, _ = build(text_recipe(llm={"init": str(llms / "llama"), "random": True}))
    config = task.llm.config
    assert (config.vocab_size, config.eos_token_id) == (task.units.size, task.units.eos_id)
    assert shapes(task.llm.model.layers) == shapes(pretrained.model.layers)
    assert next(task.llm.parameters()).dtype == torch.float32


def shapes(part):
    return {name: parameter.shape for name, parameter in part.named_parameters()}


def test_random_encoders_have_the_shape_of_the_named_one(runs, build, tmp_path):
    units = {"kind": "run", "path": str(runs / "ctc")}
    trained = load_model(runs / "ctc" / "model").model.encoder
    task, _ = build(acoustic_recipe(units=units, encoder={"init": str(runs / "ctc"), "random": True}))
    assert shapes(task.acoustic.encoder) == shapes(trained)
    assert not equal(task.acoustic.encoder.model.layers, trained.model.layers)
    bare = tmp_path / "bare"
    bare.mkdir()
    config = load_config(runs / "ctc" / "model").encoder_config
    config.save_pretrained(bare)
    task, _ = build(acoustic_recipe(encoder={"init": str(bare), "random": True}))  # no weights are needed
    assert shapes(task.acoustic.encoder) == shapes(trained)


def test_an_encoder_goes_on_with_other_dropout(runs, build, tmp_path):
    units = {"kind": "run", "path": str(runs / "ctc")}
    changed = {"init": str(runs / "ctc"), "changes": {"layerdrop": 0.25, "activation_dropout": 0.5}}
    trained = load_model(runs / "ctc" / "model").model
    task, _ = build(acoustic_recipe(units=units, encoder=changed))
    assert equal(task.acoustic.encoder, trained.encoder)
    assert equal(task.acoustic.ctc_heads["2"], trained.ctc_heads["2"])
    assert task.acoustic.encoder.model.layers[0].feed_forward1.activation_dropout == 0.5
    task.export(tmp_path / "model")
    assert load_config(tmp_path / "model").encoder_config.layerdrop == 0.25
    task, _ = build(acoustic_recipe(units=units, encoder={**changed, "random": True}))
    assert task.acoustic.encoder.model.layerdrop == 0.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_drop": 0.1}, "encoder.changes: the configuration has no 'layer_drop'"),
        ({"intermediate_size": 24}, "encoder.changes: its weights do not fit such a configuration"),
    ],
)
def test_changes_that_do_not_fit_are_errors(runs, build, changes, message):
    units = {"kind": "run", "path": str(runs / "ctc")}
    with pytest.raises(ConfigError, match=message):
        build(acoustic_recipe(units=units, encoder={"init": str(runs / "ctc"), "changes": changes}))


def test_an_encoder_and_an_llm_go_on_from_a_speech_llm(runs, build, tmp_path):
    task, _ = build(speech_llm_recipe(units={"kind": "run", "path": str(runs / "ctc")}))
    task.export(tmp_path / "model")
    start = {"init": str(tmp_path / "model")}
    bridge = {"kind": "stack", "stride": 2, **start}
    again, _ = build(speech_llm_recipe(units={"kind": "llm"}, encoder=start, bridge=bridge, llm=start))
    assert equal(again.speech_llm, task.speech_llm)
    shaped, _ = build(
        speech_llm_recipe(
            units={"kind": "llm"}, encoder={**start, "random": True}, bridge=bridge, llm={**start, "random": True}
        )
    )
    assert shapes(shaped.speech_llm) == shapes(task.speech_llm)
    assert not equal(shaped.speech_llm.llm, task.speech_llm.llm)


@pytest.mark.parametrize("values", [acoustic_recipe, speech_llm_recipe], ids=["acoustic", "speech llm"])
def test_encoder_adapters_learn_alone_and_are_merged_into_the_export(build, tmp_path, values):
    lora = {"policy": "lora", "lora": {"rank": 2, "alpha": 64.0}, "lr_factor": 3.0}
    changes = values(encoder=lora, optim={"lr": 0.05, "weight_decay": 0.0}, **SHORT)
    task, _ = build(changes)
    encoder = task.acoustic.encoder
    assert learning(encoder) == {name for name, _ in encoder.named_parameters() if "lora" in name}
    names = [name for name in learning(task.module) if ".encoder." in name]
    assert {task.lr_factor(name) for name in names} == {3.0}
    from kikitori.train.loop.trainer import Trainer

    directory = tmp_path / "run"
    directory.mkdir()
    Trainer(task, task.recipe.optim, task.recipe.run, 1, directory, lambda _: None).fit()
    assert is_live(encoder)
    task.module.eval()
    model = load_model(directory / "model").model
    exported = model.acoustic if values is speech_llm_recipe else model
    assert not is_adapted(exported)
    assert equal(exported.ctc_heads, task.acoustic.ctc_heads)
    waveforms, lengths = torch.randn(2, 16000), torch.tensor([16000, 12000])
    with torch.no_grad():
        expected, found = (part.encoder(waveforms, lengths).frames for part in (task.acoustic, exported))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_phones_are_shown_in_reading_practice_as_in_a_speech_prompt(runs, build, tmp_path):
    words = sorted({word for text in TEXTS for word in text.split()} - {"two"})
    (tmp_path / "lexicon.tsv").write_text("".join(f"{word}\t{' '.join(word)}\n" for word in words))
    lexicon, (same, speech) = str(tmp_path / "lexicon.tsv"), ({"kind": "run", "path": str(tmp_path / "am")}, "am")
    phones = {"lexicon": lexicon, "weights": {2: 1.0}, "upsample": 3}
    start = {"config": None, "init": str(runs / "ctc")}
    heard = acoustic_recipe(
        units={"kind": "run", "path": str(runs / "ctc")}, encoder=start, ctc={"weights": {2: 0.5}, "phones": phones}
    )
    train(write_recipe(tmp_path / "am.yaml", runs, heard | SHORT), tmp_path / speech)

    practice = heard_practice(runs, **SHORT) | {"units": same}
    practice["text_injection"] = {**practice["text_injection"], "ctc": str(tmp_path / speech), "lexicon": lexicon}
    task, _ = build(practice)
    plain = task.llm.get_input_embeddings().num_embeddings
    assert plain == task.units.size + 3 * len({c for word in words for c in word})
    batch = task.load(list(range(len(task.sentences))), 0)
    assert [len(prompt) == 0 for prompt in batch.prompts] == ["two" in task.units.decode(s) for s in batch.labels]
    train(write_recipe(tmp_path / "lm.yaml", runs, practice), tmp_path / "lm")

    bridge, llm = {"kind": "stack", "stride": 1, "show_phones": True}, {"config": None, "init": str(tmp_path / "lm")}
    reading = speech_llm_recipe(units=same, encoder=start | {"init": str(tmp_path / speech)}, bridge=bridge, llm=llm)
    made, _ = build(reading | {"ctc": {"weights": {2: 0.5}, "phones": phones}})
    waveforms = made.load([0], 0)
    made.module.eval()
    with torch.no_grad():
        encoded = made.acoustic.encode(waveforms.waveforms, waveforms.lengths)
        shown, _ = made.speech_llm.speech_prompt(encoded)
        posteriors = made.acoustic.phone_log_probs(encoded)[0][0].numpy()
        said = made.phone_losses.phones(waveforms.texts[0])
        bank = posterior_sampler([(posteriors, said)], len(made.acoustic.config.phones))
        prompts = PhonePromptSimulator(bank, lambda _: said, len(made.acoustic.config.phones), 3, made.units.size)
        prompt = stack([prompts.simulate([0], np.random.default_rng(0))])
        read = embed_mixture(made.speech_llm.llm, torch.from_numpy(prompt.labels), torch.from_numpy(prompt.weights))
    torch.testing.assert_close(read[0], shown[0, : read.shape[1]], atol=2e-3, rtol=2e-3)
    with pytest.raises(ConfigError, match=r"bridge\.show_phones needs ctc\.phones"):
        build(reading)
