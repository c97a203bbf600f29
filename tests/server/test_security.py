"""Who may ask, and how much: keys, sites, sizes, slow bodies; what every answer says, and what no log does."""

import http.client
import json
import logging
import socket
import time
from contextlib import closing, suppress

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from kikitori.engine.base import ClosedError, Load, ModelCard, SearchCard
from kikitori.errors import ConfigError
from kikitori.server.app import create_app
from kikitori.server.settings import Keys, Settings, read_keys
from tests.server.conftest import LONG, SETTINGS, SHORT, wav

CARD = ModelCard("tiny", "en", True, True, 1.8, (SearchCard("greedy", True, "integration"),))
KEYED = Settings(host="0.0.0.0", keys=Keys(frozenset({"secret-1", "schlüssel"})))  # noqa: S104
PART = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n'


class NoEngine:
    """Has a model and does nothing."""

    def __init__(self, *, closed=False):
        self.models, self.closed = (CARD,), closed

    def check_room(self, _seconds):
        if self.closed:
            raise ClosedError

    def load(self):
        return Load(0, 0.0, 0.0, 0.0, 0, 0)


def client(settings=KEYED, base_url="http://speech.example", **options):
    app = create_app(NoEngine(**options), settings)
    return TestClient(app, base_url=base_url, raise_server_exceptions=False)


def check_error(response, status):
    assert response.status_code == status
    error = response.json()["error"]
    assert {*error} == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("Bearer secret-1", 200),
        ("bearer  secret-1 ", 200),
        ("Bearer schlüssel", 200),
        (None, 401),
        ("secret-1", 401),
        ("Basic secret-1", 401),
        ("Bearer", 401),
        ("Bearer secret-2", 401),
        ("Bearer secret-", 401),
        ("Bearer secret-11", 401),
        ("Bearer SECRET-1", 401),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics"])
def test_keys(path, value, status, caplog):
    caplog.set_level(logging.DEBUG)
    response = client().get(path, headers={} if value is None else {"Authorization": value.encode()})
    if status == 401:
        check_error(response, status)
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.status_code == status
    assert "secret" not in caplog.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/"])
def test_open_without_a_key(path):
    assert client().get(path).status_code == 200


def test_a_server_that_ends_is_not_ready():
    check_error(client(closed=True).get("/readyz"), 503)
    assert client(closed=True).get("/healthz").status_code == 200
    response = client(closed=True).post("/v1/audio/transcriptions", headers={"Authorization": "Bearer secret-1"})
    check_error(response, 503)
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}])
def test_pages_of_other_sites_may_not_ask(headers):
    local = client(Settings(), "http://127.0.0.1:8000")
    check_error(local.get("/v1/models", headers=headers), 403)
    assert local.get("/v1/models", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    assert "access-control-allow-origin" not in local.options("/v1/models", headers=headers).headers
    with pytest.raises(WebSocketDisconnect), local.websocket_connect("/v1/live", headers=headers):
        pass


def test_other_names_of_this_machine():
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert client(Settings(), f"http://{host}").get("/v1/models").status_code == 200
    check_error(client(Settings(), "http://rebound.example").get("/v1/models"), 403)


def test_live_takes_its_key_in_the_first_message():
    for key, code in (("secret-2", "invalid_api_key"), (None, "invalid_api_key"), ("secret-1", "unknown_parameter")):
        with client().websocket_connect("/v1/live") as socket:
            socket.send_json({"type": "start", "key": key, "volume": 1})  # what comes after the key is wrong
            assert socket.receive_json()["error"]["code"] == code
    with (
        pytest.raises(WebSocketDisconnect),
        client().websocket_connect("/v1/live", headers={"Authorization": "Bearer no"}),
    ):
        pass


def test_headers_of_every_answer():
    for path in ("/", "/v1/models", "/nothing", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"):
        headers = client().get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Request-Id"]
    check_error(client().get("/nothing"), 404)
    check_error(client().delete("/healthz"), 405)


def test_the_page_stands_alone():
    page = client().get("/").text
    assert "<script>" not in page
    assert "://" not in page
    for name in ("app.js", "style.css"):
        assert client().get(f"/{name}").status_code == 200


def test_other_machines_need_a_key(tmp_path):
    for host in ("127.0.0.1", "::1", "localhost"):
        assert Settings(host=host).loopback
    with pytest.raises(ConfigError, match="--keys"):
        Settings(host="0.0.0.0")  # noqa: S104
    assert not Settings(host="0.0.0.0", insecure=True).loopback  # noqa: S104
    file = tmp_path / "keys.txt"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(file)
    file.write_text("# keys\n\n")
    with pytest.raises(ConfigError, match="no key"):
        read_keys(file)
    file.write_text("# keys\n one \n\ntwo\n")
    keys = read_keys(file)
    assert [keys.accept(key) for key in ("one", "two", "# keys", "")] == [True, True, False, False]


FORM = "multipart/form-data; boundary=x"


def post(server, body, *, length=True):
    """The status and the answer to a form whose length is told, or which comes in chunks."""
    headers = {"Content-Type": FORM, **({} if length else {"Transfer-Encoding": "chunked"})}
    sent = body if length else (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # the server need not read what it refuses
            connection.request("POST", "/v1/audio/transcriptions", sent, headers, encode_chunked=not length)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"no form", 400),
        (PART % b"file" + b"\r\n--x--\r\n", 400),  # no model
        ((PART % b"file" + b"a\r\n") * 2 + b"--x--\r\n", 400),
        (b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n' + b"a" * 64_000 + b"\r\n--x--\r\n", 400),
        (b'--x\r\nContent-Disposition: form-data; name="nbest"\r\n\r\n1\r\n' * 1_001 + b"--x--\r\n", 400),
        (PART % b"file" + bytes(SETTINGS.uploads.max_bytes * 3), 413),
    ],
)
def test_bodies_that_are_refused(server, body, status):
    for length in (True, False):
        found, answer = post(server, body, length=length)
        assert (found, {*answer}) == (status, {"error"})


def test_a_body_that_does_not_arrive(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
        slow.sendall(b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n")
        slow.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n")
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


def test_who_leaves_is_not_waited_for(server):
    body = b"".join(
        (
            b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n',
            PART % b"file",
            wav(LONG),
            b"\r\n--x--\r\n",
        )
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as leaving:
        leaving.sendall(b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        leaving.sendall(b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n" % len(body))
        leaving.sendall(body)
    text = ""
    while 'status="499"' not in text:  # until it is counted as one that has left
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        time.sleep(0.02)
    assert server.engine.load().jobs == 0


def test_names_and_texts_are_not_logged(server, caplog):
    caplog.set_level(logging.DEBUG)
    body = b"".join(
        (
            b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n',
            PART.replace(b'"a"', b'"my-diagnosis.wav"') % b"file",
            wav(SHORT),
            b"\r\n--x--\r\n",
        )
    )
    status, answer = post(server, body)
    assert status == 200
    logged = ""
    while "200" not in logged:  # the line comes behind the answer
        time.sleep(0.01)
        logged = " ".join(r.getMessage() for r in caplog.records if r.name.startswith("kikitori"))
    assert "my-diagnosis" not in caplog.text
    assert answer["text"] not in caplog.text
