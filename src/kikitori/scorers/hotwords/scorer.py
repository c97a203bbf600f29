"""Hotwords as a scorer of labels: a bonus for each letter of a phrase, taken back where the phrase breaks off."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.compiled import compiled
from kikitori.scorers.hotwords.automaton import OTHER, automaton
from kikitori.scorers.hotwords.letters import LabelLetters, unit_letters
from kikitori.scorers.options import HOTWORDS
from kikitori.text.units import TokenizerUnits


@dataclass(frozen=True, eq=False)
class HotwordState:
    """Hypotheses of a `HotwordScorer`: the node of each, and the beginning of a character that is not complete."""

    nodes: NDArray[np.int64]
    rests: tuple[bytes, ...]


class HotwordScorer:
    """The letters of the phrases that a text holds, as a `Scorer`; see `automaton` for what counts when.

    Args:
        phrases: Those of each utterance, in the form of `letters_of`.
        units: What the labels of the search write.
        num_labels: Labels of the search; those beyond the units write nothing.
        spaced: Whether phrases stand between borders of words.
    """

    def __init__(
        self, phrases: Sequence[Sequence[str]], units: TokenizerUnits, num_labels: int, *, spaced: bool = True
    ) -> None:
        self.name = HOTWORDS
        self._automaton, self._letters, self._num_labels = (
            automaton(phrases, spaced=spaced),
            unit_letters(units),
            num_labels,
        )
        self._codes: dict[bytes, NDArray[np.int32]] = {}

    def start(self, batch: int) -> HotwordState:
        """The empty text of each utterance."""
        return HotwordState(self._automaton.starts.copy(), (b"",) * batch)

    def log_probs(self, state: HotwordState, rows: Tensor) -> Tensor:
        """Letters that each next label of some hypotheses and their end add, (rows, labels + 1) float64."""
        chosen = rows.tolist()
        places = [(int(state.nodes[row]), state.rests[row]) for row in chosen]
        # Hypotheses of an utterance mostly stand at the same few nodes.
        different = {place: number for number, place in enumerate(dict.fromkeys(places))}
        found = np.zeros((len(different), self._num_labels + 1))
        for (node, rest), number in different.items():
            self._gains(node, rest, found[number, :-1])
            found[number, -1] = self._automaton.ends[node]
        return torch.from_numpy(found)[[different[place] for place in places]]

    def extend(self, state: HotwordState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[HotwordState, Tensor]:
        """A new state of some hypotheses with more labels, and the letters that each of these adds, (rows, n)."""
        given = torch.zeros(labels.shape, dtype=torch.float64)
        nodes, rests = state.nodes[rows.numpy(force=True)], [state.rests[row] for row in rows.tolist()]
        for row, (new, length) in enumerate(zip(labels.tolist(), lengths.tolist(), strict=True)):
            for column, label in enumerate(new[:length]):
                text, rests[row] = self._letters.after(rests[row], label)
                for each in text:
                    code = self._automaton.codes.get(each, OTHER)
                    given[row, column] += self._automaton.gains[nodes[row], code]
                    nodes[row] = self._automaton.next[nodes[row], code]
        return HotwordState(nodes, tuple(rests)), given

    def _gains(self, node: int, rest: bytes, found: NDArray[np.float64]) -> None:
        """Writes what each label adds behind a node, (labels,)."""
        size = min(len(found), len(self._letters.silent))
        if not rest:
            self._walk(node, rest, found[:size])
            return
        border, goes_on, silent = self._automaton.next[node, 0], self._letters.goes_on, self._letters.silent
        self._walk(int(border), b"", found[:size])
        found[:size] += self._automaton.gains[node, 0]
        found[:size][silent[:size]] = 0.0
        on = np.zeros(int(goes_on.sum()))
        self._walk(node, rest, on)
        found[:size][goes_on[:size]] = on[: int(goes_on[:size].sum())]

    def _walk(self, node: int, rest: bytes, found: NDArray[np.float64]) -> None:
        letters = self._letters.behind(rest)
        if rest not in self._codes:
            self._codes[rest] = self._codes_of(letters)
        _walk(self._automaton.next, self._automaton.gains, self._codes[rest], letters.offsets, node, found)

    def _codes_of(self, letters: LabelLetters) -> NDArray[np.int32]:
        codes = [self._automaton.codes.get(each, OTHER) for each in letters.alphabet]
        return np.array(codes, np.int32)[letters.numbers]


@compiled
def _walk(
    following: NDArray[np.int32],
    gains: NDArray[np.float64],
    codes: NDArray[np.int32],
    offsets: NDArray[np.int64],
    start: int,
    found: NDArray[np.float64],
) -> None:
    """Writes what the letters of each label add behind a node."""
    for label in range(len(found)):
        node, total = np.int64(start), 0.0
        for place in range(offsets[label], offsets[label + 1]):
            total += gains[node, codes[place]]
            node = np.int64(following[node, codes[place]])
        found[label] = total
