"""Several things that vary, each value of each in `make test`, all combinations in `make test-slow`."""

from itertools import product

import pytest


def crossed(*axes):
    """All combinations of values, as parameters; fast are so few of them that each value is met."""
    fast = [tuple(row % len(axis) for axis in axes) for row in range(max(map(len, axes)))]
    combined = [(place, tuple(axis[row] for axis, row in zip(axes, place, strict=True)))
                for place in product(*(range(len(axis)) for axis in axes))]  # fmt: skip
    return [pytest.param(*values, marks=() if place in fast else pytest.mark.slow) for place, values in combined]


def together(params):
    """Parameters of several values as tuples, as fixtures take them."""
    return [pytest.param(param.values, marks=param.marks, id="-".join(map(str, param.values))) for param in params]
