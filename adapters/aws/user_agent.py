"""Adds the stage of each call to its user agent, so that an audit trail names the stage.

CloudTrail keeps the user agent of every call; the local cloud does too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from lab import names

T = TypeVar("T")
R = TypeVar("R")

_stage: ContextVar[str] = ContextVar("acting_stage", default="")


@contextmanager
def acting_for(stage: str) -> Iterator[None]:
    """Within this block the calls of this thread are made for ``stage``."""
    token = _stage.set(stage)
    try:
        yield
    finally:
        _stage.reset(token)


def user_agent() -> str:
    """The user agent that the calls of this thread add: ``gateway-lab/push-image``."""
    stage = _stage.get()
    return f"{names.PROJECT}/{stage.replace(' ', '-')}" if stage else names.PROJECT


def propagate_stage(function: Callable[[T], R]) -> Callable[[T], R]:
    """``function`` for other threads, whose calls are then made for the stage of this one."""
    stage = _stage.get()

    def run(value: T) -> R:
        with acting_for(stage):
            return function(value)

    return run


def name_stage(request: Any, **_: Any) -> None:
    """A handler of botocore's event ``request-created``."""
    said = request.headers.get("User-Agent", "")
    if isinstance(said, bytes):
        said = said.decode("latin-1")
    del request.headers["User-Agent"]
    request.headers["User-Agent"] = f"{said} {user_agent()}".strip()
