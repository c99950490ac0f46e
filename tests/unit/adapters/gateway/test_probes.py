"""What a caller without the key may not get from the gateway, tried on real servers on loopback."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from adapters.gateway import probes
from adapters.gateway.client import CertificateError
from adapters.gateway.probes import (
    ROUTES,
    ask_for_models,
    ask_without_key,
    shake_hands,
    try_old_tls,
    try_plain_http,
    try_public_trust,
)
from lab.certificate import Certificate
from lab.endpoint import Endpoint
from lab.errors import TransientError
from lab.names import tls_name
from lab.posture import judge_certificate, judge_gateway_models, judge_key
from tests.unit.adapters.gateway.tls import NAME, certificate, endpoint, image_program

KEY = "sk-0123456789abcdefghijklmnopqrstuv"  # pragma: allowlist secret: made up
OLD_CIPHERS = "ALL:@SECLEVEL=0"


class Door(BaseHTTPRequestHandler):
    """Refuses as the lab's gate does, except where a test opens it."""

    protocol_version = "HTTP/1.1"
    open_routes: tuple[str, ...] = ()
    wrong_key_status = 401
    known_models: tuple[str, ...] = ()
    openai_form = True
    asked: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        route = f"{self.command} {self.path}"
        given = self.headers.get("authorization")
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        self.asked.append(f"{route} {given}")
        if route in self.open_routes:
            self.send(200, {"open": True})
        elif given != f"Bearer {KEY}":
            status = self.wrong_key_status if given else 401
            self.refuse(status, f"Incorrect key {given}")
        elif body.get("model") in self.known_models:
            self.send(200, {"choices": []})
        else:
            self.refuse(400, f"Invalid model name {body.get('model')}")

    def refuse(self, status: int, message: str) -> None:
        error = {"message": message, "type": "x", "param": None, "code": "y"}
        self.send(status, {"error": error} if self.openai_form else {"detail": message})

    def send(self, status: int, content: object) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()


@contextmanager
def serving(
    shown: Certificate | None = None, context: ssl.SSLContext | None = None, **door: object
) -> Iterator[tuple[Endpoint, list[str]]]:
    """A gateway with the lab's TLS, or in ``context`` (``shown`` and none of both: plain HTTP)."""
    asked: list[str] = []
    handler = type("OwnDoor", (Door,), {**door, "asked": asked})

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    with Quiet(("127.0.0.1", 0), handler) as server:
        if shown and context is None:
            context = image_program("serve").tls_context(shown.pem)
        if context:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield endpoint(server.server_port), asked
        server.shutdown()
        thread.join()


def tls(shown: Certificate, least: ssl.TLSVersion, most: ssl.TLSVersion) -> ssl.SSLContext:
    """A server's TLS of other versions than the gateway's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers(OLD_CIPHERS)
        context.minimum_version, context.maximum_version = least, most
    with os.fdopen(os.memfd_create("tls"), "w") as file:
        file.write(shown.pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context


@pytest.fixture
def good() -> Iterator[tuple[Endpoint, list[str]]]:
    with serving(certificate()) as found:
        yield found


@pytest.fixture
def nowhere() -> Endpoint:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return endpoint(probe.getsockname()[1])


def test_the_labs_own_gateway_is_recognized(good: tuple[Endpoint, list[str]]) -> None:
    """should return version, names and end of the certificate"""
    shown = shake_hands(good[0])
    assert shown.refused is None
    assert shown.version == "TLSv1.3"
    assert shown.names == (NAME,)
    assert shown.not_after == certificate().trust.not_after


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (certificate(hours=-1), "has expired"),
        (certificate(tls_name("another")), "another gateway's"),
    ],
)
def test_a_bad_certificate_is_missed(shown: Certificate, said: str) -> None:
    """should say that it expired, or is for another lab, and miss the check"""
    with serving(shown) as (there, _):
        pinned = there.model_copy(update={"ca": shown.trust.ca})
        seen = shake_hands(pinned)
    check = judge_certificate(seen, NAME, certificate().trust.not_after)
    assert not check.passed
    assert said in check.found


def test_another_authority_is_missed() -> None:
    """should not accept the right name from another authority"""
    with serving(certificate(hours=2)) as (there, _):
        assert "not from the lab's own authority" in (shake_hands(there).refused or "")


def test_a_gateway_without_tls_is_missed() -> None:
    """should say so, and miss the check of plain requests too"""
    with serving() as (there, asked):
        assert "does not speak TLS" in (shake_hands(there).refused or "")
        probe = try_plain_http(there)
        assert not probe.refused
        assert "HTTP/1.1 401" in probe.said
    assert asked


def test_the_gateway_gives_no_plain_answer(good: tuple[Endpoint, list[str]]) -> None:
    """should not answer HTTP in any form"""
    assert try_plain_http(good[0]).refused
    assert good[1] == []


def test_a_silent_gateway_gives_no_plain_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """should take silence for no answer"""
    monkeypatch.setattr(probes, "TIMEOUT", 0.2)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert try_plain_http(endpoint(listening.getsockname()[1])).refused


def test_public_authorities_are_not_enough(
    good: tuple[Endpoint, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """should be refused by a client with this machine's authorities, unless the lab's is one"""
    probe = try_public_trust(good[0])
    assert probe.refused
    assert "refused" in probe.said
    trusted = f"{tmp_path}/ca.pem"
    with open(trusted, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(certificate().trust.ca)
    monkeypatch.setenv("SSL_CERT_FILE", trusted)
    assert not try_public_trust(good[0]).refused


def test_old_tls_is_refused(good: tuple[Endpoint, list[str]]) -> None:
    """should be the gateway's own refusal"""
    probe = try_old_tls(good[0])
    assert probe.refused
    assert probe.said == "TLS 1.1 refused"


