"""`kikitori bench decoding`: the searches of the speech LLM beside their peers, and what they are made of."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from kikitori.bench.beam import beam_suite, small_beam
from kikitori.bench.prefix_scoring import espnet_is_there, prefix_scoring_suite, small_prefix_scoring
from kikitori.bench.speculative import small_speculative, speculative_suite
from kikitori.bench.timing import Row
from kikitori.errors import ConfigError

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
    """Times the suites of these names, or all, one row per contender; one thread, on the CPU.

    Raises:
        ConfigError: There is no suite of a name.
    """
    suites = SMALL_SUITES if small else SUITES
    for name in names:
        if name not in suites:
            raise ConfigError(
                f"no such suite: {name!r}", where="bench decoding", remedy=f"known are {', '.join(suites)}"
            )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in names or suites:
            yield from suites[name](rounds)
    finally:
        torch.set_num_threads(threads)
