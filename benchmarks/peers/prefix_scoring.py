"""CTC prefix scores of a label-synchronous search, against ESPnet's CTCPrefixScoreTH."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kikitori.scorers.ctc.prefix import CTCPrefixScorer, ctc_outputs
from peers.posteriors import simulate_ctc
from peers.timing import Row, alternate

OURS, ESPNET = "kikitori", "espnet"
STEPS = 20


@dataclass(frozen=True)
class Scoring:
    """Prefix scoring of one utterance: frames, labels, hypotheses, and candidates that each of them has."""

    frames: int
    num_labels: int
    beam: int
    candidates: int

    def __str__(self) -> str:
        return f"T={self.frames} V={self.num_labels} beam {self.beam} x {self.candidates}"


@dataclass(frozen=True, eq=False)
class Step:
    """What a search asks for at one step, and which candidates it goes on with.

    Attributes:
        labels: Candidates, (hypotheses, candidates).
        rows: The hypothesis that each new one begins with, (hypotheses,).
        chosen: The label it goes on with, (hypotheses,).
    """

    labels: Tensor
    rows: Tensor
    chosen: Tensor


SCORINGS = tuple(
    Scoring(frames, num_labels, beam, candidates)
    for frames, num_labels in ((250, 1_000), (750, 1_000), (750, 10_000), (375, 150_000))
    for beam, candidates in ((1, 12), (8, 16), (8, 64))
)


def prefix_scoring_rows(scoring: Scoring, rounds: int) -> Iterator[Row]:
    """The same candidates scored by both, the preparation of the CTC outputs included.

    Args:
        scoring: Sizes.
        rounds: Runs of each contender.
    """
    found, spoken = simulate_ctc(scoring.frames, scoring.num_labels)
    log_probs = torch.from_numpy(found)
    steps = searched(log_probs, spoken, scoring)
    contenders: dict[str, Callable[[], list[Tensor]]] = {OURS: lambda: ours(log_probs, steps)}
    notes = {OURS: f"{STEPS} steps"}
    if espnet_is_there():
        contenders[ESPNET] = lambda: theirs(log_probs, steps)
        notes[ESPNET] = f"scores differ by {difference(contenders[OURS](), contenders[ESPNET]()):.0e} at most"
    seconds = alternate(contenders, rounds)
    for name in contenders:
        yield Row(f"CTC prefix scores {scoring}", name, seconds[name], seconds[name] / seconds[OURS], notes[name])


def prefix_scoring_suite(rounds: int) -> Iterator[Row]:
    """All rows."""
    for scoring in SCORINGS:
        yield from prefix_scoring_rows(scoring, rounds)


def small_prefix_scoring(rounds: int) -> Iterator[Row]:
    """A row of a small vocabulary."""
    return prefix_scoring_rows(Scoring(60, 100, 2, 12), rounds)


def espnet_is_there() -> bool:
    """Whether ESPnet is installed."""
    return find_spec("espnet") is not None and find_spec("espnet.nets.ctc_prefix_score") is not None


def searched(log_probs: Tensor, spoken: Sequence[int], scoring: Scoring) -> list[Step]:
    """Steps of a beam search whose candidates are what was spoken and other labels, drawn anew for each hypothesis."""
    random = np.random.default_rng(0)
    scorer = CTCPrefixScorer(ctc_outputs([log_probs], scoring.num_labels))
    rows = torch.zeros(scoring.beam, dtype=torch.int64)
    state, totals, steps = scorer.start(1), torch.zeros(scoring.beam, dtype=torch.float64), []
    totals[1:] = -100.0  # equal to the first
    state, _ = scorer.extend(state, rows, rows[:, None], rows)
    for place in range(STEPS):
        near = [*dict.fromkeys(spoken[max(place - 1, 0) : place + 3])]
        others = np.setdiff1d(random.choice(scoring.num_labels, 2 * scoring.candidates, replace=False), near)
        labels = np.stack(
            [
                [*near, *random.choice(others, scoring.candidates - len(near), replace=False)]
                for _ in range(scoring.beam)
            ]
        )
        candidates = torch.from_numpy(labels)
        scores = totals[:, None] + scorer.log_probs_of(state, torch.arange(scoring.beam), candidates)[:, :-1]
        best = scores.flatten().topk(scoring.beam)
        parents = best.indices // scoring.candidates
        steps.append(Step(candidates, parents, candidates.flatten()[best.indices]))
        totals = best.values
        state, _ = scorer.extend(state, parents, steps[-1].chosen[:, None], torch.ones_like(parents))
    return steps


def ours(log_probs: Tensor, steps: Sequence[Step]) -> list[Tensor]:
    """Scores of the candidates and of the end at each step, (hypotheses, candidates + 1)."""
    scorer = CTCPrefixScorer(ctc_outputs([log_probs], log_probs.shape[1] - 1), window=60.0)
    one = torch.ones(len(steps[0].rows), dtype=torch.int64)
    state, found, every = scorer.start(1), [], torch.arange(len(one))
    state, _ = scorer.extend(state, one - 1, one[:, None], one - 1)
    for step in steps:
        found.append(scorer.log_probs_of(state, every, step.labels))
        state, _ = scorer.extend(state, step.rows, step.chosen[:, None], one)
    return found


def theirs(log_probs: Tensor, steps: Sequence[Step]) -> list[Tensor]:
    """The same by ESPnet."""
    from espnet.nets.ctc_prefix_score import CTCPrefixScoreTH

    blank = log_probs.shape[1] - 1
    # The end takes blank's place in its tables.
    scorer = CTCPrefixScoreTH(log_probs[None], torch.tensor([len(log_probs)]), blank, blank)
    hypotheses, state, found = [[blank] for _ in steps[0].rows], None, []
    for step in steps:
        scores, state = scorer(hypotheses, state, step.labels)
        found.append(torch.cat([scores.gather(1, step.labels), scores[:, blank, None]], dim=1))
        best: Any = (step.rows * (blank + 1) + step.chosen)[None]
        state = scorer.index_select_state(state, best)
        pairs = zip(step.rows.tolist(), step.chosen.tolist(), strict=True)
        hypotheses = [[*hypotheses[row], label] for row, label in pairs]
    return found


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference of scores, where both find a candidate possible."""
    most = 0.0
    for own, other in zip(ours, theirs, strict=True):
        possible = (own > -100.0) & (other > -100.0)
        most = max(most, float((own - other.double())[possible].abs().max()))
    return most
