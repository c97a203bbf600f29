"""Whisper's decoder behind our cache against transformers' own forward pass, `generate` and enumeration."""

import random
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from kikitori.data.speech import pad_waveforms
from kikitori.errors import ModelError
from kikitori.model.decoder.base import start
from kikitori.model.decoder.memory import Memory
from kikitori.model.folder import load_model
from kikitori.model.safety.config import quiet_transformers
from kikitori.scorers.decoder import DecoderSequenceScorer
from kikitori.search.autoregressive.beam import END
from kikitori.search.autoregressive.filters import decoder_filters
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.joint import decoder_beam
from kikitori.search.autoregressive.speculative import speculative
from kikitori.search.length import Limits
from kikitori.search.options import BeamSearch
from kikitori.types import Hypothesis
from tests.search.flat import flat
from tests.tiny import save_tiny_whisper, tiny_waveforms, tiny_whisper

WAVEFORMS = tiny_waveforms(16)
MOST = {False: 38, True: 36}  # positions behind the prompt
close = partial(torch.testing.assert_close, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module", params=[False, True], ids=["english", "multilingual"])
def pair(request, tmp_path_factory):
    """A Whisper of transformers, and what we load of it."""
    whisper = tiny_whisper(multilingual=request.param)
    folder = tmp_path_factory.mktemp("whisper")
    save_tiny_whisper(folder, whisper)
    return whisper, load_model(folder).model


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def features_of(model, waveforms):
    features, _ = model.acoustic.encoder.features(*pad_waveforms(waveforms))
    return features.transpose(1, 2)


def decoder_of(model, waveforms):
    return model.decoder(model.acoustic.encode(*pad_waveforms(waveforms)))


def generated(whisper, features):
    task = {"task": "transcribe"} if whisper.generation_config.is_multilingual else {}
    skipped = {2, *whisper.generation_config.suppress_tokens}
    with quiet_transformers():
        rows = whisper.generate(features, **task).tolist()
    return [tuple(label for label in row if label not in skipped) for row in rows]


def reference(whisper, features, decoder, row, labels):
    """Logits (1 + labels, vocab) of one row alone, by the whole network of transformers without a cache."""
    ids = torch.cat([decoder.prompts[row], torch.tensor(labels, dtype=torch.int64)])[None]
    logits = whisper(input_features=features[row : row + 1], decoder_input_ids=ids, use_cache=False).logits[0]
    return logits[decoder.prompts.shape[1] - 1 :]


def written(decoder, most):
    filters = decoder_filters(decoder, decoder.vocab_size, decoder.eos_id)
    return [best for (best,) in greedy(decoder, Limits([most] * len(decoder.prompts)), filters)]


def random_labels(count, seed):
    return random.Random(seed).sample(range(60, 380), count)  # noqa: S311


def test_without_speech_it_is_the_decoder_over_frames_of_zero(pair):
    whisper, model = pair
    silent = decoder_of(model, WAVEFORMS[:2]).without_speech()
    labels = random_labels(6, 3)
    ids = torch.cat([silent.prompts[1], torch.tensor(labels)])[None]
    zeros = BaseModelOutput(last_hidden_state=torch.zeros(1, 9, whisper.config.d_model))
    logits = whisper(encoder_outputs=zeros, decoder_input_ids=ids, use_cache=False).logits[0]
    expected = logits.log_softmax(-1)[silent.prompts.shape[1] - 1 :]
    total = expected[torch.arange(7), torch.tensor([*labels, silent.eos_id])].sum()
    scores = DecoderSequenceScorer(silent).scores([[], [Hypothesis(tuple(labels))]])
    assert scores == [[], [pytest.approx(float(total), abs=1e-3)]]


def test_greedy_is_generate_in_any_batch_and_order(pair):
    whisper, model = pair
    most = MOST[whisper.generation_config.is_multilingual]
    alone = [generated(whisper, features_of(model, [waveform]))[0] for waveform in WAVEFORMS]
    assert generated(whisper, features_of(model, WAVEFORMS)) == alone
    assert len(set(alone)) > 10
    assert len({len(labels) for labels in alone}) >= 4
    order = random.Random(5).sample(range(16), 16)  # noqa: S311
    for size in (1, 5, 16):
        for begin in range(0, 16, size):
            rows = order[begin : begin + size]
            found = written(decoder_of(model, [WAVEFORMS[row] for row in rows]), most)
            assert [each.labels for each in found] == [alone[row] for row in rows]
            assert [each.complete for each in found] == [len(alone[row]) < most for row in rows]


def test_speculative_is_greedy(pair):
    whisper, model = pair
    decoder, most = decoder_of(model, WAVEFORMS[:8]), MOST[whisper.generation_config.is_multilingual]
    filters = decoder_filters(decoder, decoder.vocab_size, decoder.eos_id)
    expected = [each.labels for each in written(decoder, most)]
    drafts = [[*labels[:5], 77, *labels[6:20]] for labels in expected]
    found = speculative(decoder, drafts, Limits([most] * 8), filters=filters)
    assert [best.labels for (best,) in found] == expected
    assert sum(best.llm_passes for (best,) in found) < sum(map(len, expected))


def test_the_prompt_names_language_and_task(pair):
    whisper, model = pair
    config = whisper.generation_config
    decoder = decoder_of(model, WAVEFORMS)
    first, last = config.decoder_start_token_id, config.no_timestamps_token_id
    if not config.is_multilingual:
        assert decoder.prompts.tolist() == [[first, last]] * 16
        return
    transcribe = config.task_to_id["transcribe"]
    assert {tuple(prompt) for prompt in decoder.prompts.tolist()} <= {
        (first, language, transcribe, last) for language in config.lang_to_id.values()
    }


def test_languages_are_found_for_each_utterance(tmp_path):
    whisper = tiny_whisper(multilingual=True)
    languages = {f"<|{label}|>": label for label in range(60, 390)}  # so many that several are heard
    whisper.generation_config.lang_to_id = languages
    save_tiny_whisper(tmp_path, whisper)
    model = load_model(tmp_path).model
    heard = whisper.detect_language(features_of(model, WAVEFORMS)).tolist()
    assert len({*heard}) > 2
    assert decoder_of(model, WAVEFORMS).prompts[:, 1].tolist() == heard
    model.language = "77"
    assert decoder_of(model, WAVEFORMS).prompts[:, 1].tolist() == [77] * 16


def test_labels_at_once_and_one_by_one(pair):
    whisper, model = pair
    features, decoder = features_of(model, WAVEFORMS[:3]), decoder_of(model, WAVEFORMS[:3])
    rows, counts = [random_labels(6, seed) for seed in range(3)], [6, 0, 3]
    expected = [reference(whisper, features, decoder, row, labels) for row, labels in enumerate(rows)]
    hidden, state = decoder.prefill(torch.tensor(rows), torch.tensor(counts))
    for row, count in enumerate(counts):
        close(decoder.project(hidden[row, : count + 1]), expected[row][: count + 1])
    assert state.lengths.tolist() == [decoder.prompts.shape[1] + count for count in counts]
    # Behind them what is missing of each row, in ragged steps.
    while counts != [6, 6, 6]:
        new = [min(2, 6 - count) for count in counts]
        labels = torch.tensor([[*row[count : count + 2], 0, 0][:2] for row, count in zip(rows, counts, strict=True)])
        hidden, state = decoder.append(labels, state, torch.tensor(new))
        for row, (count, more) in enumerate(zip(counts, new, strict=True)):
            close(decoder.project(hidden[row, :more]), expected[row][count + 1 : count + 1 + more])
        counts = [count + more for count, more in zip(counts, new, strict=True)]


@pytest.mark.parametrize("seed", range(2))
def test_states_are_forked_reordered_and_cropped(pair, seed):
    whisper, model = pair
    features, decoder = features_of(model, WAVEFORMS[:4]), decoder_of(model, WAVEFORMS[:4])
    choice, size = random.Random(seed), decoder.prompts.shape[1]  # noqa: S311
    _, state = start(decoder)
    rows = [(utterance, []) for utterance in range(4)]
    for _ in range(10):
        match choice.randrange(4):
            case 0 if len(rows) < 9:
                state, rows = state.fork(2), [row for row in rows for _ in range(2)]
            case 1:
                kept = [choice.randrange(len(rows)) for _ in range(choice.randint(2, 6))]
                state, rows = state.reorder(torch.tensor(kept)), [rows[row] for row in kept]
            case 2:
                sizes = [choice.randint(0, len(labels)) for _, labels in rows]
                state = state.crop(torch.tensor(sizes) + size)
                rows = [(utterance, labels[:kept]) for (utterance, labels), kept in zip(rows, sizes, strict=True)]
        new = [choice.sample(range(60, 380), 2) for _ in rows]
        before = [each.clone() for pair in state.layers for each in pair]
        hidden, grown = decoder.append(torch.tensor(new), state)
        assert all(torch.equal(*both) for both in zip(before, [e for p in state.layers for e in p], strict=True))
        state, rows = (
            grown,
            [(utterance, [*labels, *more]) for (utterance, labels), more in zip(rows, new, strict=True)],
        )
        for row, (utterance, labels) in enumerate(rows):
            expected = reference(whisper, features, decoder, utterance, labels)
            close(decoder.project(hidden[row]), expected[-2:])
    assert len(rows) > 1


def test_hypotheses_share_keys_and_values_of_the_speech(pair):
    _, model = pair
    decoder = decoder_of(model, WAVEFORMS[:3])
    _, state = start(decoder)
    state = state.fork(4).reorder(torch.tensor([11, 0, 5, 5, 1, 9]))
    assert isinstance(state.memory, Memory)
    for kept, made in zip(state.memory.layers, decoder.memory.layers, strict=True):
        assert kept[0] is made[0]
        assert kept[1] is made[1]


def test_trees_are_read_as_step_by_step(pair):
    whisper, model = pair
    features, decoder = features_of(model, WAVEFORMS[:3]), decoder_of(model, WAVEFORMS[:3])
    # Below 70 are 80, with 90 and 91 below it, and 81; beside it 71.
    labels = [[70, 80, 90, 91, 81, 71], [], [72, 82]]
    ends = [[5, 4, 3, 4, 5, 6], [], [2, 2]]
    paths = [[], [70], [70, 80], [70, 80, 90], [70, 80, 91], [70, 81], [71]]
    expected = [reference(whisper, features, decoder, 2, path)[-1] for path in paths]
    expected += [reference(whisper, features, decoder, 0, [])[-1]]
    expected += [reference(whisper, features, decoder, 2, path)[-1] for path in ([], [72], [72, 82])]
    close(decoder.project(decoder.read_trees([2, 0, 2], labels, ends)), torch.stack(expected))


def test_whole_hypotheses_are_scored_as_label_by_label(pair):
    whisper, model = pair
    features, decoder = features_of(model, WAVEFORMS[:2]), decoder_of(model, WAVEFORMS[:2])
    nbests = [[(70, 80, 90), (70, 80), ()], [(70,), (71, 70)]]
    found = DecoderSequenceScorer(decoder).scores([[Hypothesis(labels) for labels in nbest] for nbest in nbests])
    for row, nbest in enumerate(nbests):
        for labels, score in zip(nbest, found[row], strict=True):
            log_probs = reference(whisper, features, decoder, row, labels).log_softmax(dim=-1)
            given = log_probs.gather(1, torch.tensor([*labels, 2])[:, None]).sum()
            assert score == pytest.approx(float(given), abs=1e-4)


def test_a_beam_that_holds_everything_finds_the_best(pair):
    whisper, model = pair
    features, decoder = features_of(model, WAVEFORMS[:2]), decoder_of(model, WAVEFORMS[:2])
    left = [70, 120, 277]
    decoder = replace(decoder, suppressed=[label for label in range(decoder.vocab_size) if label not in (2, *left)])
    decoder = replace(decoder, suppressed_first=[2, 120])
    options = flat(BeamSearch, beam=200, nbest=12, length_exponent=1.0)
    filters = decoder_filters(decoder, decoder.vocab_size, END)
    found = decoder_beam(decoder, options, Limits([3, 3]), filters=filters)
    every = [labels for size in (1, 2, 3) for labels in product(left, repeat=size) if labels[0] != 120]
    for row, nbest in enumerate(found):
        scored = []
        for labels in every:
            log_probs = reference(whisper, features, decoder, row, labels).log_softmax(dim=-1)
            total = float(log_probs.double().gather(1, torch.tensor([*labels, 2])[:, None]).sum())
            scored.append((total / (len(labels) + 1), labels))
        expected = sorted(scored, reverse=True)[:12]
        assert [each.labels for each in nbest] == [labels for _, labels in expected]
        assert [each.score for each in nbest] == pytest.approx([score for score, _ in expected], abs=1e-4)


def test_a_state_of_another_decoder_is_refused(pair):
    _, model = pair
    decoder = decoder_of(model, WAVEFORMS[:1])
    _, state = start(decoder)
    with pytest.raises(ModelError, match="a state without speech"):
        decoder.append(torch.tensor([[70]]), replace(state, memory=None))
