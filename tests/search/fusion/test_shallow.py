"""Shallow fusion against the rescoring of every label sequence."""

from math import inf, isfinite

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.model.decoder.llm import embed, forward, project
from kikitori.scorers.base import WeightedSum
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.prior import PriorScorer, length_scorer
from kikitori.search.ctc.beam import FrameSearch, ctc_beam, ctc_beam_of_logits
from kikitori.search.fusion import shallow as module
from kikitori.search.fusion.shallow import fuse, shallow_fusion_of_logits
from kikitori.search.options import CTCBeamSearch, ShallowFusionSearch
from kikitori.search.pruning import FramePruning
from tests.search.ctc.test_beam import every_path, label_score, random_log_probs
from tests.search.flat import flat, shallow_fusion
from tests.tiny import tiny_llm

BOS, EOS, LABELS = 1, 2, 12
SINGLE = tiny_llm("llama", 30)
LLM = tiny_llm("llama", 30).double()
ALL = {"beam": 100_000, "nbest": 100_000, "score_beam": None, "frame_labels": None, "min_log_prob": None}


def prior(num_labels):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=num_labels))
    return values.log_softmax(0)


def scorers(num_labels, scales=(0.5, -0.3, 0.2), llm=LLM):
    each = LMScorer(llm, num_labels, bos_id=BOS, eos_id=EOS), PriorScorer(prior(num_labels)), length_scorer(num_labels)
    return WeightedSum([*zip(each, scales, strict=True)])


def from_scratch(labels, num_labels):
    """What the LLM, the prior and the length give to a label sequence."""
    ids = torch.tensor([[BOS, *labels]])
    with torch.inference_mode():
        scores = project(LLM, forward(LLM, embed(LLM, ids), torch.tensor([ids.shape[1]])))[0].log_softmax(-1)
    llm = sum(float(scores[place, label]) for place, label in enumerate((*labels, EOS)))
    return {"lm": llm, "prior": float(prior(num_labels)[list(labels)].sum()), "length": float(len(labels))}


def weigh(shares, scales):
    return sum(scale * shares[name] for scale, name in zip(scales, ("lm", "prior", "length"), strict=True))


def others(hypothesis):
    return {name: score for name, score in hypothesis.scores.items() if name != "ctc"}


def one(log_probs, scorer, **changes):
    (found,) = shallow_fusion(
        log_probs[None], torch.tensor([len(log_probs)]), scorer, flat(ShallowFusionSearch, **changes)
    )
    return found


all_scales = st.tuples(*[st.sampled_from([0.0, 0.4, 1.5])] * 3).map(lambda s: (s[0], -s[1], s[2]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4), st.integers(1, 3), st.integers(0, 9999), st.sampled_from(["sum", "max"]), all_scales)
def test_with_a_full_beam_it_is_the_rescoring_of_every_label_sequence(frames, num_labels, seed, recombine, scales):
    log_probs = random_log_probs(frames, num_labels, seed)
    found = one(log_probs, scorers(num_labels, scales), **ALL, recombine=recombine)
    expected = {
        labels: ctc + weigh(from_scratch(labels, num_labels), scales)
        for labels, ctc in every_path(log_probs, recombine).items()
    }
    assert {each.labels: each.score for each in found} == pytest.approx(expected, abs=1e-9)
    assert len(found) == len(expected)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 9999),
    st.sampled_from(["sum", "max"]),
    st.integers(1, 6),
    st.sampled_from([None, 2.0]),
    st.sampled_from([None, 2]),
    all_scales,
)
def test_shares_are_those_from_scratch(seed, recombine, beam, score_beam, frame_labels, scales):
    log_probs = random_log_probs(12, LABELS, seed)
    pruned = {"beam": beam, "score_beam": score_beam, "frame_labels": frame_labels, "recombine": recombine}
    for each in one(log_probs, scorers(LABELS, scales), **pruned):
        assert others(each) == pytest.approx(from_scratch(each.labels, LABELS), abs=1e-9)
        assert each.score == pytest.approx(each.scores["ctc"] + weigh(each.scores, scales), abs=1e-9)
        assert each.scores["ctc"] <= label_score(log_probs, each.labels, recombine) + 1e-9


