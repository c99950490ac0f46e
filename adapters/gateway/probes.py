"""Probes that the gateway must refuse: with another trust, an older TLS, no TLS, no key.

Exists because only an attempt shows what a lab refuses. Each attempt is made on the live gateway
and must fail; the lab's key is sent only to ask for a model that the lab does not have, and goes
into no message.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx

from adapters.gateway.client import certificate_error, pinned, trusting
from lab.endpoint import Endpoint
from lab.errors import TransientError
from lab.posture import ForbiddenAttempt, Refusal, TlsHandshake

#: Seconds for one connection, and for one answer: refusals are quick.
TIMEOUT = 10.0
#: Routes that show, cost or change something, and those that a lab is for.
ROUTES = (
    "GET /v1/models",
    "POST /v1/chat/completions",
    "GET /",
    "GET /docs",
    "GET /ui",
    "GET /health",
    "GET /openapi.json",
    "POST /key/generate",
)
#: OpenSSL's own reasons not to ask at all; the server has then refused nothing.
_NOT_ASKED = {"NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE", "NO_CIPHER_MATCH"}
_AGAIN = "Try again; `lab-watch` shows whether the gateway is ready."


def shake_hands(endpoint: Endpoint) -> TlsHandshake:
    """What the gateway shows to a client that trusts the lab's authority and asks for its name.

    TransientError where nothing answers.
    """
    context = trusting(endpoint.ca)
    try:
        with (
            _connect(endpoint) as plain,
            context.wrap_socket(plain, server_hostname=endpoint.tls_name) as shown,
        ):
            certificate = shown.getpeercert() or {}
            version = shown.version() or "unknown TLS"
    except OSError as error:
        refused = certificate_error(error, endpoint.url)
        if refused is None:
            raise _no_answer(endpoint, error) from None
        return TlsHandshake(refused=refused.message)
    alternatives: tuple[tuple[str, str], ...] = certificate.get("subjectAltName", ())  # type: ignore[assignment]
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    return TlsHandshake(
        version=version,
        names=tuple(value for _, value in alternatives),
        not_after=datetime.fromtimestamp(ends, UTC),
    )


def try_public_trust(endpoint: Endpoint) -> ForbiddenAttempt:
    """A client that trusts only this machine's authorities must refuse the certificate."""
    context = ssl.create_default_context()
    try:
        with (
            _connect(endpoint) as plain,
            context.wrap_socket(plain, server_hostname=endpoint.tls_name),
        ):
            return ForbiddenAttempt(
                refused=False, said="this machine's own authorities signed it too"
            )
    except ssl.SSLCertVerificationError as error:
        return ForbiddenAttempt(refused=True, said=f"refused: {error.verify_message}")
    except OSError as error:
        raise _no_answer(endpoint, error) from None


def try_old_tls(endpoint: Endpoint) -> ForbiddenAttempt:
    """The gateway must refuse TLS 1.1, even to a client that would take it."""
    context = trusting(endpoint.ca)
    with warnings.catch_warnings():
        # It is tried because it is out of date.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with _connect(endpoint) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=endpoint.tls_name) as shown:
                return ForbiddenAttempt(refused=False, said=f"it speaks {shown.version()}")
        except ssl.SSLCertVerificationError as error:
            # The gateway went on and showed a certificate.
            said = f"it speaks TLS older than 1.2, and {error.verify_message}"
            return ForbiddenAttempt(refused=False, said=said)
        except ssl.SSLError as error:
            if error.reason in _NOT_ASKED:
                return ForbiddenAttempt(refused=False, said="this machine's TLS cannot ask for it")
            return ForbiddenAttempt(refused=True, said="TLS 1.1 refused")
        except TimeoutError as error:
            raise _no_answer(endpoint, error) from None
        except OSError:
            # A server that closes without an alert has refused too.
            return ForbiddenAttempt(refused=True, said="TLS 1.1 refused")


def try_plain_http(endpoint: Endpoint) -> ForbiddenAttempt:
    """A request without TLS must get no HTTP answer, not even a refusal."""
    with _connect(endpoint) as plain:
        try:
            plain.sendall(b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
            heard = plain.recv(64)
        except TimeoutError:
            return ForbiddenAttempt(refused=True, said="no answer")
        except OSError:
            heard = b""
    if heard.startswith(b"HTTP/"):
        line = heard.splitlines()[0].decode("latin-1")
        return ForbiddenAttempt(refused=False, said=f"answered {line}")
    return ForbiddenAttempt(refused=True, said="no HTTP answer")


def ask_without_key(endpoint: Endpoint) -> list[Refusal]:
    """The answers of :data:`ROUTES` to a client without a key, and to one with a wrong key."""
    wrong = f"sk-{secrets.token_urlsafe(32)}"
    keys: dict[str, dict[str, str]] = {
        "without a key": {},
        "with a wrong key": {"Authorization": f"Bearer {wrong}"},
    }
    with httpx.Client(timeout=TIMEOUT, **pinned(endpoint)) as client:
        return [
            _ask(client, endpoint, route, headers, f"{route} {how}", {})
            for how, headers in keys.items()
            for route in ROUTES
        ]


def ask_for_models(endpoint: Endpoint, key: str, models: Sequence[str]) -> list[Refusal]:
    """The gateway's answers to a client with the key that asks for models that the lab lacks."""
    found = []
    with httpx.Client(timeout=TIMEOUT, **pinned(endpoint)) as client:
        for model in models:
            asked = {
                "model": model,
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": 1,
            }
            headers = {"Authorization": f"Bearer {key}"}
            route = "POST /v1/chat/completions"
            found.append(_ask(client, endpoint, route, headers, model, asked))
    return found


def _ask(
    client: httpx.Client,
    endpoint: Endpoint,
    route: str,
    headers: dict[str, str],
    what: str,
    body: dict[str, object],
) -> Refusal:
    method, _, path = route.partition(" ")
    try:
        answer = client.request(
            method,
            f"{endpoint.url}{path}",
            headers=headers,
            json=body if method == "POST" else None,
            follow_redirects=False,
        )
    except httpx.HTTPError as error:
        raise certificate_error(error, endpoint.url) or _no_answer(endpoint, error) from None
    return Refusal(what, answer.status_code, _is_openai_error(answer))


def _is_openai_error(answer: httpx.Response) -> bool:
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(error, dict) and {"message", "type", "code"} <= error.keys()


def _connect(endpoint: Endpoint) -> socket.socket:
    place = urlsplit(endpoint.url)
    try:
        return socket.create_connection((place.hostname or "", place.port or 443), timeout=TIMEOUT)
    except OSError as error:
        raise _no_answer(endpoint, error) from None


def _no_answer(endpoint: Endpoint, error: Exception) -> TransientError:
    said = f"{type(error).__name__}: {error}"
    return TransientError(f"the gateway at {endpoint.url} does not answer: {said}", _AGAIN)
