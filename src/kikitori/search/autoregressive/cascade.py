"""Where greedy search needs no wider one: the decoder is sure of each label, and CTC hears the same letters.

Most utterances are easy, and a beam finds in them what greedy search has found. An utterance is in doubt where a label
is improbable to the decoder, which might have gone another way there, or where the text is less likely to CTC than the
best path by more than it is on text that is right: words are missing, invented or repeated, which a decoder may be sure
of. How both limits were chosen: docs/whisper.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from kikitori.scorers.ctc.sequence import CTCSequenceScorer
from kikitori.scorers.options import CTC
from kikitori.search.options import CascadeSearch
from kikitori.types import Hypothesis


def without_doubt(
    best: Sequence[Hypothesis | None],
    log_probs: Tensor,
    lengths: Tensor,
    letters: Callable[[Sequence[int]], Sequence[int] | None],
    options: CascadeSearch,
) -> list[Hypothesis | None]:
    """The hypotheses of greedy search that may stay, with their CTC score; None for those in doubt.

    Args:
        best: What greedy search wrote; None where it could write nothing.
        log_probs: Of the CTC head, (utterances, frames, labels + 1), blank last.
        lengths: Valid frames, (utterances,).
        letters: From labels of the decoder to those of the CTC head; None where this cannot write them.
        options: With the limits.
    """
    scores = CTCSequenceScorer(log_probs, lengths, letters).scores([[] if each is None else [each] for each in best])
    paths = log_probs.max(dim=-1).values.double()
    found: list[Hypothesis | None] = []
    for row, (hypothesis, score) in enumerate(zip(best, scores, strict=True)):
        if hypothesis is None or hypothesis.least_log_prob is None or not hypothesis.complete:
            found.append(None)
            continue
        gap = float(paths[row, : int(lengths[row])].sum()) - score[0]
        most = options.most_ctc_gap * (len(letters(hypothesis.labels) or ()) + 1)
        # Written so that a NaN is in doubt.
        sure = hypothesis.least_log_prob >= options.least_log_prob and gap <= most
        found.append(replace(hypothesis, scores={**hypothesis.scores, CTC: score[0]}) if sure else None)
    return found
