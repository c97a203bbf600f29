import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from kikitori.data.rows import Rows
from kikitori.errors import DataError
from kikitori.model.folder import load_model
from kikitori.train.loop.stages import plan
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.tasks.text import TextBatch, TextTask
from kikitori.train.text_injection.prompts import NO_PROMPT, SimulatedPrompt
from tests.tiny import INTERFACES, tiny_llm
from tests.train.helpers import (
    AUGMENT,
    LLAMA,
    acoustic_recipe,
    speech_llm_recipe,
    text_recipe,
    toy_trainer,
)

START = BatchPosition(0, 0, 0.0)


def test_perplexity_is_what_it_says(build):
    task = build(text_recipe(text={"dev_lines": 5}))
    task.module.eval()
    total, count = 0.0, 0
    bos, eos = task.units.bos_id, task.units.eos_id
    for sentence in task.dev:
        with torch.inference_mode():
            logits = task.llm(torch.tensor([[bos, *sentence]])).logits[0].log_softmax(-1)
        total -= sum(logits[i, label].item() for i, label in enumerate([*sentence, eos]))
        count += len(sentence) + 1
    assert task.evaluate() == {"perplexity": pytest.approx(math.exp(total / count), rel=1e-4)}


def test_perplexity_of_many_sentences_does_not_depend_on_how_they_are_batched(build):
    task = build(text_recipe(text={"dev_lines": 5}))
    task.module.eval()
    task.dev = [list(np.random.default_rng(i).integers(3, task.units.size, 1 + i % 9)) for i in range(70)]
    whole = task.evaluate()["perplexity"]
    sums = []
    for sentence in list(task.dev):
        task.dev = [sentence]
        sums.append((math.log(task.evaluate()["perplexity"]) * (len(sentence) + 1), len(sentence) + 1))
    assert whole == pytest.approx(math.exp(sum(s for s, _ in sums) / sum(n for _, n in sums)), rel=1e-4)


def test_the_text_loss_is_cross_entropy_and_prompts_are_logged_apart(build):
    task = build(text_recipe(text_injection={"share": 0.5}))
    task.module.eval()
    sentences = tuple(task.sentences[:2])
    plain, parts = task.loss(TextBatch(sentences, (NO_PROMPT, NO_PROMPT)), START)
    assert parts == {"text": pytest.approx(plain.item())}
    mixed, parts = task.loss(TextBatch(sentences, (NO_PROMPT, SimulatedPrompt.of([sentences[1][0], None]))), START)
    assert parts["text_injection"] != parts["text"]
    sizes = [len(sentence) + 1 for sentence in sentences]
    assert mixed.item() == pytest.approx((parts["text"] * sizes[0] + parts["text_injection"] * sizes[1]) / sum(sizes))
    logits = task.llm(torch.tensor([[task.units.bos_id, *sentences[0]]])).logits[0]
    expected = cross_entropy(logits, torch.tensor([*sentences[0], task.units.eos_id]))
    assert parts["text"] == pytest.approx(expected.item(), rel=1e-4)


def test_batches_of_text_are_a_function_of_the_epoch(build):
    task = build(text_recipe(text_injection={"share": 0.5}, text={"batch_labels": 30}))
    assert [*task.batches(1)] == [*task.batches(1)]
    assert sorted(i for batch in task.batches(1) for i in batch) == list(range(len(task.sentences)))
    indices = list(range(len(task.sentences)))
    first, again = task.load(indices, 1), task.load(indices, 1)
    assert first.labels == again.labels
    for one, other in zip(first.prompts, again.prompts, strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.weights, other.weights)
    prompts = [task.load(indices, epoch).prompts for epoch in range(40)]
    shown = np.mean([len(prompt) > 0 for row in prompts for prompt in row])
    assert 0.4 < shown < 0.6


def test_simulated_posteriors_are_learnt_from(build, tmp_path):
    task = build(text_recipe(text={"dev_lines": 0, "batch_labels": 80}, text_injection={"share": 1.0}))
    task.simulator = replace(task.simulator, max_error_rate=0.1)
    batch = task.load(list(range(len(task.sentences))), 0)
    before = task.loss(batch, START)[0].item()
    toy_trainer(task, tmp_path, epochs=12, lr=0.02)[0].fit()
    task.module.eval()
    assert task.loss(batch, START)[0].item() < 0.6 * before


