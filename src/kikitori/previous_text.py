"""Text that a recogniser reads before the speech, such as names and topic: what `--prompt` gives."""

from dataclasses import replace

from kikitori.errors import ModelError
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.folder import LoadedModel


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
