import random
from dataclasses import replace

import pytest
import torch

from kikitori.data.speech import pad_waveforms
from kikitori.search.autoregressive import speculative as module
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.speculative import speculative
from kikitori.search.length import Limits
from tests.crossed import crossed, together
from tests.tiny import INTERFACES, tiny_speech_llm, tiny_units, tiny_waveforms

WAVEFORMS = tiny_waveforms(16)
LIMITS = [14 + index % 7 for index in range(16)]
MODELS = crossed(("gpt_neox", "qwen2", "llama"), INTERFACES)
EOS = 2
SIZE = tiny_units().size


def decoder_of(model, rows=range(16)):
    return model.decoder(model.acoustic.encode(*pad_waveforms([WAVEFORMS[row] for row in rows])))


def write(decoder, drafts, max_labels=LIMITS, min_labels=0, **settings):
    return [best for (best,) in speculative(decoder, drafts, Limits(max_labels, min_labels), **settings)]


def plain(decoder, max_labels=LIMITS, min_labels=0):
    return [best for (best,) in greedy(decoder, Limits(max_labels, min_labels))]


@pytest.fixture(scope="module", params=together(MODELS))
def decoded(request):
    """A model, its decoder, and what greedy search writes with it."""
    llm, interface = request.param
    model = tiny_speech_llm(llm=llm, interface=interface)
    with torch.inference_mode():
        decoder = decoder_of(model)
        return model, decoder, plain(decoder)


def same(got, expected):
    assert [(row.labels, row.complete) for row in got] == [(row.labels, row.complete) for row in expected]
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.score == pytest.approx(theirs.score, abs=1e-5 * (1 + len(theirs.labels)), rel=1e-5)
        assert ours.llm_passes <= theirs.llm_passes


def corrupt(labels, rate, stream, size=SIZE):
    """Six tenths of the slips are substitutions, two are labels too many, two are missing ones."""
    draft = []
    for label in labels:
        slip = stream.random() / rate if rate else 1.0
        if slip < 0.6:
            draft.append(stream.randrange(size))
        elif slip < 0.8:
            draft += [stream.randrange(size), label]
        elif slip >= 1.0:
            draft.append(label)
    return draft


def any_draft(labels, others, stream):
    """A draft of one of many kinds."""
    strange = [-(10**9), -1, 0, EOS, SIZE - 1, SIZE, 10**6, 2**40]
    labels = [*labels]
    match stream.randrange(9):
        case 0:
            return []
        case 1:
            return [stream.choice(strange) for _ in range(stream.randrange(SIZE))]
        case 2:
            return [stream.randrange(SIZE) for _ in range(stream.choice([1, 5, 40, 700]))]
        case 3:
            return [*labels, *(stream.randrange(SIZE) for _ in range(200))]
        case 4:  # right up to a place, and then as wrong as can be
            place = stream.randrange(len(labels) + 1)
            return labels[:place] + [(label + 1) % SIZE for label in labels[place:]]
        case 5:
            return stream.choice(others)
        case 6:
            return [label for label in labels for _ in range(stream.randrange(3))] + [EOS, *labels]
        case 7:
            return labels[stream.randrange(len(labels) + 1) :]
        case _:
            return corrupt(labels, stream.random(), stream)


@torch.inference_mode()
def test_any_draft_gives_what_greedy_search_writes(decoded):
    _, decoder, expected = decoded
    stream = random.Random(7)  # noqa: S311
    others = [row.labels for row in expected]
    for _ in range(8):
        drafts = [any_draft(row.labels, others, stream) for row in expected]
        same(write(decoder, drafts), expected)


@torch.inference_mode()
def test_right_drafts_take_no_pass_after_the_first(decoded):
    _, decoder, expected = decoded
    drafts = [row.labels for row in expected]
    got = write(decoder, drafts)
    same(got, expected)
    assert {row.llm_passes for row in got} == {0}
    empty = write(decoder, [[]] * 16)
    assert [row.llm_passes for row in empty] == [row.llm_passes for row in expected]


@torch.inference_mode()
def test_drafts_with_a_slip_in_ten_save_most_passes(decoded):
    _, decoder, expected = decoded
    stream = random.Random(3)  # noqa: S311
    drafts = [corrupt(row.labels, 0.1, stream) for row in expected]
    got = write(decoder, drafts)
    same(got, expected)
    assert sum(row.llm_passes for row in got) < 0.35 * sum(row.llm_passes for row in expected)


@pytest.mark.parametrize(("most", "least"), [(0, 0), (1, 0), (2, 5), (9, 9), (30, 12)])
@torch.inference_mode()
def test_limits(decoded, most, least):
    _, decoder, free = decoded
    stream = random.Random(most)  # noqa: S311
    limits = [max(0, most - row % 3) for row in range(16)]
    settings = {"max_labels": limits, "min_labels": least}
    expected = plain(decoder, **settings)
    for rate in (0.0, 0.3):
        drafts = [corrupt(row.labels, rate, stream) for row in stream.choice([expected, free])]
        same(write(decoder, drafts, **settings), expected)


@torch.inference_mode()
def test_any_batch_order_and_padding_gives_the_same(decoded):
    model, _, expected = decoded
    stream = random.Random(5)  # noqa: S311
    drafts = [corrupt(row.labels, 0.2, stream) for row in expected]
    for size in (1, 5, 16):
        order = stream.sample(range(16), 16)
        for start in range(0, 16, size):
            rows = order[start : start + size]
            decoder = decoder_of(model, rows)
            padding = torch.full_like(decoder.prefix.embeds[:, :3], torch.inf)
            prefix = replace(decoder.prefix, embeds=torch.cat([decoder.prefix.embeds, padding], dim=1))
            limits = [LIMITS[row] for row in rows]
            got = write(replace(decoder, prefix=prefix), [drafts[row] for row in rows], limits)
            same(got, [expected[row] for row in rows])


@torch.inference_mode()
def test_positions_a_few_at_a_time(decoded, monkeypatch):
    _, decoder, expected = decoded
    monkeypatch.setattr(module, "MAX_LOGITS", 100)
    drafts = [row.labels[1:] for row in expected]
    same(write(decoder, drafts), expected)


def test_no_gradients_are_kept():
    model = tiny_speech_llm()
    decoder = decoder_of(model, [0, 1])
    assert decoder.prefix.embeds.requires_grad
    results = write(decoder, [[3], [4, 5]], [3, 3])
    assert [len(row.labels) <= 3 for row in results] == [True, True]
