"""CTC beam search and what feeds it against other packages that are installed; rescoring against transformers.

OMP_NUM_THREADS=1 python benchmarks/combination.py [--rounds 5] [--small]

One thread, on the CPU; all sides in one process, in turns. `--small` takes inputs of a second, to see that it runs.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kikitori.scorers.ctc.pruning import candidates_of_logits
from kikitori.search.ctc.beam import ctc_beam
from peers.ctc_peers import PEERS, Peer
from peers.fusion import delayed_rows, fusion_rows
from peers.posteriors import simulate_ctc
from peers.rescoring import SHAPES, SMALL, Shape, rescoring_rows
from peers.timing import Row, alternate, format_rows

OURS = "kikitori"
MOST = 20


@dataclass(frozen=True)
class Size:
    """A CTC output: frames and labels."""

    frames: int
    num_labels: int

    def __str__(self) -> str:
        return f"T={self.frames} V={self.num_labels}"


BEAMS = (8, 32)
SIZES = (Size(750, 32), Size(250, 1_000), Size(750, 1_000), Size(1500, 1_000), Size(375, 10_000), Size(375, 150_000))
FUSION_SIZES = (Size(250, 1_000),)
LOGIT_SIZES = (Size(750, 1_000), Size(750, 10_000), Size(375, 150_000))


def missing_peers() -> list[str]:
    """Peers that are not installed."""
    return [peer.package for peer in PEERS if peer.version is None]


def combination(
    rounds: int = 5,
    sizes: Sequence[Size] = SIZES,
    logit_sizes: Sequence[Size] = LOGIT_SIZES,
    beams: Sequence[int] = BEAMS,
    fusion_sizes: Sequence[Size] = FUSION_SIZES,
    shapes: Sequence[Shape] = SHAPES,
) -> Iterator[Row]:
    """Times everything, one row per contender; one thread, on the CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for size in sizes:
            log_probs, _ = simulate_ctc(size.frames, size.num_labels)
            for beam in beams:
                for peer in PEERS:
                    if peer.version is not None and size.num_labels <= peer.most_labels:
                        yield from prefix_beam_rows(size, log_probs, beam, peer, rounds)
        for size in logit_sizes:
            yield from candidate_rows(size, rounds)
        for size in fusion_sizes:
            yield from fusion_rows(size.frames, size.num_labels, rounds)
            yield from delayed_rows(size.frames, rounds)
        for shape in shapes:
            yield from rescoring_rows(shape, rounds)
    finally:
        torch.set_num_threads(threads)


def small_combination(rounds: int = 5) -> Iterator[Row]:
    """The same rows on inputs that take a second, to see that everything runs."""
    return combination(rounds, (Size(100, 32),), (Size(100, 1_000),), (8,), (Size(50, 32),), (SMALL,))


def prefix_beam_rows(size: Size, log_probs: NDArray[np.float32], beam: int, peer: Peer, rounds: int) -> Iterator[Row]:
    """Ours and one peer with the same pruning; the note is how probable each one's best label sequence is."""
    options = peer.ours(size.num_labels, beam)
    scores, lengths = torch.from_numpy(log_probs)[None], torch.tensor([size.frames])
    contenders: dict[str, Callable[[], list[int]]] = {
        OURS: lambda: list(ctc_beam(scores, lengths, options)[0][0].labels),
        peer.package: peer.prepare(log_probs, beam),
    }
    found = {name: _log_prob(scores, run()) for name, run in contenders.items()}
    seconds = alternate(contenders, rounds)
    for name in contenders:
        work = f"prefix beam {beam} {size} n-best {options.nbest}"
        yield Row(work, name, seconds[name], seconds[name] / seconds[OURS], f"best: log p {found[name]:.2f}")


def candidate_rows(size: Size, rounds: int) -> Iterator[Row]:
    """Logits to the best labels with normalised scores, ours and torch's log_softmax and topk."""
    random = np.random.default_rng(0)
    log_probs, _ = simulate_ctc(size.frames, size.num_labels)
    # A head does not normalise: every frame has its own offset.
    logits = torch.from_numpy(log_probs + random.normal(scale=3.0, size=(size.frames, 1)).astype(np.float32))
    error = _normaliser_error(logits)
    seconds = alternate(
        {OURS: lambda: candidates_of_logits(logits, most=MOST), "torch": lambda: plain_candidates(logits, MOST)}, rounds
    )
    work = f"logits to top {MOST} {size}"
    yield Row(work, OURS, seconds[OURS], 1.0, f"normaliser off by {error:.1e}")
    yield Row(work, "torch", seconds["torch"], seconds["torch"] / seconds[OURS], torch.__version__)


def plain_candidates(logits: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities and ids of the best outputs, (frames, most), and blank's log-probability, (frames,)."""
    log_probs = logits.log_softmax(dim=-1)
    best = torch.topk(log_probs, most, dim=-1)
    return best.values, best.indices, log_probs[:, -1]


def _log_prob(log_probs: torch.Tensor, labels: Sequence[int]) -> float:
    """Log-probability of a label sequence, all its paths summed."""
    loss = torch.nn.functional.ctc_loss(
        log_probs.double().transpose(0, 1),
        torch.tensor([list(labels)], dtype=torch.long),
        torch.tensor([log_probs.shape[1]]),
        torch.tensor([len(labels)]),
        blank=log_probs.shape[2] - 1,
        reduction="sum",
    )
    return -float(loss)


def _normaliser_error(logits: torch.Tensor) -> float:
    exact = logits[:, -1].double() - logits.double().logsumexp(dim=-1)
    return float(np.abs(candidates_of_logits(logits, most=1).blank - exact.numpy()).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each; the median counts")
    parser.add_argument("--small", action="store_true", help="the smallest inputs only")
    given = parser.parse_args()
    for package in missing_peers():
        print(f"{package} is not installed, so it is left out", file=sys.stderr)
    print(format_rows(list(small_combination(given.rounds) if given.small else combination(given.rounds))))


if __name__ == "__main__":
    main()
