"""Prefix search against the enumeration of all paths."""

from collections import defaultdict
from itertools import pairwise, product
from math import exp, inf, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.scorers.ctc.pruning import candidates
from kikitori.search.ctc.beam import FrameSearch, collapse_frames, ctc_beam, ctc_beam_of_logits, restrict_vocabulary
from kikitori.search.ctc.best_path import collapse
from kikitori.search.options import CTCBeamSearch
from kikitori.search.pruning import FramePruning
from tests.search.flat import flat

ALL = {"beam": 100_000, "nbest": 100_000, "score_beam": None, "frame_labels": None, "min_log_prob": None}


def options(**changes):
    return flat(CTCBeamSearch, **{**ALL, **changes})


def every_path(log_probs, recombine):
    """Log-probability of every possible label sequence."""
    frames, outputs = log_probs.shape
    scores = defaultdict(list)
    for path in product(range(outputs), repeat=frames):
        score = sum(float(log_probs[t, output]) for t, output in enumerate(path))
        if score > -inf:
            scores[tuple(collapse(path, outputs - 1))].append(score)
    return {
        labels: max(s) if recombine == "max" else max(s) + log(sum(exp(x - max(s)) for x in s))
        for labels, s in scores.items()
    }


def random_log_probs(frames, num_labels, seed, spread=3.0):
    logits = spread * torch.randn(frames, num_labels + 1, generator=torch.Generator().manual_seed(seed)).double()
    return logits.log_softmax(-1)


def one(log_probs, settings):
    (found,) = ctc_beam(log_probs[None], torch.tensor([len(log_probs)]), settings)
    return found


posteriors = st.builds(
    random_log_probs, st.integers(0, 5), st.integers(1, 3), st.integers(0, 10_000), st.sampled_from([0.5, 3.0, 200.0])
)
holes = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=5)


@settings(max_examples=300, deadline=None)
@given(posteriors, holes, st.sampled_from(["sum", "max"]))
def test_without_pruning_it_is_the_enumeration_of_all_paths(log_probs, zeros, recombine):
    for frame, output in zeros:
        if frame < len(log_probs):
            log_probs[frame, output % log_probs.shape[1]] = -inf
    expected = every_path(log_probs, recombine) or {(): -inf}
    found = one(log_probs, options(recombine=recombine))
    assert {h.labels: h.scores["ctc"] for h in found} == pytest.approx(expected, abs=1e-9, rel=1e-12)
    assert len(found) == len(expected)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    if recombine == "sum" and not zeros:
        assert sum(exp(h.scores["ctc"]) for h in found) == pytest.approx(1.0)


@settings(max_examples=200, deadline=None)
@given(
    posteriors,
    st.sampled_from(["sum", "max"]),
    st.integers(1, 4),
    st.sampled_from([None, 0.5, 3.0]),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, -1.0, -4.0]),
)
def test_pruning_only_takes_paths_away(log_probs, recombine, beam, score_beam, frame_labels, min_log_prob):
    pruned = options(
        beam=beam, recombine=recombine, score_beam=score_beam, frame_labels=frame_labels, min_log_prob=min_log_prob
    )
    expected = every_path(log_probs, recombine)
    found = one(log_probs, pruned)
    assert 1 <= len(found) <= beam
    assert len({h.labels for h in found}) == len(found)
    for hypothesis in found:
        assert hypothesis.scores["ctc"] <= expected[hypothesis.labels] + 1e-9
        if score_beam is not None:
            assert hypothesis.scores["ctc"] >= found[0].scores["ctc"] - score_beam


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 999), st.sampled_from(["sum", "max"]))
def test_scores_are_those_of_the_label_sequence(frames, num_labels, seed, recombine):
    log_probs = random_log_probs(frames, num_labels, seed)
    for beam in (1, 8, 100):
        for hypothesis in one(log_probs, options(recombine=recombine, beam=beam, nbest=3)):
            assert hypothesis.scores["ctc"] <= label_score(log_probs, hypothesis.labels, recombine) + 1e-9


def label_score(log_probs, labels, recombine):
    """Forward or Viterbi score of one label sequence over its trellis."""
    outputs = [log_probs.shape[1] - 1]
    for label in labels:
        outputs += [label, log_probs.shape[1] - 1]
    join = np.logaddexp if recombine == "sum" else max
    state = [0.0] + [-inf] * (len(outputs) - 1)  # before the first frame: at the leading blank
    for t, row in enumerate(log_probs.tolist()):
        before, state = state, []
        for s, output in enumerate(outputs):
            score = before[s] if t or s == 0 else -inf
            if s >= 1 and (t or s == 1):
                score = join(score, before[s - 1])
            if s >= 2 and output != outputs[0] and output != outputs[s - 2] and t:
                score = join(score, before[s - 2])
            state.append(score + row[output])
    return float(join(state[-1], state[-2])) if len(outputs) > 1 else float(state[-1])


