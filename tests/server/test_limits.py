"""A server with more to do than it can: a bounded queue, deadlines, and what fails while a stream is going on."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from kikitori.engine.local import LocalEngine
from kikitori.engine.models import by_name, served
from kikitori.recognizer import Recognizer
from kikitori.server.app import create_app
from kikitori.server.settings import Settings
from tests.server.conftest import LONG, SHORT, wav


@pytest.fixture
def client(tiny, request):
    engine = LocalEngine(by_name([served(tiny, [])]), max_seconds=3.0)
    settings = Settings(deadline_seconds=getattr(request, "param", 60.0))
    with TestClient(create_app(engine, settings), base_url="http://127.0.0.1", raise_server_exceptions=False) as made:
        yield made


def post(client, samples, **fields):
    return client.post(
        "/v1/audio/transcriptions", data={"model": "tiny", **fields}, files={"file": ("a.wav", wav(samples))}
    )


@pytest.mark.parametrize("client", [3.0], indirect=True)
def test_a_full_queue_and_a_deadline(client, monkeypatch):
    plain, entered, opened = Recognizer.recognize_pieces, threading.Event(), threading.Event()

    def recognize(*arguments):
        entered.set()
        assert opened.wait(30)
        return plain(*arguments)

    monkeypatch.setattr(Recognizer, "recognize_pieces", recognize)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(post, client, SHORT)
        assert entered.wait(30)
        full = post(client, LONG)
        late = waiting.result()
    assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
    assert 1 <= int(full.headers["Retry-After"]) <= 600
    assert (late.status_code, late.json()["error"]["code"]) == (503, "deadline")
    assert int(late.headers["Retry-After"]) >= 1
    opened.set()


def test_what_fails_inside_is_said_without_its_inside(client, monkeypatch):
    plain, calls = Recognizer.recognize_pieces, []

    def recognize(recognizer, batch, *rest):
        calls.append(len(batch))
        if batch[0].chunk.start > 0:
            raise RuntimeError("secret of the machine")
        return plain(recognizer, batch, *rest)

    monkeypatch.setattr(Recognizer, "recognize_pieces", recognize)
    monkeypatch.setattr(LocalEngine, "_decode", one_by_one(LocalEngine._decode))
    answer = post(client, LONG)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in answer.text
    stream = post(client, LONG, stream="true")
    events = [json.loads(line.removeprefix("data: ")) for line in stream.text.split("\n\n") if line]
    assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert [event.get("type", "error") for event in events] == ["transcript.text.delta", "error"]
    assert events[-1]["error"]["code"] == "internal"
    assert post(client, SHORT).status_code == 200


def one_by_one(decode):
    """Utterances of a batch one after the other, so that the first is known when the second fails."""

    def decoded(engine, batch):
        for one in batch:
            decode(engine, [one])

    return decoded
