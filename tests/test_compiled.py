import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.compiled import kth_largest

values = st.lists(st.sampled_from([-np.inf, -1.5, -1.0, 0.0, 2.0, np.inf]) | st.floats(allow_nan=False), min_size=1)


@settings(max_examples=200, deadline=None)
@given(values, st.data())
def test_kth_largest(numbers, data):
    k = data.draw(st.integers(1, len(numbers)))
    assert kth_largest(np.array(numbers), k) == sorted(numbers, reverse=True)[k - 1]


def test_without_a_place_for_compiled_code():
    """A read-only installation without a home compiles in every process."""
    code = """
import numba
njit = numba.njit
def refusing(function, cache=False, **options):
    if cache:
        raise RuntimeError("cannot cache function: no locator available")
    return njit(function, **options)
numba.njit = refusing
import numpy
from kikitori.compiled import kth_largest
print(kth_largest(numpy.arange(5.0), 2))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3.0\n"