@pytest.mark.parametrize("changes", [{"vocabulary": 4}, {"collapse": 0.3}, {"vocabulary": 3, "collapse": 0.3}])
def test_fewer_labels_and_frames_keep_the_shares(changes):
    log_probs = random_log_probs(30, LABELS, 5, spread=2.0)
    found = one(log_probs, scorers(LABELS), **changes)
    acoustic = one(log_probs, scorers(LABELS, (0.0, 0.0, 0.0)), **changes)
    assert [(each.labels, each.scores["ctc"]) for each in acoustic] == [
        (each.labels, each.scores["ctc"])
        for each in ctc_beam(log_probs[None], torch.tensor([30]), flat(CTCBeamSearch, **changes))[0]
    ]
    assert len({label for each in found for label in each.labels}) > 2
    for each in found:
        assert others(each) == pytest.approx(from_scratch(each.labels, LABELS), abs=1e-9)


@pytest.mark.parametrize("recombine", ["sum", "max"])
@pytest.mark.parametrize("seed", range(3))
def test_with_all_scales_0_it_is_the_acoustic_search(seed, recombine):
    log_probs = random_log_probs(40, LABELS, seed, spread=2.0)
    found = one(log_probs, scorers(LABELS, (0.0, 0.0, 0.0)), recombine=recombine)
    (expected,) = ctc_beam(
        log_probs[None], torch.tensor([40]), CTCBeamSearch(pruning=FramePruning(recombine=recombine))
    )
    assert [(each.labels, each.score) for each in found] == [(each.labels, each.scores["ctc"]) for each in expected]
    assert all(each.scores["lm"] < 0.0 for each in found)


def test_the_same_in_any_batch():
    generator = torch.Generator().manual_seed(0)
    logits = 2.5 * torch.randn(16, 50, LABELS + 1, generator=generator)
    logits[:, :, -1] += 3.0  # as CTC heads do, mostly blank
    lengths = torch.randint(1, 51, (16,), generator=generator)
    lengths[3] = 0
    settings, scorer = ShallowFusionSearch(), scorers(LABELS, llm=SINGLE)
    alone = [shallow_fusion_of_logits(logits[[row]], lengths[[row]], scorer, settings)[0] for row in range(16)]
    assert len({row[0].labels for row in alone}) > 12
    for size in (4, 16):
        order = torch.randperm(16, generator=generator)
        for rows in order.split(size):
            for row, found in zip(
                rows.tolist(), shallow_fusion_of_logits(logits[rows], lengths[rows], scorer, settings), strict=True
            ):
                expected = alone[row]
                assert [each.labels for each in found] == [each.labels for each in expected]
                assert [each.llm_passes for each in found] == [each.llm_passes for each in expected]
                for each, same in zip(found, expected, strict=True):
                    assert each.score == pytest.approx(same.score, abs=1e-5 * (len(each.labels) + 1))
                    assert each.scores == pytest.approx(dict(same.scores), abs=1e-5 * (len(each.labels) + 1))


class Recording(WeightedSum):
    """Writes down which label sequences are scored, per utterance, in which call."""

    def start(self, batch):
        self.sequences, self.calls, self.rows = [[] for _ in range(batch)], 0, [(row, ()) for row in range(batch)]
        return super().start(batch)

    def extend(self, state, rows, labels, lengths):
        self.rows = [
            (self.rows[row][0], (*self.rows[row][1], *new[:length]))
            for row, new, length in zip(rows.tolist(), labels.tolist(), lengths.tolist(), strict=True)
        ]
        for (utterance, sequence), length in zip(self.rows, lengths.tolist(), strict=True):
            if length:
                self.sequences[utterance].append(sequence)
        self.calls += 1
        return super().extend(state, rows, labels, lengths)


def recording(num_labels):
    total = scorers(num_labels)
    return Recording([*zip(total._scorers, total._scales, strict=True)])


def test_each_label_sequence_is_scored_once_also_if_it_returns(monkeypatch):
    returned = 0

    class Watched(FrameSearch):
        def step(self, *args):
            nonlocal returned
            before = set(self.nodes.tolist())
            new = super().step(*args)
            returned += len(set(self.nodes.tolist()) - before - set(new.tolist()))
            return new

    monkeypatch.setattr(module, "FrameSearch", Watched)
    log_probs = torch.stack([random_log_probs(60, LABELS, seed, spread=1.5) for seed in range(3)])
    scorer = recording(LABELS)
    found = shallow_fusion(log_probs, torch.tensor([60, 40, 60]), scorer, ShallowFusionSearch(beam=6))
    assert returned > 3
    for sequences, hypotheses in zip(scorer.sequences, found, strict=True):
        assert len(set(sequences)) == len(sequences)
        assert {each.labels for each in hypotheses} <= {(), *sequences}
    # One call for the whole batch: as many as the utterance that needs the most.
    assert scorer.calls == max(row[0].llm_passes for row in found)
    assert len(scorer.rows) < sum(map(len, scorer.sequences)) / 3  # what cannot return is forgotten


