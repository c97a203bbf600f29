import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kikitori.data.manifest import read_manifest
from kikitori.errors import ConfigError
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.adapters.folder import load_adapter
from kikitori.model.adapters.info import read_info
from kikitori.model.folder import load_model, save_model
from kikitori.model.heads import ctc_loss
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig
from kikitori.text.lexicon import Lexicon, write_lexicon
from kikitori.text.unit_training import character_units
from kikitori.train.build.task import build_task
from kikitori.train.loop.trainer import Trainer
from kikitori.train.run import dry_run, train
from kikitori.train.tasks.adaptation import AdaptationTask, TextAdaptationTask, divergence, with_replay
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.text_injection.ctc_prompts import WHOLE, Compression
from tests.tiny import (
    TRAINED_ON,
    save_tiny,
    tiny_acoustic_model,
    tiny_encoder_config,
    tiny_llm,
    tiny_speech_llm,
    tiny_units,
)
from tests.train.helpers import make_recipe, merged, write_corpus, write_recipe

START = BatchPosition(0, 0, 0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    with gzip.open(folder / "domain.txt.gz", "wt") as out:
        out.write("the cat sat\na dog ran\nbirds are small\n" * 4)
    return folder


def show_ctc(folder, **bridge):
    """A recogniser whose speech prompts look like those of a text adaptation."""
    acoustic, llm = tiny_acoustic_model(ctc_layers=(2,)), tiny_llm("qwen2", tiny_units().size)
    config = SpeechLLMConfig(
        acoustic.config, llm.config, show_ctc=True, prompt_before=[5], prompt_after=[6, 1], **bridge
    )
    model = SpeechLLM(config, acoustic=acoustic, llm=llm)
    save_model(folder, model, tiny_units(), TRAINED_ON)
    return model


def show_phones(folder):
    """A recogniser whose speech prompts show phones, with their pronunciations."""
    phones, upsample, units = ("a", "b", "c"), 2, tiny_units()
    config = AcousticModelConfig(tiny_encoder_config("hubert"), (2,), units.size, phones, (2,), upsample)
    acoustic, llm = AcousticModel(config), tiny_llm("qwen2", units.size + upsample * len(phones))
    shown = SpeechLLMConfig(config, llm.config, show_phones=True, prompt_before=[5], prompt_after=[6, 1])
    save_model(folder, SpeechLLM(shown, acoustic=acoustic, llm=llm), units, TRAINED_ON)
    words = ("the", "cat", "sat", "a", "dog", "ran", "birds", "are")  # "small" has no pronunciation
    write_lexicon(folder / "lexicon.tsv", Lexicon({word: (phones[: 1 + len(word) % 3],) for word in words}))
    return folder


def speech_recipe(base, **changes):
    recipe = {
        "task": "adaptation",
        "units": {"kind": "run", "path": str(base)},
        "adapt": {"model": str(base)},
        "data": {"train": [{"path": "manifest.jsonl", "split": "train"}], "batch_seconds": 3.0},
        "optim": {"lr": 0.01},
        "run": {"epochs": 1, "device": "cpu"},
    }
    return merged(recipe, changes)


def text_recipe(base, **changes):
    text = {"files": ["domain.txt.gz"], "dev_lines": 2, "batch_labels": 60}
    return speech_recipe(base, **{"data": None, "text": text, "text_injection": {"share": 1.0}, **changes})


REPLAY = {"train": [{"path": "manifest.jsonl", "split": "train"}], "share": 0.4}


def build(folder, corpus, values):
    lines: list[str] = []
    torch.manual_seed(1)
    return build_task(make_recipe(folder, corpus, values), lines.append), lines


def learning(module):
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
def test_replay_is_its_share(share):
    indices = list(range(30))
    epochs = [with_replay(indices, 20, share, [1, epoch]) for epoch in range(3)]
    for chosen in epochs:
        old = [i for i in chosen if i >= 20]
        assert sorted(i for i in chosen if i < 20) == list(range(20))
        assert len(old) / len(chosen) == pytest.approx(share, abs=0.03)
        counts = np.bincount(np.array(old) - 20, minlength=10)
        assert counts.max() - counts.min() <= 1  # nothing twice before everything once
    assert with_replay(indices, 20, share, [1, 0]) == epochs[0]
    assert epochs[0] != epochs[1]


def test_without_old_data_there_is_no_replay():
    assert with_replay(range(5), 5, 0.5, [1, 0]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("values", [speech_recipe, text_recipe])
def test_replay_is_mixed_into_the_batches(base, corpus, tmp_path, values):
    task, _ = build(tmp_path, corpus, values(base, replay=REPLAY))
    wanted = round(task.num_new * 0.4 / 0.6)
    for epoch in range(2):
        chosen = [i for batch in task.batches(epoch) for i in batch]
        assert sorted(i for i in chosen if i < task.num_new) == list(range(task.num_new))
        assert sum(i >= task.num_new for i in chosen) == wanted
    batches = [task.load(batch, 0) for batch in task.batches(0)]
    rows = read_manifest(corpus / "manifest.jsonl", split="train").utterances
    if isinstance(task, AdaptationTask):
        assert task.num_new == len(rows) == 7
        assert sum(len(batch.texts) for batch in batches) == 7 + wanted
    else:
        assert task.num_new == 12 - 2
        old = {tuple(task.units.encode(row.text or "")) for row in rows}
        assert sum(tuple(labels) in old for batch in batches for labels in batch.labels) == wanted


def test_by_default_the_llms_attention_alone_learns(base, corpus, tmp_path):
    task, lines = build(tmp_path, corpus, speech_recipe(base))
    assert learning(task.module)
    assert all(".attention.query_key_value.lora_" in name for name in learning(task.module))
    assert "train: 7 utterances, 0.00 h" in lines


def test_components_that_learn(base, corpus, tmp_path):
    recipe = speech_recipe(base, adapt={"components": ["bridge", "encoder"]}, ctc={"weights": {2: 0.5}})
    task, _ = build(tmp_path, corpus, recipe)
    names = learning(task.module)
    assert {name.split(".")[1] for name in names} == {"bridge", "acoustic"}
    assert any("ctc_heads.2" in name for name in names)
    assert not any("feature_extractor" in name for name in names)
    _, parts = task.loss(task.load([0, 1], 0), START)
    assert parts.keys() == {"text", "ctc2"}


def test_what_is_frozen_stays_in_evaluation_mode(base, corpus, tmp_path):
    task, _ = build(tmp_path, corpus, speech_recipe(base, lora={"dropout": 0.5}))
    task.module.train()
    training = {name for name, part in task.module.named_modules() if part.training}
    assert training
    assert all("lora_dropout" in name for name in training)
    task, _ = build(tmp_path, corpus, speech_recipe(base, adapt={"components": ["encoder"]}))
    task.module.train()
    assert task.speech_llm.acoustic.encoder.training
    assert not task.speech_llm.llm.training
    task.module.eval()
    assert not any(part.training for part in task.module.modules())


def test_a_whole_llm_learns_and_drops_out(base, corpus, tmp_path):
    task, _ = build(tmp_path, corpus, speech_recipe(base, adapt={"components": ["whole_llm"]}))
    assert learning(task.module) == {f"model.llm.{name}" for name, _ in task.speech_llm.llm.named_parameters()}
    task.module.train()
    assert task.speech_llm.llm.training
    assert not task.speech_llm.acoustic.training


def test_lora_targets_that_are_not_there(base, corpus, tmp_path):
    with pytest.raises(ConfigError) as caught:
        build(tmp_path, corpus, speech_recipe(base, lora={"targets": ["query_key_value", "v_prj"]}))
    assert str(caught.value) == (
        "lora.targets: LoRA finds no layer 'v_prj' (there are dense, dense_4h_to_h, dense_h_to_4h, embed_in, lm_head,"
        " query_key_value); set it to names of linear layers"
    )


def shaken(module):
    torch.manual_seed(2)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)


def test_divergence():
    base, adapted = torch.randn(5, 7), torch.randn(5, 7)
    p, q = base.softmax(1), adapted.softmax(1)
    torch.testing.assert_close(divergence(adapted, base), (p * (p / q).log()).sum() / 5)
    assert divergence(base, base) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("values", [speech_recipe, text_recipe])
def test_hold_adds_the_divergence_from_the_base(base, corpus, tmp_path, values):
    plain, _ = build(tmp_path, corpus, values(base))
    held, _ = build(tmp_path, corpus, values(base, kl_to_base={"weight": 2.0}))
    batch = held.load([0, 1, 2], 0)
    for task in (plain, held):
        task.module.train()
    loss, parts = held.loss(batch, START)
    assert parts["kl"] == pytest.approx(0.0, abs=1e-6)  # nothing learned yet
    for task in (plain, held):
        shaken(task.module)
    loss, parts = held.loss(batch, START)
    without, _ = plain.loss(batch, START)
    assert parts["kl"] > 0.01
    assert loss.item() == pytest.approx(without.item() + 2.0 * parts["kl"], rel=1e-5)
    before = {name: parameter for name, parameter in held.module.named_parameters() if parameter.requires_grad}
    loss.backward()
    assert before
    assert all(parameter.grad is not None for parameter in before.values())


def test_a_strong_hold_keeps_the_base(base, corpus, tmp_path):
    found = {}
    for weight in (1e-6, 10.0):
        task, _ = build(tmp_path, corpus, speech_recipe(base, kl_to_base={"weight": weight}))
        optimizer = torch.optim.AdamW([p for p in task.module.parameters() if p.requires_grad], lr=0.02)
        batch = task.load([0, 1], 0)
        for _ in range(12):
            optimizer.zero_grad()
            loss, parts = task.loss(batch, START)
            loss.backward()
            optimizer.step()
        found[weight] = parts
    assert found[10.0]["kl"] < 0.5 * found[1e-6]["kl"]
    assert found[10.0]["text"] > found[1e-6]["text"]


def test_the_adapter_remembers_what_both_have_seen(base, corpus, tmp_path):
    task, _ = build(tmp_path, corpus, speech_recipe(base))
    task.export(tmp_path)
    info = read_info(tmp_path)
    assert info.labels_per_second == task.trained_on.labels_per_second > TRAINED_ON.labels_per_second
    assert info.max_seconds == TRAINED_ON.max_seconds > 1.4
    assert info.base_name == f"{base.parent.name}/{base.name}"


def test_text_is_shown_in_the_recognisers_prompt(corpus, tmp_path):
    model = show_ctc(tmp_path / "base")
    task, lines = build(tmp_path, corpus, text_recipe(tmp_path / "base"))
    assert isinstance(task, TextAdaptationTask)
    assert (task.prompt.before, task.prompt.after, task.prompt.eos) == ((5,), (6, 1), model.config.eos_id)
    assert not any("warning" in line for line in lines)
    batch = task.load([0, 1], 0)
    assert all(batch.prompts)
    logits, next_labels, has_prompt = task.label_logits(batch)
    assert len(logits) == len(next_labels) == sum(len(labels) + 1 for labels in batch.labels)
    assert bool(has_prompt.all())
    assert task.evaluate()["perplexity"] > 1.0


@pytest.mark.parametrize(
    "bridge", [{"blanks": "drop", "repeats": "keep"}, {"blanks": "keep", "repeats": "average"}], ids=["drop", "average"]
)
def test_text_is_compressed_as_the_base_compresses_speech(corpus, tmp_path, bridge):
    values = {"bridge": "ctc_compress", "bridge_stride": 1, **{f"bridge_{key}": value for key, value in bridge.items()}}
    show_ctc(tmp_path / "base", **values)
    task, _ = build(tmp_path, corpus, text_recipe(tmp_path / "base"))
    whole = task.load([0, 1], 0).prompts
    assert task.simulator.compression == Compression(**bridge)
    task.simulator = replace(task.simulator, compression=WHOLE)
    frames = task.load([0, 1], 0).prompts
    assert all(0 < len(few) < len(every) for few, every in zip(whole, frames, strict=True))


def test_heads_over_letters_of_their_own_are_trained_on_letters(corpus, tmp_path):
    letters = character_units(["the quick brown fox jumps over a lazy dog"], "en_plain")
    acoustic = tiny_acoustic_model(ctc_layers=(2,), num_units=letters.size)
    model = tiny_speech_llm(acoustic=acoustic, ctc_layers=(2,))
    save_model(tmp_path / "base", model, tiny_units(), TRAINED_ON, letters)
    recipe = speech_recipe(tmp_path / "base", adapt={"components": ["encoder"]}, ctc={"weights": {2: 0.5}})
    task, _ = build(tmp_path, corpus, recipe)
    batch = task.load(task.batches(0)[0], 0)
    _, parts = task.loss(batch, START)
    expected = ctc_loss(*task.acoustic.log_probs(task.encode(batch, START)), list(map(letters.encode, batch.texts)))
    assert parts["ctc2"] == pytest.approx(expected.total.item() / expected.num_labels)
    assert {*task.decode_ctc(batch)[0]} <= {*"abcdefghijklmnopqrstuvwxyz' "}


def test_a_base_that_shows_no_labels_is_warned_about(base, corpus, tmp_path):
    _, lines = build(tmp_path, corpus, text_recipe(base))
    assert sum(line.startswith("warning: the base has no show_ctc") for line in lines) == 1


def test_a_base_that_shows_phones_is_shown_phones(corpus, tmp_path):
    folder = show_phones(tmp_path / "base")
    settings = {"share": 1.0, "lexicon": str(folder / "lexicon.tsv")}
    task, lines = build(tmp_path, corpus, text_recipe(folder, text_injection=settings))
    errors = replace(task.simulator.posteriors, max_error_rate=0.0)
    task.simulator = replace(task.simulator, posteriors=errors)
    assert not any("warning" in line for line in lines)
    batch = task.load(list(range(len(task.sentences))), 0)
    for labels, prompt in zip(batch.labels, batch.prompts, strict=True):
        assert (len(prompt) == 0) == ("small" in task.units.decode(labels))
        assert set(prompt.labels[prompt.weights > 0].tolist()) <= set(range(task.units.size, task.units.size + 6))
    assert any(map(len, batch.prompts))
    assert torch.isfinite(task.loss(batch, START)[0])
    _, lines = build(tmp_path, corpus, text_recipe(folder))  # units, which it is not shown
    assert sum("name its pronunciations with text_injection.lexicon" in line for line in lines) == 1


def test_phones_for_a_base_without_phones_are_refused(corpus, tmp_path):
    show_ctc(tmp_path / "base")
    lexicon = show_phones(tmp_path / "other") / "lexicon.tsv"
    with pytest.raises(ConfigError, match="the phone head has other phones"):
        build(tmp_path, corpus, text_recipe(tmp_path / "base", text_injection={"share": 1.0, "lexicon": str(lexicon)}))


def test_a_text_adapter_fits_the_recogniser(corpus, tmp_path):
    show_ctc(tmp_path / "base")
    task, _ = build(tmp_path, corpus, text_recipe(tmp_path / "base", run={"epochs": 3}))
    (tmp_path / "run").mkdir()
    trainer = Trainer(task, task.recipe.optim, task.recipe.run, 1, tmp_path / "run", lambda _: None, product="adapter")
    before = task.evaluate()["perplexity"]
    trainer.fit()
    assert task.evaluate()["perplexity"] < before
    loaded = load_adapter(load_model(tmp_path / "base"), tmp_path / "base", tmp_path / "run")
    assert read_info(tmp_path / "run").components == ["llm"]
    for name, tensor in task.llm.state_dict().items():
        assert torch.equal(tensor, loaded.model.llm.state_dict()[name])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adapt": {"components": []}}, "components are llm or whole_llm, bridge and encoder"),
        ({"adapt": {"components": ["llm", "whole_llm"]}}, "exclude each other"),
        ({"adapt": {"components": ["whole_llm"]}, "kl_to_base": {}}, "kl_to_base needs 'llm'"),
        ({"adapt": {"components": ["llm", "llm"]}}, "each at most once"),
        ({"adapt": {"components": ["tokenizer"]}}, "adapt.components"),
        ({"adapt": None}, "adapt: required key is missing"),
        ({"units": {"path": "elsewhere"}}, "the units of an adaptation are its base's"),
        ({"data": None}, "either 'data' or 'text'"),
        ({"text": {"files": ["a"]}}, "either 'data' or 'text'"),
        ({"text_injection": {}}, "task 'adaptation' does not use the section 'text_injection'"),
        ({"adapt": {"components": ["bridge"]}, "lora": {}}, "lora needs 'llm'"),
        ({"adapt": {"components": ["bridge"]}, "kl_to_base": {}}, "kl_to_base needs 'llm'"),
        ({"ctc": {"weights": {2: 0.3}}}, "ctc.weights need 'encoder'"),
        ({"replay": {"train": [], "share": 1.0}}, "replay.share"),
        ({"llm": {"init": "x"}}, "does not use the section 'llm'"),
    ],
)
def test_recipes_that_do_not_fit(base, corpus, tmp_path, values, message):
    with pytest.raises(ConfigError) as caught:
        make_recipe(tmp_path, corpus, speech_recipe(base, **values))
    assert message in str(caught.value)