def test_with_a_wide_beam_the_score_is_the_ctc_loss():
    log_probs = random_log_probs(12, 4, 7)
    best = one(log_probs, options(beam=50_000, nbest=1))[0]
    loss = torch.nn.functional.ctc_loss(
        log_probs[:, None],
        torch.tensor([best.labels]),
        torch.tensor([12]),
        torch.tensor([len(best.labels)]),
        blank=4,
        reduction="sum",
    )
    assert best.scores["ctc"] == pytest.approx(-float(loss), abs=1e-9)


def test_nothing_and_blanks():
    ((nothing,),) = ctc_beam(torch.zeros(1, 0, 4), torch.tensor([0]), CTCBeamSearch(nbest=5))
    assert (nothing.labels, nothing.score) == ((), 0.0)
    blanks = torch.full((1, 50, 4), -inf)
    blanks[..., -1] = 0.0
    ((silence,),) = ctc_beam(blanks, torch.tensor([50]), CTCBeamSearch(nbest=5))
    assert (silence.labels, silence.score) == ((), 0.0)
    assert ctc_beam(torch.zeros(0, 3, 4), torch.zeros(0, dtype=torch.long), CTCBeamSearch()) == []
    only_blank = torch.zeros(1, 3, 1)
    assert ctc_beam(only_blank, torch.tensor([3]), CTCBeamSearch())[0][0].labels == ()


@pytest.mark.parametrize("value", [-inf, torch.nan])
@pytest.mark.parametrize("frame", [0, 3, 5])
def test_a_frame_without_outputs_leaves_no_label_sequence(frame, value):
    log_probs = random_log_probs(6, 3, 0)
    log_probs[frame] = value
    for recombine in ("sum", "max"):
        (only,) = one(log_probs, options(recombine=recombine))
        assert (only.labels, only.score) == ((), -inf)


def test_ties_are_decided_alike():
    even = torch.full((4, 6), 1 / 6).log()
    for beam in (1, 3, 5, 6):
        found = one(even[:1], options(beam=beam, nbest=6))
        assert [h.labels for h in found] == [(), (0,), (1,), (2,), (3,), (4,)][:beam]
        assert one(even, options(beam=beam)) == one(even.clone(), options(beam=beam))
        assert one(even[:1], options(nbest=beam)) == one(even[:1], options())[:beam]


def test_padding_is_not_read_and_rows_are_independent():
    log_probs = 2 * torch.randn(5, 30, 9, generator=torch.Generator().manual_seed(0))
    log_probs = log_probs.log_softmax(-1)
    lengths = torch.tensor([30, 4, 0, 17, 1])
    settings = CTCBeamSearch(beam=4, nbest=4, pruning=FramePruning(vocabulary=5, collapse=0.3))
    together = ctc_beam(log_probs, lengths, settings)
    order = [3, 1, 4, 0, 2]
    assert ctc_beam(log_probs[order], lengths[order], settings) == [together[row] for row in order]
    for row, length in enumerate(lengths.tolist()):
        alone = ctc_beam(log_probs[row : row + 1, :length].contiguous(), lengths[row : row + 1], settings)
        assert alone == together[row : row + 1]


def test_a_wider_beam_is_never_worse_where_all_fits():
    for seed in range(10):
        log_probs = random_log_probs(5, 3, seed)
        full = one(log_probs, options())
        assert one(log_probs, options(nbest=4)) == full[:4]


@pytest.mark.parametrize("changes", [{}, {"vocabulary": 5, "collapse": 0.3}])
def test_from_logits(changes):
    logits = 3 * torch.randn(3, 40, 21, generator=torch.Generator().manual_seed(0)) - 2
    lengths = torch.tensor([40, 0, 23])
    settings = flat(CTCBeamSearch, **changes)
    expected = ctc_beam(logits.log_softmax(-1), lengths, settings)
    for row, plain in zip(ctc_beam_of_logits(logits, lengths, settings), expected, strict=True):
        assert [h.labels for h in row] == [h.labels for h in plain]
        assert [h.scores["ctc"] for h in row] == pytest.approx([h.scores["ctc"] for h in plain], abs=1e-4)


def test_bfloat16():
    log_probs = random_log_probs(20, 5, 1).to(torch.bfloat16)
    assert one(log_probs, CTCBeamSearch()) == one(log_probs.float(), CTCBeamSearch())


# frame by frame


def run_frames(log_probs, settings, gains=None):
    found = candidates(log_probs, most=settings.pruning.frame_labels, min_log_prob=settings.pruning.min_log_prob)
    search = FrameSearch(log_probs.shape[1] - 1, settings)
    for frame in range(len(log_probs)):
        part = slice(found.offsets[frame], found.offsets[frame + 1])
        labels = found.labels[part]
        args = () if gains is None else (gains(search, labels),)
        made = search.step(labels, found.log_probs[part], found.blank[frame], *args)
        yield search, made


