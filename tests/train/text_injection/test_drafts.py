"""Drafts in training are those of decoding: in a speech LLM's loss, in reading practice, in an adaptation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from kikitori.errors import ConfigError
from kikitori.loading import load
from kikitori.model.folder import load_model
from kikitori.scorers.options import ScorerOptions
from kikitori.search.options import LexiconSearch
from kikitori.text.ngram.arpa import read_arpa
from kikitori.text.ngram.packed import write_packed
from kikitori.text.prompt import DRAFT_ROOM
from kikitori.train.run import train
from kikitori.train.tasks.base import BatchPosition
from tests.train.helpers import (
    TEXTS,
    acoustic_recipe,
    speech_llm_recipe,
    text_recipe,
    write_corpus,
    write_recipe,
)

WORDS = sorted({word for text in TEXTS for word in text.split()} - {"two"})
PHONES = sorted({letter for word in WORDS for letter in word})
START = BatchPosition(0, 0, 0.0)
BRIDGE = {"kind": "stack", "stride": 1, "show_phones": True}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Speech, a lexicon, an n-gram, `draft.yaml` that names both, and the run `am` with phone heads that hear much."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    (folder / "lexicon.tsv").write_text("".join(f"{word}\t{' '.join(word)}\n" for word in WORDS))
    unigrams = [f"-1.0 {word}" for word in WORDS]
    text = "\n".join(
        [
            "\\data\\",
            f"ngram 1={len(WORDS) + 3}",
            "",
            "\\1-grams:",
            "-1 <unk>",
            "-99 <s>",
            "-1 </s>",
            *unigrams,
            "",
            "\\end\\",
            "",
        ]
    )
    (folder / "words.arpa").write_text(text)
    write_packed(folder / "words.ngram", *read_arpa(folder / "words.arpa"))
    search = {"search": "lexicon", "beam": 20, "ngram_scale": 0.1, "length_scale": 2.0}
    files = {"lexicon": str(folder / "lexicon.tsv"), "ngram": str(folder / "words.ngram")}
    (folder / "draft.yaml").write_text(yaml.safe_dump(search | files))
    recipe = acoustic_recipe(ctc=heads(folder), run={"epochs": 3, "device": "cpu"})
    train(write_recipe(folder / "am.yaml", folder, recipe), folder / "am")
    return folder


def heads(corpus):
    phones = {"lexicon": str(corpus / "lexicon.tsv"), "weights": {2: 1.0}, "upsample": 3}
    return {"weights": {2: 0.5}, "phones": phones}


def reading(corpus, draft="draft.yaml", **changes):
    return speech_llm_recipe(
        units={"kind": "run", "path": str(corpus / "am")},
        encoder={"init": str(corpus / "am")},
        ctc=heads(corpus),
        bridge=BRIDGE,
        prompt={"draft": str(corpus / draft)},
        **changes,
    )


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    """A run whose LLM reads drafts."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = reading(corpus, run={"epochs": 1, "device": "cpu"})
    train(write_recipe(folder / "recipe.yaml", corpus, recipe), folder / "run")
    return folder / "run"


def test_the_speech_llm_is_trained_with_what_it_will_read(build, corpus, run):
    task = build(reading(corpus))
    task.module.eval()
    batch = task.load([0, 2, 4], 0)
    encoded = task.encode(batch, START)
    drafts = task.drafts(encoded)
    assert any(drafts)
    rows = task.teacher_input(batch, encoded, task.labels(batch, START))
    prefix = task.speech_llm.prefix(encoded, drafts)
    bare = task.speech_llm.prefix(encoded, [[]] * 3)
    assert (prefix.lengths - bare.lengths).tolist() == [DRAFT_ROOM if draft else 0 for draft in drafts]
    said = [len(labels) for labels in task.labels(batch, START)]
    assert (rows.lengths - prefix.lengths).tolist() == said
    loss, _ = task.loss(batch, START)
    assert torch.isfinite(loss)
    assert set(task.evaluate()) == {"wer_greedy", "wer_ctc_greedy", "per"}

    recognizer = load(run / "model", device="cpu")
    task = build(reading(corpus))
    trained = load_model(run / "model").model
    task.speech_llm.load_state_dict(trained.state_dict())
    task.module.eval()
    batch = task.dev.batch([0, 1], epoch=0)
    samples = [row[:length].numpy() for row, length in zip(batch.waveforms, batch.lengths, strict=True)]
    assert [each.text for each in recognizer.recognize(samples, "greedy")] == task.decode_llm(batch)


