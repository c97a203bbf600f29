"""Transcript writers: a transcript and the name of its audio go in, the files that Whisper's command writes come out.

`txt` has one segment a line, `tsv` their times too, `srt` and `vtt` are subtitles (`kikitori.io.subtitles`). `json` has
Whisper's keys where we have the value. `jsonl` has the same content on one line; since it begins with `audio_filepath,
duration, text`, such lines put together are a manifest. `ctm` has the words for sclite.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kikitori.errors import ConfigError
from kikitori.io.files import write_text
from kikitori.io.nist.ctm import TimedWord, format_word
from kikitori.io.subtitles import CueOptions, srt, tsv, vtt
from kikitori.types import Segment, Transcript, Word

FORMATS: tuple[str, ...] = ("txt", "srt", "vtt", "tsv", "json", "jsonl")
"""Those that every transcript has; `ctm` is one more, of words with times."""
SUBTITLES = ("srt", "vtt")
DEFAULT_CUES = CueOptions()


def render(
    transcript: Transcript, fmt: str, *, audio: str, language: str | None = None, cues: CueOptions = DEFAULT_CUES
) -> str:
    """Returns the content of a transcript file, with a final newline.

    Args:
        transcript: What was recognised.
        fmt: One of `FORMATS`, or `ctm`.
        audio: Path of the recording, as it shall stand in the file.
        language: Language code where the transcript has none.
        cues: How subtitles are laid out.

    Raises:
        ConfigError: There is no such format, or it is `ctm` and there are no times of words.
    """
    match fmt:
        case "txt":
            texts = [segment.text for segment in transcript.segments] or [transcript.text]
            lines = [" ".join(text.splitlines()).strip() for text in texts]
            return "".join(f"{line}\n" for line in lines if line)
        case "srt":
            return srt(transcript, cues)
        case "vtt":
            return vtt(transcript, cues)
        case "tsv":
            return tsv(transcript)
        case "ctm":
            return _ctm(transcript, Path(audio).stem)
        case "json":
            return (
                json.dumps(_as_dict(transcript, audio, language), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
            )
        case "jsonl":
            return json.dumps(_as_dict(transcript, audio, language), ensure_ascii=False, allow_nan=False) + "\n"
    raise ConfigError(f"unknown output format {fmt!r}", where="format", remedy=f"use one of {', '.join(FORMATS)}")


def write_transcript(
    transcript: Transcript,
    audio: Path,
    directory: Path,
    formats: Sequence[str],
    *,
    stem: str | None = None,
    language: str | None = None,
    cues: CueOptions = DEFAULT_CUES,
) -> list[Path]:
    """Writes `directory/stem.format` for each format, each file whole or not at all, and returns their paths.

    Args:
        transcript: What was recognised.
        audio: The recording.
        directory: Where the files go; made if missing.
        formats: Some of `FORMATS`.
        stem: File name without suffix, by default that of `audio`. Files of that name are replaced, so take the stems
            of several recordings from `unique_stems`.
        language: Language code, where known.
        cues: How subtitles are laid out.

    Raises:
        ConfigError: There is no such format; nothing was written.
        DataError: A file cannot be written.
    """
    stem = audio.stem if stem is None else stem
    contents = {fmt: render(transcript, fmt, audio=str(audio), language=language, cues=cues) for fmt in formats}
    paths = []
    for fmt, content in contents.items():
        path = directory / f"{stem}.{fmt}"
        write_text(path, content)
        paths.append(path)
    return paths


def unique_stems(paths: Sequence[Path]) -> list[str]:
    """Returns one file stem per path, no two alike even where case does not matter: `talk`, then `talk-2`."""
    natural = {path.stem.casefold() for path in paths}
    taken: set[str] = set()
    stems = []
    for path in paths:
        stem, number = path.stem, 2
        if stem.casefold() in taken:
            while f"{stem}-{number}".casefold() in taken | natural:
                number += 1
            stem = f"{stem}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _ctm(transcript: Transcript, recording: str) -> str:
    words = [word for segment in transcript.segments for word in segment.words] or transcript.words
    if transcript.text.strip() and not words:
        raise ConfigError("there are no times of words", where="ctm", remedy="ask for word times, or another format")
    lines = [
        format_word(TimedWord(recording, "1", word.start, max(0.0, word.end - word.start), word.word, word.confidence))
        for word in words
    ]
    return "".join(f"{line}\n" for line in lines)


def _as_dict(transcript: Transcript, audio: str, language: str | None) -> dict[str, Any]:
    whole = (Segment(0.0, transcript.duration, transcript.text),) if transcript.text else ()
    parts = transcript.segments or whole
    words = _words_by_segment(parts, transcript.words)
    segments: list[dict[str, Any]] = []
    for index, segment in enumerate(parts):
        entry: dict[str, Any] = {
            "id": index,
            "start": _number(segment.start),
            "end": _number(segment.end),
            "text": segment.text,
        }
        entry |= {"words": [_word(word) for word in words[index]]} if words[index] else {}
        segments.append(entry | ({"flags": [*segment.flags]} if segment.flags else {}))
    nbest = [
        {
            "text": hypothesis.text,
            "score": _number(hypothesis.score),
            "scores": {scorer: _number(score) for scorer, score in hypothesis.scores.items()},
            "complete": hypothesis.complete,
        }
        for hypothesis in transcript.nbest
    ]
    return {
        "audio_filepath": audio,
        "duration": _number(transcript.duration),
        "text": transcript.text,
        "language": transcript.language or language,
        "segments": segments,
        "flags": list(transcript.flags),
        "reasons": dict(transcript.reasons),
        "ctc_agreement": None if transcript.ctc_agreement is None else _number(transcript.ctc_agreement),
        "nbest": nbest,
    }


def _words_by_segment(segments: Sequence[Segment], loose: Sequence[Word]) -> list[list[Word]]:
    """Returns the words of each segment; words known only for the whole go to the last segment begun before them."""
    words = [list(segment.words) for segment in segments]
    if segments and not any(words):
        for word in loose:
            begun = [index for index, segment in enumerate(segments) if segment.start <= word.start]
            words[begun[-1] if begun else 0].append(word)
    return words


def _word(word: Word) -> dict[str, Any]:
    entry = {"word": word.word, "start": _number(word.start), "end": _number(word.end)}
    return entry if word.confidence is None else entry | {"probability": _number(word.confidence)}


def _number(value: float) -> float | None:
    """Rounds to a thousandth for reading; JSON has no infinity and no NaN, so they become None."""
    return round(value, 3) if math.isfinite(value) else None
