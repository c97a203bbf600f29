"""The application: routes over an `Engine`, errors in OpenAI's form, and the page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from kikitori import __version__
from kikitori.engine.base import Engine, ModelCard
from kikitori.errors import KikitoriError
from kikitori.server import description
from kikitori.server.errors import ApiError, api_error
from kikitori.server.form import find_model
from kikitori.server.live import Live
from kikitori.server.metrics import CONTENT_TYPE, Metrics
from kikitori.server.security import Guard
from kikitori.server.settings import Settings
from kikitori.server.transcriptions import Transcriptions
from kikitori.server.uploads import Decoders

PAGE = Path(__file__).parent / "page"
LEFT = 499
"""Counted where a client has left before its answer."""


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """The application over an engine, which it closes when it ends."""
    decoders, metrics = Decoders(settings.uploads), Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()
        await decoders.close()

    app = FastAPI(
        title="kikitori",
        version=__version__,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    _add_errors(app)
    transcriptions = Transcriptions(engine, decoders, settings)

    @app.post("/v1/audio/transcriptions", **description.transcriptions(engine.models))
    async def transcribe(request: Request) -> Response:
        return await transcriptions(request)

    @app.get("/v1/models", **description.MODELS)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [*map(_model, engine.models)]}

    @app.get("/v1/models/{name:path}", **description.MODEL)
    async def model(name: str) -> dict[str, Any]:
        return _model(find_model(name, engine.models))

    @app.get("/healthz", **description.HEALTH)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", **description.READY)
    async def ready() -> dict[str, str]:
        engine.check_room(0.0)
        return {"status": "ready"}

    @app.get("/metrics", **description.METRICS)
    async def numbers() -> Response:
        return PlainTextResponse(metrics.text(engine.load()), media_type=CONTENT_TYPE)

    live = Live(engine, settings, metrics)

    @app.websocket("/v1/live")
    async def speak(socket: WebSocket) -> None:
        await live(socket)

    page = StaticFiles(directory=PAGE)

    @app.get("/", include_in_schema=False)
    @app.get("/{name}", include_in_schema=False)
    async def static(request: Request, name: str = "index.html") -> Response:
        return await page.get_response(name, request.scope)

    return app


def _model(card: ModelCard) -> dict[str, Any]:
    return {
        "id": card.name,
        "object": "model",
        "created": 0,
        "owned_by": "kikitori",
        "language": card.language,
        "decoder": card.decoder,
        "word_times": card.word_times,
        "live_partials": card.ctc,
        "longest_utterance": card.longest_s,
        "searches": [{"name": search.name, "default": search.default, "kind": search.kind} for search in card.searches],
    }


def _add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    async def ours(_: Request, error: Exception) -> JSONResponse:
        return api_error(error).response()

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101
        message = str(error.detail or HTTPStatus(error.status_code).phrase)
        return ApiError(error.status_code, message, headers=error.headers).response()

    async def left(_: Request, __: Exception) -> Response:
        return Response(status_code=LEFT)

    app.add_exception_handler(ApiError, ours)
    app.add_exception_handler(KikitoriError, ours)
    app.add_exception_handler(Exception, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, left)