def test_the_exported_folder_has_all_that_its_drafts_take(corpus, run):
    folder = run / "model"
    assert yaml.safe_load((folder / "draft.yaml").read_text()) == {
        "search": "lexicon", "beam": 20,
        "scorers": {"ngram": {"scale": 0.1}, "phones": {"path": "lexicon.tsv"}, "length": {"scale": 2.0}},
    }  # fmt: skip
    assert (folder / "words.ngram").read_bytes() == (corpus / "words.ngram").read_bytes()
    recognizer, samples = load(folder, device="cpu"), np.random.default_rng(0).normal(0, 0.1, 16000)
    search = LexiconSearch(
        beam=20,
        scorers={
            "phones": ScorerOptions(path=str(folder / "lexicon.tsv")),
            "ngram": ScorerOptions(scale=0.1),
            "length": ScorerOptions(scale=2.0),
        },
    )
    assert recognizer.external_models.draft_search == search
    drafts = recognizer.recognize([samples.astype(np.float32)], search)
    assert {*drafts[0].text.split()} <= {*WORDS}


def practice(corpus, **changes):
    same = {"kind": "run", "path": str(corpus / "am")}
    heard = {"ctc": str(corpus / "am"), "speech": [{"path": "manifest.jsonl", "split": "train"}]}
    injection = {"share": 1.0, "lexicon": str(corpus / "lexicon.tsv"), **heard}
    return text_recipe(units=same, text_injection=injection, prompt={"draft": str(corpus / "draft.yaml")}, **changes)


def test_reading_practice_shows_the_drafts_of_what_it_shows(build, corpus):
    task = build(practice(corpus))
    batch = task.load(list(range(len(task.sentences))), 0)
    drafts = [prompt.draft for prompt in batch.prompts]
    assert any(drafts)
    assert {word for draft in drafts for word in task.units.decode(draft).split()} <= {*WORDS}
    logits, labels, _ = task.label_logits(batch)
    assert len(logits) == len(labels) == sum(len(sentence) + 1 for sentence in batch.labels)
    with torch.no_grad():
        other = replace(batch.prompts[0], draft=(3, 4, 5, 3, 4))
        changed, _, _ = task.label_logits(replace(batch, prompts=(other, *batch.prompts[1:])))
    first = len(batch.labels[0]) + 1
    assert not torch.allclose(changed[:first], logits[:first])
    torch.testing.assert_close(changed[first:], logits[first:], atol=1e-5, rtol=1e-4)


def test_an_adaptation_reads_what_its_base_reads(build, corpus, run):
    base = str(run / "model")
    common = {"task": "adaptation", "units": {"kind": "run", "path": base}, "adapt": {"model": base}}
    common |= {"optim": {"lr": 0.01}, "run": {"epochs": 1, "device": "cpu"}, "ctc": {}}
    by_speech = build(common | {"data": acoustic_recipe()["data"]})
    batch = by_speech.load([0, 2, 4], 0)
    assert any(by_speech.drafts(by_speech.encode(batch, START)))
    assert by_speech.evaluate()
    lexicon = {"share": 1.0, "lexicon": str(corpus / "lexicon.tsv")}
    by_text = build(common | {"text": text_recipe()["text"], "text_injection": lexicon})
    errors = replace(by_text.simulator.posteriors, max_error_rate=0.0)
    by_text.simulator = replace(by_text.simulator, posteriors=errors)
    batch = by_text.load(list(range(len(by_text.sentences))), 0)
    assert any(prompt.draft for prompt in batch.prompts)
    assert torch.isfinite(by_text.loss(batch, START)[0])


def test_heads_that_the_llm_is_shown_stay_as_they_are_if_they_shall(build, corpus):
    frozen = {"encoder": {"init": str(corpus / "am"), "policy": "frozen"}}
    for policy in ("full", "frozen"):
        ctc = {**heads(corpus), "weights": {2: 0.0}, "policy": policy}
        ctc["phones"] = {**ctc["phones"], "weights": {2: 0.0}}
        task = build(reading(corpus) | frozen | {"ctc": ctc})
        task.loss(task.load([0, 2, 4], 0), START)[0].backward()
        gradient = task.acoustic.phone_heads["2"].linear.weight.grad
        assert (gradient is None or not gradient.any()) == (policy == "frozen")
    with pytest.raises(ConfigError, match=r"ctc\.policy 'frozen' needs encoder\.policy 'frozen'"):
        build(reading(corpus) | {"ctc": {**heads(corpus), "policy": "frozen"}})


def test_what_makes_no_drafts_is_refused(build, corpus):
    (corpus / "greedy.yaml").write_text("search: greedy\n")
    with pytest.raises(ConfigError, match="'greedy' makes no drafts"):
        build(reading(corpus, "greedy.yaml"))
    (corpus / "labels.yaml").write_text("search: ctc_greedy\n")
    assert any(build(reading(corpus, "labels.yaml")).evaluate())
    by_labels = practice(corpus) | {"prompt": {"draft": str(corpus / "labels.yaml")}}
    with pytest.raises(ConfigError, match="'ctc_greedy' reads no phones"):
        build(by_labels)
    for recipe in (acoustic_recipe(), text_recipe()):
        with pytest.raises(ConfigError, match=r"prompt\.draft is for a speech_llm|does not use the section 'prompt'"):
            build(recipe | {"prompt": {"draft": str(corpus / "draft.yaml")}})