def test_a_task_over_any_llm(build):
    made = build(text_recipe())
    llm = tiny_llm("gpt_neox", made.units.size)
    task = TextTask(made.recipe, llm, made.units, made.sentences, made.dev, None, made.prompt)
    assert task.evaluate()["perplexity"] > 1
    assert task.lr_factor("llm.anything") == 1.0
    assert task.remarks() == []


def test_an_epoch_has_every_utterance_once(build):
    task = build(acoustic_recipe())
    assert sorted(i for batch in task.batches(1) for i in batch) == list(range(7))
    assert [*task.batches(1)] == [*task.batches(1)] != [*task.batches(2)]


def test_rows_are_read_once_to_know_which_could_not_be_read(build, monkeypatch):
    task = build(acoustic_recipe())
    before, rows = task.trained_on, task.train.utterances
    task.train.left_out.add(rows[int(rows.durations.argmax())].utt_id)
    after = task.trained_on
    assert after.max_seconds < before.max_seconds
    monkeypatch.setattr(Rows, "__iter__", lambda _: pytest.fail("they are read again"))
    assert task.trained_on == after


def test_augmentation_is_a_function_of_seed_epoch_and_utterance(build):
    task = build(acoustic_recipe(augment=AUGMENT))
    first, again, later = task.load([1, 2], 0), task.load([1, 2], 0), task.load([1, 2], 1)
    assert torch.equal(first.waveforms, again.waveforms)
    assert first.waveforms.shape != later.waveforms.shape or not torch.equal(first.waveforms, later.waveforms)
    task.module.eval()
    losses = [task.loss(first, position)[0].item() for position in (START, START, replace(START, batch=1))]
    assert losses[0] == losses[1] != losses[2]


def test_ctc_parts_are_per_label_and_weighted(build):
    task = build(acoustic_recipe(ctc={"weights": {1: 0.25, 2: 1.0}, "character_layer": 1, "character_weight": 0.5}))
    task.module.eval()
    loss, parts = task.loss(task.load([0, 3], 0), START)
    assert set(parts) == {"ctc1", "ctc2", "characters"}
    assert loss.item() == pytest.approx(0.25 * parts["ctc1"] + parts["ctc2"] + 0.5 * parts["characters"], rel=1e-5)


def test_the_character_head_is_not_exported(build, tmp_path):
    task = build(acoustic_recipe(ctc={"character_layer": 1}))
    assert "character_head" in dict(task.module.named_children())
    task.export(tmp_path / "model")
    from safetensors.torch import load_file

    assert not [name for name in load_file(tmp_path / "model" / "model.safetensors") if "character" in name]


def test_the_speech_llm_loss_is_cross_entropy_of_its_logits(build):
    task = build(speech_llm_recipe(ctc={"weights": {2: 0.3}}))
    task.module.eval()
    batch = task.load([0, 3], 0)
    loss, parts = task.loss(batch, START)
    labels = [task.units.encode(text) for text in batch.texts]
    logits, targets = task.speech_llm(batch.waveforms, batch.lengths, labels)
    assert targets.tolist() == [*labels[0], task.units.eos_id, *labels[1], task.units.eos_id]
    assert parts["text"] == pytest.approx(cross_entropy(logits, targets).item(), rel=1e-5)
    assert loss.item() == pytest.approx(parts["text"] + 0.3 * parts["ctc2"], rel=1e-5)


COMPRESSIONS = [("drop", "keep"), ("keep", "average"), ("drop", "average"), ("keep", "weighted")]


def compressing(blanks="drop", repeats="keep", **changes):
    bridge = {"kind": "ctc_compress", "stride": 1, "blanks": blanks, "repeats": repeats}
    return speech_llm_recipe(bridge=bridge, **changes)


