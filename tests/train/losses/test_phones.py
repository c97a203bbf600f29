import numpy as np
import pytest
import torch

from kikitori.align.hmm.corpus import Alignments, save_alignments
from kikitori.align.hmm.graph import state_labels
from kikitori.train.build.task import build_task
from kikitori.train.losses.mmi import log_denominator, sentence_log_prob
from kikitori.train.tasks.base import BatchPosition
from tests.train.helpers import acoustic_recipe, make_recipe, write_corpus

START = BatchPosition(0, 0, 0.0)
WORDS = {"a": "ax", "cat": "k ae t", "the": "dh ax", "dog": "d ao g", "bird": "b er d"}
PHONES = sorted({phone for said in WORDS.values() for phone in said.split()})


@pytest.fixture
def build(tmp_path):
    write_corpus(tmp_path)
    (tmp_path / "lexicon.tsv").write_text("".join(f"{word}\t{said}\n" for word, said in {**WORDS}.items()) + "a\tey\n")

    def build(alignments=None, phones=None, **changes):
        phones = (phones or {}) | {
            "lexicon": str(tmp_path / "lexicon.tsv"),
            "weights": {1: 0.25, 2: 1.0},
            "upsample": 2,
        }
        if alignments is not None:
            save_alignments(tmp_path / "a.safetensors", alignments)
            phones |= {"alignments": str(tmp_path / "a.safetensors")}
        recipe = acoustic_recipe(ctc={"weights": {2: 0.5}, "phones": phones}, **changes)
        return build_task(make_recipe(tmp_path, tmp_path, recipe), lambda _: None)

    return build


def aligned(task, phones, frames):
    """An utterance in which the phones take equal time, three states each."""
    labels = state_labels(sorted([*PHONES, "ey"]))
    states = [labels.index(f"{phone}/{state}") for phone in phones for state in range(3)]
    first = task.train.utterances[0].utt_id
    return first, Alignments(labels, {first: np.repeat(states, frames).astype(np.uint8)})


def test_every_output_learns_the_state_at_its_middle(build):
    first, alignments = aligned(build(), ["ey", "k", "ae", "t"], 5)
    task = build(alignments)
    batch = task.load([0, 1], 0)
    encoded = task.encode(batch, START)
    targets = task.phone_losses.frame_targets(encoded.lengths, batch)
    states = alignments.states[first]
    outputs = 2 * int(encoded.lengths[0])
    places = ((np.arange(outputs) + 0.5) * 0.02 * len(states) * 160 / int(batch.lengths[0]) * 100).astype(int)
    assert targets[0, :outputs].tolist() == states[np.minimum(places, len(states) - 1)].tolist()
    assert (targets[1] == -1).all()
    assert task.phone_losses.spoken(first, "a cat") == [
        task.phone_losses.numbers[phone] for phone in ("ey", "k", "ae", "t")
    ]
    assert task.phone_losses.spoken("other", "a cat") == [
        task.phone_losses.numbers[phone] for phone in ("ax", "k", "ae", "t")
    ]


def test_a_faster_utterance_has_a_shorter_alignment(build):
    _, alignments = aligned(build(), ["ax", "k", "ae", "t"], 20)
    slow, fast = (build(alignments, augment={"speeds": [speed]}) for speed in (0.8, 1.25))
    runs = []
    for task in (slow, fast):
        batch = task.load([0], 0)
        targets = task.phone_losses.frame_targets(task.encode(batch, START).lengths, batch)[0]
        runs.append(torch.unique_consecutive(targets).tolist())
    assert runs[0] == runs[1] == torch.unique_consecutive(torch.from_numpy(alignments.states.popitem()[1])).tolist()


def test_the_losses_of_states_are_weighted_with_their_layers(build):
    _, alignments = aligned(build(), ["ax", "k", "ae", "t"], 5)
    task = build(alignments)
    task.module.eval()
    loss, parts = task.loss(task.load([0], 0), START)
    assert set(parts) == {"ctc2", "phones1", "phones2", "states1", "states2"}
    total = 0.5 * parts["ctc2"] + 0.25 * parts["phones1"] + parts["phones2"]
    assert loss.item() == pytest.approx(total + 0.25 * parts["states1"] + parts["states2"], rel=1e-5)
    loss.backward()
    assert all(parameter.grad is not None for parameter in task.phone_losses.parameters())
    assert not any(name.startswith("phone_teacher") for name, _ in task.acoustic.named_parameters())


def test_mmi_adds_what_all_phone_sequences_have_to_the_last_head(build):
    task = build(phones={"mmi": 0.5})
    task.module.eval()
    batch = task.load([0, 1], 0)
    loss, parts = task.loss(batch, START)
    assert set(parts) == {"ctc2", "phones1", "phones2", "mmi_denominator2"}
    total = 0.5 * parts["ctc2"] + 0.25 * parts["phones1"] + parts["phones2"] + 0.5 * parts["mmi_denominator2"]
    assert loss.item() == pytest.approx(total, rel=1e-5)
    log_probs, lengths = task.acoustic.phone_log_probs(task.encode(batch, START))
    said = [task.phone_losses.phones(text) for text in batch.texts]
    trigrams = task.phone_losses.trigrams
    rivals = log_denominator(log_probs, lengths, trigrams).sum().item()
    expected = sum(sentence_log_prob(trigrams, phones) for phones in said)
    assert parts["mmi_denominator2"] == pytest.approx((rivals - expected) / sum(map(len, said)), rel=1e-4)
    assert parts["phones2"] + parts["mmi_denominator2"] > 0.0  # what was said is one of the sequences
    loss.backward()


@pytest.mark.parametrize("first", [["k"] * 5000, None], ids=["does not fit", "is not in the lexicon"])
def test_mmi_leaves_out_what_ctc_leaves_out(build, first):
    task = build(phones={"mmi": 1.0})
    task.module.eval()
    batch, numbers = task.load([0, 1], 0), task.phone_losses.numbers
    said = {batch.utt_ids[0]: first and [numbers[phone] for phone in first], batch.utt_ids[1]: [numbers["k"]]}
    task.phone_losses.spoken = lambda utt_id, _: said[utt_id]
    _, parts = task.loss(batch, START)
    log_probs, lengths = (each[1:] for each in task.acoustic.phone_log_probs(task.encode(batch, START)))
    alone = log_denominator(log_probs, lengths, task.phone_losses.trigrams).item()
    expected = sentence_log_prob(task.phone_losses.trigrams, [numbers["k"]])
    assert parts["mmi_denominator2"] == pytest.approx(alone - expected, rel=1e-4)


def test_phones_are_expected_as_the_transcripts_have_them(build):
    phone_losses = build(phones={"mmi": 1.0}).phone_losses
    ends = phone_losses.trigrams[phone_losses.numbers["k"], phone_losses.numbers["ae"]]
    assert int(ends.argmax()) == phone_losses.numbers["t"]


def test_mmi_adds_nothing_where_no_utterance_fits(build):
    task = build(phones={"mmi": 1.0})
    task.phone_losses.spoken = lambda *_: [task.phone_losses.numbers["k"]] * 5000
    loss, parts = task.loss(task.load([0, 1], 0), START)
    assert parts["phones2"] == parts["mmi_denominator2"] == 0.0
    loss.backward()


def test_without_mmi_no_trigram_is_made(build):
    assert build().phone_losses.trigrams is None
