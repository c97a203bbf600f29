"""Guards against hallucination: what a search found is held against the CTC head and against the sound itself.

`guarded` calls the search and adds warnings, in words. Silence and noise have no text, whatever the search. What a
decoder writes is doubtful where it goes round in circles, says more than the CTC posteriors support, or something else
than the CTC text; then the CTC text may stand in its place. Thresholds: docs/speech_llm_decoding.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Literal

import numpy as np
from torch import Tensor

from kikitori.data.augment import Waveform
from kikitori.errors import AudioError
from kikitori.scorers.options import CTC, SPEECH_LLM
from kikitori.search.batch import EncodedBatch, Result
from kikitori.search.ctc.best_path import collapse
from kikitori.search.options import Decoding
from kikitori.search.run import decode
from kikitori.segment.energy import has_speech
from kikitori.types import Hypothesis, NBest

NO_SPEECH, LOOP, LONGER_THAN_CTC, CTC_DISAGREES = "no_speech", "loop", "longer_than_ctc", "ctc_disagrees"
REPLACED = "replaced"
RUNAWAY = (LOOP, LONGER_THAN_CTC, CTC_DISAGREES)
"""Warnings for which the CTC text may stand in the place of the LLM's."""

SURE_BLANK = 0.05  # a CTC head that gives anything but blank less than this in every frame finds nothing
REPEATS, LOOP_LABELS = 4, 12  # a loop says something at least so often and has at least so many labels
LABELS_PER_LABEL_FRAME, SLACK = 1.5, 10
LEAST_AGREEMENT = 1 / 3
UNSURE, SPARSE = -1.0, 0.1  # a label's mean log-probability, Whisper's own limit; labels of the CTC text per frame


@dataclass(frozen=True)
class Guards:
    """What to do about transcripts in doubt; they are flagged in any case.

    Attributes:
        on_runaway: `ctc` gives the CTC head's text where the speech LLM ran away, `keep` the LLM's.
        on_no_speech: `empty` gives no text for recordings without speech, `keep` whatever the search finds in them.
    """

    on_runaway: Literal["ctc", "keep"] = "keep"
    on_no_speech: Literal["empty", "keep"] = "empty"


Text = Callable[[Sequence[int]], str]
"""From labels to text."""


@dataclass(frozen=True)
class CTCEvidence:
    """What the CTC posteriors of an utterance say.

    Attributes:
        labels: Those of its best path.
        text: The same as text.
        score: Log-probability of that path (natural log).
        label_frames: Expected number of frames that are not blank: each label that is written takes one at least.
        surest: The highest probability in a frame that it is not blank.
        num_frames: Frames of the utterance.
    """

    labels: tuple[int, ...]
    text: str
    score: float
    label_frames: float
    surest: float
    num_frames: int

    @property
    def most_labels(self) -> float:
        """More labels than these the CTC head does not support: 1.5 for each frame with a label, and 10."""
        return LABELS_PER_LABEL_FRAME * self.label_frames + SLACK


@dataclass(frozen=True)
class Loop:
    """Labels that are written several times in a row, `repeats` times, the last perhaps in part."""

    labels: tuple[int, ...]
    repeats: float


def guarded(batch: EncodedBatch, options: Decoding, guards: Guards) -> list[Result]:
    """As `decode`, with warnings in the best hypothesis, and what `guards` say done about them.

    Recordings without speech are not searched, unless they are to keep what is found. Without a CTC head there is no
    CTC evidence; nor for searches over one, which cannot run away from it. Numbers that are not finite are the error of
    their recording.
    """
    finite, evidence = _finite(batch), _evidence(batch, options)
    silent = [no_speech(*row) for row in zip(batch.waveforms, evidence, strict=True)]
    keep = guards.on_no_speech == "keep"
    searched = [row for row, reason in enumerate(silent) if finite[row] and (keep or reason is None)]
    found: dict[int, Result] = {}
    if searched:
        part = batch if len(searched) == len(silent) else batch.rows(searched)
        found.update(zip(searched, decode(part, options), strict=True))
    results: list[Result] = []
    for row, reason in enumerate(silent):
        nbest = found.get(row, (Hypothesis((), "", 0.0),))
        if isinstance(nbest, AudioError):
            results.append(nbest)
        elif not finite[row] or isnan(nbest[0].score):
            results.append(_not_finite())
        elif reason is not None:
            results.append((replace(nbest[0], warnings={NO_SPEECH: reason}), *nbest[1:]))
        elif not options.autoregressive:
            results.append(nbest)
        else:
            results.append(checked(nbest, evidence[row], batch.units.decode, guards, in_form=batch.ctc_form))
    return results


def ctc_evidence(logits: Tensor, lengths: Tensor, text: Text) -> list[CTCEvidence]:
    """The evidence of each utterance, from CTC logits (batch, frames, labels + 1), blank last, and valid frames."""
    values, blank = logits.float(), logits.shape[2] - 1
    totals = values.logsumexp(dim=-1)
    tops, best = values.max(dim=-1)
    not_blank = 1.0 - (values[..., blank] - totals).exp()
    found = []
    for row, length in enumerate(lengths.tolist()):
        labels = tuple(collapse(best[row, :length].tolist(), blank))
        score = float((tops - totals)[row, :length].double().sum())
        likely = not_blank[row, :length].double()
        surest = float(likely.max()) if length else 0.0
        found.append(CTCEvidence(labels, text(labels), score, float(likely.sum()), surest, length))
    return found


