"""`kikitori bench decoding`: the searches of the speech LLM beside those of transformers, and what they are made of."""

from collections.abc import Callable, Iterator, Sequence

import torch

from kikitori.bench.speculative import small_speculative, speculative_suite
from kikitori.bench.timing import Row

Suite = Callable[[int], Iterator[Row]]
"""Rows of some contenders, from how often each runs."""
SUITES: Sequence[Suite] = (speculative_suite,)
SMALL_SUITES: Sequence[Suite] = (small_speculative,)


def decoding(rounds: int = 5, suites: Sequence[Suite] = SUITES) -> Iterator[Row]:
    """Times everything, one row per contender; one thread, on the CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for suite in suites:
            yield from suite(rounds)
    finally:
        torch.set_num_threads(threads)


def small_decoding(rounds: int = 5) -> Iterator[Row]:
    """The same rows on inputs that take seconds, to see that everything runs."""
    return decoding(rounds, SMALL_SUITES)
