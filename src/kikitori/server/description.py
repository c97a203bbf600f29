"""What `/openapi.json` says about the routes, as arguments of FastAPI's decorators."""

from collections.abc import Sequence
from typing import Any

from kikitori.engine.base import ModelCard
from kikitori.server.form import ANY_NAME, FORMATS, GRANULARITIES, INCLUDES, MOST_NBEST

_STRING, _NUMBER, _BOOLEAN = {"type": "string"}, {"type": "number"}, {"type": "boolean"}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": required | (optional or {}), "required": [*required]}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _or_null(of: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [of, {"type": "null"}]}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _body(what: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": what, "content": content}


_ERROR = _object(
    {
        "error": _object(
            {"message": _STRING, "type": _STRING, "param": _or_null(_STRING), "code": _or_null(_STRING)},
        )
    }
)
_WORD = _object({"word": _STRING, "start": _NUMBER, "end": _NUMBER, "confidence": _or_null(_NUMBER)})
_REASONS = {"type": "object", "additionalProperties": _STRING}
_SEGMENT = _object(
    {
        "id": {"type": "integer"},
        **dict.fromkeys(("start", "end", "compression_ratio", "no_speech_prob", "temperature"), _NUMBER),
        "text": _STRING,
        "seek": {"type": "integer"},
        "tokens": _list({"type": "integer"}),
        "avg_logprob": _or_null(_NUMBER),
        "flags": _list(_STRING),
        "reasons": _REASONS,
    }
)
_HYPOTHESIS = _object(
    {
        "text": _STRING,
        "score": _or_null(_NUMBER),
        "scores": {"type": "object", "additionalProperties": _or_null(_NUMBER)},
        "complete": _BOOLEAN,
    }
)
_USAGE = _object({"type": {"const": "duration"}, "seconds": _NUMBER})
_LOGPROB = _object({"token": _STRING, "bytes": _list({"type": "integer"}), "logprob": _or_null(_NUMBER)})
_PLAIN = _object({"text": _STRING, "usage": _USAGE}, {"logprobs": _list(_LOGPROB)})
_VERBOSE = _object(
    {
        "task": {"const": "transcribe"},
        "language": _STRING,
        "duration": _NUMBER,
        "text": _STRING,
        "usage": _USAGE,
        "model": _STRING,
        "decoding": _STRING,
        "flags": _list(_STRING),
        "reasons": _REASONS,
        "ctc_agreement": _or_null(_NUMBER),
        "nbest": _list(_HYPOTHESIS),
    },
    {"segments": _list(_SEGMENT), "words": _list(_WORD)},
)
_MODEL = _object(
    {
        "id": _STRING,
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": _STRING,
        "language": _or_null(_STRING),
        "decoder": _or_null(_STRING),
        "word_times": _BOOLEAN,
        "live_partials": _BOOLEAN,
        "longest_utterance": _NUMBER,
        "searches": _list(
            _object({"name": _STRING, "default": _BOOLEAN, "kind": {"enum": ["integration", "combination"]}})
        ),
    }
)


def _errors(**what: str) -> dict[int | str, dict[str, Any]]:
    texts = {"403": "A page of another site, or another host name", **{k.removeprefix("s"): v for k, v in what.items()}}
    return {int(status): _body(text, _json(_ERROR)) for status, text in texts.items()}


_KEY = {"s401": "No right key"}

MODELS: dict[str, Any] = {
    "summary": "The models and their searches",
    "operation_id": "list_models",
    "responses": {
        200: _body("The models", _json(_object({"object": {"const": "list"}, "data": _list(_MODEL)}))),
        **_errors(**_KEY),
    },
}
MODEL: dict[str, Any] = {
    "summary": "A model",
    "operation_id": "retrieve_model",
    "responses": {200: _body("The model", _json(_MODEL)), **_errors(**_KEY, s404="No such model")},
}
_STATUS = _json(_object({"status": _STRING}))
HEALTH: dict[str, Any] = {
    "summary": "Whether the process lives",
    "operation_id": "health",
    "responses": {200: _body("It does", _STATUS), **_errors()},
}
READY: dict[str, Any] = {
    "summary": "Whether requests are taken",
    "operation_id": "ready",
    "responses": {200: _body("They are", _STATUS), **_errors(s429="The queue is full", s503="The server ends")},
}
METRICS: dict[str, Any] = {
    "summary": "Numbers for Prometheus",
    "operation_id": "metrics",
    "responses": {200: _body("The numbers", {"text/plain": {"schema": _STRING}}), **_errors(**_KEY)},
}


def transcriptions(models: Sequence[ModelCard]) -> dict[str, Any]:
    """Of the route for recordings, with the names of models and searches."""
    return {
        "summary": "Transcribe a recording",
        "operation_id": "create_transcription",
        "openapi_extra": {
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _form(models)}}}
        },
        "responses": {
            200: _body(
                "The transcript",
                {
                    **_json({"anyOf": [_PLAIN, _VERBOSE]}),
                    "text/plain": {"schema": _STRING},
                    "text/event-stream": {"schema": _STRING},
                },
            ),
            **_errors(
                **_KEY,
                s400="A wrong field, or what the model cannot do",
                s404="No such model",
                s408="The request took too long to arrive",
                s413="Too large",
                s422="No audio that can be read",
                s429="The queue is full",
                s503="The deadline is over, or the server ends",
            ),
        },
    }


def _prompt(models: Sequence[ModelCard]) -> dict[str, Any]:
    if names := [card.name for card in models if card.prompt]:
        return {"type": "string", "description": f"Text before the speech, such as names; for {', '.join(names)}."}
    return {"type": "string", "maxLength": 0, "description": "No model reads one."}


def _hotwords(models: Sequence[ModelCard]) -> dict[str, Any]:
    if names := [*dict.fromkeys(search.name for card in models for search in card.searches if search.hotwords)]:
        description = f"Names and terms to prefer where they are heard, one a line; for {', '.join(names)}."
        return {"type": "string", "description": description}
    return {"type": "string", "maxLength": 0, "description": "No search takes any."}


def _form(models: Sequence[ModelCard]) -> dict[str, Any]:
    names = [*(card.name for card in models), ANY_NAME]
    searches = [*dict.fromkeys(search.name for card in models for search in card.searches)]
    return {
        "type": "object",
        "required": ["file", "model"],
        "additionalProperties": False,
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "The recording."},
            "model": {"type": "string", "enum": names, "description": "An id of GET /v1/models; or the first one."},
            "response_format": {"type": "string", "enum": [*FORMATS], "default": "json"},
            "timestamp_granularities[]": _list({"type": "string", "enum": [*GRANULARITIES]}),
            "include[]": _list({"type": "string", "enum": [*INCLUDES]}),
            "stream": {"type": "boolean", "default": False},
            "language": {"type": "string", "description": "That of the model, or nothing."},
            "prompt": _prompt(models),
            "temperature": {"type": "number", "minimum": 0, "maximum": 0, "default": 0},
            "chunking_strategy": {"type": "string", "enum": ["auto"]},
            "decoding": {"type": "string", "enum": searches, "description": "The model's own by default."},
            "hotwords": _hotwords(models),
            "nbest": {"type": "integer", "minimum": 0, "maximum": MOST_NBEST, "default": 0},
        },
    }
