"""The gateway as its callers see it: ready or not, which models it has, how each answers.

All through the ``openai`` client, because that is what applications use. The key is an argument
of every call and goes into no message.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import httpx
import openai
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk

from lab.errors import PermanentError, TransientError
from lab.render import ValidationCase
from lab.report import ModelResult, Verdict
from lab.waiting import wait_for

#: How long one answer of a model may take, in seconds.
ANSWER_TIMEOUT = 60.0
#: What the client raises on an answer that is not of OpenAI's form: it checks no types.
_OF_ANOTHER_FORM = (AttributeError, TypeError, ValueError)
_FINISHED = {"stop", "length", "tool_calls", "content_filter"}


class BadAnswerError(PermanentError):
    """A model answered, but not with what OpenAI's API promises."""


def await_ready(
    endpoint: str,
    *,
    deadline: float,
    log: Callable[[str], None],
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Wait until the gateway at ``endpoint`` says that it is ready to serve.

    ``alive`` is called between tries and raises when the gateway can no longer come.
    """
    last = "no answer yet"

    with httpx.Client(timeout=5.0) as client:

        def check() -> bool | None:
            nonlocal last
            try:
                response = client.get(f"{endpoint}/health/readiness")
            except httpx.HTTPError as error:
                last = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == httpx.codes.OK:
                    return True
                last = f"HTTP {response.status_code}"
            alive()
            return None

        wait_for(
            f"the gateway's readiness at {endpoint}",
            check,
            deadline=deadline,
            log=lambda text: log(f"{text}: {last}"),
            longest_pause=1.0,
        )


def is_ready(endpoint: str) -> bool:
    """Whether the gateway at ``endpoint`` says, now, that it is ready to serve."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"{endpoint}/health/readiness", timeout=3.0).status_code == 200
    return False


def open_client(endpoint: str, key: str) -> OpenAI:
    """An OpenAI client for the gateway; it retries twice what is worth retrying."""
    return OpenAI(base_url=f"{endpoint}/v1", api_key=key, timeout=ANSWER_TIMEOUT, max_retries=2)


def list_models(client: OpenAI) -> list[str]:
    """The aliases that the gateway serves. TransientError or PermanentError if it does not say."""
    try:
        return [model.id for model in client.models.list()]
    except (openai.APIConnectionError, openai.InternalServerError) as error:
        # Not `from error`: a log shows causes too, and a gateway may repeat the key it refuses.
        said = _first_words(error, client.api_key)
        raise TransientError(f"the gateway did not list its models: {said}") from None
    except openai.OpenAIError as error:
        said = _first_words(error, client.api_key)
        raise PermanentError(f"the gateway did not list its models: {said}") from None


def refuses_key(client: OpenAI) -> bool:
    """Whether the gateway refuses the client's key: with 401, or as one that it does not know.

    False if the key opens it. TransientError or PermanentError if it says something else.
    """
    try:
        client.models.list()
    except openai.AuthenticationError:
        return True
    except openai.BadRequestError as error:
        # LiteLLM looks for a key that is not its own in a database, and this gateway has none.
        if error.type == "no_db_connection":
            return True
        said = _first_words(error, client.api_key)
        raise PermanentError(f"the gateway did not refuse a key: {said}") from None
    except (openai.APIConnectionError, openai.InternalServerError) as error:
        said = _first_words(error, client.api_key)
        raise TransientError(f"the gateway did not say whether it takes a key: {said}") from None
    except openai.OpenAIError as error:
        said = _first_words(error, client.api_key)
        raise PermanentError(f"the gateway did not refuse a key: {said}") from None
    return False


def ask_model(client: OpenAI, case: ValidationCase) -> ModelResult:
    """Ask the model for an answer and for a streamed answer; a failure is a verdict, never raised.

    ``first_token_ms`` and ``total_ms`` are those of the streamed answer, the tokens those of the
    whole one.
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
        return result.model_copy(
            update={"verdict": _verdict(error), "error": _first_words(error, client.api_key)}
        )


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
