"""Each way in which a model can fail is a verdict with its reason, over real TLS on loopback."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai import OpenAI

from adapters.gateway import client as gateway
from adapters.gateway.client import (
    CertificateError,
    ask_model,
    await_ready,
    list_models,
    open_client,
    refuses_key,
    why_not_ready,
)
from lab.certificate import Certificate
from lab.endpoint import Endpoint
from lab.errors import DeadlineError, LabError, PermanentError, TransientError
from lab.models.catalog import ModelProbe
from lab.models.render import ValidationCase
from lab.report.model import Verdict
from tests.unit.adapters.gateway.fake_gateway import (
    KEY,
    USAGE,
    Gateway,
    choice,
    chunk,
    serving,
    whole,
)
from tests.unit.adapters.gateway.tls import certificate, endpoint

CASE = ValidationCase(
    alias="one", model_id="vendor.one", probe=ModelProbe(prompt="Hi?", max_tokens=5)
)


@pytest.fixture
def served() -> Iterator[Gateway]:
    with serving(certificate()) as behaviour:
        yield behaviour


@pytest.fixture
def client(served: Gateway) -> Iterator[OpenAI]:
    with open_client(served.endpoint, KEY) as opened:
        yield opened


@pytest.fixture
def nowhere() -> Endpoint:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return endpoint(probe.getsockname()[1])


def test_a_model_that_answers_is_ok(served: Gateway, client: OpenAI) -> None:
    """should have the tokens of the whole answer and the times of the stream"""
    result = ask_model(client, CASE)
    assert (result.verdict, result.error, result.streamed) == (Verdict.OK, None, True)
    assert (result.alias, result.model_id) == ("one", "vendor.one")
    assert (result.prompt_tokens, result.completion_tokens) == (7, 9)
    assert result.first_token_ms is not None
    assert result.total_ms is not None
    assert 0 < result.first_token_ms <= result.total_ms


def test_asks_as_the_catalogue_says(served: Gateway, client: OpenAI) -> None:
    """should ask once for a whole and once for a streamed answer, with the lab's key"""
    ask_model(client, CASE)
    first, second = served.asked
    assert "stream" not in first
    assert second["stream"] is True
    assert second["stream_options"] == {"include_usage": True}
    for asked in served.asked:
        assert asked["model"] == "one"
        assert asked["messages"] == [{"role": "user", "content": "Hi?"}]
        assert asked["max_tokens"] == 5
    assert served.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_truncated_answer_is_an_answer(served: Gateway, client: OpenAI, finish: str) -> None:
    """should accept both ends that a short probe can have"""
    served.whole = whole(choice(finish=finish))
    assert ask_model(client, CASE).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (whole(choice("")), "no content"),
        (whole(choice("  \n")), "no content"),
        (whole(choice(None)), "no content"),
        (whole(choice(finish="error")), "finish reason is 'error'"),
        (whole(choice(finish=None)), "finish reason is None"),
        (whole(usage=None), "does not count its tokens"),
        (whole(usage={**USAGE, "completion_tokens": 0}), "does not count its tokens"),
        (whole(usage={**USAGE, "prompt_tokens": 0}), "does not count its tokens"),
        ({**whole(), "choices": []}, "no choices"),
        ({}, "no choices"),
        (whole({}), ""),
        ([], ""),
        ("null", ""),
        ("{", ""),
    ],
)
def test_a_malformed_answer_is_a_bad_answer(
    served: Gateway, client: OpenAI, answer: Any, why: str
) -> None:
    """should say what is wrong with the answer, and not crash on one of another form"""
    served.whole = answer
    result = ask_model(client, CASE)
    assert result.verdict is Verdict.BAD_ANSWER
    assert why in str(result.error)
    assert result.streamed is False


def test_a_web_page_is_a_bad_answer(served: Gateway, client: OpenAI) -> None:
    """should not crash if a proxy answers with its own page"""
    served.whole, served.content_type = "<html>Sign in</html>", "text/html"
    assert ask_model(client, CASE).verdict is Verdict.BAD_ANSWER


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        ([], "no content"),
        ([chunk(None, "stop"), chunk(usage=USAGE)], "no content"),
        ([chunk("A"), chunk(usage=USAGE)], "finish reason is None"),
        ([chunk("A"), chunk(None, "error"), chunk(usage=USAGE)], "finish reason is 'error'"),
        ([chunk("A"), chunk(None, "stop")], "does not count its tokens"),
        ([{**chunk(), "choices": [{"index": 0, "delta": None}]}], ""),
    ],
)
def test_a_malformed_stream_is_a_bad_answer(
    served: Gateway, client: OpenAI, stream: list[Any], why: str
) -> None:
    """should keep the tokens of the whole answer and say what the stream lacks"""
    served.stream = stream
    result = ask_model(client, CASE)
    assert result.verdict is Verdict.BAD_ANSWER
    assert why in str(result.error)
    assert result.prompt_tokens == 7
    assert (result.streamed, result.first_token_ms) == (False, None)


