"""References and hypotheses of NIST's files (or references of a manifest) as rows that can be scored.

A stretch of `stm` is an utterance with the name of its recording and its start as offset, as cuts in manifests are; a
line of `trn` is an utterance with its id and without a duration.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from kikitori.data.manifest import read_manifest
from kikitori.errors import DataError
from kikitori.io.nist.ctm import TimedWord, read_ctm
from kikitori.io.nist.stm import Stretch, read_stm
from kikitori.io.nist.trn import read_trn
from kikitori.scoring.report import Prediction
from kikitori.types import Utterance

CHANNEL = "channel"
"""Key of the channel among what else is known of an utterance of `stm`."""
IGNORED = "ignored"
"""Key of stretches that are not scored, as pairs of seconds, in the utterances of their recording and channel."""


def read_references(path: Path, language: str | None = None) -> list[Utterance]:
    """The utterances of a `stm` or `trn` file, or of a JSONL manifest; `language` is that of rows that name none.

    Raises:
        DataError: The file cannot be read.
    """
    match path.suffix:
        case ".stm":
            return _of_stretches(read_stm(path), language)
        case ".trn":
            texts = read_trn(path)
            return [
                Utterance(Path(utt_id), 0.0, text, utt_id=utt_id, language=language) for utt_id, text in texts.items()
            ]
    return list(read_manifest(path).utterances)


def read_trn_predictions(path: Path, references: Sequence[Utterance]) -> list[Prediction]:
    """The texts of a `trn` file as predictions of the utterances with their ids.

    Raises:
        DataError: The file cannot be read, or an utterance has no reference.
    """
    known = {utterance.utt_id: utterance for utterance in references}
    texts = read_trn(path)
    unknown = [utt_id for utt_id in texts if utt_id not in known]
    if unknown:
        raise DataError("no reference has this id", where=f"{path}: {unknown[0]}", remedy="check --reference")
    return [Prediction(known[utt_id], text, 0.0) for utt_id, text in texts.items()]


def read_ctm_predictions(path: Path, references: Sequence[Utterance]) -> list[Prediction]:
    """The words of a `ctm` file as predictions of the stretches in whose time their middles lie.

    A word between two stretches belongs to the nearer one; one in a stretch that is not scored is left out. Recordings
    without a word are missing altogether.

    Raises:
        DataError: The file cannot be read, or a recording has no reference.
    """
    stretches: dict[tuple[str, str], list[Utterance]] = {}
    for utterance in references:
        for name in _recordings(utterance):
            stretches.setdefault((name, utterance.extra.get(CHANNEL, "")), []).append(utterance)
    words: dict[int, list[TimedWord]] = {}
    heard: set[int] = set()
    for word in sorted(read_ctm(path), key=lambda each: each.start):
        members = stretches.get((word.recording, word.channel)) or stretches.get((word.recording, ""))
        if members is None:
            where = f"{path}: {word.recording} {word.channel}"
            raise DataError("no reference has this recording", where=where, remedy="check --reference")
        heard.update(map(id, members))
        if not any(start <= word.middle < end for start, end in members[0].extra.get(IGNORED, ())):
            words.setdefault(id(min(members, key=lambda each: _distance(each, word.middle))), []).append(word)
    return [
        Prediction(utterance, " ".join(word.word for word in words.get(id(utterance), ())), 0.0)
        for utterance in references
        if id(utterance) in heard
    ]


def stretches_of(utterances: Iterable[Utterance]) -> list[Stretch]:
    """Utterances with a reference as lines of `stm`."""
    return [
        Stretch(
            str(utterance.audio_filepath) if CHANNEL in utterance.extra else utterance.audio_filepath.stem,
            str(utterance.extra.get(CHANNEL, "1")),
            utterance.speaker or "unknown",
            utterance.offset,
            utterance.offset + utterance.duration,
            utterance.text,
        )
        for utterance in utterances
        if utterance.text is not None
    ]


def _of_stretches(stretches: Sequence[Stretch], language: str | None) -> list[Utterance]:
    channels = Counter(recording for recording, _ in {(each.recording, each.channel) for each in stretches})
    ignored: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for each in stretches:
        if not each.is_scored:
            ignored.setdefault((each.recording, each.channel), []).append((each.start, each.end))
    return [
        Utterance(
            audio_filepath=Path(each.recording),
            duration=each.end - each.start,
            text=each.text,
            offset=each.start,
            utt_id=each.recording if channels[each.recording] == 1 else f"{each.recording}-{each.channel}",
            language=language,
            speaker=each.speaker,
            extra={CHANNEL: each.channel, IGNORED: ignored.get((each.recording, each.channel), [])},
        )
        for each in stretches
        if each.is_scored
    ]


def _recordings(utterance: Utterance) -> set[str]:
    """What a file may call the recording of an utterance."""
    path = utterance.audio_filepath
    return {str(path)} if CHANNEL in utterance.extra else {path.stem, utterance.utt_id}


def _distance(utterance: Utterance, time: float) -> float:
    """From a time to the nearest one within an utterance; a recording as a whole is everywhere."""
    if utterance.duration == 0.0:
        return 0.0
    return max(utterance.offset - time, time - utterance.offset - utterance.duration, 0.0)
