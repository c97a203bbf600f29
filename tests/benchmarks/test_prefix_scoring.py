"""CTC prefix scores, timed on what a search would ask for."""

import pytest
import torch

from peers import prefix_scoring
from peers.posteriors import simulate_ctc

pytestmark = pytest.mark.slow


def test_a_search_finds_what_was_spoken():
    found, spoken = simulate_ctc(250, 100)
    log_probs = torch.from_numpy(found)
    steps = prefix_scoring.searched(log_probs, spoken, prefix_scoring.Scoring(250, 100, 4, 12))
    scores = prefix_scoring.ours(log_probs, steps)
    assert [tuple(each.shape) for each in scores] == [(4, 13)] * prefix_scoring.STEPS
    assert all(len(set(row)) == 12 for step in steps for row in step.labels.tolist())
    best = [int(step.chosen[0]) for step in steps]
    assert sum(a == b for a, b in zip(best, spoken, strict=False)) >= 15
