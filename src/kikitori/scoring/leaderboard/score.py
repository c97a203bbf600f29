"""The score of the Open ASR Leaderboard for English: corpus WER with compounds joined, a plain mean over sets, RTFx.

The text form is our `open_asr_en`, which is compatible with the leaderboard's but lacks its longer lists; official
numbers are those that its own script finds in the same files.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kikitori.errors import DataError
from kikitori.scoring.leaderboard.results import NORMALIZER, Result, joined
from kikitori.text.normalize import normalize

DIGITS = 2


@dataclass(frozen=True)
class Score:
    """Of a set.

    Attributes:
        wer: Percent of the words, to two places.
        audio_seconds: None where not all durations and times are known; neither is `seconds` then.
    """

    recordings: int
    wer: float
    substitutions: int
    deletions: int
    insertions: int
    words: int
    audio_seconds: float | None
    seconds: float | None

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio recognised in a second."""
        return self.audio_seconds / self.seconds if self.audio_seconds is not None and self.seconds else None


def score(results: Sequence[Result]) -> Score:
    """Scores the results of a set, chunks joined.

    Raises:
        DataError: No reference has a word, or a chunk is missing.
    """
    import kaldialign

    recordings = joined(results)
    said = [tuple(normalize(NORMALIZER, each.text).split()) for each in recordings]
    written = [tuple(normalize(NORMALIZER, each.pred_text).split()) for each in recordings]
    counts = kaldialign.batch_error_rate(said, written, merge_compounds=True)
    if not counts["ref_len"]:
        raise DataError("no reference has a word", remedy="check the texts of the set")
    times = [(each.duration, each.time) for each in recordings]
    known = all(duration and time for duration, time in times)
    return Score(
        recordings=len(recordings),
        wer=round(100.0 * counts["err_rate"], DIGITS),
        substitutions=counts["sub"],
        deletions=counts["del"],
        insertions=counts["ins"],
        words=counts["ref_len"],
        audio_seconds=math.fsum(duration or 0.0 for duration, _ in times) if known else None,
        seconds=math.fsum(time or 0.0 for _, time in times) if known else None,
    )


def mean_wer(scores: Mapping[str, Score]) -> float:
    """The plain mean over sets of their WER in percent, to two places."""
    return round(sum(each.wer for each in scores.values()) / len(scores), DIGITS)


def total_rtfx(scores: Mapping[str, Score]) -> float | None:
    """Of all sets together: seconds of audio over seconds of work; None where a set does not know its own."""
    audio, seconds = ([getattr(each, key) for each in scores.values()] for key in ("audio_seconds", "seconds"))
    return None if None in audio or not sum(seconds) else sum(audio) / sum(seconds)
