"""From a transcript to what OpenAI's clients read: JSON, subtitles, and the events of a stream."""

import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

from kikitori.io.writers import render
from kikitori.server.form import TranscriptionForm
from kikitori.text.words import writes_spaces
from kikitori.types import Hypothesis, Segment, Transcript, Word

UNKNOWN_LANGUAGE = "und"  # of BCP 47; clients want a text
LEAST_PROBABILITY = 1e-10


def answer(transcript: Transcript, form: TranscriptionForm) -> dict[str, Any] | str:
    """The body of the response: JSON, or a text for the formats of text."""
    match form.response_format:
        case "json":
            return plain(transcript, form)
        case "verbose_json":
            return verbose(transcript, form)
        case "text":
            return transcript.text + "\n"
        case subtitles:
            return render(transcript, subtitles, audio="audio", language=form.model.language)


def plain(transcript: Transcript, form: TranscriptionForm) -> dict[str, Any]:
    """The answer of `json`."""
    found: dict[str, Any] = {"text": transcript.text, "usage": _usage(transcript)}
    return found | ({"logprobs": logprobs(transcript.text, transcript.words)} if form.logprobs else {})


def verbose(transcript: Transcript, form: TranscriptionForm) -> dict[str, Any]:
    """The answer of `verbose_json`: OpenAI's keys and ours (docs/server.md)."""
    found: dict[str, Any] = {
        "task": "transcribe",
        "language": form.model.language or UNKNOWN_LANGUAGE,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
    }
    if form.segments:
        found["segments"] = [segment_of(number, each) for number, each in enumerate(transcript.segments)]
    if form.words:
        found["words"] = [*map(word_of, transcript.words)]
    return found | {
        "usage": _usage(transcript),
        "model": form.model.name,
        "decoding": form.decoding,
        "flags": [*transcript.flags],
        "reasons": {**transcript.reasons},
        "ctc_agreement": _number(transcript.ctc_agreement),
        "nbest": [_hypothesis(each) for each in transcript.nbest[: form.nbest]],
    }


def segment_of(number: int, segment: Segment) -> dict[str, Any]:
    """A segment with the keys of Whisper's."""
    return {
        "id": number,
        "start": _number(segment.start),
        "end": _number(segment.end),
        "text": segment.text,
        "seek": round(100 * segment.start),
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": _number(_mean_logprob(segment)),
        "compression_ratio": _number(_compression_ratio(segment.text)),
        "no_speech_prob": 0.0,
        "flags": [*segment.flags],
        "reasons": {**segment.reasons},
    }


def word_of(word: Word) -> dict[str, Any]:
    """A word with its times in seconds."""
    found = {"word": word.word, "start": _number(word.start), "end": _number(word.end)}
    return found | {"confidence": _number(word.confidence)}


def logprobs(text: str, words: Sequence[Word]) -> list[dict[str, Any]]:
    """The log-probability of each word, as a token of the text; the tokens put together are the text."""
    found, at = [], 0
    for number, word in enumerate(words):
        place = text.find(word.word, at)
        end = len(text) if number == len(words) - 1 or place < 0 else place + len(word.word)
        token, at = text[at:end], end
        found.append({"token": token, "bytes": [*token.encode()], "logprob": _number(_log(word.confidence))})
    return found


class Deltas:
    """The events of a stream: what each segment adds to the text, and the text."""

    def __init__(self, form: TranscriptionForm) -> None:
        self._form, self._text, self._number = form, "", 0

    def delta(self, segment: Segment) -> dict[str, Any]:
        """The event of the next segment."""
        space = " " if self._text and writes_spaces(self._form.model.language) else ""
        delta = space + segment.text
        ours = segment_of(self._number, segment)
        if self._form.words:
            ours["words"] = [*map(word_of, segment.words)]
        self._text, self._number = self._text + delta, self._number + 1
        found: dict[str, Any] = {"type": "transcript.text.delta", "delta": delta, "segment": ours}
        return found | ({"logprobs": logprobs(delta, segment.words)} if self._form.logprobs else {})

    def done(self, transcript: Transcript) -> dict[str, Any]:
        """The last event."""
        found: dict[str, Any] = {"type": "transcript.text.done", "text": transcript.text}
        if self._form.response_format == "verbose_json":
            found = verbose(transcript, self._form) | found
            del found["usage"]  # clients read that of a stream as counts of tokens, which are not known here
        elif self._form.logprobs:
            found["logprobs"] = logprobs(transcript.text, transcript.words)
        return found


def event(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n"


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(transcript.duration, 3)}


def _hypothesis(each: Hypothesis) -> dict[str, Any]:
    scores = {name: _number(score) for name, score in each.scores.items()}
    return {"text": each.text, "score": _number(each.score), "scores": scores, "complete": each.complete}


def _mean_logprob(segment: Segment) -> float | None:
    """Of the words where they have confidences, else of the labels, as the search scored them."""
    logs = [log for log in (_log(word.confidence) for word in segment.words) if log is not None]
    return sum(logs) / len(logs) if logs else segment.confidence


def _log(confidence: float | None) -> float | None:
    return None if confidence is None else math.log(max(confidence, LEAST_PROBABILITY))


def _compression_ratio(text: str) -> float:
    """As of Whisper: bytes over compressed bytes; what repeats itself has a high one."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _number(value: float | None) -> float | None:
    """Rounded for reading; JSON has no infinity and no NaN."""
    return round(value, 3) if value is not None and math.isfinite(value) else None
