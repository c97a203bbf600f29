"""The decoders of other encoder-decoders behind our cache, against transformers' own forward pass and `generate`."""

import random
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import inf
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from kikitori.data.speech import pad_waveforms
from kikitori.errors import ModelError
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.folder import load_model
from kikitori.model.heads import ctc_loss
from kikitori.model.safety.config import quiet_transformers
from kikitori.scorers.ctc.speller import TokenSpeller
from kikitori.scorers.options import ScorerOptions
from kikitori.search.autoregressive.beam import END
from kikitori.search.autoregressive.filters import decoder_filters, suppress
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.joint import decoder_beam, joint_by_letters
from kikitori.search.autoregressive.speculative import speculative
from kikitori.search.length import Limits
from kikitori.search.options import BeamSearch, JointSearch
from kikitori.search.pruning import JointPruning
from kikitori.text.unit_training import character_units
from tests.aeds import AEDS, EOS, LANGUAGES, TinyAed
from tests.search.flat import flat
from tests.tiny import tiny_waveforms

WAVEFORMS = tiny_waveforms(12)
CHARACTERS = character_units(["the quick brown fox jumps over a lazy dog"], "en_plain")
close = partial(torch.testing.assert_close, atol=2e-4, rtol=2e-4)


@dataclass(frozen=True)
class Pair:
    """An encoder-decoder of transformers, and what we load of it."""

    aed: TinyAed
    model: EncoderDecoder

    def decoder(self, rows):
        return self.model.decoder(self.model.encode(*pad_waveforms([WAVEFORMS[row] for row in rows])))

    def logits(self, row, prompt, labels, **inputs: Any):
        """Of the label behind the prompt and behind each label, by the whole network without a cache."""
        ids = torch.tensor([[*prompt, *labels]])
        given = inputs or self.aed.inputs(WAVEFORMS[row])
        if "input_features" in given:  # transformers computes some in float64
            features, _ = self.model.encoder.features(*pad_waveforms([WAVEFORMS[row]]))
            given = {"input_features": features}
        return self.aed.network(**given, decoder_input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]


@pytest.fixture(scope="module", params=[*AEDS])
def pair(request, tmp_path_factory):
    aed, folder = AEDS[request.param](), tmp_path_factory.mktemp(request.param)
    aed.save(folder)
    return Pair(aed, load_model(folder, language=LANGUAGES.get(request.param)).model)


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode(), quiet_transformers():
        yield


def written(decoder):
    filters = decoder_filters(decoder, decoder.vocab_size, decoder.eos_id)
    most = decoder.max_positions - decoder.prompts.shape[1]
    return [best for (best,) in greedy(decoder, Limits([most] * len(decoder.prompts)), filters)]


def test_greedy_is_generate_in_any_batch_and_order(pair):
    prompt = pair.decoder([0]).prompts[0].tolist()
    alone = [pair.aed.generated(waveform, prompt) for waveform in WAVEFORMS]
    assert len({*alone}) > 8
    assert len({len(labels) for labels in alone}) >= 4
    order = random.Random(5).sample(range(12), 12)  # noqa: S311
    for size in (1, 5, 12):
        for begin in range(0, 12, size):
            rows = order[begin : begin + size]
            found = written(pair.decoder(rows))
            assert [each.labels for each in found] == [alone[row] for row in rows]


def test_speculative_is_greedy(pair):
    decoder = pair.decoder(range(6))
    expected = [each.labels for each in written(decoder)]
    drafts = [[*labels[:5], 77, *labels[6:20]] for labels in expected]
    limits = Limits([decoder.max_positions - decoder.prompts.shape[1]] * 6)
    filters = decoder_filters(decoder, decoder.vocab_size, decoder.eos_id)
    found = speculative(decoder, drafts, limits, filters=filters)
    assert [best.labels for (best,) in found] == expected


def test_labels_at_once_one_by_one_and_as_trees(pair):
    decoder = pair.decoder([3, 0, 7])
    prompt, labels = decoder.prompts[0].tolist(), [70, 80, 90, 91]
    expected = [pair.logits(row, prompt, labels) for row in (3, 0, 7)]
    hidden, state = decoder.prefill(torch.tensor([labels[:2]] * 3), torch.tensor([2, 0, 1]))
    for row, count in enumerate((2, 0, 1)):
        close(decoder.project(hidden[row, : count + 1]), expected[row][: count + 1])
    state = state.reorder(torch.tensor([2, 0]))
    hidden, state = decoder.append(torch.tensor([[80, 90], [90, 91]]), state)
    close(decoder.project(hidden[0]), expected[2][2:4])
    close(decoder.project(hidden[1]), expected[0][3:5])
    trees = decoder.project(decoder.read_trees([1, 2], [[70, 80, 71], [70]], [[2, 2, 3], [1]]))
    beside = pair.logits(0, prompt, [71])[-1:]
    close(trees, torch.cat([expected[1][:3], beside, expected[2][:2]]))


