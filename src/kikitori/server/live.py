"""`/v1/live`: a WebSocket on which somebody speaks and reads along.

16-bit PCM comes in. While an utterance is being said, the CTC head's text of it goes out again and again (`partial`);
when it is over, the text of the model's search, once and for good (`final`). See docs/server.md for the messages.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from starlette.websockets import WebSocket, WebSocketDisconnect

from kikitori.data.augment import Waveform
from kikitori.engine.base import Engine, Job, ModelCard, QueueFullError, Request
from kikitori.io.audio import SAMPLE_RATE
from kikitori.search.options import CTCGreedySearch
from kikitori.segment import chunks
from kikitori.segment.live import LiveUtterance, LiveUtterances
from kikitori.server.answers import word_of
from kikitori.server.errors import ApiError, api_error, bad_request
from kikitori.server.form import find_model, find_search
from kikitori.server.metrics import Metrics
from kikitori.server.settings import Settings
from kikitori.text.words import join_words
from kikitori.types import Transcript, Word

LONGEST_S = 15.0  # of an utterance; what is longer is cut
PARTIAL_S = 0.3  # of new speech between two partial texts
START_S, IDLE_S, AGAIN_S = 10.0, 30.0, 0.25  # for the first message, without any message, for room in the queue
MOST_WAITING = 4  # utterances whose final text is not known; then no more is read
LEAST_HZ, MOST_HZ = 8_000, 48_000
KEYS = ("type", "model", "decoding", "sample_rate", "words", "key")
POLICY, DONE = 1008, 1000


@dataclass(frozen=True)
class Start:
    """What a client asks for in its first message."""

    model: ModelCard
    decoding: str
    sample_rate: int
    words: bool


def read_start(message: object, models: Iterable[ModelCard]) -> Start:
    """The first message of a client.

    Raises:
        ApiError: It is none, or asks for what there is not.
    """
    if not isinstance(message, Mapping) or message.get("type") != "start":
        raise bad_request("the first message is not {'type': 'start', ...}", "type")
    if unknown := [key for key in message if key not in KEYS]:
        raise bad_request(f"no field {unknown[0]!r} here", str(unknown[0])[:100], "unknown_parameter")
    cards = [*models]
    card = find_model(_text(message, "model"), cards) if message.get("model") else cards[0]
    decoding = find_search(_text(message, "decoding"), card)
    rate = message.get("sample_rate", SAMPLE_RATE)
    if type(rate) is not int or not LEAST_HZ <= rate <= MOST_HZ:
        raise bad_request(f"no whole number from {LEAST_HZ} to {MOST_HZ}", "sample_rate")
    words = message.get("words", False)
    if type(words) is not bool:
        raise bad_request("neither true nor false", "words")
    if words and not card.word_times:
        raise bad_request(f"{card.name} has no CTC head, which times come from", "words", "unsupported")
    return Start(card, decoding, rate, words)


class Live:
    """The route, over an engine."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self._engine, self._settings, self._metrics = engine, settings, metrics

    async def __call__(self, socket: WebSocket) -> None:
        """Serves a connection to its end."""
        await socket.accept()
        self._metrics.live += 1
        try:
            if self._metrics.live > self._settings.most_live:
                raise ApiError(429, "too many live connections", code="busy")
            start = await self._start(socket)
            async with asyncio.timeout(self._settings.live_seconds):
                await _Session(socket, self._engine, start, self._settings.deadline_seconds).run()
            await socket.close(DONE)
        except TimeoutError:
            await _refuse(socket, ApiError(408, "the connection lasted too long, or said nothing", code="timeout"))
        except WebSocketDisconnect:
            pass
        except Exception as error:  # noqa: BLE001 the engine has logged it
            await _refuse(socket, api_error(error))
        finally:
            self._metrics.live -= 1

    async def _start(self, socket: WebSocket) -> Start:
        async with asyncio.timeout(START_S):
            message = _parsed((await _receive(socket)).get("text") or "")
        if self._settings.keys and "authorization" not in socket.headers:
            key = message.get("key") if isinstance(message, Mapping) else None
            if not isinstance(key, str) or not self._settings.keys.accept(key):
                raise ApiError(401, "no right key", code="invalid_api_key", param="key")
        return read_start(message, self._engine.models)


