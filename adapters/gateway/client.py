"""The gateway as its callers see it: ready or not, which models it has, how each answers.

Models are asked through the ``openai`` client, as applications do. The key is an argument of every
call and goes into no message; it is sent only to a server that proves to be the lab's gateway.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk

from lab.endpoint import Endpoint
from lab.errors import PermanentError, TransientError
from lab.models.render import ValidationCase
from lab.report.model import ModelResult, Verdict
from lab.waiting import wait_for

#: How long one answer of a model may take, in seconds.
ANSWER_TIMEOUT = 60.0
#: The client's exceptions for an answer that is not of OpenAI's form: it checks no types.
_OF_ANOTHER_FORM = (AttributeError, TypeError, ValueError)
_FINISHED = {"stop", "length", "tool_calls", "content_filter"}


class BadAnswerError(PermanentError):
    """A model answered, but not as OpenAI's API promises."""


class CertificateError(PermanentError):
    """The server is not the lab's gateway, or cannot prove that it is; nothing was sent."""


def await_ready(
    endpoint: Endpoint,
    key: str,
    *,
    deadline: float,
    log: Callable[[str], None],
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Wait until the gateway at ``endpoint`` says that it is ready to serve.

    ``alive`` is called between tries and raises when the gateway can no longer start. Raises
    CertificateError at once if another server answers, PermanentError if it refuses the key.
    """
    last = "no answer yet"

    with httpx.Client(timeout=5.0, headers=_with(key), **pinned(endpoint)) as client:

        def check() -> bool | None:
            nonlocal last
            last = _not_ready(client, endpoint) or ""
            if not last:
                return True
            alive()
            return None

        wait_for(
            f"the gateway's readiness at {endpoint.url}",
            check,
            deadline=deadline,
            log=lambda text: log(f"{text}: {last}"),
            longest_pause=0.25,
        )


def why_not_ready(endpoint: Endpoint, key: str) -> str | None:
    """Why the gateway at ``endpoint`` is not ready to serve now; ``None`` if it is."""
    with httpx.Client(timeout=3.0, headers=_with(key), **pinned(endpoint)) as client:
        try:
            return _not_ready(client, endpoint)
        except PermanentError as error:
            return error.message


def _not_ready(client: httpx.Client, endpoint: Endpoint) -> str | None:
    try:
        status = client.get(f"{endpoint.url}/health/readiness").status_code
    except httpx.HTTPError as error:
        refused = certificate_error(error, endpoint.url)
        if refused:
            raise refused from None
        return f"{type(error).__name__}: {error}"
    if status == httpx.codes.UNAUTHORIZED:
        raise PermanentError(
            f"the gateway at {endpoint.url} refuses the lab's key",
            "A task reads the key when it starts: bring the lab up again.",
        )
    return None if status == httpx.codes.OK else f"HTTP {status}"


def open_client(endpoint: Endpoint, key: str) -> OpenAI:
    """An OpenAI client for the gateway; it tries a passing error twice more.

    It speaks only to the holder of the lab's certificate.
    """
    return openai.OpenAI(
        base_url=f"{endpoint.url}/v1",
        api_key=key,
        timeout=ANSWER_TIMEOUT,
        max_retries=2,
        http_client=openai.DefaultHttpxClient(**pinned(endpoint)),
    )


def _with(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def trusting(ca: str) -> ssl.SSLContext:
    """TLS that trusts the authorities in ``ca`` (PEM) and no other."""
    context = ssl.create_default_context(cadata=ca)
    # Newer Python versions do this by default.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def pinned(endpoint: Endpoint) -> dict[str, Any]:
    """Options of an httpx client that trusts only the lab's authority, for the lab's name."""
    context = trusting(endpoint.ca)

    def name_it(request: Any) -> None:
        request.extensions["sni_hostname"] = endpoint.tls_name

    return {"verify": context, "event_hooks": {"request": [name_it]}}


#: OpenSSL's X509_V_ERR_... codes, and what each means here.
_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_NAME = {62, 64}
_OTHER_AUTHORITY = {18, 19, 20, 21}
#: OpenSSL's reasons for an answer that is not TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"}


def certificate_error(error: BaseException, url: str) -> CertificateError | None:
    """What ``error`` says about the server at ``url``; ``None`` if it says nothing about it."""
    cause = _ssl_error(error)
    up_again = "Bring the lab up again: that makes another certificate."
    other = "Another lab may have the address now: `make env` asks for the present one."
    if isinstance(cause, ssl.SSLCertVerificationError):
        shown = f"the certificate of the gateway at {url}"
        code = cause.verify_code
        if code == _EXPIRED:
            return CertificateError(f"{shown} has expired", up_again)
        if code == _NOT_YET_VALID:
            return CertificateError(f"{shown} is not valid yet", "Look at this machine's clock.")
        if code in _OTHER_NAME:
            return CertificateError(f"{shown} is another gateway's: {cause.verify_message}", other)
        if code in _OTHER_AUTHORITY:
            return CertificateError(f"{shown} is not from the lab's own authority", other)
        return CertificateError(f"{shown} is refused: {cause.verify_message}", up_again)
    if cause is not None and cause.reason in _NO_TLS:
        return CertificateError(f"what answers at {url} does not speak TLS", other)
    return None


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def list_models(client: OpenAI) -> list[str]:
    """The aliases that the gateway serves; TransientError or PermanentError without an answer."""
    try:
        return [model.id for model in client.models.list()]
    except (openai.APIConnectionError, openai.InternalServerError) as error:
        refused = certificate_error(error, str(client.base_url))
        if refused:
            raise refused from None
        # Not `from error`: a log shows causes too, and a gateway may repeat a key that it refuses.
        said = _first_words(error, client.api_key)
        raise TransientError(f"the gateway did not list its models: {said}") from None
    except openai.OpenAIError as error:
        said = _first_words(error, client.api_key)
        raise PermanentError(f"the gateway did not list its models: {said}") from None


def refuses_key(client: OpenAI) -> bool:
    """Whether the gateway refuses the client's key: with 401, or as one that it does not know.

    False if it accepts the key. TransientError or PermanentError for any other answer.
    """
    try:
        client.models.list()
    except openai.AuthenticationError:
        return True
    except openai.BadRequestError as error:
        # LiteLLM looks for an unknown key in a database, and this gateway has none.
        if error.type == "no_db_connection":
            return True
        said = _first_words(error, client.api_key)
        raise PermanentError(f"the gateway did not refuse a key: {said}") from None
    except (openai.APIConnectionError, openai.InternalServerError) as error:
        refused = certificate_error(error, str(client.base_url))
        if refused:
            raise refused from None
        said = _first_words(error, client.api_key)
        raise TransientError(f"the gateway did not say whether it takes a key: {said}") from None
    except openai.OpenAIError as error:
        said = _first_words(error, client.api_key)
        raise PermanentError(f"the gateway did not refuse a key: {said}") from None
    return False


def ask_model(client: OpenAI, case: ValidationCase) -> ModelResult:
    """Ask the model for an answer and for a streamed answer; a failure is a verdict, never raised.

    ``first_token_ms`` and ``total_ms`` are of the streamed answer, the tokens of the other one.
    """
    result = ModelResult(alias=case.alias, model_id=case.model_id, verdict=Verdict.OK)
    try:
        prompt_tokens, completion_tokens = _ask_whole(client, case)
        result = result.model_copy(
            update={"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        )
        first, total = _ask_streamed(client, case)
        return result.model_copy(
            update={"first_token_ms": first, "total_ms": total, "streamed": True}
        )
    except (openai.OpenAIError, BadAnswerError, httpx.HTTPError, *_OF_ANOTHER_FORM) as error:
        refused = certificate_error(error, str(client.base_url))
        said = refused.message if refused else _first_words(error, client.api_key)
        return result.model_copy(update={"verdict": _verdict(error), "error": said})


def _ask_whole(client: OpenAI, case: ValidationCase) -> tuple[int, int]:
    answer = client.chat.completions.create(
        model=case.alias,
        messages=[{"role": "user", "content": case.probe.prompt}],
        max_tokens=case.probe.max_tokens,
    )
    if not answer.choices:
        raise BadAnswerError("the answer has no choices")
    choice = answer.choices[0]
    if not (choice.message.content or "").strip():
        raise BadAnswerError("the answer has no content")
    if choice.finish_reason not in _FINISHED:
        raise BadAnswerError(f"the answer's finish reason is {choice.finish_reason!r}")
    if not answer.usage or answer.usage.prompt_tokens < 1 or answer.usage.completion_tokens < 1:
        raise BadAnswerError(f"the answer does not count its tokens: {answer.usage}")
    return answer.usage.prompt_tokens, answer.usage.completion_tokens


def _ask_streamed(client: OpenAI, case: ValidationCase) -> tuple[float, float]:
    started = time.perf_counter()
    first: float | None = None
    finish: str | None = None
    counted = False
    with client.chat.completions.create(
        model=case.alias,
        messages=[{"role": "user", "content": case.probe.prompt}],
        max_tokens=case.probe.max_tokens,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunk: ChatCompletionChunk
        for chunk in stream:
            counted = counted or bool(chunk.usage and chunk.usage.completion_tokens)
            for choice in chunk.choices:
                if first is None and choice.delta.content:
                    first = time.perf_counter()
                finish = choice.finish_reason or finish
    ended = time.perf_counter()
    if first is None:
        raise BadAnswerError("the stream has no content")
    if finish not in _FINISHED:
        raise BadAnswerError(f"the stream's finish reason is {finish!r}")
    if not counted:
        raise BadAnswerError("the stream does not count its tokens")
    return round((first - started) * 1000, 1), round((ended - started) * 1000, 1)


def _verdict(error: Exception) -> Verdict:
    match error:
        case BadAnswerError() | AttributeError() | TypeError() | ValueError():
            return Verdict.BAD_ANSWER
        case openai.APITimeoutError() | httpx.TimeoutException():
            return Verdict.TIMEOUT
        case openai.APIConnectionError() | httpx.HTTPError():
            return Verdict.UNREACHABLE
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return Verdict.REFUSED
        case openai.NotFoundError():
            return Verdict.NOT_FOUND
        case openai.RateLimitError():
            return Verdict.THROTTLED
        case _:
            return Verdict.ERROR


def _first_words(error: Exception, key: str, most: int = 400) -> str:
    text = str(error)
    if isinstance(error, _OF_ANOTHER_FORM):
        text = f"the answer does not have the form of OpenAI's API: {text}"
    text = " ".join(text.replace(key, "(the key)").split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
