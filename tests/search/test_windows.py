"""What is doubtful behind a short window."""

import pytest

from kikitori.search.windows import is_doubtful
from kikitori.types import Hypothesis


@pytest.mark.parametrize(
    ("labels", "doubtful"),
    [
        ((), False),
        (range(30), False),
        ((1, 2, 1, 2, 1, 2), False),  # somebody says a word three times
        ((*range(8), *range(8)), True),
        ((9, 9, *range(8), *range(8)), True),
        ((*range(8), *range(6)), False),
        ((*range(8), *range(8), 0, 1, 2), True),  # cut short
        ((1, 2, 3, 4, 1, 2, 3, 4), True),
        (range(100), True),  # more than 10 s can hold
    ],
)
def test_texts_that_begin_again(labels, doubtful):
    assert is_doubtful(Hypothesis(tuple(labels)), 10.0) is doubtful


def test_what_ran_out_of_labels_or_was_warned_of():
    assert is_doubtful(Hypothesis((1, 2), complete=False), 10.0)
    assert is_doubtful(Hypothesis((1, 2), warnings={"loop": "'a' 12 times in a row"}), 10.0)
