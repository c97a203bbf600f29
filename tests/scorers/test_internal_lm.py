"""The internal language model against the speech LLM over speech that is zero, and over none."""

import pytest
import torch

from kikitori.errors import ModelError
from kikitori.model.decoder.llm import embed, forward, project
from kikitori.scorers.base import WeightedSum
from kikitori.scorers.decoder import DecoderSequenceScorer
from kikitori.scorers.internal_lm import internal_scorer, internal_sequence_scorer
from kikitori.scorers.prior import PriorScorer
from kikitori.search.options import ShallowFusionSearch
from kikitori.search.pruning import FramePruning
from kikitori.search.rescore import with_scores
from kikitori.types import Hypothesis
from tests.search.ctc.test_beam import every_path, random_log_probs
from tests.search.flat import shallow_fusion
from tests.tiny import INTERFACES, tiny_speech_llm, tiny_units, tiny_waveforms

UNITS = tiny_units()
TEXTS = ("the fox", "a dog", "", "we hear it")
MODELS = {kind: tiny_speech_llm(interface=kind, prompt="rwth").double() for kind in INTERFACES}
kinds = pytest.mark.parametrize("kind", INTERFACES)


def from_scratch(model, labels):
    """log p of labels and their end behind the prompt alone."""
    prompt = (*model.config.prompt_before, *model.config.prompt_after)
    ids = torch.tensor([[*prompt, *labels]])
    with torch.inference_mode():
        scores = project(model.llm, forward(model.llm, embed(model.llm, ids), torch.tensor([ids.shape[1]])))[0]
    targets = torch.tensor([*labels, model.config.eos_id])
    return float(scores.log_softmax(-1)[len(prompt) - 1 :].gather(1, targets[:, None]).sum())


def share(model, labels):
    scorer = internal_scorer(model, UNITS.size)
    with torch.inference_mode():
        state, given = scorer.extend(
            scorer.start(1), torch.tensor([0]), torch.tensor([[*labels, 0]]), torch.tensor([len(labels)])
        )
        return float(given.sum() + scorer.log_probs(state, torch.tensor([0]))[0, -1])


@kinds
def test_scorers_are_as_from_scratch(kind):
    model = MODELS[kind]
    nbest = tuple(Hypothesis(tuple(UNITS.encode(text)), text, 0.0) for text in TEXTS)
    ((*judged,),) = with_scores([nbest], internal_sequence_scorer(model, UNITS))
    for hypothesis in judged:
        expected = from_scratch(model, hypothesis.labels)
        assert hypothesis.scores["ilm"] == pytest.approx(expected, abs=1e-9)
        assert share(model, hypothesis.labels) == pytest.approx(expected, abs=1e-9)
    assert internal_scorer(model, UNITS.size).name == "ilm"


@pytest.mark.parametrize("positions", [1, 7])
def test_with_cross_attention_it_is_the_decoder_over_zeroed_speech(positions):
    model, labels = MODELS["cross_attention"], UNITS.encode("the fox")
    speech, lengths = torch.zeros(1, positions, model.llm.config.hidden_size).double(), torch.tensor([positions])
    with torch.inference_mode():
        rows = model.interface(lambda ids: embed(model.llm, ids), model.config.prompt, speech, lengths, [labels])
        scores = model.target_logits(rows).log_softmax(-1).gather(1, rows.next_labels[:, None])
    assert rows.memory is not None
    assert share(model, labels) == pytest.approx(float(scores.sum()), abs=1e-9)


@kinds
def test_it_does_not_hear(kind):
    model = MODELS[kind]
    waveforms = tiny_waveforms(2, seconds=(0.5, 1.0))
    nbests = [[Hypothesis(tuple(UNITS.encode(text)), text, 0.0) for text in TEXTS]] * 2
    with torch.inference_mode():
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        inputs = torch.zeros(2, int(lengths.max())).double()
        for row, waveform in zip(inputs, waveforms, strict=True):
            row[: len(waveform)] = torch.from_numpy(waveform)
        decoder = DecoderSequenceScorer(model.decoder(model.acoustic.encode(inputs, lengths)))
        nbests = with_scores(nbests, decoder)
    judged = with_scores(nbests, internal_sequence_scorer(model, UNITS))
    for some, others in zip(*judged, strict=True):
        assert some.scores["ilm"] == pytest.approx(others.scores["ilm"], abs=1e-12)
        assert abs(some.scores["speech_llm"] - others.scores["speech_llm"]) > 1e-3


@kinds
def test_it_is_subtracted_in_shallow_fusion(kind):
    model, log_probs = MODELS[kind], random_log_probs(3, 3, 0)
    total = WeightedSum([(PriorScorer(torch.zeros(3)), 1.0), (internal_scorer(model, 3), -0.3)])
    options = ShallowFusionSearch(
        beam=999, nbest=999, pruning=FramePruning(score_beam=None, frame_labels=None, min_log_prob=None)
    )
    (found,) = shallow_fusion(log_probs[None], torch.tensor([3]), total, options)
    ctc = every_path(log_probs, "sum")
    assert {each.labels for each in found} == set(ctc)
    for each in found:
        expected = from_scratch(model, each.labels)
        assert each.scores["ilm"] == pytest.approx(expected, abs=1e-9)
        assert each.score == pytest.approx(ctc[each.labels] - 0.3 * expected, abs=1e-9)


def test_a_prompt_of_speech_alone():
    model = tiny_speech_llm()
    model.config.prompt_before, model.config.prompt_after = [], []
    for make in (lambda: internal_scorer(model, UNITS.size), lambda: internal_sequence_scorer(model, UNITS)):
        with pytest.raises(ModelError, match="there is no internal language model"):
            make()
