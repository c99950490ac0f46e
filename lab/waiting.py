"""Waiting for a state: with a deadline, a growing pause, and a name for what is awaited.

Pure: the clock is an argument, so that tests of pollers take no time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lab.durations import format_duration
from lab.errors import DeadlineError

T = TypeVar("T")


def wait_for(
    what: str,
    check: Callable[[], T | None],
    *,
    deadline: float,
    log: Callable[[str], None] = lambda _: None,
    first_pause: float = 0.2,
    longest_pause: float = 3.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """The first value of ``check`` that is not ``None``.

    ``check`` raises to end the wait at once, when ``what`` can no longer come. Pauses grow by half
    from ``first_pause`` to ``longest_pause`` seconds; every ten seconds ``log`` gets a line that
    the wait goes on. Raises DeadlineError after ``deadline`` seconds.
    """
    started = logged = clock()
    pause = first_pause
    while True:
        value = check()
        if value is not None:
            return value
        waited = clock() - started
        if waited >= deadline:
            raise DeadlineError(
                f"{what} did not come within {format_duration(deadline)}",
                "Look at the messages above; run the command again to go on from here.",
            )
        if clock() - logged >= 10:
            log(f"waiting for {what} ({format_duration(waited)})")
            logged = clock()
        sleep(min(pause, max(0.0, deadline - waited)))
        pause = min(pause * 1.5, longest_pause)
