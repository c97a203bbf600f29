"""Probabilities of CTC prefixes, compiled: what `prefix` asks of an utterance's frames.

For a label sequence g, b[t] and n[t] are the probabilities that the first t frames write it and end in blank, or in its
last label (papers.md B3.2). With them the prefix probability of g c is a dot product over the frames,

    psi(g c) = sum_t (b[t-1] + n[t-1]) p_t(c),    without n where c is the last label of g,

so that candidates cost no recursion; that is left to the hypotheses that survive. Probabilities are kept as they are,
not as logarithms, with an exponent beside each frame: x[t] stands for x[t] * 2^(STEP * exponent[t]), and b + n stays
within 2^-HALF and 2^HALF. So nothing overflows or vanishes, however long the utterance and improbable the hypothesis.

Searches ask for the same few outputs again and again, so that their probabilities are kept (`Store`), frame beside
frame.
"""

from math import exp, inf, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import compiled, inner, kth_largest
from kikitori.scorers.ctc.pruning import Candidates

STEP, HALF = 256, 128
LOG_STEP = STEP * log(2.0)
UP, DOWN = 2.0**STEP, 2.0**-STEP
LOW, HIGH = 2.0**-HALF, 2.0**HALF
IMPOSSIBLE = -500.0  # log-probabilities below count as none: the product of two such still is a float

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]
Ints = NDArray[np.int64]
Small = NDArray[np.int32]

_LOG2_E, _LN2 = 1.4426950408889634, 0.6931471805599453


class Store(NamedTuple):
    """Probabilities of outputs that were asked for, those of all utterances in one place.

    Attributes:
        places: Of each output, -1 where it is not here, (utterances, outputs).
        owners: The utterance and output of each place, (places, 2).
        frames: The frames that are filled: the first, and the first that is not any more, (places, 2).
        probabilities: (places, frames).
        used: How many places are, (1,).
    """

    places: Small
    owners: Ints
    frames: Ints
    probabilities: Floats
    used: Ints


class Outputs(NamedTuple):
    """What the CTC head says of some utterances.

    Attributes:
        scores: Of all outputs, utterance after utterance and frame after frame, blank last in each.
        norms: Subtracted from the scores of a frame to make log-probabilities, (utterances, frames).
        starts: Where each utterance begins among the scores, (utterances,).
        widths: Outputs of each, (utterances,).
        lengths: Frames of each, (utterances,).
        columns: Output of each label, -1 for none, (utterances, labels); (utterances, 0) where it is the label itself.
        blanks: Probability of blank, (utterances, frames).
        store: For the probabilities of outputs that are asked for.
    """

    scores: Scores
    norms: Floats
    starts: Ints
    widths: Ints
    lengths: Ints
    columns: Small
    blanks: Floats
    store: Store


class Prefixes(NamedTuple):
    """Hypotheses: label sequences that utterances may begin with.

    Attributes:
        utterances: Of each, (rows,).
        last: Last label, -1 where there is none, (rows,).
        prefix: Log-probability of everything that begins with it, (rows,).
        b: (rows, frames + 1), as are the next two.
        n: See the module.
        exponents: See the module.
    """

    utterances: Ints
    last: Ints
    prefix: Floats
    b: Floats
    n: Floats
    exponents: Small


STORED = 2**22  # probabilities, 32 MiB; memory that is not used is not taken


