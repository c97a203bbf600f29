"""Errors as OpenAI's API gives them: an HTTP status and `{"error": {"message", "type", "param", "code"}}`."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from kikitori.engine.base import ClosedError, QueueFullError
from kikitori.errors import AudioError, ConfigError, KikitoriError

RETRY_S = 5  # where nothing better is known


class ApiError(Exception):
    """A request that is refused or fails.

    Args:
        status: Of HTTP.
        message: For people, one line.
        code: For programs.
        param: The field concerned.
        headers: Of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})
        super().__init__(message)

    @property
    def body(self) -> dict[str, Any]:
        """What a client reads."""
        kind = "server_error" if self.status >= 500 else "rate_limit_error" if self.status == 429 else _INVALID
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The response to the request."""
        return JSONResponse(self.body, self.status, self.headers)


_INVALID = "invalid_request_error"


def bad_request(message: str, param: str | None, code: str = "invalid_value") -> ApiError:
    """The error of a field."""
    return ApiError(400, message, code=code, param=param)


def too_late(seconds: float) -> ApiError:
    """The error of a request whose deadline is over."""
    message = f"not done within {seconds:g} s; try again later, or with a shorter recording"
    return ApiError(503, message, code="deadline", headers={"Retry-After": str(RETRY_S)})


def api_error(error: BaseException) -> ApiError:
    """What a client is told of an error; nothing about the server's inside."""
    match error:
        case ApiError():
            return error
        case QueueFullError():
            return ApiError(429, str(error), code=error.code, headers={"Retry-After": str(error.retry_after)})
        case ClosedError():
            return ApiError(503, str(error), code=error.code, headers={"Retry-After": str(RETRY_S)})
        case AudioError():
            return ApiError(422, str(error), code=error.code, param="file")
        case ConfigError():  # the server's own options were checked when it began
            return ApiError(400, str(error), code=error.code)
        case KikitoriError():
            return ApiError(500, str(error), code=error.code)
        case _:
            return ApiError(500, "internal error; the server's log has more", code="internal")
