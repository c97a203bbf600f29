"""What a lexicon search holds: word histories, the beam, and hash tables of both; compiled."""

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import inner
from kikitori.search.ctc.prefix_tree import NONE, enlarged
from kikitori.search.lexicon.trie import Trie

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Records = NDArray[np.void]

FIRST = 0
"""The history without words."""
HISTORY = np.dtype(
    [
        ("parent", np.int32),  # history without the last word; NONE for the first
        ("word", np.int32),  # last word, by its number in the lexicon
        ("state", np.int32),  # of the n-gram
        ("recombined_into", np.int32),  # history that went on in its place, or NONE
        ("frame", np.int32),  # in which it was recombined
        ("score_delta", np.float64),  # its rank less that of the other: 0 or below
        ("ngram", np.float64),  # log-probability of the words
        ("bonus", np.float64),  # what words add to the rank
    ],
    align=True,
)
ENTRY = np.dtype(
    [
        ("history", np.int32),
        ("node", np.int32),
        ("slot", np.int32),  # its place in a hash table while a frame is taken
        ("blank", np.float64),  # log-probability of the paths that end in blank
        ("last", np.float64),  # and of those that end in the last phone
        ("total", np.float64),  # and of both
        ("bonus", np.float64),  # what words and lookahead add
        ("rank", np.float64),  # total and bonus
    ],
    align=True,
)
COUNTS = np.dtype([("histories", np.int64), ("entries", np.int64), ("base", np.float64)])


class LexiconBeam(NamedTuple):
    """Histories, beam and scratch space; arrays are longer than what is used of them.

    Attributes:
        histories: Every word sequence that was proposed, of `HISTORY`; the first is the empty one.
        known: Hash table of these by parent and word, NONE where free.
        beam: The hypotheses, of `ENTRY`.
        pool: Contenders for the next beam, of `ENTRY`.
        found: Hash table of these by history and node, NONE where free; all of it between frames.
        row: The frame's log-probabilities, -inf for phones that are no candidates, (phones + 1,).
        counts: How much of histories and beam is used, and what log-probabilities count from, (1,) of `COUNTS`.
    """

    histories: Records
    known: Ints
    beam: Records
    pool: Records
    found: Ints
    row: Floats
    counts: Records


def new_beam(num_phones: int, start: int, room: int = 1024) -> LexiconBeam:
    """A beam of the empty history alone, at the beginning of a sentence, with room for some more."""
    made = LexiconBeam(
        histories=np.zeros(room, HISTORY),
        known=np.full(2 * room, NONE, np.int32),
        beam=np.zeros(room, ENTRY),
        pool=np.zeros(room, ENTRY),
        found=np.full(2 * room, NONE, np.int32),
        row=np.full(num_phones + 1, -inf),
        counts=np.array([(1, 1, 0.0)], COUNTS),
    )
    made.histories[FIRST] = (NONE, NONE, start, NONE, NONE, -inf, 0.0, 0.0)
    made.beam[0] = (FIRST, num_phones, NONE, 0.0, -inf, 0.0, 0.0, 0.0)
    return made


@inner
def reserve(state: LexiconBeam, trie: Trie) -> LexiconBeam:
    """The beam with room for one more frame; its arrays may be new ones."""
    histories, known, beam, pool, found, row, counts = state
    entries, used = counts[0]["entries"], counts[0]["histories"]
    grown = 0
    for slot in range(entries):
        grown += trie.width[beam[slot]["node"]]
    if used + grown > len(histories):
        histories = enlarged(histories, max(used + grown, 2 * len(histories)))
        known = np.full(_table_size(len(histories)), NONE, np.int32)
        for each in range(1, used):
            parent, word = histories[each]["parent"], histories[each]["word"]
            known[slot_of(known, histories["parent"], histories["word"], parent, word)] = each
    if entries + grown > len(pool):
        size = max(entries + grown, 2 * len(pool))
        beam, pool = enlarged(beam, size), enlarged(pool, size)
        found = np.full(_table_size(size), NONE, np.int32)
    return LexiconBeam(histories, known, beam, pool, found, row, counts)


@inner
def slot_of(table: Ints, ones: Ints, others: Ints, one: int, other: int) -> int:
    """Where the record with this pair of keys stands in the hash table, or would; columns are those of the records."""
    mask = len(table) - 1
    slot = hash_of(one, other) & mask
    while table[slot] != NONE and (ones[table[slot]] != one or others[table[slot]] != other):
        slot = (slot + 1) & mask
    return slot


@inner
def hash_of(one: int, other: int) -> int:
    """Of a pair of keys."""
    mixed = one * 0x1E3779B97F4A7C15 + other * 0x2545F4914F6CDD1D
    return mixed ^ (mixed >> 32)


@inner
def _table_size(entries: int) -> int:
    """Of a hash table: a power of two, so that it is half empty at least."""
    size = 1024
    while size < 2 * entries:
        size *= 2
    return size
