"""Token pruning per frame, compiled: of CTC outputs blank and the most probable labels (beam_size_token in torchaudio).

Either from log-probabilities, or from logits, whose log-normaliser is then summed up in the same single pass over the
memory: of a vocabulary of an LLM that pass is most of a search's time. A block of a row is read once, into the cache;
most blocks have nothing above the floor and are done with.
"""

from math import exp, inf, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kikitori.compiled import compiled, inner, kth_largest

BLOCK, LANES = 1024, 64
LOWEST = float(np.finfo(np.float32).min)
# exp() as a polynomial in vector instructions takes 0.13 of the time of the library's, which numba does not vectorise.
_LOG2_E, _HALF, _UNDERFLOW = np.float32(1.4426950408889634), np.float32(0.5), np.float32(-87.0)
# 2^x on [-1/2, 1/2]: the exponential series, exact to float32 there.
_C1, _C2, _C3 = np.float32(0.6931471805599453), np.float32(0.2402265069591007), np.float32(0.0555041086648216)
_C4, _C5, _C6 = np.float32(0.0096181291076285), np.float32(0.0013333558146428), np.float32(0.0001540353039338)
_ONE, _BIAS, _SIGN = np.float32(1.0), np.int32(127), np.int32(0x7FFFFFFF)


class Candidates(NamedTuple):
    """Sparse log-probabilities of one utterance.

    Attributes:
        offsets: Where each frame's candidates begin, (frames + 1,).
        labels: Candidates of all frames, one frame after the other, each frame's in ascending order.
        log_probs: Theirs.
        blank: Log-probability of blank, (frames,).
    """

    offsets: NDArray[np.int64]
    labels: NDArray[np.int32]
    log_probs: NDArray[np.float64]
    blank: NDArray[np.float64]


def candidates(log_probs: Tensor, *, most: int | None = None, min_log_prob: float | None = None) -> Candidates:
    """The likeliest labels of every frame of an utterance (frames, labels + 1), blank last; impossible ones never are.

    At most `most`, of equals those with the lowest ids, and none below `min_log_prob`; None takes all.
    """
    values = log_probs.detach().cpu().contiguous().numpy()
    return Candidates(
        *_select(values, _most(most, values.shape[1]), LOWEST if min_log_prob is None else float(min_log_prob))
    )


def candidates_of_logits(logits: Tensor, *, most: int | None = None, min_log_prob: float | None = None) -> Candidates:
    """As `candidates` of `logits.log_softmax(-1)`, to 1e-5, from logits (frames, labels + 1) in any precision."""
    values = logits.detach().float().cpu().contiguous().numpy()
    limit = _most(most, values.shape[1])
    return Candidates(*_normalise_and_select(values, limit, -inf if min_log_prob is None else float(min_log_prob)))


def _most(most: int | None, outputs: int) -> int:
    return max(outputs - 1, 1) if most is None else min(most, max(outputs - 1, 1))


Selected = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]


@compiled
def _select(log_probs: NDArray[np.float32], most: int, min_log_prob: float) -> Selected:
    frames, num_labels = log_probs.shape[0], log_probs.shape[1] - 1
    offsets, blank = np.zeros(frames + 1, np.int64), np.empty(frames)
    room = most + BLOCK
    labels, values, scratch = np.empty(room, np.int32), np.empty(room), np.empty(room)
    found_labels, found = np.empty(frames * 4 + most, np.int32), np.empty(frames * 4 + most)
    for frame in range(frames):
        row = log_probs[frame]
        floor, count = max(min_log_prob, LOWEST), 0
        for start in range(0, num_labels, BLOCK):
            stop = min(start + BLOCK, num_labels)
            count = _collect(row, start, stop, floor, most, labels, values, scratch, count)
            count, floor = _keep(labels, values, scratch, count, most, floor)
        end = offsets[frame] + count
        if end > len(found):
            found_labels, found = _longer(found_labels, found, 2 * end)
        for place in range(count):
            found_labels[offsets[frame] + place], found[offsets[frame] + place] = labels[place], values[place]
        offsets[frame + 1] = end
        blank[frame] = row[num_labels] if row[num_labels] > -inf else -inf  # NaN is impossible, too
    return offsets, found_labels[: offsets[-1]], found[: offsets[-1]], blank


