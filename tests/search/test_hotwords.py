"""Hotwords in each search that takes them, against all label sequences."""

from itertools import product
from math import inf

import pytest
import torch

from kikitori.model.heads import ctc_loss
from kikitori.scorers.base import WeightedSum
from kikitori.scorers.ctc.speller import TokenSpeller
from kikitori.scorers.decoder import DecoderSequenceScorer
from kikitori.scorers.hotwords.letters import letters_of
from kikitori.scorers.hotwords.scorer import HotwordScorer
from kikitori.scorers.options import ScorerOptions
from kikitori.search.autoregressive.filters import suppress
from kikitori.search.autoregressive.joint import decoder_beam, frame_scorer, joint, joint_by_letters
from kikitori.search.fusion.shallow import shallow_fusion_of_logits
from kikitori.search.length import Limits
from kikitori.search.options import BeamSearch, CTCBeamSearch, JointSearch, JointTimeSyncSearch
from kikitori.search.pruning import FramePruning
from kikitori.types import Hypothesis
from tests.scorers.hotwords.test_scorer import letters_in
from tests.search.autoregressive.test_joint import ALL, encoded_by
from tests.search.autoregressive.test_joint_by_letters import CHARACTERS, setting  # noqa: F401
from tests.search.ctc.test_beam import every_path
from tests.tiny import tiny_units

SCALE = 1.5
UNITS = tiny_units()
A, B, MARK = (UNITS.encode("a b")[place] for place in (1, 3, 2))
PHRASES = (["ab", "a"], ["b a"], ["b"])
EVERYTHING = FramePruning(score_beam=None, frame_labels=None, min_log_prob=None)


def bonus(row, labels):
    return letters_in(UNITS.decode(labels), PHRASES[row], spaced=True)


def hotwords(num_labels):
    return [(HotwordScorer(PHRASES, UNITS, num_labels), SCALE)]


def of_few_labels():
    """CTC logits of three utterances, which give something to three labels and blank alone."""
    logits = torch.full((3, 4, UNITS.size + 1), -inf)
    few = [A, B, MARK, UNITS.size]
    logits[..., few] = 2.0 * torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(3))
    return logits, torch.tensor([4, 4, 3]), few


def test_ctc_beam_search_is_that_of_every_path_with_a_bonus():
    logits, lengths, few = of_few_labels()
    options = CTCBeamSearch(beam=10_000, nbest=10_000, pruning=EVERYTHING)
    found = shallow_fusion_of_logits(logits, lengths, WeightedSum(hotwords(UNITS.size)), options)
    for row, nbest in enumerate(found):
        log_probs = logits[row, : lengths[row]].log_softmax(-1)[:, few]
        paths = every_path(log_probs, "sum")
        expected = {
            labels: score + SCALE * bonus(row, labels)
            for labels, score in ((tuple(few[each] for each in places), score) for places, score in paths.items())
        }
        assert {each.labels: each.score for each in nbest} == pytest.approx(expected, abs=1e-5)
        assert any(each.scores["hotwords"] for each in nbest)
        assert all(each.scores["hotwords"] == bonus(row, each.labels) for each in nbest)


@pytest.mark.parametrize(
    "options",
    [
        BeamSearch(beam=50, nbest=50, length_exponent=0.0),
        JointSearch(beam=50, nbest=50, scorers={"ctc": ScorerOptions(scale=0.4)}),
    ],
)
def test_label_synchronous_searches_find_the_best_of_all_sequences(options):
    _, _, decoder, logits, num_frames = encoded_by("prefix", ALL)
    labels = [A, B, MARK]
    limits, every = Limits([3] * 3), [each for size in range(4) for each in product(labels, repeat=size)]
    size = decoder.vocab_size if isinstance(options, BeamSearch) else logits.shape[2] - 1
    rules = [suppress([label for label in range(size) if label not in labels])]
    if isinstance(options, BeamSearch):
        found = decoder_beam(decoder, options, limits, hotwords(size), rules)
    else:
        found = joint(decoder, logits, num_frames, options, limits, hotwords(size), rules, pre_beam=None)
    with torch.inference_mode():
        shares = DecoderSequenceScorer(decoder).scores([[Hypothesis(each) for each in every]] * 3)
    for row, nbest in enumerate(found):
        expected = {}
        for sequence, share in zip(every, shares[row], strict=True):
            total = share
            if isinstance(options, JointSearch):
                loss = ctc_loss(logits[row : row + 1].double().log_softmax(-1), num_frames[row : row + 1], [sequence])
                total = 0.6 * share - 0.4 * float(loss.total)
            expected[sequence] = total + SCALE * bonus(row, sequence)
        assert {each.labels: each.score for each in nbest} == pytest.approx(expected, abs=1e-4)
    assert all(any(each.scores["hotwords"] for each in nbest) for nbest in found)


def test_a_beam_goes_on_while_a_phrase_may_still_be_completed():
    _, _, decoder, *_ = encoded_by("prefix", ALL)
    rules = [suppress([label for label in range(decoder.vocab_size) if label not in (A, B, MARK)])]
    phrases = [["abab"]] * 3
    much = [(HotwordScorer(phrases, UNITS, decoder.vocab_size), 100.0)]
    options = BeamSearch(beam=30, nbest=1, length_exponent=0.0)
    for (best,) in decoder_beam(decoder, options, Limits([4] * 3), much, rules):
        assert UNITS.decode(best.labels) == "abab"


def test_decoder_tokens_count_by_their_letters(setting):  # noqa: F811
    units, decoder, logits, lengths, tokens = setting
    phrases = [["fox"], ["the fox", "a"]]
    others = [(HotwordScorer(phrases, units, decoder.vocab_size), SCALE)]
    rules = [suppress([label for label in range(decoder.vocab_size) if label not in tokens])]
    options = JointSearch(beam=200, nbest=200, scorers={"ctc": ScorerOptions(scale=0.0)})
    speller = TokenSpeller(units, CHARACTERS)
    found = joint_by_letters(decoder, logits, lengths, speller, options, Limits([3, 3]), others, rules, pre_beam=None)
    every = [sequence for size in range(4) for sequence in product(tokens, repeat=size)]
    with torch.inference_mode():
        shares = DecoderSequenceScorer(decoder).scores([[Hypothesis(labels) for labels in every]] * 2)
    for row, nbest in enumerate(found):
        expected = {
            labels: share + SCALE * letters_in(units.decode(labels), phrases[row], spaced=True)
            for labels, share in zip(every, shares[row], strict=True)
            if share > -inf
        }
        best = sorted(expected.values(), reverse=True)[: len(nbest)]
        assert [each.score for each in nbest] == pytest.approx(best, abs=1e-4)
        assert any(letters_of(units.decode(labels)) in phrases[row] for labels in expected)


def test_time_synchronous_joint_search_counts_whole_texts():
    _, _, decoder, logits, num_frames = encoded_by("prefix", ALL)
    options = JointTimeSyncSearch(beam=12, nbest=12)
    size = logits.shape[2] - 1
    others = [(HotwordScorer(PHRASES, UNITS, size), 20.0)]
    found = shallow_fusion_of_logits(logits, num_frames, frame_scorer(decoder, size, options, others), options)
    for row, nbest in enumerate(found):
        for each in nbest:
            assert each.scores["hotwords"] == bonus(row, each.labels)
            rest = each.scores["ctc"] + 0.5 * each.scores["speech_llm"] + 0.5 * each.scores["length"]
            assert each.score == pytest.approx(rest + 20.0 * each.scores["hotwords"], abs=1e-4)
    assert any(each.scores["hotwords"] for nbest in found for each in nbest)
