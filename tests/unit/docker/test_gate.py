"""The gate in front of LiteLLM: which requests pass, with which key, and how it refuses others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.unit.adapters.gateway.tls import image_program

KEY = "sk-0123456789abcdefghijklmnopqrstuv"  # pragma: allowlist secret: made up
RIGHT = (b"authorization", f"Bearer {KEY}".encode())
serve = image_program("serve")

SERVED = [
    *("POST /v1/chat/completions", "POST /v1/completions"),
    *("POST /v1/responses", "GET /v1/models", "GET /v1/models/bedrock-llama"),
    *("GET /health/liveliness", "GET /health/readiness"),
]
#: Some of LiteLLM's hundreds of routes: they show, cost or change something.
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
    """An ASGI application that records the requests that reach it."""

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
    """Status, headers and body of the gate's answer; without a server."""
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
def test_nothing_is_revealed_without_the_key(route: str) -> None:
    """should give every route the same answer, so that nobody learns which routes exist"""
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
    """should refuse a nearly right key, and a right one in only one of two headers"""
    inside = Inside()
    assert refused(ask(inside, "GET /v1/models", *headers), 401)
    assert inside.reached == []


@pytest.mark.parametrize("route", SERVED)
def test_the_labs_own_routes_are_served_with_the_key(route: str) -> None:
    """should pass the request on unchanged"""
    inside = Inside()
    assert ask(inside, route, RIGHT)[2] == b"inside"
    assert inside.reached == [route.partition(" ")[2]]


@pytest.mark.parametrize("route", NOT_SERVED)
def test_nothing_else_is_served_even_with_the_key(route: str) -> None:
    """should give the holder of the lab's key no administrator's route, page or bill"""
    inside = Inside()
    assert refused(ask(inside, route, RIGHT), 404)["code"] == "unknown_url"
    assert inside.reached == []


@pytest.mark.parametrize("headers", [(), (RIGHT,)])
def test_a_websocket_is_closed(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """should accept none, if a server ever passes one on"""
    inside = Inside()
    (closed,) = ask(inside, "GET /v1/realtime", *headers, kind="websocket")
    assert closed["type"] == "websocket.close"
    assert inside.reached == []


@pytest.mark.parametrize(
    ("status", "chunks", "message"),
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
    status: int, chunks: tuple[bytes, ...], message: str
) -> None:
    """should be readable by OpenAI's clients, with its status and words"""
    answer = ask(Inside(status, *chunks), "GET /v1/models", RIGHT)
    assert refused(answer, status)["message"] == message


def test_answers_and_errors_of_that_form_stay_unchanged() -> None:
    """should change nothing that a client can read, nor what the gate itself cannot read"""
    error = (b'{"error": {"message": "slow', b' down"}}')
    assert ask(Inside(429, *error), "GET /v1/models", RIGHT)[::2] == (429, b"".join(error))
    assert ask(Inside(200, b"a", b"b"), "GET /v1/models", RIGHT)[::2] == (200, b"ab")
    packed = ask(Inside(500, b"\x1f\x8b", encoding=b"gzip"), "GET /v1/models", RIGHT)
    assert packed == (500, {b"content-encoding": b"gzip"}, b"\x1f\x8b")


@pytest.mark.parametrize("chunks", [(), (b"the beginning",)])
def test_a_failure_before_an_answer_is_answered(chunks: tuple[bytes, ...]) -> None:
    """should answer in OpenAI's form; a stream that has begun can only break off"""

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


def test_litellm_gets_start_and_stop() -> None:
    """should pass on the life of the server"""
    inside = Inside()
    asyncio.run(serve.Gate(inside, KEY)({"type": "lifespan"}, None, None))
    assert inside.reached == ["lifespan"]
