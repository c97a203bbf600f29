"""Searches of the speech LLM against those of transformers, CTC prefix scores against ESPnet's.

OMP_NUM_THREADS=1 python benchmarks/speech_llm_decoding.py [prefix_scoring] [beam] [speculative] [--rounds 5] [--small]

One thread, on the CPU; all sides in one process, in turns. `--small` takes inputs of a second, to see that it runs.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from peers.beam import beam_suite, small_beam
from peers.prefix_scoring import espnet_is_there, prefix_scoring_suite, small_prefix_scoring
from peers.speculative import small_speculative, speculative_suite
from peers.timing import Row, format_rows

Suite = Callable[[int], Iterator[Row]]
"""Rows of some contenders, from how often each runs."""
SUITES: Mapping[str, Suite] = {
    "prefix_scoring": prefix_scoring_suite,
    "beam": beam_suite,
    "speculative": speculative_suite,
}
SMALL_SUITES: Mapping[str, Suite] = {
    "prefix_scoring": small_prefix_scoring,
    "beam": small_beam,
    "speculative": small_speculative,
}
"""The same rows on inputs that take seconds, to see that everything runs."""


def missing_peers() -> list[str]:
    """Peers that are not installed."""
    return [] if espnet_is_there() else ["espnet"]


def decoding(rounds: int = 5, names: Sequence[str] = (), *, small: bool = False) -> Iterator[Row]:
    """Times the suites of these names, or all, one row per contender; one thread, on the CPU."""
    suites = SMALL_SUITES if small else SUITES
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in names or suites:
            yield from suites[name](rounds)
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="*", help=f"{', '.join(SUITES)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each; the median counts")
    parser.add_argument("--small", action="store_true", help="the smallest inputs only")
    given = parser.parse_args()
    if unknown := set(given.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(unknown)}; known are {', '.join(SUITES)}")
    for package in missing_peers():
        print(f"{package} is not installed, so it is left out", file=sys.stderr)
    print(format_rows(list(decoding(given.rounds, given.suites, small=given.small))))


if __name__ == "__main__":
    main()