def test_without_speech_it_is_the_decoder_over_frames_of_zero(pair):
    silent = pair.decoder([1]).without_speech()
    zeros = BaseModelOutput(last_hidden_state=torch.zeros(1, 1, silent.frame_size))
    zeros["attention_mask"] = None
    expected = pair.logits(1, silent.prompts[0].tolist(), [70, 80], encoder_outputs=zeros)
    hidden, _ = silent.prefill(torch.tensor([[70, 80]]))
    close(silent.project(hidden[0]), expected)


def test_no_heads_are_known_to_follow_the_speech(pair):
    assert not pair.model.follows_speech
    with pytest.raises(ModelError, match="no heads of the decoder are known to follow the speech; use a CTC head"):
        pair.decoder([0]).attention(torch.tensor([[70]]), torch.tensor([1]))


def scored(pair, decoder, row, sequences):
    """Log-probabilities of label sequences with their end, by transformers."""
    found = {}
    for labels in sequences:
        log_probs = pair.logits(row, decoder.prompts[0].tolist(), labels).double().log_softmax(-1)
        found[labels] = float(log_probs.gather(1, torch.tensor([*labels, EOS])[:, None]).sum())
    return found


def test_a_beam_that_holds_everything_finds_the_best(pair):
    decoder, left = pair.decoder([2, 6]), [70, 120, 277]
    decoder = replace(decoder, suppressed=[label for label in range(decoder.vocab_size) if label not in (EOS, *left)])
    options = flat(BeamSearch, beam=60, nbest=5, length_exponent=1.0)
    filters = decoder_filters(decoder, decoder.vocab_size, END)
    found = decoder_beam(decoder, options, Limits([2, 2]), filters=filters)
    every = [labels for size in range(3) for labels in product(left, repeat=size)]
    for row, nbest in zip((2, 6), found, strict=True):
        totals = {labels: total / (len(labels) + 1) for labels, total in scored(pair, decoder, row, every).items()}
        expected = sorted(totals, key=lambda labels: totals[labels], reverse=True)[:5]
        assert [each.labels for each in nbest] == expected
        assert [each.score for each in nbest] == pytest.approx(
            [totals[labels] for labels in expected], abs=1e-4, rel=1e-4
        )


def test_joint_search_with_a_ctc_head_finds_the_best(pair):
    """The CTC head writes characters: a token counts by its letters."""
    decoder, units = pair.decoder([2]), pair.aed.units
    tokens = [*dict.fromkeys(units.encode("the fox"))][:3]
    logits = 2.0 * torch.randn(1, 9, CHARACTERS.size + 1, generator=torch.Generator().manual_seed(5))
    speller, lengths = TokenSpeller(units, CHARACTERS), torch.tensor([9])
    options = JointSearch(beam=40, nbest=40, pruning=JointPruning(), scorers={"ctc": ScorerOptions(scale=0.4)})
    others = [label for label in range(decoder.vocab_size) if label not in tokens]
    (found,) = joint_by_letters(
        decoder, logits, lengths, speller, options, Limits([2]), [], filters=[suppress(others)], pre_beam=None
    )
    every = [labels for size in range(1, 3) for labels in product(tokens, repeat=size)]
    totals = {}
    for labels, total in scored(pair, decoder, 2, every).items():
        letters, place = [], speller.start
        for token in labels:
            added, place = speller.spell(place, token)
            letters += added
        loss = ctc_loss(logits.double().log_softmax(-1), lengths, [letters])
        ctc = -inf if loss.infeasible else -float(loss.total)
        totals[labels] = 0.6 * total + 0.4 * ctc
    best = max(totals, key=lambda labels: totals[labels])
    texts = {each.labels: each.score for each in found if each.labels}
    assert max(texts, key=lambda labels: texts[labels]) == best
    assert texts[best] == pytest.approx(totals[best], abs=1e-4, rel=1e-4)
