"""From what a search finds in the utterances of a recording to its transcript."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from kikitori.align.join import ALIGNED_S, ESTIMATED_S, join_words
from kikitori.align.words import estimated_words
from kikitori.errors import AudioError, KikitoriError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.pieces import Piece
from kikitori.search.batch import Result
from kikitori.search.guards import NO_SPEECH
from kikitori.segment.chunks import Stretch
from kikitori.text.words import join_texts
from kikitori.text.words import join_words as texts_joined
from kikitori.types import Hypothesis, NBest, Segment, Transcript, Word

LENGTH_LIMIT_FLAG, LONG_FLAG = "length_limit", "longer_than_training"


@dataclass(frozen=True, eq=False)
class Part:
    """What was found in an utterance of a recording.

    Attributes:
        stretch: Where in the recording it is.
        result: The best hypothesis, with all others if the utterance is the whole recording; or why there is none.
        seconds: Duration of the recording if it ends here, else None.
    """

    stretch: Stretch
    result: NBest | KikitoriError
    seconds: float | None


def part_of(piece: Piece, result: Result) -> Part:
    """What was found in a piece, without its samples."""
    found: NBest | KikitoriError
    if piece.error is not None:
        found = piece.error
    elif isinstance(result, AudioError):
        found = AudioError(result.what, where=piece.name, remedy=result.remedy)
    else:
        found = result if piece.alone else result[:1]
    return Part(piece.chunk.stretch, found, piece.seconds)


def transcript(parts: Sequence[Part], language: str | None, word_times: bool) -> Transcript | KikitoriError:
    """The transcript of a recording from all its parts, with what is doubtful about it; its error if there is one.

    Args:
        parts: At least one; the last one has the duration.
        language: Of the text.
        word_times: Whether it shall have times of words.
    """
    for part in parts:
        if isinstance(part.result, KikitoriError):
            return part.result
    seconds = parts[-1].seconds or 0.0
    if len(parts) == 1 and parts[0].stretch.samples == round(seconds * SAMPLE_RATE):
        return _short_transcript(_nbest(parts[0]), seconds, language)
    found, best = [*segments(parts, language, word_times)], [_nbest(part)[0] for part in parts]
    # Utterances without speech are no reason for doubt where there are others.
    reasons = {} if found else {NO_SPEECH: "none is found anywhere in it"}
    for segment in found:
        for flag in segment.flags:
            why = f": {segment.reasons[flag]}" if flag in segment.reasons else ""
            reasons.setdefault(flag, f"from {clock(segment.start)} to {clock(segment.end)}{why}")
    known = [(len(each.text), each.ctc_agreement) for each in best if each.ctc_agreement is not None]
    letters = sum(count for count, _ in known)
    return Transcript(
        text=join_texts((segment.text, segment.language) for segment in found),
        segments=tuple(found),
        words=tuple(word for segment in found for word in segment.words),
        flags=tuple(reasons),
        duration=seconds,
        llm_passes=sum(each.llm_passes for each in best),
        reasons=reasons,
        ctc_agreement=sum(count * agreed for count, agreed in known) / letters if letters else None,
        language=_main_language(found) or language,
    )


def segments(parts: Iterable[Part], language: str | None, word_times: bool) -> Iterator[Segment]:
    """The segments of a recording, each as soon as it is known; none without text.

    Raises:
        KikitoriError: A part has none but an error; the segments before it have been given.
    """
    stream = SegmentStream(language, word_times)
    for part in parts:
        yield from stream.add(part)


class SegmentStream:
    """The segments of a recording whose parts come one by one."""

    def __init__(self, language: str | None, word_times: bool) -> None:
        self._language, self._word_times = language, word_times
        self._held: _Text | None = None  # what shares sound with the next part

    def add(self, part: Part) -> Iterator[Segment]:
        """The segments that are known with one more part; to be read to the end before the next one.

        Raises:
            KikitoriError: The part has none but an error.
        """
        text = _text(part, self._language)
        if self._held is not None:
            self._held, text = _joined(self._held, text)
            yield from _segment(self._held, self._word_times)
        self._held = text
        if not part.stretch.shares:
            yield from _segment(text, self._word_times)
            self._held = None


def flags_of(hypothesis: Hypothesis) -> list[str]:
    """Names of what is doubtful about the best hypothesis of a recording."""
    return [*([] if hypothesis.complete else [LENGTH_LIMIT_FLAG]), *hypothesis.warnings]


def clock(seconds: float) -> str:
    """A time for reading, such as 1:02:03.4."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 10:04.1f}" if hours else f"{minutes}:{rest / 10:04.1f}"