def test_an_error_within_the_stream_is_reported(served: Gateway, client: OpenAI) -> None:
    """should have the gateway's words from the middle of a stream"""
    served.stream = [chunk("A"), {"error": {"message": "the model broke off", "code": 500}}]
    result = ask_model(client, CASE)
    assert result.verdict is Verdict.ERROR
    assert "the model broke off" in str(result.error)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (400, Verdict.ERROR),
        (401, Verdict.REFUSED),
        (403, Verdict.REFUSED),
        (404, Verdict.NOT_FOUND),
        (429, Verdict.THROTTLED),
        (500, Verdict.ERROR),
        (503, Verdict.ERROR),
    ],
)
def test_each_refusal_has_its_verdict(
    served: Gateway, client: OpenAI, status: int, verdict: Verdict
) -> None:
    """should name the class of the failure and the gateway's words, without the key"""
    served.status = status
    result = ask_model(client, CASE)
    assert result.verdict is verdict
    assert "it is so" in str(result.error)
    assert KEY not in str(result.error)


def test_a_long_error_is_truncated(served: Gateway, client: OpenAI) -> None:
    """should fit a table, without the key where it is cut"""
    served.status, served.error = 400, "x" * 350
    error = str(ask_model(client, CASE).error)
    assert len(error) <= 400
    assert "sk-the" not in error


def test_a_missing_gateway_is_unreachable(nowhere: Endpoint) -> None:
    """should also be a verdict if nothing listens"""
    client = open_client(nowhere, KEY).with_options(max_retries=0)
    result = ask_model(client, CASE)
    assert result.verdict is Verdict.UNREACHABLE
    assert result.error


def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    """should not wait forever for a gateway that reads the question and does not answer"""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = open_client(endpoint(silent.getsockname()[1]), KEY).with_options(
            max_retries=0, timeout=0.2
        )
        assert ask_model(client, CASE).verdict is Verdict.TIMEOUT


def test_every_question_has_a_time_limit(nowhere: Endpoint) -> None:
    """should limit each question and try again only after a transient failure"""
    client = open_client(nowhere, KEY)
    assert client.timeout == gateway.ANSWER_TIMEOUT
    assert client.max_retries == 2


def test_lists_the_models(served: Gateway, client: OpenAI) -> None:
    """should be the aliases in the gateway's answer"""
    assert list_models(client) == ["one", "two"]


@pytest.mark.parametrize(("status", "kind"), [(500, TransientError), (401, PermanentError)])
def test_a_list_that_is_refused(
    served: Gateway, client: OpenAI, status: int, kind: type[LabError]
) -> None:
    """should be worth another try only if the refusal may pass, and have no key"""
    served.status = status
    with pytest.raises(kind) as caught:
        list_models(client)
    shown = "".join(traceback.format_exception(caught.value))
    assert "it is so" in shown
    assert KEY not in shown


def test_no_list_if_nothing_listens(nowhere: Endpoint) -> None:
    """should be worth another try"""
    with pytest.raises(TransientError):
        list_models(open_client(nowhere, KEY).with_options(max_retries=0))


def test_waits_until_it_is_ready(served: Gateway) -> None:
    """should go on asking, with the key, while the gateway says that it is not ready"""
    served.readiness = [503, 200]
    asked: list[int] = []
    await_ready(
        served.endpoint, KEY, deadline=30, log=lambda _: None, alive=lambda: asked.append(1)
    )
    assert len(asked) == 1
    assert why_not_ready(served.endpoint, KEY) is None
    assert served.keys == {f"Bearer {KEY}"}


def test_waits_until_the_gateway_listens(nowhere: Endpoint) -> None:
    """should take a closed port for a gateway that is still starting"""
    tries: list[int] = []

    def alive() -> None:
        tries.append(1)
        if len(tries) == 2:
            raise PermanentError("that is enough")

    with pytest.raises(PermanentError, match="that is enough"):
        await_ready(nowhere, KEY, deadline=600, log=lambda _: None, alive=alive)


def test_ends_at_once_when_it_can_no_longer_be_ready(nowhere: Endpoint) -> None:
    """should raise the exception of `alive` instead of waiting for the deadline"""

    def dead() -> None:
        raise PermanentError("the new task failed")

    with pytest.raises(PermanentError, match="the new task failed"):
        await_ready(nowhere, KEY, deadline=600, log=lambda _: None, alive=dead)


