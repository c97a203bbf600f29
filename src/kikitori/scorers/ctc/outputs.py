"""What a CTC head says of some utterances, compiled: probabilities of outputs, made when they are asked for.

Searches ask for the same few outputs again and again, so that their probabilities are kept (`Store`), frame beside
frame.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import inner

IMPOSSIBLE = -500.0  # log-probabilities below count as none: the product of two such still is a float
STORED = 2**22  # probabilities, 32 MiB; memory that is not used is not taken

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


def new_store(utterances: int, outputs: int, frames: int) -> Store:
    """An empty one."""
    room = min(utterances * outputs, max(STORED // max(frames, 1), 1))
    pairs = np.empty((room, 2), np.int64), np.empty((room, 2), np.int64)
    return Store(np.full((utterances, outputs), -1, np.int32), *pairs, np.empty((room, frames)), np.zeros(1, np.int64))


@inner
def output_of(columns: Small, utterance: int, label: int) -> int:
    """The output of a label, -1 where it has none."""
    return columns[utterance, label] if columns.shape[1] else label


@inner
def column_of(outputs: Outputs, utterance: int, output: int, first: int, stop: int) -> Floats:
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
