"""The gateway's own door: TLS and the gate, with a stand-in in LiteLLM's place behind them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from adapters.gateway.client import await_ready, why_not_ready
from lab.endpoint import Endpoint
from lab.image.recipe import GATEWAY
from tests.unit.adapters.gateway.tls import NAME, certificate, endpoint, image_program

KEY = "sk-0123456789abcdefghijklmnopqrstuv"  # pragma: allowlist secret: made up
RIGHT = (b"authorization", f"Bearer {KEY}".encode())
serve = image_program("serve")

SERVED = [
    *("POST /v1/chat/completions", "POST /v1/completions"),
    *("POST /v1/responses", "GET /v1/models", "GET /v1/models/bedrock-llama"),
    *("GET /health/liveliness", "GET /health/readiness"),
]
#: Of LiteLLM's hundreds: what shows something, costs something or changes something.
NOT_SERVED = [
    *(
        "GET /",
        "GET /docs",
        "GET /redoc",
        "GET /openapi.json",
        "GET /ui",
        "GET /ui/",
        "GET /sso/key",
    ),
    *("GET /ui/index.html", "GET /swagger/swagger-ui.css", "GET /_next/static/x.js", "GET /routes"),
    *("GET /health", "GET /health/services", "GET /metrics", "GET /test", "GET /models"),
    *("POST /key/generate", "POST /model/new", "POST /config/update", "GET /get/config/callbacks"),
    *("POST /mcp-rest/test/connection", "GET /mcp/", "POST /bedrock/model/x/invoke"),
    *(
        "POST /v1/files",
        "POST /v1/embeddings",
        "GET /v1/responses/r1",
        "DELETE /v1/models/x",
        "POST /v1/models",
    ),
    *("GET /v1/chat/completions", "POST /v1/chat/completions/", "POST //v1/chat/completions"),
    *("OPTIONS /v1/chat/completions", "HEAD /v1/models", "GET /v1/models/a/b", "GET /v1/models\n"),
    *("GET /health/readiness/details", "GET /nothing", "TRACE /v1/models", "get /v1/models"),
]


class Inside:
    """An ASGI application that remembers what reached it."""

    def __init__(self, status: int = 200, *chunks: bytes, encoding: bytes = b"") -> None:
        self.reached: list[str] = []
        self._status, self._chunks = status, chunks or (b"inside",)
        self._headers = [(b"content-encoding", encoding)] if encoding else []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope.get("path", scope["type"]))
        if scope["type"] == "http":
            begun = {"status": self._status, "headers": self._headers}
            await send({"type": "http.response.start", **begun})
            for chunk in self._chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body"})


def ask(inside: Inside, route: str, *headers: tuple[bytes, bytes], kind: str = "http") -> Any:
    """Status, headers and body that the gate answers; without a server between."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        raise AssertionError("a refusal needs nothing of what was sent")

    method, _, path = route.partition(" ")
    scope = {"type": kind, "method": method, "path": path, "headers": list(headers)}
    asyncio.run(serve.Gate(inside, KEY)(scope, receive, send))
    if kind != "http":
        return sent
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    assert {message["type"] for message in bodies} == {"http.response.body"}
    body = b"".join(message.get("body", b"") for message in bodies)
    return start["status"], dict(start["headers"]), body


