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


def test_kept_code_is_made_anew_when_what_it_calls_has_changed(tmp_path):
    inner = "from kikitori.compiled import inner\n@inner\ndef more(x):\n    return x + {}\n"
    outer = "from kikitori.compiled import compiled\nfrom called import more\n"
    outer += "@compiled\ndef twice(x):\n    return more(more(x))\n"
    (tmp_path / "calling.py").write_text(outer)
    command = [
        sys.executable,
        "-c",
        "import calling; print(calling.twice(1.0), *calling.twice.stats.cache_hits.values())",
    ]
    printed = []
    for added in ("1.0", "1.0", "2.5"):
        (tmp_path / "called.py").write_text(inner.format(added))
        printed.append(subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split())
    assert printed == [["3.0"], ["3.0", "1"], ["6.0"]]
