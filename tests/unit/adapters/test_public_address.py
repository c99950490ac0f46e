"""The firewall is opened only to an address that independent sources agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import httpx
import pytest

from adapters import public_address as address
from adapters.public_address import find_address
from lab.errors import PermanentError, TransientError, is_transient

HOST = "8.8.4.4"
SOURCES = ("https://a.test", "https://b.test", "https://c.test")
Answer = str | int | Exception


def ask(answers: list[Answer], log: Callable[[str], None] = lambda _: None) -> str:
    def handle(request: httpx.Request) -> httpx.Response:
        answer = answers[SOURCES.index(f"https://{request.url.host}")]
        if isinstance(answer, Exception):
            raise answer
        if request.url.path != "/":
            return httpx.Response(200, text=HOST)
        if isinstance(answer, int):
            elsewhere = f"https://{request.url.host}/elsewhere"
            return httpx.Response(answer, text=HOST, headers={"location": elsewhere})
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
def test_an_address_from_two_sources_is_used(answers: list[Answer]) -> None:
    """should be the host that two sources name, or the only given source"""
    assert ask(answers) == f"{HOST}/32"


@pytest.mark.parametrize("answers", [[HOST, "8.8.8.8", HOST], [HOST, "8.8.8.8"]])
def test_two_different_addresses_are_refused(answers: list[Answer]) -> None:
    """should name each source's answer, choose none, and not try again"""
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
        [HOST, 302],
        [301, 307],
        [HOST, f"{HOST}{' ' * 100}"],
        [HOST, f"{' ' * 100}{HOST}"],
        [HOST, f"{HOST}{' ' * 300}<html>Sign in</html>"],
        [HOST, f"{HOST} 8.8.8.8"],
        [HOST, f"{HOST}\n{HOST}"],
        [HOST, "134744068"],
        [HOST, "٨.8.4.4"],
        ["192.168.1.5"] * 3,
        ["0.0.0.0/0"] * 3,
        [f"{HOST}/24"] * 3,
        ["<html>" * 1000] * 3,
        [""] * 3,
        [SLOW],
    ],
)
def test_too_few_answers_are_a_transient_error(answers: list[Answer]) -> None:
    """should be worth another try, and say how to give an address by hand"""
    with pytest.raises(TransientError) as caught:
        ask(answers)
    assert is_transient(caught.value)
    assert "LAB_DEPLOYER_ADDRESS" in caught.value.hint


def test_each_unusable_answer_is_logged() -> None:
    """should log which source failed, and how"""
    said: list[str] = []
    ask([HOST, "10.0.0.1", HOST], said.append)
    assert len(said) == 1
    assert "https://b.test" in said[0]
    assert "not public" in said[0]


def test_a_source_that_is_no_url_is_an_unusable_answer() -> None:
    """should not end in a traceback after a typing error in a source"""
    with pytest.raises(TransientError):
        find_address(
            ["https://[", "https://a b"],
            transport=httpx.MockTransport(lambda _: httpx.Response(500)),
        )


def test_without_a_source_there_is_no_address() -> None:
    """should say that the address is not known"""
    with pytest.raises(TransientError):
        find_address([])


@pytest.mark.parametrize(
    ("answers", "seen"),
    [
        (["2001:4860:4860::8888"] * 3, 3),
        ([HOST, "2001:4860:4860::8888", "<html>"], 1),
        ([HOST, DOWN, " 2001:4860:4860::8888/128\n"], 1),
        (["::1"], 1),
    ],
)
def test_ipv6_answers_are_refused_as_such(answers: list[Answer], seen: int) -> None:
    """should name the cause and not try again, because the next answers would be the same"""
    with pytest.raises(PermanentError) as caught:
        ask(answers)
    assert f"{seen} of {len(answers)} sources see us over IPv6" in caught.value.message
    assert "LAB_ADDRESS_SOURCES" in caught.value.hint
    assert "LAB_DEPLOYER_ADDRESS" in caught.value.hint


@pytest.mark.parametrize("private", ["10.0.0.7", "172.16.9.1", "100.64.0.1", "169.254.1.1"])
def test_a_private_address_is_never_used(private: str) -> None:
    """should not open the firewall to a proxy's own address, even if all sources agree"""
    said: list[str] = []
    with pytest.raises(TransientError, match="0 of 3 sources"):
        ask([private] * 3, said.append)
    assert len(said) == 3
    assert all("is not public" in line for line in said)


class Endless(httpx.SyncByteStream):
    """An answer without an end; counts the bytes that were read."""

    def __init__(self, chunk: bytes) -> None:
        self.chunk, self.taken = chunk, 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.taken += 1
            assert self.taken < 1000, "nobody stops reading"
            yield self.chunk


def ask_endless(body: Endless, said: list[str]) -> None:
    with pytest.raises(TransientError):
        find_address(
            ["https://a.test"],
            transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=body)),
            log=said.append,
        )


def test_an_endless_answer_is_abandoned() -> None:
    """should read only as much as an address is long, and say that there was more"""
    body, said = Endless(b"8.8.4.4 "), []
    ask_endless(body, said)
    assert body.taken < 20
    assert "more than an address is long" in said[0]


def test_a_very_slow_answer_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """should wait for the whole answer only as long as for its beginning"""
    body, said = Endless(b" "), []
    clock = iter(range(0, 10_000, 3))
    monkeypatch.setattr(address, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    ask_endless(body, said)
    assert body.taken == 2
    assert "no whole answer within 5 seconds" in said[0]


def test_an_answer_that_is_no_text_is_unusable() -> None:
    """should be one source less, not a traceback"""
    said: list[str] = []
    with pytest.raises(TransientError):
        find_address(
            ["https://a.test"],
            transport=httpx.MockTransport(lambda _: httpx.Response(200, content=b"\xff\xfe8")),
            log=said.append,
        )
    assert "not text" in said[0]
