"""When each word of a transcript is said, and how sure the CTC head is of it.

CTC posteriors and the final text of any search go in, words with times come out: the best path through the labels of
the text (`kikitori.align.ctc`) says in which frames each label is written. Words that the label units cannot spell,
such as digits, are aligned as any sound. Where there is no such path, or no CTC head, times are estimated: words follow
each other through the speech, long ones take longer.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from kikitori.align.ctc import ctc_align
from kikitori.text.units import TokenizerUnits
from kikitori.text.words import split_words
from kikitori.types import Word

BEFORE_S, BEHIND_S = 0.04, 0.14  # CTC writes a label in a moment of the sound: how far a word may reach beyond its own
ANY_SOUND = -1.0  # log-probability, less than the best label's, of a sound that the units cannot spell
LEAST_S = 0.02  # that a word takes

Spans = Sequence[tuple[float, float]]
"""Stretches of an utterance, from and to, in seconds."""


@dataclass(frozen=True)
class _Piece:
    """Words that are aligned together: one that has labels, or some in a row that have none."""

    words: tuple[str, ...]
    labels: tuple[int, ...]


def align_words(
    log_probs: NDArray[np.float32],
    text: str,
    units: TokenizerUnits,
    language: str | None,
    *,
    seconds: float,
    seconds_per_frame: float,
    first_frame: float = 0.0,
) -> tuple[Word, ...] | None:
    """The words of a text with their times and confidences, inside the utterance, none before another's end.

    Args:
        log_probs: Of the CTC head, (frames, labels + 1), blank last.
        text: What is said.
        units: Label units of the head.
        language: Of the text; decides what a word is.
        seconds: Duration of the utterance.
        seconds_per_frame: Distance of the head's frames.
        first_frame: When the sound begins that the first of them is about, in seconds; before 0 where labels come late.

    Returns:
        A word for each of `split_words`; None if the labels do not fit into the frames. The confidence is the geometric
        mean, over the labels of a word, of the highest probability that the head gives to each where it is aligned;
        None where the head cannot spell the word.
    """
    if not (words := split_words(text, language)):
        return ()
    pieces = _pieces(words, text, units.encode_with_places(text))
    blank = log_probs.shape[1] - 1
    labels = [label for piece in pieces for label in piece.labels or (blank,)]
    # The units have one label more here, any sound, in the place of the blank, which follows it.
    sound = log_probs[:, :blank].max(axis=1, keepdims=True) + np.float32(ANY_SOUND)
    spans = ctc_align(np.concatenate([log_probs[:, :blank], sound, log_probs[:, blank:]], axis=1), labels)
    if spans is None:
        return None
    ends = [*accumulate(max(len(piece.labels), 1) for piece in pieces)]
    times, confidences = [], []
    for piece, start, end in zip(pieces, [0, *ends], ends, strict=False):
        a, b = spans[start][0], spans[end - 1][1]
        times.append((first_frame + a * seconds_per_frame, first_frame + b * seconds_per_frame))
        tops = [log_probs[a:b, label].max() for label, (a, b) in zip(piece.labels, spans[start:end], strict=False)]
        confidences.append(float(np.exp(np.mean(tops))) if tops else None)
    found = []
    for piece, span, confidence in zip(pieces, _reaching(times, seconds), confidences, strict=True):
        found += [Word(word, *part, confidence) for word, part in _shared_out(piece.words, [span])]
    return in_order(found, seconds)


def timed_words(
    spans: Spans,
    log_probs: Sequence[float],
    places: Sequence[int],
    text: str,
    language: str | None,
    *,
    seconds: float,
) -> tuple[Word, ...]:
    """The words of a text whose labels have times, inside the utterance, none before another's end.

    Args:
        spans: When each label is said, in seconds, in order.
        log_probs: Of each label.
        places: Where in the text the last character of each label is, rising.
        text: What is said.
        language: Of the text; decides what a word is.
        seconds: Duration of the utterance.
    """
    found, at = [], 0.0
    for piece in _pieces(split_words(text, language), text, enumerate(places)):
        start, end = (spans[piece.labels[0]][0], spans[piece.labels[-1]][1]) if piece.labels else (at, at)
        sure = float(np.exp(np.mean([log_probs[label] for label in piece.labels]))) if piece.labels else None
        found += [Word(word, *part, sure) for word, part in _shared_out(piece.words, [(start, end)])]
        at = end
    return in_order(found, seconds)


def estimated_words(text: str, language: str | None, *, seconds: float, speech: Spans = ()) -> tuple[Word, ...]:
    """The words of a text one after the other through the speech of an utterance, in proportion to their characters.

    Args:
        text: What is said.
        language: Of the text; decides what a word is.
        seconds: Duration of the utterance.
        speech: Where in it is speech; the whole by default.
    """
    shares = _shared_out(split_words(text, language), speech or [(0.0, seconds)])
    return in_order([Word(word, *span) for word, span in shares], seconds)


def _pieces(words: Sequence[str], text: str, labels: Iterable[tuple[int, int]]) -> list[_Piece]:
    """The words of a text with the labels that spell them in it, each given with the place of its last character."""
    ends, at = [], 0
    for word in words:
        at = text.index(word, at) + len(word)
        ends.append(at)
    spelled: list[list[int]] = [[] for _ in words]
    for label, place in labels:
        # A label that stands for a space belongs to the word that follows.
        spelled[min(bisect_right(ends, place), len(words) - 1)].append(label)
    pieces = []
    for has_labels, run in groupby(zip(words, spelled, strict=True), lambda pair: bool(pair[1])):
        pairs = [*run]
        if has_labels:
            pieces += [_Piece((word,), tuple(labels)) for word, labels in pairs]
        else:
            pieces.append(_Piece(tuple(word for word, _ in pairs), ()))
    return pieces


def _reaching(times: Spans, seconds: float) -> list[tuple[float, float]]:
    """Times of labels as those of their words, which reach beyond them, but not into each other."""
    gaps = [2.0 * times[0][0], *(b[0] - a[1] for a, b in pairwise(times)), 2.0 * (seconds - times[-1][1])]
    reach = [max(gap / 2.0, 0.0) for gap in gaps]
    return [
        (a - min(before, BEFORE_S), b + min(behind, BEHIND_S))
        for (a, b), before, behind in zip(times, reach, reach[1:], strict=False)
    ]


def _shared_out(words: Sequence[str], spans: Spans) -> list[tuple[str, tuple[float, float]]]:
    """Words over stretches that they share in proportion to their characters."""
    total, letters = sum(end - start for start, end in spans), max(sum(map(len, words)), 1)
    edges = [0.0, *(total * count / letters for count in accumulate(map(len, words)))]
    passed = [0.0, *accumulate(end - start for start, end in spans)]

    def place(amount: float, number: int) -> float:
        return spans[number][0] + min(max(amount - passed[number], 0.0), passed[number + 1] - passed[number])

    found = []
    for word, (a, b) in zip(words, pairwise(edges), strict=True):
        first = min(bisect_right(passed, a + 1e-9) - 1, len(spans) - 1)
        last = max(min(bisect_right(passed, b - 1e-9) - 1, len(spans) - 1), first)
        found.append((word, (place(a, first), place(b, last))))
    return found


def in_order(words: Sequence[Word], seconds: float) -> tuple[Word, ...]:
    """Words inside the utterance, each with some time of its own, none before the end of the one before it."""
    least = min(LEAST_S, seconds / max(len(words), 1))
    starts, ends, at = [], [], 0.0
    for word in words:
        starts.append(max(word.start, at))
        at = max(word.end, starts[-1] + least)
        ends.append(at)
    at = seconds
    for number in reversed(range(len(words))):
        ends[number] = min(ends[number], at)
        at = starts[number] = max(min(starts[number], ends[number] - least), 0.0)
    return tuple(Word(w.word, a, b, w.confidence) for w, a, b in zip(words, starts, ends, strict=True))