@pytest.mark.parametrize("shown", [certificate(), certificate(hours=2)])
def test_accepted_old_tls_is_missed(shown: Certificate) -> None:
    """should be missed whether or not the client accepts the certificate"""
    with serving(context=tls(shown, ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_2)) as (there, _):
        probe = try_old_tls(there)
    assert not probe.refused
    assert "TLS" in probe.said


def test_every_route_needs_the_key(good: tuple[Endpoint, list[str]]) -> None:
    """should ask each route without a key and with a wrong one, a new one each time"""
    there, asked = good
    refusals = ask_without_key(there)
    assert judge_key(refusals).passed
    assert len(refusals) == 2 * len(ROUTES) == len(asked)
    assert all(KEY not in line for line in asked)
    assert {line.rsplit(" ", 1)[-1] for line in asked[: len(ROUTES)]} == {"None"}
    wrong = {line.rsplit(" ", 1)[-1] for line in asked[len(ROUTES) :]}
    assert len(wrong) == 1
    ask_without_key(there)
    assert wrong != {asked[-1].rsplit(" ", 1)[-1]}


@pytest.mark.parametrize(
    ("door", "said"),
    [
        ({"open_routes": ("GET /docs",)}, "GET /docs without a key: 200"),
        ({"open_routes": ("GET /v1/models",)}, "GET /v1/models without a key: 200"),
        ({"wrong_key_status": 400}, "with a wrong key: 400"),
        ({"openai_form": False}, "401 not in OpenAI's form"),
    ],
)
def test_a_route_that_needs_no_key_is_missed(door: dict[str, object], said: str) -> None:
    """should name the route, and how it was asked"""
    with serving(certificate(), **door) as (there, _):
        check = judge_key(ask_without_key(there))
    assert not check.passed
    assert said in check.found


def test_models_outside_the_lab_are_refused(good: tuple[Endpoint, list[str]]) -> None:
    """should ask for each name with the key"""
    there, asked = good
    check = judge_gateway_models(ask_for_models(there, KEY, ["vendor.x", "bedrock/vendor.x"]))
    assert check.passed
    assert "vendor.x: 400" in check.found
    assert asked == [f"POST /v1/chat/completions Bearer {KEY}"] * 2
    assert KEY not in check.found


def test_a_model_outside_the_lab_that_answers_is_missed() -> None:
    """should name the model"""
    with serving(certificate(), known_models=("vendor.x",)) as (there, _):
        check = judge_gateway_models(ask_for_models(there, KEY, ["vendor.x"]))
    assert not check.passed
    assert "vendor.x: 200" in check.found


@pytest.mark.parametrize(
    "ask", [shake_hands, try_public_trust, try_old_tls, try_plain_http, ask_without_key]
)
def test_no_answer_is_a_transient_error(ask: object, nowhere: Endpoint) -> None:
    """should be worth another try: nothing was refused"""
    with pytest.raises(TransientError, match="does not answer"):
        ask(nowhere)  # type: ignore[operator]


def test_no_other_server_is_asked() -> None:
    """should send no key, and no request, to a server that is not the lab's gateway"""
    with serving(certificate(hours=2)) as (there, asked):
        with pytest.raises(CertificateError):
            ask_for_models(there, KEY, ["vendor.x"])
        with pytest.raises(CertificateError):
            ask_without_key(there)
    assert asked == []
