"""Plain data that travels between the layers: an utterance goes in, hypotheses and a transcript come out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

LengthRule = Literal["label_rate", "nue_asr", "window", "speech_window"]
DecoderName = Literal["encoder_decoder", "speech_llm"]
"""What writes label by label: Whisper's decoder, or an LLM that reads the speech."""
Component = Literal["llm", "whole_llm", "bridge", "encoder"]
"""What an adaptation changes of a speech LLM: the LLM by LoRA or as a whole, the bridge, the encoder."""


@dataclass(frozen=True)
class Utterance:
    """One row of a manifest: a stretch of audio and, where known, what was said.

    Attributes:
        audio_filepath: Resolved path of the audio file.
        duration: Seconds of audio that belong to this row.
        text: Reference transcript in the source's own form, or None.
        offset: Seconds from the start of the file at which the row begins.
        utt_id: Name used in logs and reports; the manifest's `id` or its `audio_filepath` as written there.
        language: Language code such as `en`, or None.
        split: Name of the split (`train`, `dev`, `test`), or None.
        speaker: Speaker name, or None.
        extra: Manifest keys that kikitori does not interpret.
        byte_range: Where in `audio_filepath`, such as a tar, the audio file begins, and its size in bytes; None where
            it is a file of its own.
    """

    audio_filepath: Path
    duration: float
    text: str | None = None
    offset: float = 0.0
    utt_id: str = ""
    language: str | None = None
    split: str | None = None
    speaker: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    byte_range: tuple[int, int] | None = None


@dataclass(frozen=True)
class TrainedOn:
    """What a recogniser must remember of its training data; kept in a model folder's `generation_config.json`.

    Attributes:
        labels_per_second: The highest rate of labels seen, from which the length limit follows.
        max_seconds: The longest utterance seen; longer ones are uncharted.
        language: Language of the transcripts.
        length_rule: How the length limit follows from the duration: `label_rate`, the rule of paper A's release
            (`nue_asr`), or the same for every recording in a window of `max_seconds` (`window`), or what can be said
            where the window ends with the speech (`speech_window`); see `kikitori.search.length`.
        min_labels: Fewest labels of a transcript.
    """

    labels_per_second: float
    max_seconds: float
    language: str | None = None
    length_rule: LengthRule = "label_rate"
    min_labels: int = 0


@dataclass(frozen=True)
class Word:
    """A word with its time in seconds and, where known, a confidence between 0 and 1."""

    word: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Hypothesis:
    """A candidate output of a search; every search returns it.

    Searches give labels and scores; text, confidence and speech positions are filled in by `kikitori.search`.

    Attributes:
        labels: Label unit ids without blanks, BOS or EOS.
        text: The labels as text.
        score: Log score of the whole hypothesis (natural log).
        llm_passes: Forward passes of the decoder or language model after the first that this search needed.
        complete: False when the search stopped at its length limit before the end-of-sentence label.
        speech_positions: Positions of the speech in the decoder's input, or in its memory (None without a decoder).
        scores: What each scorer gives to it, before its scale: natural logs, by the scorer's name (`ctc`, `lm`, ...);
            `length` counts labels, in lexicon search words.
        warnings: Reasons for doubt, a name and a sentence each, see `kikitori.search.guards`; of the best hypothesis.
        ctc_agreement: How far what the decoder wrote agrees with the CTC head's text, 0 to 1; None without both.
        confidence: Score per label, see `kikitori.search.confidence`; None where no search has scored it.
        words: Words with their times in the utterance, of the best hypothesis where they are asked for.
        least_log_prob: That of its least probable label, the end included (natural log); None where a search does not
            know it.
        language: Language of the text by its code, where a decoder that knows several was told it or has found it out.
    """

    labels: tuple[int, ...]
    text: str = ""
    score: float = 0.0
    llm_passes: int = 0
    complete: bool = True
    speech_positions: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)
    ctc_agreement: float | None = None
    confidence: float | None = None
    words: tuple[Word, ...] = ()
    least_log_prob: float | None = field(default=None, compare=False)
    language: str | None = None


NBest = tuple[Hypothesis, ...]
"""What a search finds in one utterance: at least one hypothesis, best first."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording with its text: the whole of a short one, up to the next pause of a long one.

    Attributes:
        start: Seconds from the start of the recording.
        end: The same.
        text: What is said.
        words: Words with times, where they are asked for.
        flags: Reasons for doubt by name, as of `Transcript`.
        reasons: What they mean here, in words, by their names.
        confidence: Score per label, as of `Hypothesis`.
        language: Of the text by its code, where it is known.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    flags: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    confidence: float | None = field(default=None, compare=False)  # its last digits depend on the batch
    language: str | None = None


@dataclass(frozen=True)
class Transcript:
    """What was recognised in one recording.

    Attributes:
        text: The whole text.
        segments: The text in pieces with times.
        words: Words with times, where they are asked for.
        nbest: All hypotheses, best first, where the search keeps more than one and the recording is one utterance.
        flags: Reasons for doubt by name, such as `length_limit`.
        duration: Seconds of audio.
        llm_passes: Forward passes of the LLM after prefill.
        reasons: What flags mean here, in words, by their names.
        ctc_agreement: How far the decoder's text agrees with the CTC head's, 0 to 1; None without both.
        language: Of most of the text by its code, where it is known.
    """

    text: str
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    nbest: tuple[Hypothesis, ...] = ()
    flags: tuple[str, ...] = ()
    duration: float = 0.0
    llm_passes: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)
    ctc_agreement: float | None = None
    language: str | None = None
