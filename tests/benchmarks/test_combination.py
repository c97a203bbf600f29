"""The benchmark runs, compares like with like, and says what it could not compare."""

import numpy as np
import pytest
import torch

import combination
from kikitori.search.ctc.beam import ctc_beam
from kikitori.search.options import CTCBeamSearch
from peers import ctc_peers
from peers.fusion import delayed_rows, fusion_rows
from peers.posteriors import simulate_ctc
from peers.rescoring import SMALL, rescoring_rows, simulate_nbest
from peers.timing import Row, alternate, format_rows

pytestmark = pytest.mark.slow


def test_contenders_take_turns():
    calls = []
    seconds = alternate({name: lambda name=name: calls.append(name) for name in "ab"}, 5)
    assert calls == ["a", "b"] * 6
    assert set(seconds) == {"a", "b"}
    assert all(value >= 0 for value in seconds.values())


def test_table():
    rows = [Row("work", "kikitori", 0.001, 1.0, "note"), Row("work", "other", 0.0125, 12.5)]
    head, ours, other = format_rows(rows).splitlines()
    assert head.split() == ["work", "contender", "ms", "ratio", "note"]
    assert ours.split() == ["work", "kikitori", "1.00", "1.00", "note"]
    assert other.split() == ["work", "other", "12.50", "12.50"]


def test_posteriors_are_normalised_spiky_and_readable():
    log_probs, labels = simulate_ctc(400, 50, seed=1)
    assert np.exp(log_probs).sum(axis=1) == pytest.approx(np.ones(400), abs=1e-4)
    assert (np.exp(log_probs[:, -1]) > 0.97).mean() > 0.8
    assert (simulate_ctc(400, 50, seed=1)[0] == log_probs).all()
    assert (simulate_ctc(400, 50, seed=2)[0] != log_probs).any()
    best = ctc_beam(torch.from_numpy(log_probs)[None], torch.tensor([400]), CTCBeamSearch())[0][0]
    assert len(labels) == 40
    assert len(set(enumerate(labels)) - set(enumerate(best.labels))) < 20


def test_peers_that_are_missing_are_named(monkeypatch, capsys):
    absent = ctc_peers.Peer("no-such-package", ctc_peers.PEERS[0].prepare, 10, ctc_peers.PEERS[0].ours)
    monkeypatch.setattr(combination, "PEERS", (absent,))
    assert combination.missing_peers() == ["no-such-package"]
    monkeypatch.setattr("sys.argv", ["combination.py", "--small"])
    combination.main()
    output = capsys.readouterr()
    assert "no-such-package is not installed" in output.err
    names = ["kikitori", "torch", "kikitori", "one at a time"]
    names += ["every 20 frames", "every frame", "kikitori", "padded batch", "shared-prefix cache"]
    lines = output.out.splitlines()[1:]
    assert all(name in line for name, line in zip(names, lines, strict=True))


@pytest.mark.parametrize(
    "peer", [peer for peer in ctc_peers.PEERS if peer.version is not None], ids=lambda p: p.package
)
def test_installed_peers_find_what_we_find(peer):
    size = combination.Size(100, 32)
    log_probs, _ = simulate_ctc(size.frames, size.num_labels)
    ours, other = combination.prefix_beam_rows(size, log_probs, 8, peer, 5)
    assert (ours.name, ours.ratio) == ("kikitori", 1.0)
    assert ours.note == other.note


def test_hypotheses_differ_in_some_places():
    nbest = simulate_nbest(1000)
    assert len(nbest) == 32
    assert all(18 <= len(sequence) <= 36 for sequence in nbest)
    assert simulate_nbest(1000) == nbest != simulate_nbest(1000, seed=1)


def test_rescoring_rows_give_the_same_scores():
    ours, *others = rescoring_rows(SMALL, 5, torch.float64)
    assert (ours.name, ours.ratio) == ("kikitori", 1.0)
    assert "x fewer" in ours.note
    assert [row.name for row in others] == ["padded batch", "shared-prefix cache"]
    assert all(float(row.note.split()[-1]) < 1e-3 for row in others)


def test_candidate_rows():
    ours, other = combination.candidate_rows(combination.Size(20, 300), 5)
    assert (ours.name, other.name) == ("kikitori", "torch")
    assert float(ours.note.split()[-1]) < 1e-5


def test_fusion_rows():
    ours, other = fusion_rows(40, 32, 5)
    assert (ours.name, ours.ratio, other.name) == ("kikitori", 1.0, "one at a time")
    batched, single = (int(row.note.split()[-1]) for row in (ours, other))
    assert 0 < batched < single / 4


def test_delayed_rows():
    seldom, always = delayed_rows(60, 5)
    assert (seldom.name, seldom.ratio, always.name) == ("every 20 frames", 1.0, "every frame")
    assert 0 < int(seldom.note.split()[-1]) <= 3 < int(always.note.split()[-1])