def refused(answer: Any, status: int) -> dict[str, Any]:
    """The error in OpenAI's form, as its clients read it."""
    assert answer[0] == status
    assert answer[1][b"content-type"] == b"application/json"
    assert int(answer[1][b"content-length"]) == len(answer[2])
    error = json.loads(answer[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert error["param"] is None
    return dict(error)


@pytest.mark.parametrize("route", [*SERVED, *NOT_SERVED])
def test_nothing_is_told_without_the_key(route: str) -> None:
    """should answer every route alike, so that nobody learns which there are"""
    inside = Inside()
    answer = ask(inside, route)
    assert refused(answer, 401)["code"] == "invalid_api_key"
    assert answer[1][b"www-authenticate"] == b"Bearer"
    assert answer == ask(inside, "GET /nothing")
    assert inside.reached == []


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", KEY.encode())],
        [(b"authorization", f"Bearer {KEY[:-1]}".encode())],
        [(b"authorization", f"Bearer {KEY}x".encode())],
        [(b"authorization", f"Bearer {KEY} ".encode())],
        [(b"authorization", f"Bearer {KEY.upper()}".encode())],
        [(b"authorization", f"Basic {KEY}".encode())],
        [(b"authorization", "Bearer schlüssel".encode())],
        [(b"authorization", b"\xff\xfe")],
        [(b"x-api-key", KEY.encode())],
        [(b"api-key", f"Bearer {KEY}".encode())],
        [RIGHT, RIGHT],
        [(b"authorization", b"Bearer sk-other"), RIGHT],
        [RIGHT, (b"authorization", b"Bearer sk-other")],
    ],
)
def test_only_the_right_key_in_the_right_place_opens(headers: list[tuple[bytes, bytes]]) -> None:
    """should refuse what is nearly right, or right in one header of two"""
    inside = Inside()
    assert refused(ask(inside, "GET /v1/models", *headers), 401)
    assert inside.reached == []


@pytest.mark.parametrize("route", SERVED)
def test_what_a_lab_is_for_is_served_with_the_key(route: str) -> None:
    """should pass it on as it is"""
    inside = Inside()
    assert ask(inside, route, RIGHT)[2] == b"inside"
    assert inside.reached == [route.partition(" ")[2]]


@pytest.mark.parametrize("route", NOT_SERVED)
def test_nothing_else_is_served_even_with_the_key(route: str) -> None:
    """should give whoever has the lab's key no administrator's route, page or bill"""
    inside = Inside()
    assert refused(ask(inside, route, RIGHT), 404)["code"] == "unknown_url"
    assert inside.reached == []


