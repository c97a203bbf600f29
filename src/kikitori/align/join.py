"""Two neighbouring chunks of a recording that share some sound, as one text: no word of it is lost or doubled.

A word that was cut off at the end of the one chunk is whole in the other. Within the shared stretch the texts change
over where they agree: in the middle of the longest run of words that both have at the same time. Where they agree in
nothing, they change over in the middle of the stretch.
"""

import re
from collections.abc import Sequence

from kikitori.types import Word

ALIGNED_S, ESTIMATED_S = 0.5, 2.0
"""By how much the times of one word may differ in two chunks."""

Words = tuple[Word, ...]


def join_words(before: Words, after: Words, start: float, end: float, slack: float = ALIGNED_S) -> tuple[Words, Words]:
    """What to keep of each of two chunks.

    Args:
        before: Words of the first one; times of the recording.
        after: Words of the second one; times of the recording.
        start: Where the second one begins.
        end: Where the first one ends, after `start`.
        slack: `ALIGNED_S` or `ESTIMATED_S`.
    """
    tail = next((n for n, word in enumerate(before) if word.end > start - slack), len(before))
    head = next((n for n, word in enumerate(after) if word.start >= end + slack), len(after))
    length, a, b = _longest_run(before[tail:], after[:head], slack)
    if length:
        # A word at the very end of the first chunk may be cut off, and so may one at the start of the second.
        kept = (length + 1) // 2
        return before[: tail + a + kept], after[b + kept :]
    middle = (start + end) / 2.0
    first = tuple(word for word in before if word.start + word.end < 2.0 * middle)
    second = tuple(word for word in after if word.start + word.end >= 2.0 * middle)
    return first, second


def _longest_run(before: Sequence[Word], after: Sequence[Word], slack: float) -> tuple[int, int, int]:
    """The longest run of words that are the same at nearly the same time: its length, and where it is in both."""
    best = (0, 0, 0)
    for a in range(len(before)):
        for b in range(len(after)):
            length = 0
            for one, other in zip(before[a:], after[b:], strict=False):
                if not _same(one, other, slack):
                    break
                length += 1
            if length > best[0]:
                best = (length, a, b)
    return best


def _same(one: Word, other: Word, slack: float) -> bool:
    near = min(one.end, other.end) - max(one.start, other.start) > -slack
    return near and _plain(one.word) == _plain(other.word)


def _plain(word: str) -> str:
    return re.sub(r"\W", "", word).casefold() or word