@dataclass(frozen=True, eq=False)
class _Text:
    """The best hypothesis of an utterance in its recording, and its words in times of the recording."""

    stretch: Stretch
    best: Hypothesis
    words: tuple[Word, ...]
    aligned: bool


def _nbest(part: Part) -> NBest:
    if isinstance(part.result, KikitoriError):
        raise part.result
    return part.result


def _main_language(segments: Iterable[Segment]) -> str | None:
    """The language of most characters; None without text."""
    characters = Counter[str | None]()
    for segment in segments:
        characters[segment.language] += len(segment.text)
    return max(characters, key=lambda each: characters[each], default=None)


def _short_transcript(nbest: NBest, seconds: float, language: str | None) -> Transcript:
    """The transcript of a recording that is one utterance."""
    best = nbest[0]
    flags, language = tuple(flags_of(best)), best.language or language
    segment = Segment(
        0.0, round(seconds, 3), best.text, best.words, flags, best.warnings, best.confidence, language=language
    )
    return Transcript(
        text=best.text,
        segments=(segment,) if best.text else (),
        words=best.words,
        nbest=nbest if len(nbest) > 1 else (),
        flags=flags,
        duration=seconds,
        llm_passes=best.llm_passes,
        reasons=best.warnings,
        ctc_agreement=best.ctc_agreement,
        language=language,
    )


def _text(part: Part, language: str | None) -> _Text:
    """What was found in a part; its words where they are known, or needed to join it with a neighbour."""
    stretch, best = part.stretch, _nbest(part)[0]
    best = replace(best, language=best.language or language)
    seconds, start = stretch.samples / SAMPLE_RATE, stretch.start / SAMPLE_RATE
    words = best.words
    if not words and stretch.joined:
        words = estimated_words(best.text, best.language, seconds=seconds, speech=stretch.speech)
    moved = tuple(Word(word.word, start + word.start, start + word.end, word.confidence) for word in words)
    return _Text(stretch, best, moved, bool(best.words))


def _joined(before: _Text, after: _Text) -> tuple[_Text, _Text]:
    """Two utterances that share some sound, each with what is left to it of the text."""
    start = after.stretch.start / SAMPLE_RATE
    slack = ALIGNED_S if before.aligned and after.aligned else ESTIMATED_S
    kept = join_words(before.words, after.words, start, start + after.stretch.shared / SAMPLE_RATE, slack)
    return _with_words(before, kept[0]), _with_words(after, kept[1])


def _with_words(text: _Text, words: tuple[Word, ...]) -> _Text:
    best = replace(text.best, text=texts_joined((word.word for word in words), text.best.language))
    return replace(text, best=best, words=words)


def _segment(text: _Text, word_times: bool) -> Iterator[Segment]:
    best, stretch = text.best, text.stretch
    if not best.text:
        return
    start = stretch.start / SAMPLE_RATE
    spans = stretch.speech or ((0.0, stretch.samples / SAMPLE_RATE),)
    times = start + spans[0][0], start + spans[-1][1]
    if text.words:
        times = text.words[0].start, text.words[-1].end
    words = text.words if word_times else ()
    flags = tuple(flags_of(best))
    start, end = (round(time, 3) for time in times)
    yield Segment(start, end, best.text, words, flags, best.warnings, best.confidence, language=best.language)
