"""What a user knows of recordings beforehand: text to read before them (`--prompt`), phrases in them (`--hotwords`)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kikitori.errors import ModelError
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.folder import LoadedModel
from kikitori.scorers.hotwords.phrases import Hotwords, compile_hotwords
from kikitori.search.options import (
    BeamSearch,
    CascadeSearch,
    CTCBeamSearch,
    Decoding,
    JointSearch,
    JointTimeSyncSearch,
    RescoringSearch,
    ShallowFusionSearch,
)


@dataclass(frozen=True)
class Context:
    """What is known of recordings before they are heard.

    Attributes:
        prompt: Text that the model reads before each utterance, such as names or the topic; empty for none.
        hotwords: Names and terms that may occur; empty for none.
    """

    prompt: str = ""
    hotwords: tuple[str, ...] = ()


def reads_prompts(loaded: LoadedModel) -> bool:
    """Whether a recogniser was trained to read text before the speech: Whisper, as text that was said before."""
    return isinstance(loaded.model, EncoderDecoder) and loaded.model.rules.previous is not None


def with_prompt(loaded: LoadedModel, prompt: str, name: str) -> LoadedModel:
    """A recogniser with the same weights that reads text before the speech; the same one where there is no text.

    The labels are those of OpenAI's Whisper: of a space and the text, the last 223 (see
    `EncoderDecoder.with_previous_text`).

    Args:
        loaded: The recogniser.
        prompt: The text.
        name: Of the recogniser, for errors.

    Raises:
        ModelError: It was not trained to read any.
    """
    if not (text := prompt.strip()):
        return loaded
    if not isinstance(loaded.model, EncoderDecoder):
        raise ModelError("the model was not trained to read a prompt", where=name, remedy="leave it out")
    model = loaded.model.with_previous_text(loaded.units.encode(f" {text}"))
    return replace(loaded, model=model, trained_on=model.trained_on)


def hotwords_of(loaded: LoadedModel, phrases: Sequence[str], options: Decoding, name: str) -> Hotwords | None:
    """Phrases for a recogniser and a search; None without any.

    Args:
        loaded: The recogniser.
        phrases: Names and terms.
        options: The search.
        name: Of the recogniser, for errors.

    Raises:
        ModelError: The recogniser has no CTC head, or the search takes no hotwords.
        ConfigError: There are more than 10,000, or none that the CTC head can write.
    """
    if not phrases:
        return None
    if not _has_ctc(loaded):
        raise ModelError("hotwords need a CTC head, which hears them", where=name, remedy="leave them out")
    if not _takes_hotwords(options):
        of_first = f" of '{options.first.search}'" if isinstance(options, RescoringSearch) else ""
        raise ModelError(
            f"'{options.search}'{of_first} takes no hotwords",
            where=name,
            remedy="use ctc_beam, shallow_fusion, joint, joint_time_sync, beam, or rescoring of one of these",
        )
    return compile_hotwords(tuple(phrases), loaded.ctc_units, loaded.trained_on.language)


def takes_hotwords(loaded: LoadedModel, options: Decoding) -> bool:
    """Whether a recogniser and a search take hotwords."""
    return _has_ctc(loaded) and _takes_hotwords(options)


def _has_ctc(loaded: LoadedModel) -> bool:
    return bool(loaded.model.acoustic.config.ctc_layers)


def _takes_hotwords(options: Decoding) -> bool:
    """Whether a search goes over labels with other scorers, several hypotheses at a time."""
    match options:
        case RescoringSearch():
            return _takes_hotwords(options.first)
        case CascadeSearch():
            return _takes_hotwords(options.second)
        case CTCBeamSearch() | ShallowFusionSearch() | BeamSearch() | JointSearch() | JointTimeSyncSearch():
            return True
    return False
