"""The firewall is opened only to an address on which independent sources agree."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from lab.adapters.address import find_address
from lab.errors import PermanentError, TransientError, is_transient

HOST = "8.8.4.4"
SOURCES = ("https://a.test", "https://b.test", "https://c.test")
Answer = str | int | Exception


def ask(answers: list[Answer], log: Callable[[str], None] = lambda _: None) -> str:
    def handle(request: httpx.Request) -> httpx.Response:
        answer = answers[SOURCES.index(f"https://{request.url.host}")]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return httpx.Response(answer, text=HOST, headers={"location": "https://a.test/x"})
        return httpx.Response(200, text=answer)

    return find_address(SOURCES[: len(answers)], transport=httpx.MockTransport(handle), log=log)


DOWN = httpx.ConnectError("refused")
SLOW = httpx.ReadTimeout("slow")


@pytest.mark.parametrize(
    "answers",
    [
        [HOST, HOST, HOST],
        [f"{HOST}\n", f" {HOST}", HOST],
        [HOST, DOWN, HOST],
        [HOST, "<html>Sign in</html>", HOST],
        ["10.0.0.7", HOST, HOST],
        ["2001:4860:4860::8888", HOST, HOST],
        [503, HOST, HOST],
        [302, HOST, HOST],
        [HOST],
    ],
)
def test_two_that_agree_are_believed(answers: list[Answer]) -> None:
    """should be the one host that two sources name, or the only source given"""
    assert ask(answers) == f"{HOST}/32"


@pytest.mark.parametrize("answers", [[HOST, "8.8.8.8", HOST], [HOST, "8.8.8.8"]])
def test_two_that_differ_are_not(answers: list[Answer]) -> None:
    """should say who said what, not vote, and not try again"""
    with pytest.raises(PermanentError) as caught:
        ask(answers)
    assert f"https://a.test says {HOST}/32" in caught.value.message
    assert "https://b.test says 8.8.8.8/32" in caught.value.message
    assert "allowed_addresses" in caught.value.hint


@pytest.mark.parametrize(
    "answers",
    [
        [HOST, DOWN, DOWN],
        [DOWN, SLOW, DOWN],
        [HOST, 500, "<html>"],
        ["192.168.1.5"] * 3,
        ["0.0.0.0/0"] * 3,
        [f"{HOST}/24"] * 3,
        ["::1"] * 3,
        ["<html>" * 1000] * 3,
        [""] * 3,
        [SLOW],
    ],
)
def test_too_few_answers_may_pass(answers: list[Answer]) -> None:
    """should be worth another try, and say how an address is given by hand"""
    with pytest.raises(TransientError) as caught:
        ask(answers)
    assert is_transient(caught.value)
    assert "LAB_DEPLOYER_ADDRESS" in caught.value.hint


def test_each_unusable_answer_is_told() -> None:
    """should log which source failed, and how"""
    said: list[str] = []
    ask([HOST, "10.0.0.1", HOST], said.append)
    assert len(said) == 1
    assert "https://b.test" in said[0]
    assert "not public" in said[0]


def test_a_source_that_is_no_url_is_an_unusable_answer() -> None:
    """should not end in a traceback when somebody mistypes a source"""
    with pytest.raises(TransientError):
        find_address(
            ["https://[", "https://a b"],
            transport=httpx.MockTransport(lambda _: httpx.Response(500)),
        )


def test_no_source_at_all() -> None:
    """should say that the address is not known"""
    with pytest.raises(TransientError):
        find_address([])
