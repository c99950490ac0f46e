"""Serves LiteLLM's proxy over TLS, behind a gate that refuses every request without the key.

Exists because LiteLLM wants its certificate as files, answers a missing key with anything from 200
to 500, and has hundreds of routes, many of which are for its administrators. It may write nothing
to disk, and no value of a secret anywhere.
"""

import asyncio
import gc
import hmac
import json
import logging
import os
import re
import ssl
import sys
import tempfile

KEY, PEM = "LITELLM_MASTER_KEY", "GATEWAY_TLS_PEM"
FAILED = "The gateway failed."
# Below the two minutes that ECS grants, so that the proxy's own end fits in too.
DRAIN_SECONDS = 100
GOODBYE_SECONDS = 1
# The routes that a lab is for. All others of LiteLLM are left out: its UI, its documentation,
# /health, which calls every model at a cost, and everything that configures it.
SERVED = re.compile(
    r"POST /v1/(chat/completions|completions|responses)"
    r"|GET /v1/models(/[^/]+)?"
    r"|GET /health/(liveliness|readiness)"
)


def is_served(method: str, path: str) -> bool:
    """Whether a lab's gateway has this route."""
    return SERVED.fullmatch(f"{method} {path}") is not None


class Gate:
    """An ASGI application that passes on only requests with the key to routes that are served."""

    def __init__(self, app, key: str) -> None:  # noqa: ANN001
        self._app, self._wanted = app, f"Bearer {key}".encode()

    async def __call__(self, scope, receive, send) -> None:  # noqa: ANN001
        """Refuse as OpenAI does: a request without the key with 401, an unknown route with 404."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif not self._is_known(scope["headers"]):
            await _refuse(send, 401, "Incorrect API key provided.", "invalid_api_key")
        elif not is_served(scope["method"], scope["path"]):
            await _refuse(send, 404, "This gateway has no such route.", "unknown_url")
        else:
            answer = Answer(send)
            try:
                await self._app(scope, receive, answer.send)
            except Exception:
                if answer.begun:
                    raise
                logging.getLogger("uvicorn.error").exception("LiteLLM failed")
                await _refuse(send, 500, FAILED, None)

    def _is_known(self, headers: list[tuple[bytes, bytes]]) -> bool:
        # Exactly one: of two headers, LiteLLM might read the other.
        given = [value for name, value in headers if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._wanted)


class Answer:
    """An answer of LiteLLM on its way out: an error in plain text, or in a web framework's form,
    gets OpenAI's form.
    """

    def __init__(self, send) -> None:  # noqa: ANN001
        self._send, self._error, self._body = send, None, b""
        self.begun = False

    async def send(self, message) -> None:  # noqa: ANN001
        """Pass ``message`` on, but keep an error until it is complete."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._error = message
        elif self._error is None:
            self.begun = True
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                self.begun = True
                await self._send_error(self._error, self._body)

    async def _send_error(self, start, body: bytes) -> None:  # noqa: ANN001
        try:
            said = json.loads(body)
            known = "error" in said
        except (ValueError, TypeError):
            said, known = {}, False
        if known or b"content-encoding" in dict(start["headers"]):
            await self._send(start)
            await self._send({"type": "http.response.body", "body": body})
        else:
            words = said.get("detail") if isinstance(said, dict) else None
            await _refuse(self._send, start["status"], str(words or FAILED), None)


async def _refuse(send, status: int, message: str, code: str | None) -> None:  # noqa: ANN001
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def tls_context(pem: str) -> ssl.SSLContext:
    """TLS 1.2 or newer with the key and certificates in ``pem``, which stay in memory."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    with os.fdopen(os.memfd_create("tls"), "w") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context


def without_query(record: logging.LogRecord) -> bool:
    """Cut the query off a line of the access log: some clients put keys there."""
    client, method, path, *rest = record.args
    record.args = (client, method, path.partition("?")[0], *rest)
    return True


def _loop() -> asyncio.AbstractEventLoop:
    """A loop whose TLS servers wait a second, not half a minute, for a client's TLS shutdown.

    Clients that keep idle connections never send it, and a stop would wait for them.
    """
    import uvloop

    class Loop(uvloop.Loop):
        async def create_server(self, *args, **options):  # noqa: ANN002, ANN003, ANN202
            options["ssl_shutdown_timeout"] = GOODBYE_SECONDS
            return await super().create_server(*args, **options)

    return Loop()


def _given(name: str, form: str) -> str:
    value = os.environ.get(name, "")
    if not re.fullmatch(form, value, re.DOTALL):
        sys.exit(
            f"{name} is {'not in the right form' if value else 'missing'}: the task sets it "
            "from Secrets Manager; bring the lab up again."
        )
    return value


def _import_app():  # noqa: ANN202
    """LiteLLM's application. Takes seconds, so all checks that can fail at once come first."""
    # Hundreds of thousands of objects are made and all of them stay: the search for garbage among
    # them takes a third of the time. Frozen objects are not searched while serving either.
    gc.disable()
    from deferred import defer

    defer(is_served)
    from litellm.litellm_core_utils.litellm_logging import Logging
    from litellm.proxy.proxy_server import app

    Logging.async_success_handler = _keep_no_record
    gc.freeze()
    gc.enable()
    return app


async def _keep_no_record(*_, **__) -> None:  # noqa: ANN002, ANN003
    """Replaces LiteLLM's recording of answers for loggers, budgets and limits: a lab has none."""


def main() -> None:
    """Serve until a signal stops it, then let the running requests end."""
    key = _given(KEY, r"[!-~]{20,}")
    try:
        context = tls_context(_given(PEM, r"-----BEGIN .*-----\s*"))
    except (ssl.SSLError, ValueError):
        sys.exit(f"{PEM} holds no private key with its certificate; bring the lab up again.")
    del os.environ[PEM]
    # LiteLLM asks at import where temporary files go. The task has no such folder, and no served
    # route needs one.
    tempfile.tempdir = "/tmp"  # noqa: S108
    app = _import_app()
    import uvicorn

    logging.getLogger("uvicorn.access").addFilter(without_query)
    config = uvicorn.Config(
        Gate(app, key),
        host="0.0.0.0",  # noqa: S104
        port=int(os.environ.get("PORT", "4000")),
        ssl_context_factory=lambda *_: context,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
