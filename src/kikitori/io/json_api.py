"""JSON over HTTP to a server that the user has named: a question, an answer, and errors of one line."""

import http.client
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from kikitori.errors import ConfigError, KikitoriError, first_line

PAUSES_S = (1.0, 5.0)
"""Before each further try."""
BUSY = (429, 502, 503, 504)
"""Answers behind which another try may have better luck."""


class ServerError(KikitoriError):
    """A server that does not answer, or refuses."""

    code = "server"


def ask(url: str, question: Mapping[str, Any] | None, *, timeout_s: float, key: str | None = None) -> dict[str, Any]:
    """What a server answers; asked again, twice, where it cannot be reached, is busy or breaks off.

    Args:
        url: Of http or https.
        question: Is posted as JSON; None gets.
        timeout_s: Longest silence.
        key: Sent as a bearer token.

    Raises:
        ConfigError: The URL is none.
        ServerError: It cannot be reached, does not answer in time, refuses, or answers with something else.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise ConfigError("no URL of a server", where=url, remedy="write one such as http://localhost:8000")
    content = None if question is None else json.dumps(question).encode()
    headers = {"Content-Type": "application/json", **({} if key is None else {"Authorization": f"Bearer {key}"})}
    request = Request(url, content, headers)  # noqa: S310  (checked above)
    for pause in (*PAUSES_S, None):
        problem = _asked(request, timeout_s)
        if isinstance(problem, dict):
            return problem
        if pause is None:
            raise problem
        time.sleep(pause)
    raise AssertionError


def _asked(request: Request, timeout_s: float) -> dict[str, Any] | ServerError:
    """The answer, or what is worth another try.

    Raises:
        ServerError: The server refuses.
    """
    url = request.full_url
    try:
        with urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            content = response.read()
        answer = json.loads(content)
    except HTTPError as error:
        with error:
            refused = ServerError(f"the server answers {error.code} ({_said(error)})", where=url)
        if error.code in BUSY:
            return refused
        raise refused from None
    except TimeoutError:
        return ServerError(f"no answer within {timeout_s:g} s", where=url, remedy="see its log")
    except (OSError, http.client.HTTPException) as error:  # refused, reset, unknown, broken off
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return ServerError(f"no answer within {timeout_s:g} s", where=url, remedy="see its log")
        return ServerError(f"the server cannot be reached ({first_line(reason)})", where=url, remedy="is it running?")
    except ValueError:
        return ServerError("the answer is no JSON, or was cut off", where=url, remedy="see its log")
    if not isinstance(answer, dict):
        raise ServerError("the answer is no JSON object", where=url, remedy="is it the right server?")
    return answer


def _said(error: HTTPError) -> str:
    """The server's own words, where it has some."""
    try:
        content = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return error.reason
    try:
        values = json.loads(content)
        found = values.get("error", values)
        message = found.get("message") if isinstance(found, dict) else found
    except (ValueError, AttributeError):
        return error.reason
    return str(message)[:300] if message else error.reason