@pytest.mark.parametrize(("blanks", "repeats"), COMPRESSIONS)
def test_a_training_step_with_each_compression(build, tmp_path, blanks, repeats):
    task = build(compressing(blanks, repeats))
    assert (task.speech_llm.bridge.blanks, task.speech_llm.bridge.repeats) == (blanks, repeats)
    task.module.eval()
    loss, parts = task.loss(task.load([0, 3], 0), START)
    assert list(parts) == ["text", "ctc2", "positions_per_second"]
    assert 0 < parts["positions_per_second"] <= 26  # frames are 40 ms
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.module.parameters())
    before = {name: p.detach().clone() for name, p in task.speech_llm.named_parameters()}
    assert toy_trainer(task, tmp_path, epochs=1)[0].fit()
    changed = {name for name, p in task.speech_llm.named_parameters() if not torch.equal(p, before[name])}
    for part in ("acoustic.encoder.", "acoustic.ctc_heads.", "bridge.linear.", "llm."):
        assert any(name.startswith(part) for name in changed), part


def test_compression_reads_the_deepest_head(build):
    task = build(compressing(ctc={"weights": {1: 0.5, 2: 1.0}}))
    task.module.eval()
    for name, head in task.acoustic.ctc_heads.items():  # one has labels alone, the other blanks alone
        head.linear.bias.data[-1] = -100.0 if name == "2" else 100.0
    batch = task.load([0, 3], 0)
    frames = int(task.acoustic.encoder.output_lengths(batch.lengths).sum())
    _, parts = task.loss(batch, START)
    assert parts["positions_per_second"] * batch.seconds == pytest.approx(frames)


def test_the_longest_utterance_must_fit_into_the_llm(build):
    problem = r"^6\.wav: 1\.4 s of speech take 19 LLM positions .* the LLM has 12 positions; leave it out"
    with pytest.raises(DataError, match=problem):
        build(speech_llm_recipe(llm={"config": {**LLAMA, "max_position_embeddings": 12}}))


def test_compressed_speech_that_does_not_fit_into_the_llm_is_named_when_it_is_heard(build):
    task = build(compressing(llm={"config": {**LLAMA, "max_position_embeddings": 12}}))
    for head in task.acoustic.ctc_heads.values():
        head.linear.bias.data[-1] = -100.0  # no blanks, so that every frame stays
    task.module.eval()
    with pytest.raises(DataError, match=r"^3\.wav: 1\.1 s of speech take 29 LLM positions .*; leave it out"):
        task.loss(task.load([3], 0), START)
    with pytest.raises(DataError, match=r"^0\.wav: 0\.8 s of speech take 21 LLM positions .*; leave it out"):
        task.decode_llm(task.dev.batch([0]))


def test_dev_speech_needs_room_for_the_longest_transcript(build):
    with pytest.raises(
        DataError, match=r"^1\.wav: 0\.9 s of speech .* up to \d+ labels follow; the LLM has 37 positions"
    ):
        build(speech_llm_recipe(llm={"config": {**LLAMA, "max_position_embeddings": 37}}))


def test_a_dry_run_measures_the_positions(build):
    for values, rate in ((speech_llm_recipe(), 13.0), (compressing(), 26.0)):
        task = build(values)
        for head in task.acoustic.ctc_heads.values():
            head.linear.bias.data[-1] = -100.0
        task.module.eval()
        batch = task.load([0, 3], 0)
        line = task.describe(batch)[-1]
        measured = float(line.split("; ")[1].split()[0])
        assert measured == pytest.approx(rate, rel=0.05)
        assert line.endswith(" positions per second of speech")
        assert measured == pytest.approx(task.loss(batch, START)[1]["positions_per_second"], abs=0.006)


@pytest.mark.parametrize("interface", INTERFACES[1:])
def test_speech_in_a_memory_takes_no_llm_positions(build, interface):
    def values(most):
        return speech_llm_recipe(interface=interface, llm={"config": {**LLAMA, "max_position_embeddings": most}})

    task = build(values(38))  # of which speech and prompt would take 19
    task.module.eval()
    batch = task.load([0, 3], 0)
    lengths = task.speech_llm.speech_prompt(task.encode(batch, START))[1]
    _, parts = task.loss(batch, START)
    assert parts["positions_per_second"] * batch.seconds == pytest.approx(int(lengths.sum())) != 0
    assert f"LLM memory: {int(lengths.sum())} speech positions" in task.describe(batch)[-1]
    # The transcript still has to fit, and no bridge helps it.
    problem = r"^1\.wav: 0\.9 s of speech take 1 LLM positions .* the LLM has 12 positions; leave it out \(.*\)$"
    with pytest.raises(DataError, match=problem):
        build(values(12))


