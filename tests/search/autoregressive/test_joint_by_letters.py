"""Joint search of a Whisper decoder and a CTC head over characters, against all label sequences."""

from itertools import product
from math import inf

import pytest
import torch

from kikitori.data.speech import pad_waveforms
from kikitori.model.decoder.encoder_decoder.layout import WHISPER
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.heads import ctc_loss
from kikitori.model.published.generation import Source
from kikitori.model.published.transcript_rules import whisper_rules
from kikitori.scorers.ctc.speller import TokenSpeller
from kikitori.scorers.decoder import DecoderScorer, DecoderSequenceScorer
from kikitori.scorers.language_model import language_model
from kikitori.scorers.options import LMOptions, ScorerOptions
from kikitori.search.autoregressive.filters import suppress
from kikitori.search.autoregressive.joint import _unless_silent, joint_by_letters
from kikitori.search.fusion.retokenizing import RetokenizingLM
from kikitori.search.fusion.words import WordLMScorer
from kikitori.search.length import Limits
from kikitori.search.options import JointSearch
from kikitori.search.pruning import JointPruning
from kikitori.text.unit_training import character_units
from kikitori.types import Hypothesis
from tests.tiny import tiny_bpe, tiny_llm, tiny_waveforms, tiny_whisper, tiny_whisper_units

CHARACTERS = character_units(["the quick brown fox jumps over a lazy dog"], "en_plain")


@pytest.fixture(scope="module")
def setting():
    """A decoder behind two utterances, CTC logits of theirs, and five tokens to write."""
    whisper, units = tiny_whisper(), tiny_whisper_units()
    rules, _ = whisper_rules(Source("tiny", whisper.generation_config.to_dict(), whisper.config, units))
    model = EncoderDecoder(whisper, WHISPER, rules, "en", 2.0).eval()
    with torch.inference_mode():
        decoder = model.decoder(model.encode(*pad_waveforms(tiny_waveforms(2))))
    logits = 2.0 * torch.randn(2, 9, CHARACTERS.size + 1, generator=torch.Generator().manual_seed(5))
    tokens = [*dict.fromkeys(units.encode(" the fox, a"))][:5]
    return units, decoder, logits, torch.tensor([9, 6]), tokens


def words_of(units):
    """A language model over other units, which judges words."""
    others = tiny_bpe()
    return RetokenizingLM(language_model(tiny_llm("llama", others.size), others, LMOptions("here")), units)


@pytest.mark.parametrize(
    ("scale", "variants", "lm", "ilm"),
    [(0.0, None, 0.0, 0.0), (0.3, None, 0.7, -0.4), (0.3, 1, 0.0, 0.0), (0.3, 2, 0.7, 0.0), (1.0, None, 0.0, 0.0)],
)
def test_the_best_of_all_sequences_is_found(setting, scale, variants, lm, ilm):
    units, decoder, logits, lengths, tokens = setting
    speller = TokenSpeller(units, CHARACTERS)
    others = [label for label in range(decoder.vocab_size) if label not in tokens]
    pruning = JointPruning(variants=variants)
    options = JointSearch(beam=40, nbest=40, pruning=pruning, scorers={"ctc": ScorerOptions(scale=scale)})
    reader, silent = words_of(units), decoder.without_speech()
    beside = [
        (WordLMScorer(reader, decoder.vocab_size), lm),
        (DecoderScorer(silent, decoder.vocab_size, name="ilm"), ilm),
    ]
    chosen = [(scorer, weight) for scorer, weight in beside if weight]
    rules = [suppress(others)]
    found = joint_by_letters(
        decoder, logits, lengths, speller, options, Limits([2, 2]), chosen, filters=rules, pre_beam=None
    )
    every = [sequence for size in range(3) for sequence in product(tokens, repeat=size)]
    rows = [[Hypothesis(labels) for labels in every]] * 2
    with torch.inference_mode():
        decoded = DecoderSequenceScorer(decoder).scores(rows)
        unheard = DecoderSequenceScorer(silent).scores(rows)
        (judged,) = reader.lm.log_probs([[reader.tokens(labels) for labels in every]]).scores
    for row, nbest in enumerate(found):
        expected = {}
        for labels, share, unspoken, text in zip(every, decoded[row], unheard[row], judged, strict=True):
            letters, place = [], speller.start
            for token in labels:
                added, place = speller.spell(place, token)
                letters += added
            loss = ctc_loss(logits[row : row + 1].double().log_softmax(-1), lengths[row : row + 1], [letters])
            ctc = -inf if loss.infeasible else -float(loss.total)
            total = (1 - scale) * share + (scale * ctc if scale else 0.0)
            total += lm * text + ilm * unspoken
            if total > -inf:
                expected[labels] = total
        if variants is not None:  # the best with the same letters
            groups = {}
            for labels in sorted(expected, key=expected.get, reverse=True):
                groups.setdefault(tuple(speller.letters(labels)), []).append(labels)
            assert len(groups) < len(expected)
            expected = {labels: expected[labels] for group in groups.values() for labels in group[:variants]}
        assert sorted(each.score for each in nbest) == pytest.approx(sorted(expected.values()), abs=1e-4)
        written = {labels: score for labels, score in expected.items() if speller.letters(labels)}
        assert {each.labels for each in nbest} == {(), *written}  # what has no letter is empty
        for each in nbest:
            assert each.score == pytest.approx(written.get(each.labels, each.score), abs=1e-4)
        assert nbest[0].score == pytest.approx(max(expected.values()), abs=1e-4)


@pytest.mark.parametrize("text", [",", " the fox", " the fox,"])
def test_where_ctc_hears_nothing_there_is_no_transcript(setting, text):
    units, decoder, _, lengths, _ = setting
    blank = torch.full((2, 9, CHARACTERS.size + 1), -2.0)
    blank[..., -1] = 6.0
    tokens = units.encode(text)
    others = [label for label in range(decoder.vocab_size) if label not in tokens]
    speller, rules = TokenSpeller(units, CHARACTERS), [suppress(others)]
    found = joint_by_letters(decoder, blank, lengths, speller, JointSearch(), Limits([3, 3], 1), filters=rules)
    assert all(each.labels == () and each.score > -inf for nbest in found for each in nbest)
    for nbest, frames in zip(found, lengths.tolist(), strict=True):
        nothing = float(blank[0, :frames].double().log_softmax(-1)[:, -1].sum())
        assert nbest[0].scores["ctc"] == pytest.approx(nothing)
        expected = 0.7 * nbest[0].scores["speech_llm"] + 0.3 * nothing
        assert nbest[0].score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("nothing", "emptied"), [(-3.0, False), (-3.1, False), (-2.9, True), (-0.5, True)])
def test_the_best_text_must_be_likelier_than_none(nothing, emptied):
    """To CTC, whatever it thinks of others: breath was "you", because a sigh, which nobody chose, was likelier."""
    found = [
        Hypothesis((7,), "you", -2.2, scores={"speech_llm": -2.0, "ctc": -3.0}),
        Hypothesis((8,), "ah", -5.1, scores={"ctc": -1.0}),
    ]
    kept = _unless_silent((Hypothesis((), "", -1.9, scores={"ctc": nothing}), *found), nothing, 0.1)
    assert ([each.labels for each in kept] == [()]) == emptied
    (empty, *_) = _unless_silent(tuple(found), -2.9, 0.1)
    assert (empty.labels, empty.scores) == ((), {"speech_llm": -2.0, "ctc": -2.9})
    assert empty.score == pytest.approx(-2.2 + 0.1 * 0.1)
