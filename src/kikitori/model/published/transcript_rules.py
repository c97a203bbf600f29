"""What a Whisper-type folder says of its transcripts: the labels before them, and those that are never written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from kikitori.errors import ModelError

ENGLISH = "en"
PREVIOUS = "prev_sot_token_id"
"""Of `generation_config.json`: the label before previous text; many folders leave it to the tokenizer."""


@dataclass(frozen=True)
class TranscriptRules:
    """What `generation_config.json` says about transcripts.

    Attributes:
        start: The label before everything, "start of transcript".
        no_timestamps: The last label of the prompt: text without times follows.
        eos: The label that ends a transcript.
        languages: The label of each language by its code, such as `en`; empty for an English-only model.
        transcribe: The label of the task, None for an English-only model.
        suppressed: Labels that are never written.
        suppressed_first: Labels that no transcript begins with.
        alignment_heads: Layer and number of the heads of cross-attention that follow the speech; empty if they are not
            known.
        previous: The label before text that stands before the transcript ("start of previous"), None if it has none.
    """

    start: int
    no_timestamps: int
    eos: int
    languages: Mapping[str, int]
    transcribe: int | None
    suppressed: tuple[int, ...]
    suppressed_first: tuple[int, ...]
    alignment_heads: tuple[tuple[int, int], ...] = ()
    previous: int | None = None

    @property
    def prompt_size(self) -> int:
        """Labels before a transcript."""
        return 4 if self.languages else 2

    def prompts(self, languages: Sequence[int]) -> list[list[int]]:
        """The labels before each transcript, from those of its language, which an English-only model leaves out."""
        if self.transcribe is None:
            return [[self.start, self.no_timestamps] for _ in languages]
        return [[self.start, language, self.transcribe, self.no_timestamps] for language in languages]


def read_rules(path_or_id: str | Path, values: Mapping[str, Any], config: Any) -> TranscriptRules:
    """What the entries of `generation_config.json` say about transcripts.

    Args:
        path_or_id: The model, for errors.
        values: The entries.
        config: Configuration of the network.

    Raises:
        ModelError: An entry is missing, or is no label or head of the decoder.
    """
    vocabulary = int(config.vocab_size)

    def label(name: str, value: object) -> int:
        if type(value) is not int or not 0 <= value < vocabulary:
            raise ModelError(
                f"generation_config.json has no label of the decoder as {name} but {str(value)[:40]!r}",
                where=path_or_id,
                remedy="copy the file that belongs to the model",
            )
        return value

    def labels(name: str) -> tuple[int, ...]:
        value = values.get(name) or []
        return tuple(label(name, each) for each in (value if isinstance(value, list) else [value]))

    def by_name(name: str) -> dict[str, int]:
        value = values.get(name)
        pairs = value.items() if isinstance(value, dict) else ()
        return {str(key).strip("<|>"): label(name, each) for key, each in pairs}

    def heads(name: str) -> tuple[tuple[int, int], ...]:
        value = values.get(name) or []
        sizes = int(config.decoder_layers), int(config.decoder_attention_heads)
        for pair in value if isinstance(value, list) else [value]:
            fits = isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair)
            if not fits or not all(0 <= number < size for number, size in zip(pair, sizes, strict=True)):
                raise ModelError(
                    f"generation_config.json has no head of the decoder among its {name} but {str(pair)[:40]!r}",
                    where=path_or_id,
                    remedy="copy the file that belongs to the model",
                )
        return tuple((layer, head) for layer, head in value)

    multilingual = bool(values.get("is_multilingual", "lang_to_id" in values))
    return TranscriptRules(
        start=label("decoder_start_token_id", values.get("decoder_start_token_id")),
        no_timestamps=label("no_timestamps_token_id", values.get("no_timestamps_token_id")),
        eos=label("eos_token_id", values.get("eos_token_id")),
        languages=by_name("lang_to_id") if multilingual else {},
        transcribe=label("task_to_id", by_name("task_to_id").get("transcribe")) if multilingual else None,
        suppressed=labels("suppress_tokens"),
        suppressed_first=labels("begin_suppress_tokens"),
        alignment_heads=heads("alignment_heads"),
        previous=None if (previous := values.get(PREVIOUS)) is None else label(PREVIOUS, previous),
    )


def language_code(path_or_id: str | Path, rules: TranscriptRules, language: str | None) -> str | None:
    """The code of a language that a model is asked for, as its rules name it; None if it shall find it out.

    Raises:
        ModelError: It does not know the language.
    """
    known = [*rules.languages] or [ENGLISH]
    name = None if language is None else language.lower().strip("<|>")
    code = name and TO_LANGUAGE_CODE.get(name, name)
    if code is not None and code not in known:
        raise ModelError(
            f"the model does not know the language '{language}'",
            where=path_or_id,
            remedy=f"use one of {', '.join(known)}" if len(known) < 20 else "give its code, such as en or ja",
        )
    return code if rules.languages else ENGLISH