def test_a_gateway_that_is_never_ready_is_an_error(served: Gateway) -> None:
    """should name the endpoint when the deadline has passed"""
    served.readiness = [503]
    with pytest.raises(DeadlineError, match=served.endpoint.url):
        await_ready(served.endpoint, KEY, deadline=0, log=lambda _: None)
    assert why_not_ready(served.endpoint, KEY) == "HTTP 503"


def test_it_does_not_wait_after_a_refused_key(served: Gateway) -> None:
    """should say so at once: the task has another key, and will keep it"""
    served.readiness = [401]
    with pytest.raises(PermanentError, match="refuses the lab's key") as caught:
        await_ready(served.endpoint, KEY, deadline=600, log=lambda _: None)
    assert KEY not in str(caught.value)
    assert "refuses the lab's key" in str(why_not_ready(served.endpoint, KEY))


def test_a_closed_port_is_not_ready(nowhere: Endpoint) -> None:
    """should be an answer, not an error"""
    assert "ConnectError" in str(why_not_ready(nowhere, KEY))


def waiting(where: Endpoint) -> None:
    await_ready(where, KEY, deadline=600, log=lambda _: None)


def listing(where: Endpoint) -> None:
    list_models(open_client(where, KEY).with_options(max_retries=0))


IMPOSTORS = [
    (certificate("gateway-lab-other.internal"), None, "not from the lab's own authority"),
    (certificate(), "gateway-lab-other.internal", "is another gateway's"),
    (certificate(hours=-1), None, "has expired"),
    (None, None, "does not speak TLS"),
]


@pytest.mark.parametrize("call", [waiting, listing])
@pytest.mark.parametrize(("shown", "asked_for", "message"), IMPOSTORS)
def test_no_other_server_is_taken_for_the_gateway(
    shown: Certificate | None,
    asked_for: str | None,
    message: str,
    call: Callable[[Endpoint], None],
) -> None:
    """should end at once, say what is wrong, and send nothing: no question and no key"""
    with serving(shown) as other:
        where = other.endpoint
        if shown == certificate(hours=-1):
            where = endpoint(other.port, shown)
        if asked_for:
            where = where.model_copy(update={"tls_name": asked_for})
        with pytest.raises(CertificateError, match=message) as caught:
            call(where)
        assert caught.value.hint
        assert message in str(why_not_ready(where, KEY))
        result = ask_model(open_client(where, KEY).with_options(max_retries=0), CASE)
        assert result.verdict is Verdict.UNREACHABLE
        assert message in str(result.error)
    assert other.asked == []
    assert other.keys == set()


@pytest.mark.parametrize(
    ("shown", "todo"),
    [
        (certificate("gateway-lab-other.internal"), "make env"),
        (certificate(hours=-1), "Bring the lab up again"),
        (None, "make env"),
    ],
    ids=["another lab's", "expired", "no TLS"],
)
def test_each_refusal_says_what_to_do(shown: Certificate | None, todo: str) -> None:
    """should point to the current address if another lab answers, and renew an old certificate"""
    with serving(shown) as other:
        where = other.endpoint
        if shown and shown == certificate(hours=-1):
            where = endpoint(other.port, shown)
        with pytest.raises(CertificateError) as caught:
            waiting(where)
    assert todo in caught.value.hint
    assert other.keys == set()


def test_the_request_names_the_lab(served: Gateway, client: OpenAI) -> None:
    """should ask for the lab's name at any address: the server must prove that name"""
    list_models(client)
    assert why_not_ready(served.endpoint, KEY) is None
    assert served.names == {served.endpoint.tls_name}


def test_a_refused_key_differs_from_a_valid_one(served: Gateway, client: OpenAI) -> None:
    """should be refused by 401, or by LiteLLM's message that it has no database of keys"""
    assert refuses_key(client) is False
    served.status = 401
    assert refuses_key(client) is True
    served.status, served.kind = 400, "no_db_connection"
    assert refuses_key(client) is True


@pytest.mark.parametrize(
    ("status", "kind"), [(500, TransientError), (400, PermanentError), (403, PermanentError)]
)
def test_another_answer_to_a_key_is_an_error(
    served: Gateway, client: OpenAI, status: int, kind: type[LabError]
) -> None:
    """should be an error without the key"""
    served.status = status
    with pytest.raises(kind) as caught:
        refuses_key(client)
    shown = "".join(traceback.format_exception(caught.value))
    assert "it is so" in shown
    assert KEY not in shown
