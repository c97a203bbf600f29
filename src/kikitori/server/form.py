"""The form of `POST /v1/audio/transcriptions`: from the fields of a request to what is asked for, or why it is refused.

Fields are OpenAI's, and `decoding` and `nbest`. What cannot be honoured is refused, not ignored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import FormData, UploadFile

from kikitori.context import Context
from kikitori.engine.base import ModelCard
from kikitori.server.errors import ApiError, bad_request

ANY_NAME = "whisper-1"
"""What clients send whose model cannot be chosen: the first model."""
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
STREAMED = ("json", "text", "verbose_json")
GRANULARITIES, INCLUDES = ("word", "segment"), ("logprobs",)
MOST_NBEST = 100
LISTS = {f"{name}[]": name for name in ("timestamp_granularities", "include")}
FIELDS = (
    *("file", "model", "response_format", "timestamp_granularities", "include", "stream", "language", "prompt"),
    *("temperature", "chunking_strategy", "decoding", "nbest", "hotwords"),
)
TRUE, FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True, eq=False)
class TranscriptionForm:
    """What a client asks for.

    Attributes:
        file: The recording.
        model: The model.
        decoding: Name of one of its searches.
        response_format: One of `FORMATS`.
        words: Whether words with times are to be in the answer.
        segments: Whether segments are.
        logprobs: Whether log-probabilities of words are.
        nbest: Most hypotheses in it.
        stream: Whether it comes as server-sent events.
        context: What the client knows of the recording beforehand.
    """

    file: UploadFile
    model: ModelCard
    decoding: str
    response_format: str
    words: bool
    segments: bool
    logprobs: bool
    nbest: int
    stream: bool
    context: Context = field(default_factory=Context)

    @property
    def word_times(self) -> bool:
        """Whether the answer needs times of words: subtitles do where there can be, and segments for `avg_logprob`."""
        timed = self.response_format in ("srt", "vtt", "verbose_json")
        return self.words or self.logprobs or (timed and self.model.word_times)


def find_model(name: str, models: Sequence[ModelCard]) -> ModelCard:
    """The model that a client names.

    Raises:
        ApiError: There is none.
    """
    if name == ANY_NAME:
        return models[0]
    for card in models:
        if card.name == name:
            return card
    known = ", ".join(card.name for card in models)
    raise ApiError(404, f"no model {name!r}; known are {known}", code="model_not_found", param="model")


def find_search(name: str | None, card: ModelCard) -> str:
    """The search that a client names, or the model's own.

    Raises:
        ApiError: There is none of this name.
    """
    names = [search.name for search in card.searches]
    if name is None or name == "":
        return names[0]
    if name not in names:
        raise bad_request(f"{card.name} has no search {name!r}; known are {', '.join(names)}", "decoding")
    return name


def check_language(language: str | None, card: ModelCard) -> None:
    """Refuses a language that is not the model's.

    Raises:
        ApiError: It is not.
    """
    if not language or language.lower() == (card.language or "").lower():
        return
    if card.language is None:
        message = f"{card.name} finds out the language itself; leave it out, or start the server with --language"
    else:
        message = f"{card.name} writes {card.language!r}, not {language!r}"
    raise bad_request(message, "language", "unsupported_language")


def read_form(form: FormData, models: Sequence[ModelCard]) -> TranscriptionForm:
    """What a form asks for.

    Raises:
        ApiError: A field is missing, unknown or wrong, or asks for what the model cannot.
    """
    values = _values(form)
    if not isinstance(file := form.get("file"), UploadFile):
        raise bad_request("no recording: send it as the file 'file'", "file", "missing")
    if "model" not in values:
        raise bad_request("no model: name one of GET /v1/models", "model", "missing")
    card = find_model(values["model"][-1], models)
    decoding = find_search(_one(values, "decoding"), card)
    check_language(_one(values, "language"), card)
    context = _context(values, card, decoding)
    if _number(values, "temperature", float, 0.0, 1.0):
        message = "only 0: nothing is drawn at random; a search named sampling, where there is one, does that"
        raise bad_request(message, "temperature", "unsupported")
    if _one(values, "chunking_strategy") not in (None, "", "auto"):
        raise bad_request("only 'auto'", "chunking_strategy", "unsupported")
    answer = _choice(values, "response_format", FORMATS) or "json"
    stream = _choice(values, "stream", (*TRUE, *FALSE)) in TRUE
    if stream and answer not in STREAMED:
        raise bad_request(f"{answer} is not streamed; use {', '.join(STREAMED)}", "response_format")
    granularities = _choices(values, "timestamp_granularities", GRANULARITIES)
    if granularities and answer != "verbose_json":
        raise bad_request("only with response_format verbose_json", "timestamp_granularities")
    logprobs = bool(_choices(values, "include", INCLUDES))
    if logprobs and answer != "json":
        raise bad_request("only with response_format json", "include")
    words = "word" in granularities
    if (words or logprobs) and not card.word_times:
        param = "timestamp_granularities" if words else "include"
        raise bad_request(f"{card.name} has no CTC head, which times and confidences come from", param, "unsupported")
    return TranscriptionForm(
        file=file,
        model=card,
        decoding=decoding,
        response_format=answer,
        words=words,
        segments=answer == "verbose_json" and (not granularities or "segment" in granularities),
        logprobs=logprobs,
        nbest=int(_number(values, "nbest", int, 0, MOST_NBEST) or 0),
        stream=stream,
        context=context,
    )


def _context(values: dict[str, list[str]], card: ModelCard, decoding: str) -> Context:
    prompt = (_one(values, "prompt") or "").strip()
    if prompt and not card.prompt:
        raise bad_request(f"{card.name} was not trained to read a prompt; leave it out", "prompt", "unsupported")
    lines = (line.strip() for line in (_one(values, "hotwords") or "").splitlines())
    hotwords = tuple(dict.fromkeys(filter(None, lines)))
    takers = [search.name for search in card.searches if search.hotwords]
    if hotwords and decoding not in takers:
        remedy = f"use {', '.join(takers)}" if takers else "leave them out"
        raise bad_request(f"{decoding} of {card.name} takes no hotwords; {remedy}", "hotwords", "unsupported")
    return Context(prompt, hotwords)


def _values(form: FormData) -> dict[str, list[str]]:
    """The fields but the file; lists with or without brackets."""
    values: dict[str, list[str]] = {}
    for key, value in form.multi_items():
        name = LISTS.get(key, key)
        if name not in FIELDS:
            raise bad_request(f"no field {key!r} here", key[:100], "unknown_parameter")
        if name == "file":
            continue
        if not isinstance(value, str):
            raise bad_request("is a file, not a text", key)
        values.setdefault(name, []).append(value)
    return values


def _one(values: dict[str, list[str]], name: str) -> str | None:
    found = values.get(name, [])
    if len(found) > 1:
        raise bad_request("is given more than once", name)
    return found[0] if found else None


def _choice(values: dict[str, list[str]], name: str, choices: Sequence[str]) -> str | None:
    value = _one(values, name)
    if value is None or value == "":
        return None
    if value.lower() not in choices:
        raise bad_request(f"{value[:100]!r} is none of {', '.join(choices)}", name)
    return value.lower()


def _choices(values: dict[str, list[str]], name: str, choices: Sequence[str]) -> list[str]:
    for value in values.get(name, []):
        if value not in choices:
            raise bad_request(f"{value[:100]!r} is none of {', '.join(choices)}", name)
    return values.get(name, [])


def _number(values: dict[str, list[str]], name: str, kind: Callable[[str], Any], least: float, most: float) -> float:
    value = _one(values, name)
    if value is None or value == "":
        return 0.0
    try:
        number = float(kind(value))
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise bad_request(f"{value[:100]!r} is no number from {least:g} to {most:g}", name)
    return number
