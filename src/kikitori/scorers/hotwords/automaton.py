"""Phrases as an automaton over the letters of a text (Aho and Corasick 1975): what each letter adds to a bonus.

    bonus(text) = Σ over all places where a phrase stands in the text: its letters

On the way there each letter of a phrase that has begun counts already, and is taken back where the phrase breaks off:
bonus so far = letters of the phrases that are complete + letters of the longest that is going on. Where words have
spaces between them, a phrase stands between borders of words.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.scorers.hotwords.letters import BORDER

OTHER = 1
"""Code of letters that no phrase has; 0 is that of a border."""


class Automaton(NamedTuple):
    """The phrases of some utterances, with nodes of their own for each.

    Attributes:
        codes: The number of each letter, the border's being 0.
        next: The node behind each node and code, (nodes, codes).
        gains: What that adds to the bonus, (nodes, codes).
        ends: What the end of the text adds behind each node, (nodes,).
        starts: The node of the empty text of each utterance, (utterances,).
    """

    codes: dict[str, int]
    next: NDArray[np.int32]
    gains: NDArray[np.float64]
    ends: NDArray[np.float64]
    starts: NDArray[np.int64]


def automaton(utterances: Sequence[Sequence[str]], *, spaced: bool) -> Automaton:
    """The automaton of the phrases of each utterance, in the form of `letters_of`."""
    alphabet = sorted({each for phrases in utterances for phrase in phrases for each in phrase} - {BORDER})
    codes = {BORDER: 0, **{each: code for code, each in enumerate(alphabet, OTHER + 1)}}
    mark = BORDER if spaced else ""
    made = [_part([f"{mark}{phrase}{mark}" for phrase in phrases], codes, spaced) for phrases in utterances]
    firsts = np.cumsum([0, *(len(ends) for *_, ends, _ in made)])
    return Automaton(
        codes,
        np.concatenate([following + first for (following, *_), first in zip(made, firsts, strict=False)]),
        np.concatenate([gains for _, gains, *_ in made]),
        np.concatenate([ends for *_, ends, _ in made]),
        np.array([first + start for (*_, start), first in zip(made, firsts, strict=False)], np.int64),
    )


_Part = tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64], int]


def _part(patterns: Sequence[str], codes: dict[str, int], spaced: bool) -> _Part:
    """Next nodes, gains and ends for the phrases of one utterance with their borders, and where it starts."""
    children: list[dict[int, int]] = [{}]
    sizes, whole, behind_border = [0], [0], [False]
    for pattern in patterns:
        node = 0
        for each in pattern:
            code = codes[each]
            if code not in children[node]:
                children[node][code] = len(children)
                children.append({})
                sizes.append(sizes[node] + (code != 0))
                whole.append(0)
                behind_border.append(code == 0)
            node = children[node][code]
        whole[node] = sizes[node]
    following = np.zeros((len(children), len(codes) + 1), np.int32)
    # Of each node: letters of all phrases that end there, and of the longest that may go on.
    complete, going = np.array(whole, np.float64), np.array(sizes, np.float64)
    waiting = deque([(0, 0)])
    while waiting:  # in the order of their length, each with its longest end that is a node too
        node, suffix = waiting.popleft()
        if node:
            following[node] = following[suffix]
            complete[node] += complete[suffix]
            if not children[node]:
                going[node] = going[suffix]
        waiting.extend((child, int(following[node, code])) for code, child in children[node].items())
        for code, child in children[node].items():
            following[node, code] = child
    gains = complete[following] + going[following] - going[:, None]
    ends = (complete[following[:, 0]] if spaced else 0.0) - going
    still = np.array(behind_border) if spaced else np.ones(len(children), np.bool_)
    following[still, 0], gains[still, 0] = np.flatnonzero(still), 0.0
    ends[still] = -going[still]
    return following, gains, ends, int(following[0, 0]) if spaced else 0