@pytest.mark.parametrize("recombine", ["sum", "max"])
@pytest.mark.parametrize("beam", [1, 5, 40])
def test_frame_by_frame_is_the_same_search(recombine, beam):
    log_probs = random_log_probs(60, 30, beam)
    settings = CTCBeamSearch(beam=beam, nbest=beam, pruning=FramePruning(recombine=recombine))
    known = {0}
    for search, made in run_frames(log_probs, settings):
        assert not known & set(made.tolist())
        known |= set(made.tolist())
        assert set(search.nodes.tolist()) <= known
        assert set(made.tolist()) <= set(search.nodes.tolist())
        assert set(search.parents(search.nodes).tolist()) <= known | {-1}
    assert search.hypotheses() == one(log_probs, settings)
    texts = search.labels(search.nodes)
    assert len(set(texts)) == len(texts)
    assert [labels[-1] for labels in texts if labels] == search.last_labels(search.nodes)[
        [bool(t) for t in texts]
    ].tolist()


def bigram(seed, num_labels):
    """A made-up scorer: a number for each label behind each label (or the beginning, last)."""
    return np.random.default_rng(seed).normal(size=(num_labels + 1, num_labels))


def score(table, labels):
    return float(sum(table[before, label] for before, label in zip((-1, *labels), labels, strict=False)))


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_enter_before_pruning(seed):
    log_probs, table = random_log_probs(5, 3, seed), bigram(seed, 3)

    def gains(search, labels):
        return table[np.where(search.last_labels(search.nodes) == 3, -1, search.last_labels(search.nodes))][:, labels]

    *_, (search, _) = run_frames(log_probs, options(), gains)
    expected = {labels: ctc + score(table, labels) for labels, ctc in every_path(log_probs, "sum").items()}
    assert {h.labels: h.score for h in search.hypotheses()} == pytest.approx(expected, abs=1e-9)
    *_, (narrow, _) = run_frames(log_probs, options(beam=3), gains)
    for hypothesis in narrow.hypotheses():
        assert hypothesis.score - hypothesis.scores["ctc"] == pytest.approx(score(table, hypothesis.labels), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_enter_after_pruning(seed):
    log_probs, table = random_log_probs(5, 3, seed), bigram(seed, 3)
    everything = options()
    for searched in (everything, options(beam=3)):
        for search, made in run_frames(log_probs, searched):
            search.set_bonus(made, np.array([score(table, labels) for labels in search.labels(made)]))
            assert all(b == score(table, ls) for b, ls in zip(search.bonus(made), search.labels(made), strict=True))
        found = {h.labels: (h.scores["ctc"], h.score - h.scores["ctc"]) for h in search.hypotheses()}
        for labels, (_, bonus) in found.items():
            assert bonus == pytest.approx(score(table, labels), abs=1e-9)
        if searched is everything:
            assert {labels: ctc for labels, (ctc, _) in found.items()} == pytest.approx(every_path(log_probs, "sum"))


# fewer labels, fewer frames


def test_the_vocabulary_of_an_utterance():
    log_probs = random_log_probs(9, 6, 3)
    kept, ids = restrict_vocabulary(log_probs, 3)
    level = log_probs[:, :-1].amax(0)
    assert ids.tolist() == sorted(sorted(range(6), key=lambda label: -level[label])[:3])
    assert torch.allclose(kept.exp().sum(-1), torch.ones(9).double())
    ratio = (kept - log_probs[:, [*ids.tolist(), 6]]).numpy()
    assert ratio == pytest.approx(np.repeat(ratio[:, :1], 4, axis=1))
    found = one(log_probs, options(vocabulary=3))
    assert {label for h in found for label in h.labels} == set(ids.tolist())
    same, every = restrict_vocabulary(log_probs, 6)
    assert same is log_probs
    assert every.tolist() == list(range(6))


def test_impossible_labels_of_a_vocabulary():
    log_probs = torch.full((3, 4), -inf)
    log_probs[1] = torch.tensor([0.25] * 4).log()
    kept, ids = restrict_vocabulary(log_probs, 2)
    assert ids.tolist() == [0, 1]
    assert not kept.isnan().any()
    assert one(log_probs, options(vocabulary=2))[0].score == -inf


def plain_collapse(log_probs, threshold):
    groups = [[log_probs[0]]]
    for before, row in pairwise(log_probs):
        same = before.argmax() == row.argmax() and min(before.max().exp(), row.max().exp()) >= threshold
        groups[-1].append(row) if same else groups.append([row])
    return torch.stack([torch.stack(group).exp().mean(0).log() for group in groups])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(0, 999), st.sampled_from([0.1, 0.5, 0.8]))
def test_collapse(frames, seed, threshold):
    log_probs = random_log_probs(frames, 2, seed)
    found = collapse_frames(log_probs, threshold)
    assert torch.allclose(found, plain_collapse(log_probs, threshold))
    assert torch.allclose(found.exp().sum(-1), torch.ones(len(found)).double())


def test_collapse_keeps_the_text_of_sure_frames():
    path = [3, 3, 0, 0, 0, 3, 3, 0, 1, 1, 3]
    log_probs = torch.full((11, 4), 0.01)
    log_probs[range(11), path] = 0.97
    log_probs = log_probs.log()
    assert len(collapse_frames(log_probs, 0.9)) == 6
    assert len(collapse_frames(log_probs, 0.99)) == 11
    assert one(log_probs, CTCBeamSearch(pruning=FramePruning(collapse=0.9)))[0].labels == (0, 0, 1)
