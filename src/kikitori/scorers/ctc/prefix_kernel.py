"""Probabilities of CTC prefixes, compiled: what `prefix` asks of an utterance's frames.

With the probabilities b and n of a label sequence g (`scaled`) the prefix probability of g c is a dot product over the
frames,

    psi(g c) = sum_t (b[t-1] + n[t-1]) p_t(c),    without n where c is the last label of g,

so that candidates cost no recursion; that is left to the hypotheses that survive.
"""

from math import exp, inf, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import compiled, inner, kth_largest
from kikitori.scorers.ctc.outputs import Outputs, column_of, output_of
from kikitori.scorers.ctc.pruning import Candidates
from kikitori.scorers.ctc.scaled import LOG_STEP, advance, dot, weigh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Small = NDArray[np.int32]


class Prefixes(NamedTuple):
    """Hypotheses: label sequences that utterances may begin with.

    Attributes:
        utterances: Of each, (rows,).
        last: Last label, -1 where there is none, (rows,).
        prefix: Log-probability of everything that begins with it, (rows,).
        b: (rows, frames + 1), as are the next two.
        n: See `scaled`.
        exponents: See `scaled`.
    """

    utterances: Ints
    last: Ints
    prefix: Floats
    b: Floats
    n: Floats
    exponents: Small


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
            output, total = output_of(outputs.columns, u, label), -inf
            if output < 0 or before == -inf:
                to_b[:], to_n[:], to_exponents[:] = 0.0, 0.0, 0
            else:
                total = advance(
                    column_of(outputs, u, output, 0, frames),
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
        top, first, stop = weigh(b[row], n[row], 1.0, exponents[row], frames, window, both)
        for place in range(labels.shape[1]):
            label = labels[at, place]
            output = output_of(outputs.columns, u, label) if label >= 0 else -1
            if output < 0:
                continue
            if label == last[row]:
                own_top, own_first, own_stop = weigh(b[row], n[row], 0.0, exponents[row], frames, window, blank_only)
                column = column_of(outputs, u, output, own_first, own_stop)
                total, exponent = dot(blank_only, column, own_first, own_stop), own_top
            else:
                column = column_of(outputs, u, output, first, stop)
                total, exponent = dot(both, column, first, stop), top
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
        _, first, stop = weigh(b[row], n[row], 1.0, exponents[row], lengths[u], window, both)
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
