"""How probable CTC prefixes are frame by frame, compiled: floats with exponents, so that nothing overflows or vanishes.

For a label sequence g, b[t] and n[t] are the probabilities that the first t frames write it and end in blank, or in its
last label (papers.md B3.2). They are kept as they are, not as logarithms, with an exponent beside each frame: x[t]
stands for x[t] * 2^(STEP * exponent[t]), and b + n stays within 2^-HALF and 2^HALF, however long the utterance and
improbable the hypothesis.
"""

from math import inf, log

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import compiled, inner

STEP, HALF = 256, 128
LOG_STEP = STEP * log(2.0)
UP, DOWN = 2.0**STEP, 2.0**-STEP
LOW, HIGH = 2.0**-HALF, 2.0**HALF

Floats = NDArray[np.float64]
Small = NDArray[np.int32]


@compiled
def begin(blank: Floats, frames: int, b: Floats, n: Floats, exponents: Small) -> None:
    """The empty sequence: b is what the frames so far give to blank."""
    b[0], n[0], exponents[0] = 1.0, 0.0, 0
    value, exponent = 1.0, 0
    for t in range(frames):
        value *= blank[t]
        while 0.0 < value < LOW:
            value *= UP
            exponent -= 1
        b[t + 1], n[t + 1], exponents[t + 1] = value, 0.0, exponent


@inner
def advance(
    column: Floats,
    blank: Floats,
    frames: int,
    repeats: bool,
    from_b: Floats,
    from_n: Floats,
    from_exponents: Small,
    b: Floats,
    n: Floats,
    exponents: Small,
) -> float:
    """One hypothesis and one label more, which may be in place; returns the log-probability of the new prefix."""
    keep = 0.0 if repeats else 1.0
    enters, entering = from_b[0] + keep * from_n[0], from_exponents[0]
    b[0], n[0], exponents[0] = 0.0, 0.0, 0
    in_blank, in_label, exponent = 0.0, 0.0, entering
    total, total_exponent = 0.0, entering
    for t in range(frames):
        if entering != exponent and enters > 0.0:
            if in_blank + in_label == 0.0:
                exponent = entering
            elif entering > exponent:
                scale = _power(exponent - entering)
                in_blank, in_label, exponent = in_blank * scale, in_label * scale, entering
            else:
                enters *= _power(entering - exponent)
        enters *= column[t]
        if exponent != total_exponent and enters > 0.0:
            if total == 0.0:
                total, total_exponent = enters, exponent
            elif exponent > total_exponent:
                total, total_exponent = total * _power(total_exponent - exponent) + enters, exponent
            else:
                total += enters * _power(exponent - total_exponent)
        else:
            total += enters
        in_blank, in_label = (in_blank + in_label) * blank[t], in_label * column[t] + enters
        enters, entering = from_b[t + 1] + keep * from_n[t + 1], from_exponents[t + 1]
        size = in_blank + in_label
        while 0.0 < size < LOW:
            in_blank, in_label, size, exponent = in_blank * UP, in_label * UP, size * UP, exponent - 1
        if size > HIGH:
            in_blank, in_label, exponent = in_blank * DOWN, in_label * DOWN, exponent + 1
        b[t + 1], n[t + 1], exponents[t + 1] = in_blank, in_label, exponent
    return log(total) + LOG_STEP * total_exponent if total > 0.0 else -inf


@inner
def weigh(
    b: Floats, n: Floats, keep: float, exponents: Small, frames: int, window: float, weights: Floats
) -> tuple[int, int, int]:
    """How probably a hypothesis is there before each frame, `b + keep * n`, to a common exponent.

    Returns:
        That exponent, and the first and behind the last frame that are not below a part of the best, all others being
        without weight.
    """
    top, highest = -(2**30), 0.0
    for t in range(frames):
        size = b[t] + n[t]
        if size > 0.0 and exponents[t] >= top:
            if exponents[t] > top:
                top, highest = exponents[t], 0.0
            highest = max(highest, b[t] + keep * n[t])
    floor, first, stop = highest * window, 0, frames
    while first < stop and not (b[first] + keep * n[first]) * _power(min(exponents[first] - top, 0)) > floor:
        first += 1
    while stop > first and not (b[stop - 1] + keep * n[stop - 1]) * _power(min(exponents[stop - 1] - top, 0)) > floor:
        stop -= 1
    for t in range(first, stop):
        weights[t] = b[t] + keep * n[t]
    for t in range(first, stop):
        if exponents[t] != top:
            weights[t] *= _power(min(exponents[t] - top, 0))
    return top, first, stop


@inner
def dot(weights: Floats, column: Floats, first: int, stop: int) -> float:
    """The sum of products from one frame up to another."""
    total = 0.0
    for t in range(first, stop):
        total += weights[t] * column[t]
    return total


@inner
def _power(exponent: int) -> float:
    """2^(STEP * exponent) for exponents up to 0; what is below the range of floats is none."""
    if exponent == 0:
        return 1.0
    if exponent == -1:
        return DOWN
    if exponent == -2:
        return DOWN * DOWN
    return DOWN * DOWN * DOWN if exponent == -3 else 0.0