def new_store(utterances: int, outputs: int, frames: int) -> Store:
    """An empty one."""
    room = min(utterances * outputs, max(STORED // max(frames, 1), 1))
    pairs = np.empty((room, 2), np.int64), np.empty((room, 2), np.int64)
    return Store(np.full((utterances, outputs), -1, np.int32), *pairs, np.empty((room, frames)), np.zeros(1, np.int64))


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


@compiled
def extend(
    outputs: Outputs, old: Prefixes, rows: Ints, labels: Ints, counts: Ints, new: Prefixes, given: Floats
) -> None:
    """Makes new hypotheses, which begin with old ones.

    Args:
        outputs: Of the CTC head.
        old: The old hypotheses.
        rows: What each new hypothesis begins with, (rows,).
        labels: What is appended, (rows, n).
        counts: How many of them, (rows,).
        new: Receives the new hypotheses.
        given: Receives what each label adds to the prefix's log-probability, (rows, n).
    """
    for at, row in enumerate(rows):
        u, before = old.utterances[row], old.prefix[row]
        frames, previous = outputs.lengths[u], old.last[row]
        from_b, from_n, from_exponents = old.b[row], old.n[row], old.exponents[row]
        to_b, to_n, to_exponents = new.b[at], new.n[at], new.exponents[at]
        if counts[at] == 0:
            for t in range(len(to_b)):
                to_b[t], to_n[t], to_exponents[t] = from_b[t], from_n[t], from_exponents[t]
        for place in range(counts[at]):
            label = labels[at, place]
            output, total = _output(outputs.columns, u, label), -inf
            if output < 0 or before == -inf:
                to_b[:], to_n[:], to_exponents[:] = 0.0, 0.0, 0
            else:
                total = _advance(
                    _column(outputs, u, output, 0, frames),
                    outputs.blanks[u],
                    frames,
                    label == previous,
                    from_b,
                    from_n,
                    from_exponents,
                    to_b,
                    to_n,
                    to_exponents,
                )
            given[at, place] = total - before if before > -inf else -inf
            before, previous = total, label
            from_b, from_n, from_exponents = to_b, to_n, to_exponents
        new.utterances[at], new.last[at], new.prefix[at] = u, previous, before


@compiled
def score(outputs: Outputs, window: float, prefixes: Prefixes, rows: Ints, labels: Ints, found: Floats) -> None:
    """What labels, and the end, would add to the log-probabilities of prefixes.

    Args:
        outputs: Of the CTC head.
        window: Frames that a hypothesis reaches with less than this part of its best one are left out.
        prefixes: Hypotheses.
        rows: Those that are asked about.
        labels: Candidates of each of them, -1 for none, (rows, candidates).
        found: Receives the scores, (rows, candidates + 1), the end last.
    """
    utterances, last, prefix, b, n, exponents = prefixes
    both, blank_only = np.empty(b.shape[1]), np.empty(b.shape[1])
    for at, row in enumerate(rows):
        u = utterances[row]
        frames = outputs.lengths[u]
        found[at] = -inf
        if prefix[row] == -inf:
            continue
        end = b[row, frames] + n[row, frames]
        if end > 0.0:
            found[at, -1] = log(end) + LOG_STEP * exponents[row, frames] - prefix[row]
        top, first, stop = _weigh(b[row], n[row], 1.0, exponents[row], frames, window, both)
        for place in range(labels.shape[1]):
            label = labels[at, place]
            output = _output(outputs.columns, u, label) if label >= 0 else -1
            if output < 0:
                continue
            if label == last[row]:
                own_top, own_first, own_stop = _weigh(b[row], n[row], 0.0, exponents[row], frames, window, blank_only)
                column = _column(outputs, u, output, own_first, own_stop)
                total, exponent = _dot(blank_only, column, own_first, own_stop), own_top
            else:
                column = _column(outputs, u, output, first, stop)
                total, exponent = _dot(both, column, first, stop), top
            if total > 0.0:
                found[at, place] = log(total) + LOG_STEP * exponent - prefix[row]


@compiled
def propose(
    likely: Candidates,
    firsts: Ints,
    lengths: Ints,
    window: float,
    prefixes: Prefixes,
    rows: Ints,
    num_labels: int,
    found: Ints,
) -> None:
    """The labels that CTC finds likeliest behind each hypothesis, of those that are likely in a frame it reaches.

    Args:
        likely: Labels that are likely in some frame, utterance after utterance.
        firsts: The first frame of each utterance among all, (utterances,).
        lengths: Frames of each, (utterances,).
        window: The same part of the best frame as for `score`.
        prefixes: Hypotheses.
        rows: Those that are asked about.
        num_labels: Of the search.
        found: Receives the labels, best first, -1 where there are no more, (rows, most).
    """
    offsets, labels, log_probs, _ = likely
    utterances, last, _, b, n, exponents = prefixes
    both = np.empty(b.shape[1])
    sums, touched = np.zeros(num_labels), np.empty(num_labels, np.int64)
    values = np.empty(num_labels)
    most = found.shape[1]
    for at, row in enumerate(rows):
        u, count = utterances[row], 0
        found[at] = -1
        _, first, stop = _weigh(b[row], n[row], 1.0, exponents[row], lengths[u], window, both)
        for t in range(first, stop):
            if both[t] == 0.0:
                continue
            again = both[t] * (b[row, t] / (b[row, t] + n[row, t]))
            for place in range(offsets[firsts[u] + t], offsets[firsts[u] + t + 1]):
                label = labels[place]
                if sums[label] == 0.0:
                    touched[count] = label
                    count += 1
                sums[label] += 1e-300 + (again if label == last[row] else both[t]) * exp(log_probs[place])
        for place in range(count):
            values[place] = sums[touched[place]]
        floor = kth_largest(values[:count], most) if count > most else 0.0
        kept = 0
        for place in range(count):
            label = touched[place]
            value, sums[label] = sums[label], 0.0
            if value >= floor:
                kept = _insert(value, label, values, found[at], kept)


@inner
def _insert(value: float, label: int, values: Floats, labels: Ints, kept: int) -> int:
    """Puts a label into a list that is sorted by value, equal ones by label; returns how many there are."""
    full = kept == len(labels)
    if full and (value < values[kept - 1] or (value == values[kept - 1] and label > labels[kept - 1])):
        return kept
    place = kept - 1 if full else kept
    while place > 0 and (values[place - 1] < value or (values[place - 1] == value and labels[place - 1] > label)):
        values[place], labels[place] = values[place - 1], labels[place - 1]
        place -= 1
    values[place], labels[place] = value, label
    return kept if full else kept + 1


@inner
def _output(columns: Small, utterance: int, label: int) -> int:
    return columns[utterance, label] if columns.shape[1] else label


@inner
def _advance(
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
def _power(exponent: int) -> float:
    """2^(STEP * exponent) for exponents up to 0; what is below the range of floats is none."""
    if exponent == 0:
        return 1.0
    if exponent == -1:
        return DOWN
    if exponent == -2:
        return DOWN * DOWN
    return DOWN * DOWN * DOWN if exponent == -3 else 0.0


@inner
def _weigh(
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
def _column(outputs: Outputs, utterance: int, output: int, first: int, stop: int) -> Floats:
    """Probabilities of one output, (frames,), of which those from `first` to `stop` are there."""
    store = outputs.store
    place = store.places[utterance, output]
    if place < 0:
        if store.used[0] == len(store.owners):
            for owner in store.owners:
                store.places[owner[0], owner[1]] = -1
            store.used[0] = 0
        place = store.used[0]
        store.used[0] += 1
        store.places[utterance, output] = place
        store.owners[place, 0], store.owners[place, 1] = utterance, output
        store.frames[place] = first
    column: Floats = store.probabilities[place]
    filled = store.frames[place]
    width, start = outputs.widths[utterance], outputs.starts[utterance] + output
    if first < filled[0]:
        _fill(outputs.scores, outputs.norms[utterance], start, width, first, filled[0], column)
        filled[0] = first
    if stop > filled[1]:
        _fill(outputs.scores, outputs.norms[utterance], start, width, filled[1], stop, column)
        filled[1] = stop
    return column


@inner
def _fill(scores: Scores, norms: Floats, start: int, width: int, first: int, stop: int, column: Floats) -> None:
    """Probabilities of an output in some frames."""
    place = start + first * width
    for t in range(first, stop):
        column[t] = scores[place] - norms[t]
        place += width
    # exp(x) = 2^n exp(f), in vector instructions: 0.33 of the time of the library's, to 1e-10 of its value.
    part, powers = column[first:stop], np.empty(stop - first, np.int64)
    for t in range(len(part)):
        x = part[t]
        x = x if x > IMPOSSIBLE else IMPOSSIBLE
        powers[t] = np.int64(np.int32(x * _LOG2_E - 0.5))
    factors = powers.view(np.float64)
    for t in range(len(part)):
        x = part[t]
        possible = 1.0 if x > IMPOSSIBLE else 0.0
        x = x if x > IMPOSSIBLE else IMPOSSIBLE
        whole = np.float64(powers[t])
        f = x - whole * _LN2
        tail = 1 / 120 + f * (1 / 720 + f * (1 / 5040 + f * (1 / 40320 + f / 362880)))
        series = 1.0 + f * (1.0 + f * (0.5 + f * (1 / 6 + f * (1 / 24 + f * tail))))
        powers[t] = (powers[t] + 1023) << 52
        part[t] = possible * series * factors[t]


@inner
def _dot(weights: Floats, column: Floats, first: int, stop: int) -> float:
    total = 0.0
    for t in range(first, stop):
        total += weights[t] * column[t]
    return total