@pytest.mark.parametrize("interface", INTERFACES)
def test_each_interface_learns(build, tmp_path, interface):
    task = build(speech_llm_recipe(interface=interface))
    batch = task.load(list(range(7)), 0)

    def loss():
        task.module.eval()
        return task.loss(batch, START)[1]["text"]

    before = loss()
    toy_trainer(task, tmp_path, epochs=5, lr=0.02, evaluate_every=5)[0].fit()
    assert loss() < 0.95 * before
    assert task.describe(batch)[-1].startswith("LLM input: " if interface == "prefix" else "LLM memory: ")


def test_an_auxiliary_layer_has_a_loss_of_its_own(build):
    llm = {"auxiliary_layer": 1}
    task = build(speech_llm_recipe(interface="cross_attention", llm=llm, ctc={"weights": {2: 0.3}}))
    task.module.eval()
    batch = task.load([0, 3], 0)
    loss, parts = task.loss(batch, START)
    assert list(parts) == ["text", "ctc2", "text1", "positions_per_second"]
    assert loss.item() == pytest.approx(parts["text"] + parts["text1"] + 0.3 * parts["ctc2"], rel=1e-5)
    task.module.zero_grad()
    (0.5 * task.loss(batch, START)[0]).backward()
    assert task.module["auxiliary_norm"].weight.grad.any()

    model, labels = task.speech_llm, [task.units.encode(text) for text in batch.texts]
    rows = model.teacher_input(task.encode(batch, START), labels)
    model.llm.get_decoder().layers = model.llm.get_decoder().layers[:1]
    model.llm.get_decoder().norm = task.module["auxiliary_norm"]
    model.llm.config.num_hidden_layers = 1
    with torch.no_grad():
        memory = replace(rows.memory, readers=rows.memory.readers[:1], layers=rows.memory.layers[:1])
        logits = model.target_logits(replace(rows, memory=memory))
    assert parts["text1"] == pytest.approx(cross_entropy(logits, rows.next_labels).item(), rel=1e-4)


def test_the_auxiliary_norm_is_not_exported(build, tmp_path):
    task = build(speech_llm_recipe(llm={"auxiliary_layer": 1}))
    task.export(tmp_path / "model")
    assert not [name for name in load_model(tmp_path / "model").model.state_dict() if "auxiliary" in name]


def test_label_smoothing_changes_the_text_loss_alone(build):
    plain = build(speech_llm_recipe())
    smooth = build(speech_llm_recipe(optim={"label_smoothing": 0.2}))
    smooth.module.load_state_dict(plain.module.state_dict())
    found = []
    for task in (plain, smooth):
        task.module.eval()
        found.append(task.loss(task.load([0, 3], 0), START)[1])
    assert found[0]["ctc2"] == found[1]["ctc2"]
    assert found[0]["text"] != found[1]["text"]


def test_learning_rate_factors_by_component(build):
    factors = {"encoder": {"lr_factor": 0.25}, "bridge": {"lr_factor": 2.0}, "llm": {"lr_factor": 0.5}}
    task = build(speech_llm_recipe(interface="merged_attention", **factors))
    factors = {name: task.lr_factor(name) for name, _ in task.module.named_parameters()}
    expected = {
        ".acoustic.encoder.": 0.25,
        ".acoustic.ctc_heads.": 1.0,
        ".bridge.": 2.0,
        ".llm.": 0.5,
        ".interface.": 2.0,
    }
    for part, factor in expected.items():
        assert {value for name, value in factors.items() if part in name} == {factor}
    task = build(text_recipe(llm={"lr_factor": 0.5}))
    assert {task.lr_factor(name) for name, _ in task.module.named_parameters()} == {0.5}