def no_speech(waveform: Waveform, evidence: CTCEvidence | None) -> str | None:
    """Why a recording holds no speech; None if it may hold some."""
    if not has_speech(waveform):
        return "its spectrum varies less than that of speech"
    if evidence is not None and evidence.surest < SURE_BLANK:
        return "the CTC head is sure of blank in every frame"
    return None


def checked(
    nbest: NBest,
    evidence: CTCEvidence | None,
    text: Text,
    guards: Guards,
    *,
    in_form: Callable[[str], str | None] = str,
) -> NBest:
    """The hypotheses of a decoder, the best with its warnings; if it ran away, the CTC text before it.

    Where it disagrees with a CTC head that hears hardly anything, and is unsure itself, there is no speech: before it
    comes the empty text.

    Args:
        nbest: What the decoder wrote, best first.
        evidence: The CTC posteriors; None without a CTC head.
        text: Decodes labels.
        guards: Whether the CTC text, or the empty one, shall stand first.
        in_form: Brings a text of the decoder into the form that the CTC head writes; None says that there is no way.
    """
    best = nbest[0]
    form = in_form(best.text)
    agreed = None if evidence is None or form is None else agreement(form, evidence.text)
    best = replace(best, warnings=_warnings(best, agreed, evidence, text), ctc_agreement=agreed)
    if evidence is not None and CTC_DISAGREES in best.warnings and _few_and_unsure(best, evidence):
        reason = "neither the decoder nor the CTC head is sure of any word"
        best = replace(best, warnings={**best.warnings, NO_SPEECH: reason})
        if guards.on_no_speech == "empty":
            return (replace(best, labels=(), text=""), best, *nbest[1:])
    if evidence is None or guards.on_runaway == "keep" or not any(name in RUNAWAY for name in best.warnings):
        return (best, *nbest[1:])
    instead = replace(
        best,
        labels=evidence.labels,
        text=evidence.text,
        score=evidence.score,
        scores={CTC: evidence.score},
        warnings={**best.warnings, REPLACED: "the text is the CTC head's"},
        confidence=evidence.score / (len(evidence.labels) + 1),
    )
    return (instead, best, *nbest[1:])


def find_loop(labels: Sequence[int]) -> Loop | None:
    """The longest stretch in which the same labels come at least 4 times in a row and are 12 or more; None without."""
    written, longest, found = np.asarray(labels), LOOP_LABELS - 1, None
    for period in range(1, len(written) // REPEATS + 1):
        same = np.concatenate([[False], written[period:] == written[:-period], [False]])
        starts, ends = np.flatnonzero(np.diff(same)).reshape(-1, 2).T
        if not len(starts):
            continue
        at = int((ends - starts).argmax())
        length = int(ends[at] - starts[at]) + period
        if length > longest and length >= REPEATS * period:
            start, longest = int(starts[at]), length
            found = Loop(tuple(labels[start : start + period]), length / period)
    return found


def agreement(text: str, other: str) -> float:
    """How far two texts agree: 1 - edit distance / length of the longer one, in characters; 1 of equal ones."""
    import kaldialign  # takes a moment to load

    longer = max(len(text), len(other))
    return 1.0 - kaldialign.edit_distance(text, other)["total"] / longer if longer else 1.0


def _few_and_unsure(best: Hypothesis, evidence: CTCEvidence) -> bool:
    """Whether CTC hears some labels, far fewer than speech has, and the decoder finds its own improbable.

    A CTC head that hears nothing at all may have learnt nothing.
    """
    log_prob = best.scores.get(SPEECH_LLM, best.score) / (len(best.labels) + 1)
    return log_prob < UNSURE and 0 < len(evidence.labels) < SPARSE * evidence.num_frames


def _warnings(best: Hypothesis, agreed: float | None, evidence: CTCEvidence | None, text: Text) -> dict[str, str]:
    warnings = {}
    loop = find_loop(best.labels)
    spoken = None if evidence is None else find_loop(evidence.labels)
    if loop is not None and (spoken is None or loop.repeats > 2 * spoken.repeats):  # some do say a word ten times
        warnings[LOOP] = f"{text(loop.labels).strip()!r} {int(loop.repeats)} times in a row"
    if evidence is not None and len(best.labels) > evidence.most_labels:
        warnings[LONGER_THAN_CTC] = f"{len(best.labels)} labels; the CTC head supports {evidence.most_labels:.0f}"
    if agreed is not None and agreed < LEAST_AGREEMENT:
        warnings[CTC_DISAGREES] = f"agreement {agreed:.2f} with the CTC head's text"
    return warnings


def _evidence(batch: EncodedBatch, options: Decoding) -> Sequence[CTCEvidence | None]:
    if not options.autoregressive or not batch.acoustic.config.ctc_layers:
        return [None] * len(batch.waveforms)
    return ctc_evidence(*batch.ctc_logits, batch.ctc_units.decode)


def _finite(batch: EncodedBatch) -> list[bool]:
    """Of which recordings encoder and CTC head give numbers."""
    finite = batch.encoded.frames.isfinite().all(dim=2).all(dim=1)
    if batch.acoustic.config.ctc_layers:
        finite = finite & batch.ctc_logits[0].isfinite().all(dim=2).all(dim=1)
    whole: list[bool] = finite.tolist()
    return whole


def _not_finite() -> AudioError:
    remedy = "use float32, and check that the recording plays; if both are right, the model is damaged"
    return AudioError("the model gives infinite numbers or none for it", remedy=remedy)
