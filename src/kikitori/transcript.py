"""From what a search finds in a recording to its transcript."""

from kikitori.types import Hypothesis, NBest, Segment, TrainedOn, Transcript

LENGTH_LIMIT_FLAG, LONG_FLAG = "length_limit", "longer_than_training"


def transcript(nbest: NBest, seconds: float, trained_on: TrainedOn) -> Transcript:
    """The transcript of a recording of so many seconds, with what is doubtful about it."""
    hypothesis = nbest[0]
    flags = flags_of(hypothesis)
    if seconds > trained_on.max_seconds:
        flags.append(LONG_FLAG)
    segments = (Segment(0.0, round(seconds, 3), hypothesis.text),) if hypothesis.text else ()
    return Transcript(
        text=hypothesis.text,
        segments=segments,
        nbest=nbest if len(nbest) > 1 else (),
        flags=tuple(flags),
        duration=seconds,
        llm_passes=hypothesis.llm_passes,
        reasons=hypothesis.warnings,
        ctc_agreement=hypothesis.ctc_agreement,
    )


def flags_of(hypothesis: Hypothesis) -> list[str]:
    """Names of what is doubtful about the best hypothesis of a recording."""
    return [*([] if hypothesis.complete else [LENGTH_LIMIT_FLAG]), *hypothesis.warnings]