@pytest.mark.parametrize("kind", ["speech", "text"])
def test_adapters_that_do_nothing_are_told(build, kind):
    values = text_recipe(llm={"policy": "lora"})
    if kind == "speech":
        values = speech_llm_recipe(llm={"policy": "lora"}, encoder={"policy": "lora", "unfreeze_at": 2})
    task = build(values)
    stages = plan(task.module, task.unfreeze_at, task.component)
    stages.enter(0)
    told = "the adapters of the {} do nothing yet: it puts out what it would without them"
    assert task.remarks() == [told.format("llm")]
    stages.enter(2)
    for name, parameter in task.module.named_parameters():
        if "lora_B" in name and name.startswith(("model.llm.", "llm.")):
            parameter.data += 0.1
    assert task.remarks() == ([] if kind == "text" else [told.format("encoder")])
    assert task.remarks() == []  # once


def test_dev_scores_are_word_error_rates_of_each_search(build):
    task = build(speech_llm_recipe())
    task.module.eval()
    assert list(task.evaluate()) == ["wer_greedy", "wer_ctc_greedy"]
    task.decode_llm = lambda batch: list(batch.texts)
    assert task.evaluate()["wer_greedy"] == 0.0
    task.decode_llm = lambda batch: ["wrong" for _ in batch.texts]
    assert task.evaluate()["wer_greedy"] == 1.0
    task.dev = None
    assert task.evaluate() == {}


def test_without_ctc_only_the_llm_is_scored(build):
    task = build(speech_llm_recipe(ctc={"weights": {}}))
    task.module.eval()
    assert list(task.evaluate()) == ["wer_greedy"]
    loss, parts = task.loss(task.load([0], 0), START)
    assert list(parts) == ["text", "positions_per_second"]
    assert loss.item() == pytest.approx(parts["text"])


SAID = {
    "a": "ax",
    "cat": "k ae t",
    "the": "dh ax",
    "dog": "d ao g",
    "small": "s m ao l",
    "bird": "b er d",
    "two": "t uw",
}


@pytest.fixture
def with_phones(tmp_path):
    (tmp_path / "lexicon.tsv").write_text("".join(f"{word}\t{phones}\n" for word, phones in SAID.items()))
    return {"lexicon": str(tmp_path / "lexicon.tsv"), "weights": {1: 0.25, 2: 1.0}, "upsample": 2}


def test_phone_losses_are_per_phone_over_what_the_lexicon_knows(build, with_phones):
    task = build(acoustic_recipe(ctc={"weights": {2: 0.5}, "phones": with_phones}))
    task.module.eval()
    batch = task.load([0, 3], 0)  # "a cat" and, with a word that the lexicon lacks, "two cats"
    loss, parts = task.loss(batch, START)
    total = 0.5 * parts["ctc2"] + 0.25 * parts["phones1"] + parts["phones2"]
    assert loss.item() == pytest.approx(total, rel=1e-5)
    alone = task.loss(task.load([0], 0), START)[1]
    assert parts["phones2"] == pytest.approx(alone["phones2"], rel=1e-4)
    assert task.unpronounced == {u.utt_id for u in task.train.utterances if {"cats", "dogs", "and"} & {*u.text.split()}}
    assert any("without a pronunciation" in line for line in task.describe(batch))
    assert set(task.loss(task.load([3], 0), START)[1]) == {"ctc2"}


def test_phone_heads_are_kept_and_go_on(build, with_phones, tmp_path):
    settings = {"weights": {2: 0.5}, "phones": with_phones}
    task = build(acoustic_recipe(ctc=settings))
    assert set(task.evaluate()) == {"wer_ctc_greedy", "per"}
    task.export(tmp_path / "model")
    kept = load_model(tmp_path / "model").model
    assert kept.config.phones == ["ae", "ao", "ax", "b", "d", "dh", "er", "g", "k", "l", "m", "s", "t", "uw"]
    again = build(acoustic_recipe(encoder={"config": None, "init": str(tmp_path / "model")}, ctc=settings))
    for layer, head in kept.phone_heads.items():
        assert torch.equal(head.linear.weight, again.acoustic.phone_heads[layer].linear.weight)
    waveforms, lengths = (batch := task.load([0, 1], 0)).waveforms, batch.lengths
    encoded = kept.encode(waveforms, lengths)
    log_probs, frames = kept.phone_log_probs(encoded)
    assert log_probs.shape == (2, 2 * int(encoded.lengths.max()), 15)
    assert frames.tolist() == (2 * encoded.lengths).tolist()
