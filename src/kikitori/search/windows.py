"""Whisper decoders behind a window no longer than the speech: what went wrong there, and is decoded again at 30 s.

Trained with silence up to 30 s, such a decoder may not know where a short window ends: it writes the text, and begins
again. Where speech fills the window, the text repeats itself at its end, or there is more of it than anybody can say.
"""

from collections.abc import Sequence

from kikitori.types import Hypothesis

REPEATED = 4
"""Labels at the end that stand there twice; in speech such repetitions are rare, and cost a second pass."""
LABELS_PER_SECOND, SLACK = 7.0, 8
"""More labels than these are not said; fast English has about 5 tokens a second."""


def most_said(seconds: float) -> int:
    """Most labels that are said in so many seconds."""
    return int(LABELS_PER_SECOND * seconds + SLACK)


def is_doubtful(hypothesis: Hypothesis, seconds: float) -> bool:
    """Whether a transcript of a short window may go on behind the speech.

    Args:
        hypothesis: What the decoder wrote.
        seconds: Duration of the recording.
    """
    labels = hypothesis.labels
    too_many = len(labels) > most_said(seconds)
    return too_many or not hypothesis.complete or bool(hypothesis.warnings) or _repeats(labels)


def _repeats(labels: Sequence[int]) -> bool:
    """Whether some labels stand twice in a row, the second time at the end or cut short by up to 3 labels."""
    written = list(labels)
    for cut in range(min(4, len(written))):
        kept = written[: len(written) - cut]
        for size in range(REPEATED, len(kept) // 2 + 1):
            if kept[-size:] == kept[-2 * size : -size]:
                return True
    return False
