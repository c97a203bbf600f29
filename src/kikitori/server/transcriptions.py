"""`POST /v1/audio/transcriptions`: a form with a recording comes in, its transcript goes out, whole or as a stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import TypeVar

from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from kikitori.engine import base
from kikitori.engine.base import Engine, Job
from kikitori.server.answers import Deltas, answer, event
from kikitori.server.errors import ApiError, api_error, too_late
from kikitori.server.form import TranscriptionForm, read_form
from kikitori.server.settings import Settings
from kikitori.server.uploads import Decoders

MOST_FIELDS, MOST_FIELD_BYTES = 32, 16 * 1024

T = TypeVar("T")


class Transcriptions:
    """The route, over an engine and decoders of uploads."""

    def __init__(self, engine: Engine, decoders: Decoders, settings: Settings) -> None:
        self._engine, self._decoders, self._settings = engine, decoders, settings
        self._reading = 0

    async def __call__(self, request: Request) -> Response:
        """Answers a request.

        Raises:
            ApiError: It is refused, or fails.
            ClientDisconnect: The client has left.
        """
        self._engine.check_room(0.0)
        if self._reading + self._engine.load().jobs >= self._settings.most_requests:
            raise ApiError(429, "too many requests at a time", code="busy", headers={"Retry-After": "1"})
        self._reading += 1
        deadline = asyncio.get_running_loop().time() + self._settings.deadline_seconds
        try:
            form, job = await self._begin(request, deadline)
        finally:
            self._reading -= 1
            await request.close()
        if form.stream:
            return _EventStream(job, _events(job, form, deadline, self._settings.deadline_seconds))
        try:
            async with asyncio.timeout_at(deadline):
                found = answer(await _unless_left(request, job.transcript()), form)
        except TimeoutError:
            raise too_late(self._settings.deadline_seconds) from None
        finally:
            job.cancel()
        return PlainTextResponse(found) if isinstance(found, str) else JSONResponse(found)

    async def _begin(self, request: Request, deadline: float) -> tuple[TranscriptionForm, Job]:
        form = read_form(await self._fields(request), self._engine.models)
        size = form.file.size or 0
        if size > self._settings.uploads.max_bytes:
            raise ApiError(413, f"the recording has {size} bytes; send a shorter or compressed one", param="file")
        try:
            async with asyncio.timeout_at(deadline):
                blocks = await _unless_left(request, self._decoders.decode(form.file, size))
        except TimeoutError:
            raise too_late(self._settings.deadline_seconds) from None
        asked = base.Request(blocks, form.model.name, form.decoding, form.word_times, context=form.context)
        return form, self._engine.submit(asked)

    async def _fields(self, request: Request) -> FormData:
        try:
            async with asyncio.timeout(self._settings.upload_seconds):
                return await request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
        except TimeoutError:
            message = f"the request did not arrive within {self._settings.upload_seconds:g} s"
            raise ApiError(408, message, code="timeout", headers={"Connection": "close"}) from None


class _EventStream(StreamingResponse):
    """Server-sent events of a job, which is cancelled when the client leaves, also before the first one."""

    def __init__(self, job: Job, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.cancel()


async def _events(job: Job, form: TranscriptionForm, deadline: float, seconds: float) -> AsyncIterator[str]:
    """The events; the status has been sent, so that an error is one, the last."""
    deltas = Deltas(form)
    try:
        async with asyncio.timeout_at(deadline), aclosing(job.segments()) as segments:
            async for segment in segments:
                yield event(deltas.delta(segment))
        yield event(deltas.done(await job.transcript()))
    except TimeoutError:
        yield event(too_late(seconds).body)
    except Exception as error:  # noqa: BLE001 the engine has logged it
        yield event(api_error(error).body)


async def _unless_left(request: Request, work: Awaitable[T]) -> T:
    """The result of some work, which is given up when the client leaves."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