@pytest.mark.parametrize("headers", [(), (RIGHT,)])
def test_a_websocket_is_closed(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """should accept none, should a server ever hand one over"""
    inside = Inside()
    (closed,) = ask(inside, "GET /v1/realtime", *headers, kind="websocket")
    assert closed["type"] == "websocket.close"
    assert inside.reached == []


@pytest.mark.parametrize(
    ("status", "chunks", "told"),
    [
        (500, (b"Internal Server Error",), "The gateway failed."),
        (404, (b'{"detail": "The model `x`', b' does not exist"}'), "The model `x` does not exist"),
        (422, (b'{"detail": [{"loc": 1}]}',), "[{'loc': 1}]"),
        (502, (b"",), "The gateway failed."),
        (503, (b"[]",), "The gateway failed."),
        (500, (b"3",), "The gateway failed."),
        (500, (b"\xff",), "The gateway failed."),
    ],
)
def test_every_error_has_the_form_of_openai_s(
    status: int, chunks: tuple[bytes, ...], told: str
) -> None:
    """should be one that OpenAI's clients read, with its status and words"""
    answer = ask(Inside(status, *chunks), "GET /v1/models", RIGHT)
    assert refused(answer, status)["message"] == told


def test_errors_of_that_form_and_answers_stay_as_they_are() -> None:
    """should touch nothing that a client reads already, nor what it cannot read itself"""
    error = (b'{"error": {"message": "slow', b' down"}}')
    assert ask(Inside(429, *error), "GET /v1/models", RIGHT)[::2] == (429, b"".join(error))
    assert ask(Inside(200, b"a", b"b"), "GET /v1/models", RIGHT)[::2] == (200, b"ab")
    packed = ask(Inside(500, b"\x1f\x8b", encoding=b"gzip"), "GET /v1/models", RIGHT)
    assert packed == (500, {b"content-encoding": b"gzip"}, b"\x1f\x8b")


@pytest.mark.parametrize("chunks", [(), (b"the beginning",)])
def test_a_failure_before_an_answer_is_answered(chunks: tuple[bytes, ...]) -> None:
    """should be told in OpenAI's form; a stream that has begun can only break off"""

    class Failing(Inside):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if chunks:
                await super().__call__(scope, receive, send)
            raise RuntimeError("no prisma")

    inside = Failing(200, *chunks)
    if chunks:
        with pytest.raises(RuntimeError, match="no prisma"):
            ask(inside, "GET /v1/models", RIGHT)
    else:
        assert refused(ask(inside, "GET /v1/models", RIGHT), 500)["message"] == serve.FAILED


def test_litellm_hears_of_start_and_stop() -> None:
    """should pass on the life of the server"""
    inside = Inside()
    asyncio.run(serve.Gate(inside, KEY)({"type": "lifespan"}, None, None))
    assert inside.reached == ["lifespan"]


LITELLM = """
import asyncio, json, os


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            print("litellm:", kind, flush=True)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    known = json.dumps({"environment": sorted(os.environ), "path": scope["path"]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": known, "more_body": True})
    if scope["path"] == "/v1/chat/completions":
        await asyncio.to_thread(lambda: open(os.environ["GO_ON"]).read())
        await send({"type": "http.response.body", "body": b" and the rest", "more_body": True})
    await send({"type": "http.response.body", "body": b""})
"""


class Served:
    """``serve.py`` as a process of its own, with a stand-in for LiteLLM."""

    def __init__(self, folder: Path) -> None:
        package = folder / "litellm"
        for part in ("proxy", "litellm_core_utils"):
            (package / part).mkdir(parents=True)
        (package / "proxy" / "proxy_server.py").write_text(LITELLM)
        (package / "litellm_core_utils" / "litellm_logging.py").write_text("class Logging: ...\n")
        (folder / "uvloop.py").write_text("from asyncio import SelectorEventLoop as Loop\n")
        self.go_on = folder / "go-on"
        os.mkfifo(self.go_on)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{folder}:{GATEWAY.folder}",
            "PYTHONUNBUFFERED": "1",
            "GO_ON": str(self.go_on),
            "PORT": str(self.port),
            "LITELLM_MASTER_KEY": KEY,
            "GATEWAY_TLS_PEM": certificate().pem,
        }
        self.said: list[str] = []

    def start(self, **environment: str | None) -> subprocess.Popen[str]:
        wanted = {**self.environment, **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(GATEWAY.folder / "serve.py")],
            env={name: value for name, value in wanted.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.process

    def await_line(self, words: str) -> None:
        assert self.process.stdout is not None
        out: IO[str] = self.process.stdout
        for line in out:
            self.said.append(line)
            if words in line:
                return
        raise AssertionError(f"it ended without saying {words!r}: {''.join(self.said)}")

    def end(self) -> int:
        self.process.terminate()
        said, _ = self.process.communicate(timeout=30)
        self.said.append(said)
        return self.process.returncode

    @property
    def endpoint(self) -> Endpoint:
        return endpoint(self.port)

    def client(self, key: str | None = KEY) -> httpx.Client:
        context = ssl.create_default_context(cadata=certificate().trust.ca)
        headers = {"authorization": f"Bearer {key}"} if key else {}

        def name_it(request: httpx.Request) -> None:
            request.extensions["sni_hostname"] = NAME

        return httpx.Client(
            base_url=self.endpoint.url,
            verify=context,
            headers=headers,
            event_hooks={"request": [name_it]},
            timeout=30,
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("serve"))
    made.start()
    try:
        made.await_line("Uvicorn running on https://")
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def test_a_client_of_the_lab_finds_it_ready(served: Served) -> None:
    """should be what the rollout waits for, and nobody's without the key"""
    await_ready(served.endpoint, KEY, deadline=0, log=lambda _: None)
    assert "refuses the lab's key" in str(why_not_ready(served.endpoint, "sk-another"))


def test_the_proxy_does_not_hold_the_private_key(served: Served) -> None:
    """should be gone from the environment before LiteLLM is there, and be in no file"""
    with served.client() as client:
        known = client.get("/v1/models").json()
    assert "LITELLM_MASTER_KEY" in known["environment"]
    assert "GATEWAY_TLS_PEM" not in known["environment"]
    held = []
    for file in Path(f"/proc/{served.process.pid}/fd").iterdir():
        # The client's connection is closed about now.
        with contextlib.suppress(FileNotFoundError):
            held.append(str(file.readlink()))
    assert held
    assert not [file for file in held if "tls" in file]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_a_refusal_leaves_the_connection_usable(served: Served, method: str) -> None:
    """should answer 401 whatever was sent along, and the next question on the same connection"""
    with served.client(key=None) as client:
        for _ in range(2):
            answer = client.request(method, "/v1/models", content=b"x" * 300_000)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_websocket_without_the_key_is_answered_401(served: Served) -> None:
    """should treat its handshake as any question"""
    asks = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with served.client(key=None) as client:
        assert client.get("/v1/realtime", headers=asks).status_code == 401
    with served.client() as client:
        assert client.get("/v1/realtime", headers=asks).status_code == 404


def test_plain_http_gets_no_answer(served: Served) -> None:
    """should not answer one byte that is not TLS"""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as plain:
        plain.sendall(f"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        try:
            said = plain.recv(1000)
        except ConnectionResetError:
            said = b""
    assert b"HTTP" not in said


def test_old_tls_is_not_spoken() -> None:
    """should speak nothing below 1.2"""
    assert serve.tls_context(certificate().pem).minimum_version == ssl.TLSVersion.TLSv1_2


def health(served: Served, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-I", str(GATEWAY.folder / "healthcheck.py")],
        env={**served.environment, "GATEWAY_TLS_NAME": NAME, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert KEY not in done.stdout + done.stderr
    assert "PRIVATE" not in done.stdout + done.stderr
    return done.returncode


def test_the_health_check_asks_as_a_client_does(served: Served) -> None:
    """should be healthy only with key, authority and name"""
    assert health(served) == 0
    assert health(served, LITELLM_MASTER_KEY=f"{KEY}x") == 1
    assert health(served, GATEWAY_TLS_NAME="gateway-lab-other.internal") == 1
    other = certificate("gateway-lab-other.internal").pem
    assert health(served, GATEWAY_TLS_PEM=other) == 1
    assert health(served, GATEWAY_TLS_PEM="") == 1
    assert health(served, PORT="1") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LITELLM_MASTER_KEY", None),
        ("LITELLM_MASTER_KEY", ""),
        ("LITELLM_MASTER_KEY", "sk-short"),
        ("LITELLM_MASTER_KEY", "sk-secret with a blank in it"),
        ("LITELLM_MASTER_KEY", "sk-secret-with-an-end\n"),
        ("GATEWAY_TLS_PEM", None),
        ("GATEWAY_TLS_PEM", ""),
        ("GATEWAY_TLS_PEM", "secret garbage"),
        ("GATEWAY_TLS_PEM", "-----BEGIN secret garbage-----"),
        ("GATEWAY_TLS_PEM", certificate().trust.ca),
        ("GATEWAY_TLS_PEM", certificate().pem.partition("-----BEGIN CERTIFICATE-----")[0]),
    ],
)
def test_it_does_not_start_without_its_secrets(
    tmp_path: Path, name: str, value: str | None
) -> None:
    """should end at once, name the variable, and show nothing of its value"""
    made = Served(tmp_path)
    said, _ = made.start(**{name: value}).communicate(timeout=30)
    assert made.process.returncode == 1
    assert said.startswith(f"{name} ")
    assert "Traceback" not in said
    for word in ("secret", "BEGIN", "litellm:"):
        assert word not in said


def test_a_stop_lets_requests_end_and_takes_no_new_ones(tmp_path: Path) -> None:
    """should serve an answer to its end when the task is told to stop, and log no key"""
    made = Served(tmp_path)
    made.start()
    try:
        made.await_line("Uvicorn running on https://")
        with (
            made.client() as client,
            client.stream("POST", f"/v1/chat/completions?key={KEY}") as answer,
        ):
            chunks = answer.iter_text()
            assert "/v1/chat/completions" in next(chunks)
            made.process.send_signal(signal.SIGTERM)
            made.await_line("Waiting for connections to close")
            with pytest.raises(httpx.ConnectError):
                made.client().get("/v1/models")
            made.go_on.write_text("now")
            assert "".join(chunks) == " and the rest"
        code = made.end()
    finally:
        made.process.kill()
    said = "".join(made.said)
    assert "litellm: lifespan.shutdown" in said
    assert code in {0, -signal.SIGTERM}
    assert re.search(r'"POST /v1/chat/completions HTTP/1.1" 200', said)
    assert KEY not in said
