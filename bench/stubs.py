"""Stand-ins that answer after a given time: Bedrock to a gateway, and a gateway to its callers.

Exists so that a measurement of the gateway or of the validation depends on no model. It runs as a
process of its own: its work must not slow what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import runpy
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from typing import Any

import docker
import uvicorn

from adapters.process import end_process
from lab.errors import PermanentError
from lab.image.recipe import GATEWAY
from lab.settings import ROOT

WORDS = ("An ", "answer ", "of ", "a ", "stand-in.")
USAGE = {"inputTokens": 12, "outputTokens": 5, "totalTokens": 17}
#: A model whose name ends with this takes four times as long.
SLOW = "-slow"
#: A question with these words gets Bedrock's answer for a model that does not exist.
NOT_FOUND = "as if there were no such model"
START_SECONDS = 30.0
#: The environment variable with the key and certificate of the stub's process.
PEM = "BENCH_TLS_PEM"


@contextmanager
def stub(*, delay: float, host: str = "127.0.0.1", pem: str = "") -> Iterator[str]:
    """A stub at ``host`` that answers after ``delay`` seconds, within the block; its URL.

    With ``pem``, a key and its certificate, it speaks TLS as the lab's gateway does.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.stubs", "--host", host, "--delay", str(delay)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), PEM: pem},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        port = child.stdout.readline().decode().strip()
        if not port:
            raise PermanentError(f"the stub did not start at {host}", "Its output is above.")
        yield f"{'https' if pem else 'http'}://{host}:{port}"
    finally:
        end_process(child)


def host_seen_by_containers(client: docker.DockerClient) -> str:
    """This machine's address on the engine's own bridge."""
    pool = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    # Docker 20.10 names no gateway until the first restart after it has made the bridge. It is the
    # first address.
    return str(pool.get("Gateway") or next(ip_network(pool["Subnet"]).hosts()))


class Stub:
    """An ASGI application: Bedrock's Converse and OpenAI's chat, whole and streamed."""

    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["path"]
        asked = json.loads(body) if body else {}
        await asyncio.sleep(self._delay * (4 if str(asked.get("model", "")).endswith(SLOW) else 1))
        if NOT_FOUND.encode() in body:
            await _whole(send, {"message": "The model is not found."}, status=404)
        elif path.endswith("/converse"):
            await _whole(send, _converse())
        elif path.endswith("/converse-stream"):
            await _streamed(send, "application/vnd.amazon.eventstream", _converse_events())
        elif path.endswith("/chat/completions") and asked.get("stream"):
            await _streamed(send, "text/event-stream", _chat_events(asked["model"]))
        elif path.endswith("/chat/completions"):
            await _whole(send, _chat(asked["model"]))
        else:
            await _whole(send, {"message": f"the stub has no {path}"}, status=404)


async def _whole(send: Any, answer: dict[str, Any], status: int = 200) -> None:
    await _start(send, "application/json", status)
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def _streamed(send: Any, kind: str, events: Iterator[bytes]) -> None:
    await _start(send, kind)
    for event in events:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _start(send: Any, kind: str, status: int = 200) -> None:
    headers = [(b"content-type", kind.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})


def _converse() -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": "".join(WORDS)}]}},
        "stopReason": "end_turn",
        "usage": USAGE,
        "metrics": {"latencyMs": 1},
    }


def _converse_events() -> Iterator[bytes]:
    yield event_message("messageStart", {"role": "assistant"})
    for word in WORDS:
        delta = {"delta": {"text": word}, "contentBlockIndex": 0}
        yield event_message("contentBlockDelta", delta)
    yield event_message("contentBlockStop", {"contentBlockIndex": 0})
    yield event_message("messageStop", {"stopReason": "end_turn"})
    yield event_message("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}})


def event_message(kind: str, payload: dict[str, Any]) -> bytes:
    """One message of AWS's event stream encoding: prelude, headers, payload, and two checksums.

    Source: AWS, "Event stream encoding" (Amazon Transcribe's guide). botocore only reads it.
    """
    headers = b""
    for name, value in (
        (":event-type", kind),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ):
        # 7: a string, with its length in two bytes.
        headers += bytes([len(name)]) + name.encode()
        headers += b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


def _chat(model: str) -> dict[str, Any]:
    return {
        "id": "stub",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "".join(WORDS)},
                "finish_reason": "stop",
            }
        ],
        "usage": _openai_usage(),
    }


def _chat_events(model: str) -> Iterator[bytes]:
    def event(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        chunk = {
            "id": "stub",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": model,
            "choices": choices,
            "usage": usage,
        }
        return f"data: {json.dumps(chunk)}\n\n".encode()

    for word in WORDS:
        yield event([{"index": 0, "delta": {"content": word}, "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    yield event([], _openai_usage())
    yield b"data: [DONE]\n\n"


def _openai_usage() -> dict[str, int]:
    return {
        "prompt_tokens": USAGE["inputTokens"],
        "completion_tokens": USAGE["outputTokens"],
        "total_tokens": USAGE["totalTokens"],
    }


def _gateways_own(name: str) -> Any:
    """A function of the program in the gateway's image."""
    return runpy.run_path(str(GATEWAY.folder / "serve.py"))[name]


def main() -> None:
    """Serve at a free port; write its number to standard output first."""
    parser = argparse.ArgumentParser(prog="python -m bench.stubs")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--delay", type=float, required=True, help="seconds before an answer")
    options = parser.parse_args()
    # With the protocol named, asyncio switches Nagle's algorithm off; it would add 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind((options.host, 0))
    listener.listen(256)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    pem = os.environ.get(PEM)
    config = uvicorn.Config(
        Stub(options.delay),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ssl_context_factory=(lambda *_: _gateways_own("tls_context")(pem)) if pem else None,
    )
    # An interrupt is how it is ended.
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
