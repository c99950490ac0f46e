"""The gateway's program as a process: TLS, its start and its end, with a stand-in for LiteLLM."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest

from adapters.gateway.client import await_ready, why_not_ready
from lab.endpoint import Endpoint
from lab.image.recipe import GATEWAY
from tests.unit.adapters.gateway.tls import NAME, certificate, endpoint, image_program

KEY = "sk-0123456789abcdefghijklmnopqrstuv"  # pragma: allowlist secret: made up
serve = image_program("serve")

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
    """``serve.py`` as its own process, with a stand-in for LiteLLM."""

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
    """should be ready as the rollout checks it, and refuse a client without the key"""
    await_ready(served.endpoint, KEY, deadline=0, log=lambda _: None)
    assert "refuses the lab's key" in str(why_not_ready(served.endpoint, "sk-another"))


def test_the_proxy_does_not_hold_the_private_key(served: Served) -> None:
    """should remove it from the environment before LiteLLM starts, and have it in no file"""
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
    """should answer 401 to any body, and the next question on the same connection"""
    with served.client(key=None) as client:
        for _ in range(2):
            answer = client.request(method, "/v1/models", content=b"x" * 300_000)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_websocket_without_the_key_gets_401(served: Served) -> None:
    """should treat its handshake like any question"""
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
    """should answer not one byte to a request that is not TLS"""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as plain:
        plain.sendall(f"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        try:
            said = plain.recv(1000)
        except ConnectionResetError:
            said = b""
    assert b"HTTP" not in said


def test_old_tls_is_not_accepted() -> None:
    """should accept nothing below 1.2"""
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


#: Invalid values of each secret. Ids are names, not values: they must show no secret, and be the
#: same in every process.
BAD_SECRETS = {
    "no key": ("LITELLM_MASTER_KEY", None),
    "an empty key": ("LITELLM_MASTER_KEY", ""),
    "a short key": ("LITELLM_MASTER_KEY", "sk-short"),
    "a key with blanks": ("LITELLM_MASTER_KEY", "sk-secret with a blank in it"),
    "a key with a line's end": ("LITELLM_MASTER_KEY", "sk-secret-with-an-end\n"),
    "no certificate": ("GATEWAY_TLS_PEM", None),
    "an empty certificate": ("GATEWAY_TLS_PEM", ""),
    "garbage": ("GATEWAY_TLS_PEM", "secret garbage"),
    "garbage like PEM": ("GATEWAY_TLS_PEM", "-----BEGIN secret garbage-----"),
    "an authority alone": ("GATEWAY_TLS_PEM", certificate().trust.ca),
    "a private key alone": (
        "GATEWAY_TLS_PEM",
        certificate().pem.partition("-----BEGIN CERTIFICATE-----")[0],
    ),
}


@pytest.mark.parametrize(("name", "value"), BAD_SECRETS.values(), ids=BAD_SECRETS)
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
    """should serve an answer to its end when the task has to stop, and log no key"""
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
