"""What searches leave out: hypotheses, labels and frames; logs are natural."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.scorers.options import STRICT

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
LogProb = Annotated[float, Field(le=0.0)]
Probability = Annotated[float, Field(gt=0.0, le=1.0)]


@dataclass(frozen=True, config=STRICT)
class LabelPruning:
    """Of the label-synchronous beam.

    Attributes:
        score_beam: Hypotheses at most so far below the best are kept, and sought; None keeps all.
        context: Of hypotheses that grow by the same last labels, so many, the best alone is kept, as if no label
            depended on more than these (Prabhavalkar et al. 2021, path merging); None keeps all.
    """

    score_beam: Positive | None = None
    context: Count | None = None


@dataclass(frozen=True, config=STRICT)
class JointPruning(LabelPruning):
    """Of joint search, where the CTC head has to score every hypothesis.

    Attributes:
        window: Frames that a hypothesis reaches with a log-probability so far below its best are left out; None leaves
            out none.
        vocabulary: Labels of an utterance: those with the highest log-probability over its frames, renormalised; the
            LLM is restricted to the same ones. None for all.
        collapse: A frame joins the one before if both have the same best output with at least this probability; joined
            frames are averaged. None joins none.
        variants: Where the decoder has other labels than the CTC head: of hypotheses with the same letters, which
            differ in case, punctuation or tokens, so many of the best come before all others; None treats all alike.
    """

    window: Positive | None = 60.0
    vocabulary: Count | None = None
    collapse: Probability | None = None
    variants: Count | None = None


@dataclass(frozen=True, config=STRICT)
class FramePruning:
    """Of the searches over the frames of the CTC head.

    Attributes:
        score_beam: Hypotheses at most so far below the best are kept; None keeps all.
        frame_labels: Labels per frame that may extend a hypothesis, the most probable ones; None for all.
        min_log_prob: Labels below are left out of a frame; None leaves out none.
        recombine: Whether the paths of a label sequence are summed, or all but the best left out (`max`, Viterbi).
        vocabulary: Labels of an utterance: those with the highest log-probability over its frames, renormalised; None
            for all.
        collapse: A frame joins the one before if both have the same best output with at least this probability; joined
            frames are averaged. None joins none.
    """

    score_beam: Positive | None = 14.0
    frame_labels: Count | None = 40
    min_log_prob: LogProb | None = -9.0
    recombine: Literal["sum", "max"] = "sum"
    vocabulary: Count | None = None
    collapse: Probability | None = None


@dataclass(frozen=True, config=STRICT)
class LexiconPruning:
    """Of lexicon search.

    Attributes:
        score_beam: Hypotheses at most so far below the best are kept; None keeps all.
        min_log_prob: Phones below are left out of a frame; None leaves out none.
    """

    score_beam: Positive | None = 16.0
    min_log_prob: LogProb | None = -7.0
