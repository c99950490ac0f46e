"""A wait has a deadline, a growing pause, a text about its subject, and an early end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.errors import DeadlineError, PermanentError, is_transient
from lab.waiting import wait_for


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.pauses.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def at(clock: Clock, seconds: float) -> Callable[[], str | None]:
    end = clock.now + seconds
    return lambda: "there" if clock.now >= end else None


def test_returns_an_available_value_without_a_pause(clock: Clock) -> None:
    """should not sleep if nothing has to be awaited"""
    found = wait_for("it", lambda: 0, deadline=0, sleep=clock.sleep, clock=clock)
    assert found == 0
    assert clock.pauses == []


def test_returns_as_soon_as_it_comes(clock: Clock) -> None:
    """should return the first value that is not None, at most one pause later"""
    found = wait_for(
        "it", at(clock, 20), deadline=60, longest_pause=3, sleep=clock.sleep, clock=clock
    )
    assert found == "there"
    assert 20 <= clock.now - 1000 <= 23


def test_pauses_grow_to_the_longest(clock: Clock) -> None:
    """should ask often at first and less often later"""
    with pytest.raises(DeadlineError):
        wait_for(
            "it",
            lambda: None,
            deadline=30,
            first_pause=0.2,
            longest_pause=3,
            sleep=clock.sleep,
            clock=clock,
        )
    *pauses, _ = clock.pauses
    assert pauses[:3] == pytest.approx([0.2, 0.3, 0.45])
    assert pauses == sorted(pauses)
    assert max(pauses) == 3


def test_ends_exactly_at_the_deadline(clock: Clock) -> None:
    """should not sleep beyond its deadline, say what is missing, and not be tried again"""
    with pytest.raises(DeadlineError, match=r"the moon did not come within 7s") as caught:
        wait_for("the moon", lambda: None, deadline=7, sleep=clock.sleep, clock=clock)
    assert clock.now - 1000 == pytest.approx(7)
    assert not is_transient(caught.value)


def test_asks_once_more_at_the_deadline(clock: Clock) -> None:
    """should find a value that came during the last pause"""
    found = wait_for("it", at(clock, 7), deadline=7, sleep=clock.sleep, clock=clock)
    assert found == "there"


def test_ends_at_once_when_it_can_no_longer_come(clock: Clock) -> None:
    """should raise the check's own exception, without a pause"""
    gone = PermanentError("gone")

    def check() -> None:
        raise gone

    with pytest.raises(PermanentError) as caught:
        wait_for("it", check, deadline=60, sleep=clock.sleep, clock=clock)
    assert caught.value is gone
    assert clock.pauses == []


def test_logs_every_ten_seconds_that_it_waits(clock: Clock) -> None:
    """should log during a long wait, and not during a short one"""
    said: list[str] = []
    wait_for("it", at(clock, 9), deadline=60, log=said.append, sleep=clock.sleep, clock=clock)
    assert said == []
    wait_for("it", at(clock, 35), deadline=60, log=said.append, sleep=clock.sleep, clock=clock)
    assert said == ["waiting for it (12s)", "waiting for it (24s)"]