@compiled
def _normalise_and_select(logits: NDArray[np.float32], most: int, min_log_prob: float) -> Selected:
    frames, num_labels = logits.shape[0], logits.shape[1] - 1
    bits = logits.view(np.int32)
    offsets, blank = np.zeros(frames + 1, np.int64), np.empty(frames)
    room = most + BLOCK
    labels, values, scratch = np.empty(room, np.int32), np.empty(room), np.empty(room)
    found_labels, found = np.empty(frames * 4 + most, np.int32), np.empty(frames * 4 + most)
    powers = np.empty(BLOCK, np.int32)
    for frame in range(frames):
        row = logits[frame]
        # From blank on, which most frames are sure of: the floor is then high from the start.
        highest = row[num_labels]
        total = 1.0 if highest > -inf else 0.0
        floor, count = max(highest + min_log_prob, LOWEST), 0
        for start in range(0, num_labels, BLOCK):
            stop = min(start + BLOCK, num_labels)
            top = _highest(bits[frame], start, stop)
            if top > highest or not highest > -inf:
                total *= exp(highest - top) if highest > -inf else 0.0
                highest = top
                floor = max(floor, highest + min_log_prob)
            if top > -inf:
                total += _sum_exp(row, start, stop, highest, powers)
            if top >= floor:
                count = _collect(row, start, stop, floor, most, labels, values, scratch, count)
                count, floor = _keep(labels, values, scratch, count, most, floor)
        normaliser = highest + log(total) if total > 0.0 else inf
        end = offsets[frame]
        if end + count > len(found):
            found_labels, found = _longer(found_labels, found, 2 * (end + count))
        for place in range(count):
            log_prob = values[place] - normaliser
            if log_prob >= min_log_prob and log_prob > -inf:
                found_labels[end], found[end] = labels[place], log_prob
                end += 1
        offsets[frame + 1] = end
        log_prob = row[num_labels] - normaliser
        blank[frame] = log_prob if log_prob > -inf else -inf
    return offsets, found_labels[: offsets[-1]], found[: offsets[-1]], blank


@inner
def _collect(
    row: NDArray[np.float32],
    start: int,
    stop: int,
    floor: float,
    most: int,
    labels: NDArray[np.int32],
    values: NDArray[np.float64],
    scratch: NDArray[np.float64],
    count: int,
) -> int:
    """Appends the labels of a block that reach the floor and may be among its `most` best; returns the new count."""
    block = row[start:stop]
    above = _count_from(block, floor)
    if above == 0:
        return count
    if most <= LANES and above > 2 * most and len(block) >= LANES:
        floor = max(floor, _lower_bound(block, most, scratch))
    for first in range(0, len(block), LANES):
        piece = block[first : first + LANES]
        if _count_from(piece, floor) == 0:
            continue
        for place in range(len(piece)):
            if piece[place] >= floor:
                labels[count], values[count] = start + first + place, piece[place]
                count += 1
    return count


@inner
def _count_from(block: NDArray[np.float32], floor: float) -> int:
    above = 0
    for place in range(len(block)):
        above += block[place] >= floor  # without a branch, so that the compiler uses vector instructions
    return above


@inner
def _lower_bound(block: NDArray[np.float32], most: int, scratch: NDArray[np.float64]) -> float:
    """What the `most` best of a block reach at least: every lane's best is one value of the block."""
    lanes = scratch[:LANES]
    for lane in range(LANES):
        lanes[lane] = block[lane] if block[lane] > LOWEST else LOWEST
    for first in range(LANES, len(block) - LANES + 1, LANES):
        for lane in range(LANES):
            value = block[first + lane]
            lanes[lane] = value if value > lanes[lane] else lanes[lane]
    return kth_largest(lanes, most)


@inner
def _keep(
    labels: NDArray[np.int32],
    values: NDArray[np.float64],
    scratch: NDArray[np.float64],
    count: int,
    most: int,
    floor: float,
) -> tuple[int, float]:
    """Cuts down to the `most` best, of equals the first; returns how many there are now and the lowest of them."""
    if count <= most:
        return count, floor
    for place in range(count):
        scratch[place] = values[place]
    floor = kth_largest(scratch[:count], most)
    ties, kept = most, 0
    for place in range(count):
        ties -= values[place] > floor
    for place in range(count):
        if values[place] < floor or (values[place] == floor and ties == 0):
            continue
        ties -= values[place] == floor
        labels[kept], values[kept] = labels[place], values[place]
        kept += 1
    return kept, floor


@inner
def _longer(
    labels: NDArray[np.int32], values: NDArray[np.float64], size: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    more_labels, more = np.empty(size, np.int32), np.empty(size)
    # Not by slices: to compile the message about shapes that differ takes numba seconds.
    for place in range(len(labels)):
        more_labels[place], more[place] = labels[place], values[place]
    return more_labels, more


@inner
def _highest(bits: NDArray[np.int32], start: int, stop: int) -> float:
    """The largest float of a block, found as integers, whose maximum the compiler does with vector instructions."""
    block = bits[start:stop]
    key = np.int32(-0x80000000)
    for place in range(len(block)):
        pattern = block[place]
        key = max(key, np.int32(pattern ^ ((pattern >> np.int32(31)) & _SIGN)))
    found = np.empty(1, np.int32)
    found[0] = key ^ ((key >> np.int32(31)) & _SIGN)
    return float(found.view(np.float32)[0])


@inner
def _sum_exp(row: NDArray[np.float32], start: int, stop: int, highest: float, powers: NDArray[np.int32]) -> float:
    """The sum of exp(value - highest) over a block, in vector instructions: exp(x) = 2^n 2^f."""
    block, shift, floats = row[start:stop], np.float32(highest), powers.view(np.float32)
    for place in range(len(block)):
        x = block[place] - shift
        x = (x if x > _UNDERFLOW else _UNDERFLOW) * _LOG2_E
        powers[place] = (np.int32(x - _HALF) + _BIAS) << np.int32(23)
    total = np.float32(0.0)
    for place in range(len(block)):
        x = block[place] - shift
        x = (x if x > _UNDERFLOW else _UNDERFLOW) * _LOG2_E
        f = x - np.float32(np.int32(x - _HALF))
        power = _ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
        total += power * floats[place]
    return float(total)
