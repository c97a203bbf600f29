"""What stands before every request: keys, sites and hosts that may ask, headers of every answer, one line of log.

An ASGI middleware. Texts, keys and names of files are in no log.
"""

import logging
from time import monotonic
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kikitori.server.errors import ApiError
from kikitori.server.metrics import Metrics
from kikitori.server.settings import Settings, is_loopback

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
GUARDED = ("/v1/", "/metrics")
LIVE = "/v1/live"
OTHER = "other"

log = logging.getLogger("kikitori.server")


class Guard:
    """Refuses who may not ask; adds headers; counts and logs."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began, name, status = monotonic(), uuid4().hex[:12], 500

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = name
                for key, value in HEADERS.items():
                    headers[key] = value
                if scope["path"].startswith(GUARDED):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        arrived = 0

        async def limited() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            self._check_size(arrived)
            return message

        try:
            self._check(scope)
            await self._app(scope, limited if scope["type"] == "http" else receive, named)
        except ApiError as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": error.message})
            else:
                await error.response()(scope, receive, named)
        finally:
            if scope["type"] == "http":
                seconds = monotonic() - began
                route = scope.get("route")
                self._metrics.count(getattr(route, "path", OTHER) or OTHER, status, seconds)
                log.info("%s %s %d %.3f s", name, scope["method"], status, seconds)

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._settings.max_body_bytes:
            message = f"more than {self._settings.uploads.max_bytes} bytes; send a shorter or compressed recording"
            raise ApiError(413, message, code="too_large", headers={"Connection": "close"})

    def _check(self, scope: Scope) -> None:
        """Raises ApiError: a page of another site asks, or there is no right key."""
        headers, settings = Headers(scope=scope), self._settings
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise ApiError(403, "pages of other sites may not ask", code="origin")
        if not settings.keys and settings.loopback and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            raise ApiError(403, "asked for under another name than this machine's own", code="host")
        length = headers.get("content-length", "0")
        self._check_size(int(length) if length.isdecimal() else 0)
        if not settings.keys or not scope["path"].startswith(GUARDED):
            return
        if scope["path"] == LIVE and "authorization" not in headers:
            return  # browsers cannot set it: the first message has the key
        value = headers.get("authorization", "").encode("latin-1").decode("utf-8", "replace")
        kind, _, key = value.partition(" ")
        if kind.lower() != "bearer" or not settings.keys.accept(key.strip()):
            raise ApiError(401, "no right key", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