def test_frames_without_new_label_sequences_cost_no_call():
    blanks = torch.full((200, LABELS + 1), -inf)
    blanks[:, -1] = 0.0
    log_probs = blanks.clone()
    for frame, label in ((50, 3), (120, 4)):
        log_probs[frame] = -inf
        log_probs[frame, label] = 0.0
    scorer = recording(LABELS)
    (found,) = shallow_fusion(log_probs[None], torch.tensor([200]), scorer, ShallowFusionSearch())
    assert ([each.labels for each in found], found[0].llm_passes, scorer.calls) == ([(3, 4)], 2, 2)
    (found,) = shallow_fusion(blanks[None], torch.tensor([200]), scorer, ShallowFusionSearch())
    assert scorer.calls == 0
    assert [each.labels for each in found] == [()]


def test_nothing_and_blanks_have_finite_scores():
    blanks = torch.full((2, 20, LABELS + 1), -inf)
    blanks[..., -1] = 0.0
    for (found,) in shallow_fusion(blanks, torch.tensor([20, 0]), scorers(LABELS), ShallowFusionSearch()):
        assert (found.labels, found.scores["ctc"]) == ((), 0.0)
        assert found.score == pytest.approx(0.5 * from_scratch((), LABELS)["lm"])
    assert fuse([], scorers(LABELS), ShallowFusionSearch()) == []


@pytest.mark.parametrize("value", [-inf, torch.nan])
def test_a_frame_without_outputs_leaves_no_label_sequence(value):
    log_probs = random_log_probs(6, 3, 0)
    log_probs[2] = value
    (only,) = one(log_probs, scorers(3))
    assert (only.labels, only.scores["ctc"], only.score) == ((), -inf, -inf)


def test_labels_that_a_scorer_rules_out():
    log_probs = random_log_probs(5, 3, 1)
    forbidden = torch.tensor([0.0, -inf, 0.0])
    lm = LMScorer(LLM, 3, bos_id=BOS, eos_id=EOS)
    allowed = one(log_probs, WeightedSum([(lm, 0.5), (PriorScorer(forbidden), 1.0)]), **ALL)
    assert {label for each in allowed for label in each.labels} == {0, 2}
    assert all(isfinite(each.score) for each in allowed)
    indifferent = one(log_probs, WeightedSum([(lm, 0.5), (PriorScorer(forbidden), 0.0)]), **ALL)
    assert {each.labels for each in indifferent} == set(every_path(log_probs, "sum"))
    assert all(isfinite(each.score) for each in indifferent)


class Nothing(PriorScorer):
    """Rules everything out, the end too."""

    def log_probs(self, state, rows):
        return super().log_probs(state, rows) - inf


@pytest.mark.parametrize("blank", [0.1, 0.0])
def test_a_beam_in_which_every_hypothesis_is_pruned(blank):
    probs = torch.full((4, 4), (1 - blank) / 3)
    probs[:, -1] = blank
    scorer = WeightedSum([(Nothing(torch.zeros(3)), 1.0), (length_scorer(3), 1.0)])
    (only,) = one(probs.log(), scorer)
    assert (only.labels, only.score) == ((), -inf)
    assert only.scores["ctc"] == (pytest.approx(4 * np.log(0.1)) if blank else -inf)


def test_from_logits():
    logits = 3 * torch.randn(2, 30, LABELS + 1, generator=torch.Generator().manual_seed(0)) - 2
    lengths = torch.tensor([30, 13])
    settings = ShallowFusionSearch()
    expected = shallow_fusion(logits.log_softmax(-1), lengths, scorers(LABELS), settings)
    for row, plain in zip(shallow_fusion_of_logits(logits, lengths, scorers(LABELS), settings), expected, strict=True):
        assert [each.labels for each in row] == [each.labels for each in plain]
        assert [each.score for each in row] == pytest.approx([each.score for each in plain], abs=1e-4)
    acoustic = ctc_beam_of_logits(logits, lengths, CTCBeamSearch())
    assert acoustic[0][0].labels != expected[0][0].labels
