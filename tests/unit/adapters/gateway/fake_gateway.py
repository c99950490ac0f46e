"""A gateway on loopback, over real TLS, each part of which a test can break."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lab.certificate import Certificate
from lab.endpoint import Endpoint
from tests.unit.adapters.gateway.tls import endpoint, image_program

KEY = "sk-the-key-of-the-lab-4711"  # pragma: allowlist secret: made up
USAGE = {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}


def choice(content: str | None = "A gateway.", finish: str | None = "stop") -> dict[str, Any]:
    return {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content},
    }


def whole(*choices: Any, usage: Any = USAGE) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "one",
        "choices": list(choices or [choice()]),
        "usage": usage,
    }


def chunk(content: str | None = None, finish: str | None = None, usage: Any = None) -> Any:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "one",
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}],
        "usage": usage,
    }


STREAM = [chunk("A "), chunk("gateway."), chunk(None, "stop"), chunk(usage=USAGE)]


@dataclass
class Gateway:
    """The server's answers; a test can break each part."""

    status: int = 200
    error: str = "it is so"
    kind: str = "x"
    whole: Any = field(default_factory=whole)
    stream: list[Any] = field(default_factory=lambda: list(STREAM))
    content_type: str = "application/json"
    models: tuple[str, ...] = ("one", "two")
    readiness: list[int] = field(default_factory=lambda: [200])
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    names: set[str | None] = field(default_factory=set)
    port: int = 0

    @property
    def endpoint(self) -> Endpoint:
        return endpoint(self.port)


def hear_names(context: ssl.SSLContext, names: set[str | None]) -> None:
    context.sni_callback = lambda _, name, __: names.add(name)


class _Handler(BaseHTTPRequestHandler):
    behaviour: Gateway

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-should-retry", "false")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        its = self.behaviour
        its.keys.add(self.headers["authorization"])
        if self.path == "/health/readiness":
            code = its.readiness.pop(0) if len(its.readiness) > 1 else its.readiness[0]
            self.send(code, "text/plain", b"")
        elif its.status != 200:
            self.refuse()
        else:
            listed = [
                {"id": m, "object": "model", "created": 1, "owned_by": "x"} for m in its.models
            ]
            body = json.dumps({"object": "list", "data": listed}).encode()
            self.send(200, "application/json", body)

    def do_POST(self) -> None:
        its = self.behaviour
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        its.asked.append(asked)
        its.keys.add(self.headers["authorization"])
        if its.status != 200:
            self.refuse()
        elif asked.get("stream"):
            lines = [f"data: {json.dumps(c)}\n\n" for c in its.stream]
            self.send(200, "text/event-stream", "".join([*lines, "data: [DONE]\n\n"]).encode())
        else:
            text = its.whole if isinstance(its.whole, str) else json.dumps(its.whole)
            self.send(200, its.content_type, text.encode())

    def refuse(self) -> None:
        # Gateways like to repeat the key that they refuse.
        said = f"{self.behaviour.error}; received {self.headers['authorization']}"
        body = json.dumps(
            {"error": {"message": said, "type": self.behaviour.kind, "code": "y"}}
        ).encode()
        self.send(self.behaviour.status, "application/json", body)


@contextmanager
def serving(shown: Certificate | None) -> Iterator[Gateway]:
    """A gateway that shows this certificate, or speaks plain HTTP."""
    behaviour = Gateway()
    handler = type("Handler", (_Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if shown:
            context = image_program("serve").tls_context(shown.pem)
            hear_names(context, behaviour.names)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        behaviour.port = server.server_port
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield behaviour
        server.shutdown()
        thread.join()
