"""What `generation_config.json` says of a recogniser's decoder, checked as it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kikitori.errors import ModelError
from kikitori.text.units import TokenizerUnits

GENERATION = "generation_config.json"
SMALLEST_MULTILINGUAL = 51_865
"""Labels of the smallest Whisper that knows several languages; English-only ones have one less, as in OpenAI's code."""
START, TRANSCRIBE, NO_TIMES = "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"
CONTROLS = (START, TRANSCRIBE, "<|translate|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|nocaptions|>")
"""What stands before transcripts of a Whisper or beside them, and never within."""


@dataclass(frozen=True)
class Entries:
    """Those of a model's `generation_config.json`, checked as they are read.

    Attributes:
        where: The model, for errors.
        values: The entries.
        vocabulary: Labels of the decoder.
    """

    where: str | Path
    values: Mapping[str, Any]
    vocabulary: int

    def label(self, name: str) -> int:
        """An entry that is a label.

        Raises:
            ModelError: It is none.
        """
        return self.checked(name, self.values.get(name))

    def labels(self, name: str) -> tuple[int, ...]:
        """An entry that is a label or a list of some, perhaps an empty one or none at all.

        Raises:
            ModelError: It holds something else.
        """
        value = self.values.get(name) or []
        return tuple(self.checked(name, each) for each in (value if isinstance(value, list) else [value]))

    def by_name(self, name: str) -> dict[str, int]:
        """An entry that gives labels by names, these without `<|` and `|>`.

        Raises:
            ModelError: It gives something else.
        """
        value = self.values.get(name)
        pairs = value.items() if isinstance(value, dict) else ()
        return {str(key).strip("<|>"): self.checked(name, each) for key, each in pairs}

    def checked(self, name: str, value: object) -> int:
        """A value of an entry, which is a label.

        Raises:
            ModelError: It is none.
        """
        if type(value) is not int or not 0 <= value < self.vocabulary:
            raise ModelError(
                f"generation_config.json has no label of the decoder as {name} but {str(value)[:40]!r}",
                where=self.where,
                remedy="copy the file that belongs to the model",
            )
        return value


@dataclass(frozen=True)
class Source:
    """What rules are made of.

    Attributes:
        where: The model, for errors.
        values: Entries of its `generation_config.json`.
        config: Configuration of its decoder.
        units: What its decoder writes.
        language: The language that is asked for, None for none.
    """

    where: str | Path
    values: Mapping[str, Any]
    config: Any
    units: TokenizerUnits
    language: str | None = None

    @property
    def entries(self) -> Entries:
        """The same values, checked."""
        return Entries(self.where, self.values, int(self.config.vocab_size))


def derived_values(where: str | Path, config: Mapping[str, Any], units: TokenizerUnits) -> dict[str, Any]:
    """The entries of a Whisper's `generation_config.json` where it has none, as many that were trained further.

    Labels have the names that OpenAI's tokenizer gives them. A language and labels that are never written come from
    `config.json`; control labels never are. No transcript begins with a space or its end, as in OpenAI's code, unless
    an empty list in `config.json` allows it: what transformers puts there by itself is right for English alone.

    Args:
        where: The model, for errors.
        config: Its `config.json`.
        units: Of its tokenizer.

    Raises:
        ModelError: The tokenizer has not the labels that stand before a transcript.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    several = int(config.get("vocab_size", SMALLEST_MULTILINGUAL)) >= SMALLEST_MULTILINGUAL
    for token in (START, NO_TIMES, *([TRANSCRIBE] if several else [])):
        if units.special_id(token) is None:
            raise ModelError(
                f"{GENERATION} is missing, and the tokenizer has no {token}",
                where=where,
                remedy="copy the file from the model that training started from",
            )
    labels = {name: units.special_id(f"<|{name}|>") for name in LANGUAGES}
    languages = {name: label for name, label in labels.items() if several and label is not None}
    forced = [pair[1] for pair in config.get("forced_decoder_ids") or [] if isinstance(pair, list) and len(pair) == 2]
    controls = [label for token in CONTROLS if (label := units.special_id(token)) is not None]
    never = config.get("suppress_tokens") or []
    return {
        "decoder_start_token_id": units.special_id(START),
        "eos_token_id": units.eos_id,
        "no_timestamps_token_id": units.special_id(NO_TIMES),
        "is_multilingual": several,
        "lang_to_id": languages,
        "task_to_id": {"transcribe": units.special_id(TRANSCRIBE)},
        "language": next((name for name, label in languages.items() if label in forced), None),
        "suppress_tokens": [*(never if isinstance(never, list) else [never]), *controls],
        "begin_suppress_tokens": []
        if config.get("begin_suppress_tokens") == []
        else [*units.encode(" "), units.eos_id],
    }
