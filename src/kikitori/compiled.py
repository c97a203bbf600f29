"""Functions compiled to machine code by numba, on their first call; the compiled code is kept for later processes."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function of numbers and arrays; without a writable cache folder every process compiles anew."""
    # Sums may be reordered, so that loops use vector instructions; infinities and NaN keep their meaning.
    fast = {"reassoc", "contract"}
    try:
        return cast("Callable[P, R]", numba.njit(function, cache=True, nogil=True, fastmath=fast))
    except RuntimeError:  # nowhere to keep it
        return cast("Callable[P, R]", numba.njit(function, nogil=True, fastmath=fast))


@compiled
def kth_largest(values: NDArray[np.float64], k: int) -> float:
    """The value that k - 1 others do not exceed, 1 <= k <= len(values), by quickselect; `values` is rearranged."""
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
