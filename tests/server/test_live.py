"""Live transcription over a WebSocket: partial texts, then final ones that never change."""

import json
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.server.conftest import LONG, SHORT


@pytest.fixture
def live(server):
    with connect(f"ws://127.0.0.1:{server.port}/v1/live", max_size=None) as socket:
        yield socket


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def rest(socket):
    """All messages to the end of the connection."""
    messages = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(json.loads(socket.recv(timeout=60)))
    return messages


def finals(messages):
    return [message for message in messages if message["type"] == "final"]


def test_speech_becomes_partial_and_final_texts(live, server):
    live.send(json.dumps({"type": "start", "words": True}))
    ready = json.loads(live.recv(timeout=60))
    assert ready == {"type": "ready", "model": "tiny", "decoding": "greedy", "partials": True}
    live.send(pcm(LONG[:16_000]))
    partial = json.loads(live.recv(timeout=60))  # before the utterance is over
    assert (partial["type"], partial["id"], partial["start"]) == ("partial", 0, 0.0)
    assert partial["text"]
    for start in range(16_000, len(LONG), 4_000):
        live.send(pcm(LONG[start : start + 4_000]))
    live.send(json.dumps({"type": "stop"}))
    messages = [partial, *rest(live)]
    assert {message["type"] for message in messages} == {"partial", "final", "done"}
    found = finals(messages)
    assert [message["id"] for message in found] == [0, 1, 2]
    assert all(a["end"] <= b["start"] for a, b in pairwise(found))
    for number, message in enumerate(messages):  # what was shown as final never changes
        if message["type"] == "final":
            assert all(later.get("id") != message["id"] for later in messages[number + 1 :])
    for message in found:
        part = LONG[round(message["start"] * 16_000) : round(message["end"] * 16_000)]
        heard = np.frombuffer(pcm(part), "<i2").astype(np.float32) / 2**15
        assert message["text"] == server.recognizer.transcribe(heard).text
        assert " ".join(word["word"] for word in message["words"]) == message["text"]
        assert all(message["start"] <= w["start"] < w["end"] <= message["end"] + 0.001 for w in message["words"])
    assert messages[-1]["text"] == " ".join(message["text"] for message in found if message["text"])
    assert messages[-1]["duration"] == len(LONG) / 16_000


def test_other_rates_and_searches(live):
    live.send(json.dumps({"type": "start", "model": "tiny", "decoding": "ctc_beam", "sample_rate": 48_000}))
    live.send(pcm(np.repeat(SHORT, 3)))
    live.send(json.dumps({"type": "stop"}))
    ready, *messages = rest(live)
    assert ready["decoding"] == "ctc_beam"
    assert messages[-1] == {"type": "done", "text": finals(messages)[0]["text"], "duration": 1.5}
    assert finals(messages)[0]["text"]
    assert "words" not in finals(messages)[0]


def test_silence(live):
    live.send(json.dumps({"type": "start"}))
    live.send(bytes(96_000))
    live.send(json.dumps({"type": "stop"}))
    assert rest(live)[1:] == [{"type": "done", "text": "", "duration": 3.0}]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (["no JSON"], None),
        (["[" * 100_000], None),
        ([b"ab"], None),
        ([json.dumps({"type": "stop"})], "type"),
        ([json.dumps({"type": "start", "model": "gpt-9"})], "model"),
        ([json.dumps({"type": "start", "model": 3})], "model"),
        ([json.dumps({"type": "start", "decoding": "lexicon"})], "decoding"),
        ([json.dumps({"type": "start", "sample_rate": 44_100.0})], "sample_rate"),
        ([json.dumps({"type": "start", "sample_rate": 384_000})], "sample_rate"),
        ([json.dumps({"type": "start", "volume": 3})], "volume"),
        ([json.dumps({"type": "start", "words": 1})], "words"),
        ([json.dumps({"type": "start"}), b"abc"], None),
        ([json.dumps({"type": "start"}), json.dumps({"type": "start"})], "type"),
    ],
)
def test_refused(live, messages, param):
    for message in messages:
        live.send(message)
    *_, last = rest(live)
    assert last["type"] == "error"
    assert (last["error"]["param"], last["error"]["type"]) == (param, "invalid_request_error")


def test_who_leaves_leaves_nothing_behind(server):
    with connect(f"ws://127.0.0.1:{server.port}/v1/live") as socket:
        socket.send(json.dumps({"type": "start"}))
        socket.send(pcm(LONG))
    with connect(f"ws://127.0.0.1:{server.port}/v1/live") as socket:  # is served after it
        socket.send(json.dumps({"type": "start"}))
        socket.send(json.dumps({"type": "stop"}))
        rest(socket)
    assert server.engine.load().jobs == 0
