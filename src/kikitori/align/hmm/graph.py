"""What may be said in an utterance: its words' pronunciations as states of a hidden Markov model."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.text.lexicon import Lexicon

STATES_PER_PHONE = 3
SILENCE = "<sil>"


class Graph(NamedTuple):
    """States in an order in which every path goes forward; each may also be kept from frame to frame.

    Attributes:
        labels: State label of each state, (states,).
        offsets: Where the predecessors of each state begin, (states + 1,).
        before: Predecessors, (edges,).
        first: States that a path may begin with.
        last: States that it may end with.
    """

    labels: NDArray[np.int32]
    offsets: NDArray[np.int64]
    before: NDArray[np.int32]
    first: NDArray[np.bool_]
    last: NDArray[np.bool_]


def state_labels(phones: Sequence[str]) -> tuple[str, ...]:
    """Names of the state labels: each phone, and silence at the end, with the number of the state."""
    return tuple(f"{phone}/{state}" for phone in (*phones, SILENCE) for state in range(STATES_PER_PHONE))


def utterance_graph(text: str, lexicon: Lexicon, numbers: Mapping[str, int]) -> Graph | None:
    """The graph of a text: any pronunciation of each word, with or without silence around it; None if a word has none.

    `numbers` are those of each phone and of `SILENCE`.
    """
    words = text.split()
    if not words or lexicon.missing(text):
        return None
    labels: list[int] = []
    before: list[list[int]] = []
    first: list[bool] = []

    def add(phone: str, ends: Sequence[int], at_start: bool) -> int:
        """Appends the states of a phone behind those at which a path may be; its last state."""
        for state in range(STATES_PER_PHONE):
            labels.append(STATES_PER_PHONE * numbers[phone] + state)
            before.append([*ends] if state == 0 else [len(labels) - 2])
            first.append(at_start and state == 0)
        return len(labels) - 1

    ends, at_start = [add(SILENCE, (), True)], True
    for word in words:
        said: list[int] = []
        for pronunciation in lexicon.pronunciations[word]:
            place, begins = ends, at_start
            for phone in pronunciation:
                place, begins = [add(phone, place, begins)], False
            said += place
        ends, at_start = [*said, add(SILENCE, said, False)], False
    last = np.zeros(len(labels), np.bool_)
    last[ends] = True
    return Graph(
        labels=np.array(labels, np.int32),
        offsets=np.cumsum([0, *map(len, before)]),
        before=np.array([place for places in before for place in places], np.int32),
        first=np.array(first),
        last=last,
    )
