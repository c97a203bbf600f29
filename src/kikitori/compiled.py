"""Functions compiled to machine code by numba, on their first call; the compiled code is kept for later processes."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numba.core import event
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")
NOTES = logging.getLogger("kikitori.notes")
"""What commands show as lines (`io.progress`)."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function of numbers and arrays; without a writable cache folder every process compiles anew.

    It is compiled once for every combination of types that it is called with, so call it with one alone.
    """
    return _jit(function, {})


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, for functions that compiled code alone calls: without what Python calls them by, and sooner."""
    return _jit(function, {"no_cpython_wrapper": True, "no_cfunc_wrapper": True})


def _jit(function: Callable[P, R], options: dict[str, Any]) -> Callable[P, R]:
    # Sums may be reordered, so that loops use vector instructions; infinities and NaN keep their meaning.
    fast = {"reassoc", "contract"}
    try:
        made = numba.njit(function, cache=True, nogil=True, fastmath=fast, **options)
    except RuntimeError:  # nowhere to keep it
        made = numba.njit(function, nogil=True, fastmath=fast, **options)
    with suppress(AttributeError):
        _heed_other_modules(made)
    return cast("Callable[P, R]", made)


def _heed_other_modules(made: Any) -> None:
    """Has kept code compiled anew also when a module has changed whose compiled functions this one's module takes.

    numba looks at the file of the function alone, and the code of those that it calls is in its own.
    """
    others = (each for each in made.py_func.__globals__.values() if isinstance(each, Dispatcher))
    stamps = {(each.__module__, _kept(each)._source_stamp) for each in others if each.__module__ != made.__module__}
    file = _kept(made)
    file._source_stamp = (file._source_stamp, *sorted(stamps))


def _kept(made: Any) -> Any:
    return made._cache._cache_file


class _Compilation(event.Listener):
    """Says, the first time in a process, that something is compiled which no earlier process has kept."""

    told = False

    def on_start(self, _: event.Event) -> None:
        if not _Compilation.told:
            _Compilation.told = True
            NOTES.info("compiling the searches for this machine, up to a minute, the first time alone")

    def on_end(self, _: event.Event) -> None:
        pass


cast(Any, event).register("numba:compile", _Compilation())


@compiled
def kth_largest(values: NDArray[np.float64], k: int) -> float:
    """The value that k - 1 others do not exceed, 1 <= k <= len(values), by quickselect; `values` is rearranged.

    It takes 0.2 (64 values) to 0.8 (2,000) of the time of np.partition, which copies.
    """
    low, high, target = 0, len(values) - 1, k - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] > pivot:
                left += 1
            while values[right] < pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if target <= right:
            high = right
        elif target >= left:
            low = left
        else:
            break
    return float(values[target])