class _Session:
    """One connection after its first message."""

    def __init__(self, socket: WebSocket, engine: Engine, start: Start, deadline_s: float) -> None:
        self._socket, self._engine, self._start, self._deadline_s = socket, engine, start, deadline_s
        self._utterances = LiveUtterances(
            chunks.new_segmenter(), round(min(start.model.longest_s, LONGEST_S) * SAMPLE_RATE)
        )
        self._resampler = soxr.ResampleStream(start.sample_rate, SAMPLE_RATE, 1, dtype="float32")
        self._finals: asyncio.Queue[tuple[LiveUtterance, Job] | None] = asyncio.Queue(MOST_WAITING)
        self._jobs: set[Job] = set()
        self._partial: asyncio.Task[None] | None = None
        self._shown = (0, 0)  # utterance and its samples of the last partial text
        self._ended = 0  # utterances that are over: no partial text of them is sent any more
        self._samples = 0
        self._texts: list[str] = []

    async def run(self) -> None:
        """Reads and answers until the client stops, or sends nothing any more."""
        ready = {"type": "ready", "model": self._start.model.name, "decoding": self._start.decoding}
        await self._send(ready | {"partials": self._start.model.ctc})
        try:
            async with asyncio.TaskGroup() as tasks:
                answering = tasks.create_task(self._answer())
                await self._read()
                await self._finals.put(None)
                await answering
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            if self._partial is not None:
                self._partial.cancel()
            for job in self._jobs:
                job.cancel()
        text = join_words((text for text in self._texts if text), self._start.model.language)
        await self._send({"type": "done", "text": text, "duration": round(self._samples / SAMPLE_RATE, 3)})

    async def _read(self) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    message = await _receive(self._socket)
            except TimeoutError:
                break  # the microphone has stopped
            data = message.get("bytes")
            if data is None:
                parsed = _parsed(message.get("text") or "")
                if isinstance(parsed, Mapping) and parsed.get("type") == "stop":
                    break
                raise bad_request("neither samples nor {'type': 'stop'}", "type")
            await self._heard(self._resampler.resample_chunk(_samples(data)))
        await self._heard(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
        for utterance in self._utterances.end():
            await self._over(utterance)

    async def _heard(self, samples: Waveform) -> None:
        self._samples += len(samples)
        for utterance in await asyncio.to_thread(lambda: [*self._utterances.add(samples)]):
            await self._over(utterance)
        spoken = self._utterances.open
        if spoken is None or not self._start.model.ctc or (self._partial and not self._partial.done()):
            return
        number, length = self._shown
        new = len(spoken.waveform) - (length if number == spoken.number else 0)
        if new >= PARTIAL_S * SAMPLE_RATE:
            self._shown = spoken.number, len(spoken.waveform)
            self._partial = asyncio.create_task(self._show(spoken))

    async def _over(self, utterance: LiveUtterance) -> None:
        self._ended = utterance.number + 1
        await self._finals.put((utterance, await self._submit(utterance, self._start.decoding, self._start.words)))

    async def _submit(self, utterance: LiveUtterance, decoding: str, words: bool) -> Job:
        request = Request([utterance.waveform], self._start.model.name, decoding, words, urgent=True)
        async with asyncio.timeout(self._deadline_s):
            while True:
                try:
                    job = self._engine.submit(request)
                except QueueFullError:
                    await asyncio.sleep(AGAIN_S)
                else:
                    self._jobs.add(job)
                    return job

    async def _show(self, utterance: LiveUtterance) -> None:
        """Sends the CTC head's text of what has been said of an utterance, unless it is over by then."""
        with suppress(Exception):  # there will be another one, or the final text, which says what is wrong
            found = await self._result(await self._submit(utterance, CTCGreedySearch.search, False))
            if utterance.number >= self._ended:
                await self._send(_times("partial", utterance) | {"text": found.text})

    async def _answer(self) -> None:
        """Sends final texts in order."""
        while (item := await self._finals.get()) is not None:
            utterance, job = item
            found = await self._result(job)
            self._texts.append(found.text)
            final = _times("final", utterance) | {"text": found.text, "flags": [*found.flags]}
            if self._start.words:
                final["words"] = [word_of(_moved(word, utterance.start_s)) for word in found.words]
            await self._send(final)

    async def _result(self, job: Job) -> Transcript:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await job.transcript()
        finally:
            self._jobs.discard(job)
            job.cancel()

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(json.dumps(message, ensure_ascii=False, allow_nan=False))


async def _receive(socket: WebSocket) -> Mapping[str, Any]:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", DONE))
    return message


async def _refuse(socket: WebSocket, error: ApiError) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):  # the client has left
        await socket.send_text(json.dumps({"type": "error", **error.body}, ensure_ascii=False))
        await socket.close(POLICY)


def _times(kind: str, utterance: LiveUtterance) -> dict[str, Any]:
    start, end = round(utterance.start_s, 3), round(utterance.end_s, 3)
    return {"type": kind, "id": utterance.number, "start": start, "end": end}


def _moved(word: Word, seconds: float) -> Word:
    return Word(word.word, seconds + word.start, seconds + word.end, word.confidence)


def _samples(data: bytes) -> Waveform:
    if len(data) % 2:
        raise bad_request("an odd number of bytes is no 16-bit PCM", None)
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise bad_request("not JSON", None) from None


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name) or ""
    if not isinstance(value, str):
        raise bad_request("not a text", name)
    return value
