"""Subtitles: the segments of a transcript go in, cues of a few short lines come out, as SubRip (srt) or WebVTT (vtt).

A cue ends where a sentence or the room for it ends, at a pause, and with its segment. Times are in whole milliseconds;
every cue begins where the one before it has ended, or later. Where words have no times, they share out the time of
their segment by their characters.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from kikitori.errors import ConfigError
from kikitori.types import Segment, Transcript

PAUSE_MS = 700  # between two words, at which a cue ends
LONGEST_MS = 7_000  # that a cue lasts, unless it is one word
SHORTEST_MS = 1_000  # that a cue stays, if the next one leaves time for it
SENTENCE_END = re.compile(r"""[.!?。！？…]["'”’」』)）]*$""")


@dataclass(frozen=True)
class CueOptions:
    """How subtitles are laid out.

    Attributes:
        max_line_width: Characters in a line; wide ones, such as kanji, count as two.
        max_line_count: Lines in a cue.
        highlight_words: Whether each word is underlined while it is said.
    """

    max_line_width: int = 42
    max_line_count: int = 2
    highlight_words: bool = False

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", remedy="use 1 or more")


@dataclass(frozen=True)
class Token:
    """A word with the space before it, if there is one, and when it is said, in milliseconds."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Cue:
    """What is on the screen at a time, in milliseconds, in lines of tokens."""

    start: int
    end: int
    lines: tuple[tuple[Token, ...], ...]


def srt(transcript: Transcript, options: CueOptions) -> str:
    """A SubRip file."""
    blocks = _blocks(transcript, options, _without_arrows)
    return "\n".join(f"{n}\n{_time(a, ',')} --> {_time(b, ',')}\n{text}\n" for n, (a, b, text) in enumerate(blocks, 1))


def vtt(transcript: Transcript, options: CueOptions) -> str:
    """A WebVTT file."""
    blocks = _blocks(transcript, options, _escaped)
    return "WEBVTT\n" + "".join(f"\n{_time(a, '.')} --> {_time(b, '.')}\n{text}\n" for a, b, text in blocks)


def tsv(transcript: Transcript) -> str:
    """A table of segments: start and end in milliseconds, and text."""
    rows, at = ["start\tend\ttext\n"], 0
    for segment in transcript.segments:
        if text := _plain(segment.text):
            start = max(_ms(segment.start), at)
            at = max(_ms(segment.end), start + 1)
            rows.append(f"{start}\t{at}\t{text}\n")
    return "".join(rows)


def cues(transcript: Transcript, options: CueOptions) -> list[Cue]:
    """The cues of a transcript, none empty, their times rising."""
    found: list[Cue] = []
    for segment in transcript.segments:
        for tokens in _groups(_tokens(segment, options.max_line_width), options):
            start = max(tokens[0].start, found[-1].end if found else 0)
            end = max(tokens[-1].end, start + 1)
            found.append(Cue(start, end, tuple(tuple(line) for line in _lines(tokens, options.max_line_width))))
    until = [*(cue.start for cue in found[1:]), _ms(transcript.duration)]
    return [
        replace(cue, end=max(cue.end, min(cue.start + SHORTEST_MS, most)))
        for cue, most in zip(found, until, strict=False)
    ]


def _tokens(segment: Segment, width: int) -> list[Token]:
    """The words of a segment as they stand in its text, in parts where one alone is wider than a line."""
    text = _plain(segment.text)
    timed = [(_plain(word.word), _ms(word.start), _ms(word.end)) for word in segment.words]
    found, at = [], 0
    for word, start, end in timed:
        place = text.find(word, at)
        if place < 0 or not word:
            break
        found.append(Token(text[at : place + len(word)], start, end))
        at = place + len(word)
    if not found or text[at:].strip():
        found = _shared_out(re.findall(r"\s*\S+", text), _ms(segment.start), _ms(segment.end))
    return [part for token in found for part in _parts(token, width)]


def _parts(token: Token, width: int) -> list[Token]:
    if _width(token.text.strip()) <= width:
        return [token]
    parts, part = [], ""
    for character in token.text:
        if part.strip() and _width(part.strip() + character) > width:
            parts.append(part)
            part = ""
        part += character
    return _shared_out([*parts, part], token.start, token.end)


def _shared_out(texts: Sequence[str], start: int, end: int) -> list[Token]:
    """Texts over a stretch of time in proportion to their characters."""
    ends = [*accumulate(len(text) for text in texts)]
    places = [start + (end - start) * at // ends[-1] for at in (0, *ends)] if ends else []
    return [Token(text, a, b) for text, a, b in zip(texts, places, places[1:], strict=False)]


def _groups(tokens: Iterable[Token], options: CueOptions) -> Iterator[list[Token]]:
    """Tokens that are on the screen together."""
    group: list[Token] = []
    for token in tokens:
        if group and (
            token.start - group[-1].end >= PAUSE_MS
            or token.end - group[0].start > LONGEST_MS
            or (SENTENCE_END.search(group[-1].text) and group[-1].end - group[0].start >= SHORTEST_MS)
            or len(_lines([*group, token], options.max_line_width)) > options.max_line_count
        ):
            yield group
            group = []
        group.append(token)
    if group:
        yield group


def _lines(tokens: Sequence[Token], width: int) -> list[list[Token]]:
    """Tokens in lines, each as full as it can be; lines begin without a space."""
    lines: list[list[Token]] = []
    used = 0
    for token in tokens:
        if lines and used + _width(token.text) <= width:
            lines[-1].append(token)
            used += _width(token.text)
        else:
            lines.append([replace(token, text=token.text.lstrip())])
            used = _width(lines[-1][0].text)
    return lines


def _blocks(
    transcript: Transcript, options: CueOptions, written: Callable[[str], str]
) -> Iterator[tuple[int, int, str]]:
    """Start, end and text of what follows each other on the screen."""
    for cue in cues(transcript, options):
        if not options.highlight_words:
            yield cue.start, cue.end, _text(cue, None, written)
            continue
        at = cue.start
        for token in (token for line in cue.lines for token in line):
            start, end = max(token.start, at), min(token.end, cue.end)
            if start > at:
                yield at, start, _text(cue, None, written)
                at = start
            if end > at:
                yield at, end, _text(cue, token, written)
                at = end
        if cue.end > at:
            yield at, cue.end, _text(cue, None, written)


def _text(cue: Cue, said: Token | None, written: Callable[[str], str]) -> str:
    lines = []
    for line in cue.lines:
        if said is None or not any(token is said for token in line):
            lines.append(written("".join(token.text for token in line)))
            continue
        number = next(n for n, token in enumerate(line) if token is said)
        word = said.text.lstrip()
        before = "".join(token.text for token in line[:number]) + said.text[: len(said.text) - len(word)]
        after = "".join(token.text for token in line[number + 1 :])
        lines.append(f"{written(before)}<u>{written(word)}</u>{written(after)}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text on one line, without control characters."""
    return " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())


def _without_arrows(text: str) -> str:
    """Text that no reader takes for the times of a cue."""
    return re.sub("-{2,}>", "->", text)


def _escaped(text: str) -> str:
    """Text for WebVTT, which knows tags and entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _ms(seconds: float) -> int:
    return max(round(1000 * seconds), 0)


def _time(milliseconds: int, mark: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{rest:03}"