def test_other_tasks_have_no_such_sections(corpus, tmp_path):
    values = {"task": "language_model", "units": {"kind": "characters"}, "text": {}, "llm": {"config": {}}}
    values |= {"optim": {"lr": 0.1}, "run": {"epochs": 1}, "kl_to_base": {}}
    with pytest.raises(ConfigError, match="does not use the section 'kl_to_base'"):
        make_recipe(tmp_path, corpus, values)


def test_text_adapts_the_llm_alone(base, corpus, tmp_path):
    with pytest.raises(ConfigError, match="text adapts the LLM alone"):
        make_recipe(tmp_path, corpus, text_recipe(base, adapt={"components": ["llm", "bridge"]}))


def test_bases_that_do_not_fit(base, corpus, tmp_path):
    save_tiny(tmp_path / "acoustic", tiny_acoustic_model())
    with pytest.raises(ConfigError, match="it is no speech LLM"):
        build(tmp_path, corpus, speech_recipe(tmp_path / "acoustic"))
    recipe = speech_recipe(base, adapt={"components": ["encoder"]}, ctc={"weights": {1: 0.3}})
    with pytest.raises(ConfigError, match="no CTC head on layer 1"):
        build(tmp_path, corpus, recipe)


def test_a_recipe_file_adapts_too(base, corpus, tmp_path):
    values = speech_recipe(base, replay=REPLAY, kl_to_base={}, run={"log_every": 1})
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, values)
    assert any(line.startswith("loss before training: ") for line in dry_run(recipe))
    assert train(recipe, tmp_path / "run") is True
    assert (tmp_path / "run" / "adapter" / "kikitori_adapter.json").is_file()
    assert not (tmp_path / "run" / "model").exists()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows
    assert all("kl" in row for row in rows)
